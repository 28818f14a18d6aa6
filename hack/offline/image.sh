# shellcheck shell=bash disable=SC2154 # the variables are those of hack/cluster
# The node image, for a machine that can pull none: Debian packages, the Kubernetes commands built
# as Go modules, and within it, ready to run, the images that kubeadm asks for.

node_packages=ca-certificates,conntrack,containerd,containernetworking-plugins,ethtool,iproute2,iptables,kmod,procps,runc,socat
# What kubeadm of Kubernetes 1.34 wants beside Kubernetes itself.
pause_image=registry.k8s.io/pause:3.10.1
etcd_image=registry.k8s.io/etcd:3.6.5-0
coredns_image=registry.k8s.io/coredns/coredns:v1.12.1

kubernetes_version=$(module_version kubernetes k8s.io/kubernetes)
offline_image=localmodel/kind-node:$kubernetes_version

debian_key() { { declare -f bootstrap && echo "$node_packages"; } | digest; }

image_key() {
    {
        command_key kubernetes build_kubernetes
        command_key coredns build_coredns
        debian_key
        docker_key
        cat "$hack"/offline/node/* "$hack/offline/preload"
        declare -f build_image add_commands program_image proxy_tree copy_programs import_tree
        echo "$pause_image $etcd_image $coredns_image"
    } | digest
}

image_is_current() { [[ $(docker image inspect "$offline_image" --format '{{.Config.Labels.key}}' 2>/dev/null) == "$(image_key)" ]]; }

# debootstrap mounts /proc and more in the folder: in a mount namespace they go when it is killed.
bootstrap() { # bootstrap FOLDER: a minimal Debian
    patiently "installing Debian packages for the node image (a minute)" "$logs/debootstrap.log" \
        unshare --mount --propagation slave \
        debootstrap --variant=minbase --include="$node_packages" trixie "$1" "$(debian_mirror)"
    empty_folder "$1/var/cache/apt"
    empty_folder "$1/var/lib/apt/lists"
    remove_tree "$1"/usr/share/{doc,man,locale}
}

ensure_image() {
    image_is_current && return
    local commands kubernetes coredns debian tree=$stages/.new-image
    ensure_go
    command_stage kubernetes kubernetes
    kubernetes=$commands
    command_stage coredns coredns
    coredns=$commands
    debian=$stages/debian-$(debian_key)
    stage debian "$(debian_key)" bootstrap
    say "putting the node image together (half a minute)"
    remove_tree "$tree"
    mkdir -p "$tree/node" "$tree/part"
    build_image "$tree/node" "$tree/part"
    remove_tree "$tree"
}

build_image() { # build_image NODE PART: both empty folders; with the variables of ensure_image
    local node=$1 part=$2 images=("$pause_image" "$coredns_image" "$etcd_image") name
    GO111MODULE=off CGO_ENABLED=0 go build -ldflags '-s -w' -o "$part/pause" "$hack/offline/node/pause.go"
    program_image "$pause_image" 'ENTRYPOINT ["/usr/local/bin/pause"]' "$part/pause"
    program_image "$coredns_image" 'ENTRYPOINT ["/usr/local/bin/coredns"]' "$coredns/coredns"
    program_image "$etcd_image" 'CMD ["etcd"]' "$kubernetes/etcd"
    for name in kube-apiserver kube-controller-manager kube-scheduler; do
        images+=("registry.k8s.io/$name:$kubernetes_version")
        program_image "${images[-1]}" "CMD [\"$name\"]" "$kubernetes/$name"
    done
    images+=("registry.k8s.io/kube-proxy:$kubernetes_version")
    proxy_tree "$part/proxy"
    import_tree "$part/proxy" "${images[-1]}" 'CMD ["kube-proxy"]'

    cp -a "$debian/." "$node"
    add_commands "$node"
    # In a mount namespace, for the same reason as debootstrap.
    unshare --mount --propagation slave "$hack/offline/preload" "$stages/docker-$(docker_key)/usr/bin" "$node" \
        "${images[@]}" >"$logs/preload.log" 2>&1 || { tail -20 "$logs/preload.log" >&2; die "cannot preload the node image"; }
    import_tree "$node" "$offline_image" 'ENTRYPOINT ["/usr/local/sbin/node-init"]' \
        'ENV container=docker' 'STOPSIGNAL SIGTERM' "LABEL key=$(image_key)"
    docker image rm "${images[@]}" >/dev/null # only the nodes need them
}

import_tree() { # import_tree FOLDER IMAGE CHANGE...: an image of one layer, with these Dockerfile lines
    local folder=$1 image=$2 changes=() change
    shift 2
    for change in "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@"; do
        changes+=(-c "$change")
    done
    tar -C "$folder" --xattrs -c . | docker import "${changes[@]}" - "$image" >/dev/null
}

program_image() { # program_image IMAGE CHANGE PROGRAM: an image of a static program
    local tree=$part/program
    remove_tree "$tree"
    mkdir -p "$tree/usr/local/bin" "$tree/tmp"
    cp "$3" "$tree/usr/local/bin/"
    import_tree "$tree" "$1" "$2"
}

# Every node unpacks its images when it boots, so kube-proxy's has the few programs that it and
# podnet run instead of a Debian.
proxy_tree() { # proxy_tree FOLDER
    local name
    mkdir -p "$1"/usr/{bin,sbin,lib,lib64,local/bin} "$1"/{run,tmp,etc}
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$1/$name"; done
    local programs=(/usr/bin/{sh,cat,mv,grep,sleep,ip} /usr/sbin/{xtables-nft-multi,conntrack})
    # shellcheck disable=SC2046 # a word each
    copy_programs "$debian" "$1" "${programs[@]}" $(cd "$debian" && printf '/%s\n' usr/lib/*/xtables/*.so)
    for name in {iptables,ip6tables}{,-save,-restore}; do ln -s xtables-nft-multi "$1/usr/sbin/$name"; done
    install -m 755 "$kubernetes"/{kube-proxy,kubectl} "$hack/offline/node/podnet" "$1/usr/local/bin/"
}

copy_programs() { # copy_programs FROM TO PROGRAM...: two or more, with the libraries that they load
    local from=$1 to=$2 file
    shift 2
    chroot "$from" ldd "$@" | grep -oE '/[^ :]+' | sort -u |
        while read -r file; do install -m 755 -D "$(resolve "$from" "$file")" "$to$file"; done
}

resolve() { echo "$1$(chroot "$1" readlink -f "$2")"; } # resolve ROOT FILE: past links within that root

add_commands() { # add_commands NODE: what makes a Debian a kind node
    install -m 755 "$kubernetes"/{kubelet,kubeadm,kubectl} "$coredns/coredns" "$1/usr/local/bin/"
    install -m 755 -D "$hack/offline/node/init" "$1/usr/local/sbin/node-init"
    install -m 644 -D "$hack/offline/node/containerd.toml" "$1/etc/containerd/config.toml"
    mkdir -p "$1/kind/manifests" "$1/etc/kubernetes/manifests" "$1/etc/cni/net.d"
    install -m 644 "$hack"/offline/node/default-storage.yaml "$1/kind/manifests/"
    sed "s/KUBERNETES_VERSION/$kubernetes_version/" "$hack/offline/node/default-cni.yaml" >"$1/kind/manifests/default-cni.yaml"
    echo "$kubernetes_version" >"$1/kind/version"
}
