# shellcheck shell=bash disable=SC2154 # the variables are those of hack/cluster
# A Docker daemon of our own, for a machine that has none or whose Docker can pull no node image. It
# shares nothing with the machine's: socket, data, bridge, address range, mounts and cgroup are its
# own, and all its processes and containers live in that cgroup, by which they are found again.

run=/run/$ours                # socket and pid file: gone after a reboot, as the processes are
bridge=$ours                  # of the Docker network `kind`
docker_socket=unix://$run/docker.sock
docker_packages=(docker.io docker-cli containerd)

# --- the software ---------------------------------------------------------------------------------

debian_mirror() { # the one that this machine uses, else the public one
    local found
    found=$(grep -hoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null) || true
    read -r found _ <<<"$found"
    echo "${found:-http://deb.debian.org/debian}"
}

# Debian trixie's packages, unpacked beside the system: its Docker 26 drops capabilities that the
# machine does not grant, where older ones refuse every privileged container.
unpack_debs() { # unpack_debs PACKAGE... FOLDER
    local folder=${!#} packages=("${@:1:$#-1}") deb
    local apt=$folder/apt
    mkdir -p "$apt"/{lists,cache/archives}/partial "$apt/state"
    touch "$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) trixie main" >"$apt/sources.list"
    local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State=$apt/state" -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache"
        -o "Dir::State::status=$apt/status" -o APT::Sandbox::User=root)
    patiently "fetching ${packages[*]} from Debian" "$logs/apt.log" download_debs
    for deb in "$apt"/*.deb; do dpkg -x "$deb" "$folder"; done
    remove_tree "$apt"
}

download_debs() ( # by unpack_debs, with its variables
    cd "$apt" && apt-get "${options[@]}" update -q && apt-get "${options[@]}" download -q "${packages[@]}"
)

docker_key() { { declare -f unpack_debs download_debs && echo "${docker_packages[@]}"; } | digest; }

ensure_packages() { # the machine's own, for the commands that are missing
    local missing=() pair
    for pair in debootstrap:debootstrap iptables:iptables runc:runc ip:iproute2; do
        have "${pair%:*}" || missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    have apt-get || die "install ${missing[*]} first: without a container image to pull, the cluster is built from packages"
    patiently "installing ${missing[*]}" "$logs/apt.log" install_packages
}

install_packages() { # by ensure_packages, with its variables
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -yq --no-install-recommends "${missing[@]}" debian-archive-keyring
}

# Go 1.21 and later fetch the version that a go.mod asks for; older ones cannot.
ensure_go() {
    local go=$stages/go-$go_key
    go version 2>/dev/null | grep -qE 'go1\.(2[1-9]|[3-9][0-9])' && return
    have apt-get || die "no Go 1.21 or later to build Kubernetes with: install it (https://go.dev/dl)"
    stage go "$go_key" unpack_debs "${go_packages[@]}"
    export PATH=$go/usr/lib/go-1.24/bin:$PATH
}
go_packages=(golang-1.24-go golang-1.24-src)
go_key=$({ declare -f unpack_debs download_debs && echo "${go_packages[@]}"; } | digest)

# --- its processes --------------------------------------------------------------------------------

our_processes() {
    find /sys/fs/cgroup -path "*/$ours/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un | grep -vx 0
}

no_processes() { [[ -z $(our_processes) ]]; }

kill_all() { our_processes | xargs -r kill -9 2>/dev/null; no_processes; }

# Ends the daemon and every container, also those that outlived a daemon that was killed.
stop_daemon() {
    local pid
    pid=$(cat "$run/docker.pid" 2>/dev/null) || true
    if [[ -n $pid ]] && our_processes | grep -qx "$pid"; then
        kill -TERM "$pid" 2>/dev/null || true
        wait_for 20 test ! -e "/proc/$pid" || true
    fi
    wait_for 30 kill_all || die "processes of an earlier cluster do not end: $(our_processes | xargs)"
    find /sys/fs/cgroup -depth -type d \( -path "*/$ours/*" -o -name "$ours" \) -exec rmdir {} + 2>/dev/null || true
    remove_tree "$run"
}

