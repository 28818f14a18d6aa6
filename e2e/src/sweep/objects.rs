//! The objects of the sweep.

use anyhow::{Context, Result};
use localmodel::plan::names::{CONFIG_MAP, SERVICE_MODEL};
use serde_json::{Value, json};

use crate::walkthrough::JOBS;

/// The operator's namespace.
pub const OPERATOR: &str = "kserve";
/// The namespace of services and of namespace caches.
pub const TEAM: &str = "team";
/// Both nodes.
pub const NODES: [&str; 2] = ["node-a", "node-b"];
/// The node group.
pub const GROUP: &str = "workers";
/// Where the group's disk is on a node.
pub const DISK: &str = "/models";
/// The image of everything of ours: no image is ever pulled here.
pub const IMAGE: &str = "localmodel:sweep";
/// The label by which a node belongs to the group.
pub const LABEL: &str = "sweep/disk";

/// What every run begins with, and never changes.
pub fn of_every_run() -> Vec<Value> {
    let namespace = |name: &str, level: &str| {
        let labels = json!({"pod-security.kubernetes.io/enforce": level});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    };
    // A scrub writes when it has time, and a pass is an agent's only look at files that vanished.
    let settings = json!({
        "enabled": true,
        "jobNamespace": JOBS,
        "reconcilationFrequencyInSecs": 2,
        "localModelScrub": {"bytesPerSecond": 0},
    });
    let config = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": OPERATOR},
        "data": {"localModel": settings.to_string()},
    });
    vec![
        namespace(OPERATOR, "privileged"),
        namespace(JOBS, "restricted"),
        namespace(TEAM, "restricted"),
        config,
    ]
}

/// The container that says to Jobs where the hub is, and that it may be on this machine.
pub fn storage_container(hub: &str) -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {"name": "hub"},
        "spec": {
            "container": {
                "name": "storage-initializer",
                "image": IMAGE,
                "env": [
                    {"name": "HF_ENDPOINT", "value": hub},
                    {"name": "LOCALMODEL_INTERNAL_ADDRESSES", "value": "allow"},
                ],
            },
            "supportedUriFormats": [{"prefix": "hf://"}],
            "workloadType": "localModelDownloadJob",
        },
    })
}

/// A definition in place of KServe's: of services nothing but the metadata is read.
pub fn services_definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "inferenceservices.serving.kserve.io"},
        "spec": {
            "group": "serving.kserve.io",
            "scope": "Namespaced",
            "names": {
                "kind": "InferenceService",
                "plural": "inferenceservices",
                "singular": "inferenceservice",
                "listKind": "InferenceServiceList",
            },
            "versions": [{
                "name": "v1beta1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// A node of the group. Nobody changes its readiness here.
pub fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {LABEL: "yes"}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "capacity": {"cpu": "8", "memory": "64Gi", "pods": "110"},
            "allocatable": {"cpu": "8", "memory": "64Gi", "pods": "110"},
        },
    })
}

/// The node group, with room for 10 GiB on each node.
pub fn group() -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelNodeGroup",
        "metadata": {"name": GROUP},
        "spec": {
            "storageLimit": "10Gi",
            "persistentVolumeClaimSpec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "10Gi"}},
                "storageClassName": "local-storage",
            },
            "persistentVolumeSpec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "10Gi"},
                "local": {"path": DISK},
                "storageClassName": "local-storage",
                "nodeAffinity": {"required": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": LABEL, "operator": "Exists"}]},
                ]}},
            },
        },
    })
}

/// A cluster cache of this size in GiB.
pub fn cache(name: &str, repository: &str, size: u32) -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelCache",
        "metadata": {"name": name},
        "spec": {
            "sourceModelUri": format!("hf://{repository}"),
            "modelSize": format!("{size}Gi"),
            "nodeGroups": [GROUP],
        },
    })
}

/// A namespace cache whose credentials are those of a service account.
pub fn namespace_cache(name: &str, repository: &str, account: &str) -> Value {
    let mut cache = cache(name, repository, 1);
    cache["kind"] = json!("LocalModelNamespaceCache");
    cache["metadata"]["namespace"] = json!(TEAM);
    cache["spec"]["serviceAccountName"] = json!(account);
    cache
}

/// A service account with a token of the hub, and the secret that holds it.
pub fn account(name: &str, token: &str) -> [Value; 2] {
    let metadata = json!({"name": name, "namespace": TEAM});
    [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"HF_TOKEN": token}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "secrets": [{"name": name}]}),
    ]
}

/// A service that KServe labelled as a user of a cache.
pub fn service(name: &str, cache: &str) -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": TEAM, "labels": {SERVICE_MODEL: cache}},
    })
}

/// The path of all objects of an object's kind, in its namespace.
pub fn collection(object: &Value) -> Result<String> {
    let version = object["apiVersion"].as_str().context("an object has a version")?;
    let kind = object["kind"].as_str().context("an object has a kind")?;
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let kind = kind.to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    };
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{plural}"),
    })
}

/// The path of an object.
pub fn path(object: &Value) -> Result<String> {
    let name = object["metadata"]["name"].as_str().context("an object has a name")?;
    Ok(format!("{}/{name}", collection(object)?))
}
