# shellcheck shell=bash disable=SC2154 # the variables are those of hack/cluster
# Images for the nodes. A node that has an image is asked no more than for its label: an import by
# the same name takes the label away, so it is never wrong.

load() { # load IMAGE...: from the Docker daemon into every node that has another image by that name
    local image id node pid pids archive
    archive=$(mktemp)
    for image; do
        id=$(docker image inspect "$image" --format '{{.Id}}' 2>/dev/null) || die "Docker has no image $image"
        : >"$archive"
        pids=()
        for node in $(nodes_without "$id" "$(full_name "$image")"); do
            # Saved once for all nodes: it is read several times as fast as it is saved.
            [[ -s $archive ]] || docker save -o "$archive" "$image"
            import "$node" "$archive" "$(full_name "$image")" "$id" &
            pids+=($!)
        done
        for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid" || die "cannot load $image"; done
        say "$image: loaded into ${#pids[@]} of ${#nodes[@]} nodes"
    done
    rm -f "$archive"
}

nodes_without() { # nodes_without ID NAME
    local node
    for node in "${nodes[@]}"; do
        [[ $(loaded_id "$node" "$2") == "$1" ]] || echo "$node" &
    done
    wait
}

full_name() { # full_name IMAGE: as containerd has it, with registry and tag
    local name=$1
    [[ ${name##*/} == *:* ]] || name=$name:latest
    case ${name%%/*} in
        "$name") name=docker.io/library/$name ;;
        *.* | *:* | localhost) ;;
        *) name=docker.io/$name ;;
    esac
    echo "$name"
}

node_ctr() { docker exec -i "$1" ctr --namespace=k8s.io images "${@:2}"; } # node_ctr NODE ARGUMENT...

loaded_id() { # loaded_id NODE NAME
    node_ctr "$1" ls "name==$2" | sed -n 's/.*localmodel\.image=\([^, ]*\).*/\1/p'
}

import() { # import NODE ARCHIVE NAME ID
    node_ctr "$1" import --all-platforms - <"$2" >/dev/null &&
        node_ctr "$1" label "$3" "localmodel.image=$4" >/dev/null
}
