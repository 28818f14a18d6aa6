# shellcheck shell=bash disable=SC2154 # the variables are those of hack/cluster
# The commands built from pinned Go modules (hack/tools): kind and helm in any case, kubectl where the
# machine has none, KServe for the tests, and all of Kubernetes where no node image can be had.

module_version() { # module_version TOOLS MODULE: the version that hack/tools/TOOLS/go.mod pins
    awk -v module="$2" '$1 == module { print $2 }' "$hack/tools/$1/go.mod"
}

command_key() { # command_key TOOLS FUNCTION: changes with what goes into that build, comments aside
    { cat "$hack/tools/$1"/go.{mod,sum} && declare -f go_build "$2"; } | digest
}

go_build() { # go_build TOOLS WHAT LDFLAGS OUTPUT PACKAGE...
    (
        cd "$hack/tools/$1" || exit
        export CGO_ENABLED=0 GOFLAGS='' GOWORK=off
        patiently "building $2 from Go modules" "$logs/go-$1.log" \
            nice -n 5 go build -trimpath -ldflags "-s -w $3" -o "$4" "${@:5}"
    )
}

kubernetes_stamp() { # the linker flags that tell the commands their version
    local version package=k8s.io/component-base/version
    version=$(module_version kubernetes k8s.io/kubernetes)
    echo "-X $package.gitVersion=$version -X $package.gitMajor=1" \
        "-X $package.gitMinor=$(cut -d. -f2 <<<"$version") -X $package.gitTreeState=clean"
}

build_kind() { go_build kind kind '' "$1/" sigs.k8s.io/kind; }

build_helm() { go_build helm 'helm (two minutes)' '' "$1/" helm.sh/helm/v3/cmd/helm; }

build_kubectl() { go_build kubernetes "kubectl (two minutes)" "$(kubernetes_stamp)" "$1/" k8s.io/kubernetes/cmd/kubectl; }

build_coredns() { go_build coredns 'CoreDNS (two minutes)' '' "$1/" github.com/coredns/coredns; }

# etcd, the API server and the controller manager, for tests that need no node: what the offline cluster is
# made of where that is built, else out of the images that kubeadm would run, else built here.
ensure_control_plane() { # sets $commands to their folder
    local key name image
    commands=$stages/kubernetes-$(command_key kubernetes build_kubernetes)
    [[ ! -d $commands ]] || return 0
    if [[ $(uname -s) == Linux ]] && have docker && pull_control_plane >"$logs/control-plane.log" 2>&1; then
        key=$({ declare -f copy_control_plane && control_plane_images; } | digest)
        stage control-plane "$key" copy_control_plane
        commands=$stages/control-plane-$key
        return
    fi
    ensure_go
    command_stage kubernetes kubernetes
}

control_plane_images() { # the commands and the images that they are in
    local name
    for name in kube-apiserver kube-controller-manager; do
        echo "$name registry.k8s.io/$name:$kubernetes_version"
    done
    echo "etcd $etcd_image"
}

pull_control_plane() {
    while read -r name image; do
        docker image inspect "$image" || docker pull "$image" || return
    done < <(control_plane_images)
}

copy_control_plane() { # copy_control_plane FOLDER
    local container
    while read -r name image; do
        container=$(docker create "$image" none)
        docker cp "$container:/usr/local/bin/$name" "$1/$name"
        docker rm "$container" >/dev/null
    done < <(control_plane_images)
}

build_kubernetes() {
    go_build kubernetes "Kubernetes (five to ten minutes, once)" "$(kubernetes_stamp)" "$1/" \
        k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kube-proxy,kubelet,kubeadm,kubectl}
    go_build kubernetes etcd '' "$1/etcd" go.etcd.io/etcd/server/v3
}

# KServe, the neighbour of the tests, for the nodes: four commands and, beside them, its manifests as
# kustomize renders them and the chart of its local-model definitions. It is built in its module's own folder, where its own go.sum pins the rest.
build_kserve() {
    local folder part
    folder=$(cd "$hack/tools/kserve" && GOWORK=off go mod download -json github.com/kserve/kserve |
        sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')
    [[ -d $folder ]] || die "cannot have the Go module github.com/kserve/kserve"
    (
        cd "$folder" || exit
        export CGO_ENABLED=0 GOOS=linux GOFLAGS='' GOWORK=off
        patiently "building KServe from its Go module (two minutes)" "$logs/go-kserve.log" \
            nice -n 5 go build -trimpath -ldflags "-s -w" -o "$1/" ./cmd/{manager,llmisvc,localmodel,localmodelnode}
    )
    for part in default llmisvc localmodels configmap; do
        kubectl kustomize "$folder/config/$part" >"$1/$part.yaml"
    done
    cp -R "$folder/charts/kserve-localmodel-crd" "$1/"
    chmod -R u+w "$1/kserve-localmodel-crd" # modules are read-only, which would outlive this stage
}

command_stage() { # command_stage NAME TOOLS: builds what is missing and sets $commands to its folder
    local key
    key=$(command_key "$2" "build_$1")
    stage "$1" "$key" "build_$1"
    commands=$stages/$1-$key
}

offer() { # offer COMMAND: puts a link to it on the PATH of `hack/cluster env`
    mkdir -p "$bin"
    [[ $(readlink "$bin/${1##*/}") == "$1" ]] || ln -sfn "$1" "$bin/${1##*/}"
}

# Whether the machine itself has a command, outside what is offered by us.
machine_has() { PATH=$machine_path command -v "$1" >/dev/null 2>&1; }

ensure_client_commands() { # kind and kubectl, for a machine whose Docker works
    local commands
    machine_has go || { machine_has kind && machine_has kubectl && return; } ||
        die "no Go to build kind with: install Go 1.21 or later (https://go.dev/dl)"
    command_stage kind kind
    offer "$commands/kind"
    machine_has kubectl && return
    command_stage kubectl kubernetes
    offer "$commands/kubectl"
}

ensure_manifest_commands() { # helm and kubectl, which render manifests without a cluster
    local commands
    ensure_go
    command_stage helm helm
    offer "$commands/helm"
    have kubectl && return
    command_stage kubectl kubernetes
    offer "$commands/kubectl"
}