daemon_answers() { [[ $(cat "$run/version" 2>/dev/null) == "$(docker_key)" ]] && docker info >/dev/null 2>&1; }

start_daemon() { # unless it runs
    daemon_answers && return
    stop_daemon
    say "starting a Docker daemon of our own ($run)"
    local range
    range=$(free_range)
    mkdir -p "$run" "$state/docker"
    chmod 700 "$run"
    daemon_config "$range" >"$run/daemon.json"
    # Its own mounts: whatever a killed daemon leaves mounted goes with its last process.
    PATH=$stages/docker-$(docker_key)/usr/sbin:$stages/docker-$(docker_key)/usr/bin:$PATH \
        setsid nohup unshare --mount --propagation slave \
        "$hack/offline/dockerd" "$ours" "$run" >"$logs/dockerd.log" 2>&1 </dev/null 9>&- &
    wait_for 60 docker version || { tail -20 "$logs/dockerd.log" >&2; die "dockerd does not start (all of its log: $logs/dockerd.log)"; }
    docker_key >"$run/version"
    # What an earlier daemon ran is of no use without its processes.
    docker ps -aq | xargs -r docker rm -fv >/dev/null
    connect "$range"
}

daemon_config() { # daemon_config RANGE
    cat <<JSON
{
  "hosts": ["$docker_socket"],
  "data-root": "$state/docker",
  "exec-root": "$run/exec",
  "pidfile": "$run/docker.pid",
  "cgroup-parent": "/$ours/containers",
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "bridge": "none",
  "iptables": false,
  "ip6tables": false,
  "default-address-pools": [{"base": "${1%.0.0/24}.128.0/17", "size": 24}]
}
JSON
}

# --- its network ----------------------------------------------------------------------------------

free_range() { # the range of network `kind`: the one that it has, else one that nothing routes to
    local n
    for n in {211..219}; do
        # shellcheck disable=SC2143 # grep reads to the end, so that ip is not cut off
        [[ -n $(ip -4 route show to root "10.$n.0.0/16" 2>/dev/null | grep -v " dev $bridge ") ]] || { echo "10.$n.0.0/24"; return; }
    done
    die "every address range from 10.211.0.0/16 to 10.219.0.0/16 is in use on this machine"
}

# Our daemon leaves the machine's packet filter alone: a second one would tear down the rules of the
# first. Three rules of our own let the cluster through, also where the filter drops by default.
rules() { # rules OPERATION RANGE: OPERATION is -I (insert) or -D (delete)
    local mark=(-m comment --comment "$ours") status=0
    iptables -w "$1" FORWARD -i "$bridge" "${mark[@]}" -j ACCEPT || status=1
    iptables -w "$1" FORWARD -o "$bridge" "${mark[@]}" -j ACCEPT || status=1
    iptables -w -t nat "$1" POSTROUTING -s "$2" ! -o "$bridge" "${mark[@]}" -j MASQUERADE || status=1
    return "$status"
}

connect() { # connect RANGE: network `kind`, which kind takes as it finds it
    docker network rm kind >/dev/null 2>&1 || true
    docker network create kind --driver bridge --subnet "$1" \
        --opt "com.docker.network.bridge.name=$bridge" >/dev/null
    disconnect_rules
    rules -I "$1" || die "iptables cannot set the rules that the cluster needs"
    echo "$1" >"$state/range"
}

disconnect_rules() {
    local range
    range=$(cat "$state/range" 2>/dev/null) || return 0
    rules -D "$range" 2>/dev/null || true
}

remove_daemon() { # with its network; data and images stay
    if docker info >/dev/null 2>&1; then
        docker ps -aq | xargs -r docker rm -fv >/dev/null || true
        docker network rm kind >/dev/null 2>&1 || true
    fi
    stop_daemon
    have iptables && disconnect_rules
    ! ip link show "$bridge" >/dev/null 2>&1 || ip link delete "$bridge"
}
