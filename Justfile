# Shows what there is to run.
[private]
default:
    @{{ just_executable() }} --list --unsorted

# Warms the documented model on a real cluster and tells it as a story
demo: build
    hack/cluster up
    hack/cluster run target/*/debug/demo

# Everything that CI checks: lints, dependencies, unit tests, monitoring, stores, the hub's proof, attacks, the cluster's tests, rights, crashes
test: lint deny unit monitoring stores hub-proof attacks e2e lifecycle rights crashes

# Formatting and lints, warnings denied
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- --deny warnings

# Licences, sources and duplicates of dependencies, and known vulnerabilities where RustSec's database can be had
deny:
    hack/tool cargo-deny 0.20.2 cargo deny --workspace check bans licenses sources
    hack/advisories

# A CycloneDX SBOM of what the image runs: target/localmodel.cdx.json
sbom:
    hack/sbom

# Unit, snapshot and mocked tests: no cluster, seconds
unit: build
    hack/cluster tools cargo test --workspace --lib --bins --test download --test wait --test status --test walkthrough --test install --test reference --test documents --test protocol --test control --test binary --test model

# What `unit` and `crashes` explore in part, in whole: the plan's model with more disturbances, and a crash at each write; half an hour
sweep DISTURBANCES="3": build
    LOCALMODEL_DISTURBANCES={{DISTURBANCES}} cargo test --workspace --test model -- --nocapture --test-threads 1
    LOCALMODEL_SWEEP=whole hack/cluster control-plane cargo test --workspace --test sweep --test generated -- --nocapture

# Breaks the plan and the agent's decisions in one place after the other, and expects a fast test to notice: hours; `--shard 1/40` takes a part
mutants *ARGS:
    hack/tool cargo-mutants 27.1.0 cargo mutants --output target {{ARGS}} || test $? -eq 3 # a test that runs for ever has noticed, too

# Alert rules, dashboard and scraping, with the real Prometheus, which is unpacked below the user's cache
monitoring: build
    hack/prometheus cargo test --workspace --test monitoring

# Downloads from real servers of the object stores' protocols, each installed from its package registry
stores: build
    hack/stores cargo test --workspace --test stores

# The downloader beside what one would use instead: needs a quiet machine (docs/benchmarks.md)
bench ROUNDS="5":
    cargo build --release --bin localmodel
    benches/download/install
    benches/download/run {{ROUNDS}}

# Fuzzes every parser of foreign bytes, with a nightly compiler; a minute each
fuzz *ARGS:
    hack/fuzz {{ARGS}}

# The real huggingface_hub downloads from the mock hub
hub-proof: build
    cargo test --workspace --test huggingface_hub -- --ignored

# The tests on the cluster, which is made first where there is none
e2e *ARGS: build
    hack/cluster up
    hack/cluster run cargo test --workspace --test cluster -- --test-threads 32 {{ARGS}}

# On the same cluster: install, upgrade, uninstall, kills, nodes that go and come, two operators, takeover from KServe and back, no KServe, a quiet minute
lifecycle *ARGS: build
    hack/cluster up
    hack/cluster run cargo test --workspace --test lifecycle -- --test-threads 32 {{ARGS}}

# Operator and agents that crash as they write and see late, and objects that people get wrong: on an API server without nodes
crashes: build
    hack/cluster control-plane cargo test --workspace --test sweep --test generated -- --nocapture

# Tenants, nodes and servers that attack: hostile servers against our processes, then an API server without nodes
attacks *ARGS: build
    cargo test --workspace --test hostile -- {{ARGS}}
    hack/cluster control-plane cargo test --workspace --test attacks -- {{ARGS}}

# What the audit log says after whole runs of e2e and lifecycle: rights used, none missing, one writer at a time
rights: build
    hack/cluster run cargo test --workspace --test rights

# Builds everything once, for tests, demo and images alike
build:
    cargo build --workspace --all-targets

# How long the pod webhook takes with 1,000 caches, at the median and the 99th percentile
bench-webhook:
    cargo bench --workspace --bench webhook

# How long `localmodel status` takes at 1,000 nodes and 100 caches, beside kubectl (docs/status.md)
bench-status: build
    cargo build --release --bin localmodel
    hack/cluster control-plane target/*/debug/bench-status target/*/release/localmodel

# Writes the generated definitions anew
generate: build
    target/*/debug/localmodel crds --out crds

# The cluster: up, down, status, env, load
cluster *ARGS:
    hack/cluster {{ARGS}}
