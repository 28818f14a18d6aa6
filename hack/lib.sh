# shellcheck shell=bash disable=SC2154 # the variables are those of hack/cluster
# What hack/cluster and the files below hack/offline share: words, waiting, safe removal, and
# stages that are done once per version of their inputs.

say() { echo "cluster: $*" >&2; }

die() {
    say "$@"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

wait_for() { # wait_for SECONDS COMMAND...: until the command succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.3
    done
}

# Runs a command of minutes in the foreground, so that an interrupt reaches it, with its output in a
# log and a sign of life now and then.
patiently() { # patiently WHAT LOG COMMAND...
    local what=$1 log=$2 since=$SECONDS pulse status=0
    shift 2
    say "$what"
    mkdir -p "$(dirname "$log")"
    # The pulse ends with this script, also when that is killed, and does not hold its lock.
    (while sleep 30 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        say "... $what, $((SECONDS - since)) s so far"
    done) 9>&- &
    pulse=$!
    "$@" >"$log" 2>&1 || status=$?
    kill "$pulse" 2>/dev/null || true
    wait "$pulse" 2>/dev/null || true
    ((status == 0)) && return
    tail -20 "$log" >&2
    die "failed: $what (all of it: $log)"
}

digest() { # of its input, short enough for a file name
    if have sha256sum; then sha256sum; else shasum -a 256; fi | cut -c1-12
}

# Whether something is mounted at or below a folder. Removing such a folder would remove what is
# mounted there, possibly the machine's own files.
mounted_below() { # mounted_below FOLDER
    [[ -r /proc/self/mountinfo ]] || return 1
    awk -v folder="$1" '{ gsub(/\\040/, " ", $5) } $5 == folder || index($5, folder "/") == 1 { found = 1 } END { exit !found }' \
        /proc/self/mountinfo
}

remove_tree() { # remove_tree FOLDER...: each with all in it, unless something is mounted there
    local folder
    for folder; do
        [[ -e $folder ]] || continue
        folder=$(cd "$folder" && pwd -P)
        ! mounted_below "$folder" || die "something is mounted below $folder: unmount it first"
        rm -rf --one-file-system -- "$folder"
    done
}

empty_folder() { # empty_folder FOLDER: removes what is in it, but not what is mounted there
    local folder
    folder=$(cd "$1" && pwd -P)
    ! mounted_below "$folder" || die "something is mounted below $folder: unmount it first"
    find "$folder" -xdev -mindepth 1 -delete
}

write_file() { # write_file FILE: from the standard input, whole or not at all
    local new=$1.new
    cat >"$new"
    mv "$new" "$1"
}

# Makes $stages/NAME-KEY unless it is there, by running a command with a new folder as its last
# argument. The folder gets its name when it is complete, so a run that is killed leaves no half
# stage that a later one would believe. Other versions of the stage go.
stage() { # stage NAME KEY COMMAND...
    local name=$1 key=$2 new=$stages/.new-$1
    shift 2
    [[ ! -d $stages/$name-$key ]] || return 0
    remove_tree "$new"
    mkdir -p "$new"
    "$@" "$new"
    remove_tree "$stages/$name"-????????????
    mv "$new" "$stages/$name-$key"
}
