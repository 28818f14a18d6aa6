//! Fleets for the tests: a small one with something of everything, and a large one.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::objects::Cache;

/// The time of every look.
pub(super) const NOW: &str = "2026-01-02T12:00:00Z";

/// A value of a type from JSON.
pub(super) fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the sample parses")
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

pub(super) fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

const GIB: i64 = 1 << 30;

pub(super) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-02T11:56:40Z"})
}

/// A copy in this phase with this detail beside it.
pub(super) fn copy(phase: &str, detail: Value) -> Value {
    let mut copy = detail;
    copy["phase"] = json!(phase);
    copy
}

pub(super) fn complete(bytes: i64) -> Value {
    let times = json!({
        "bytesDone": bytes, "bytesTotal": bytes,
        "started": "2026-01-01T10:00:00Z", "finished": "2026-01-01T10:05:03Z",
    });
    copy("NodeDownloaded", times)
}

pub(super) fn downloading(done: i64, total: i64) -> Value {
    copy(
        "NodeDownloading",
        json!({"bytesDone": done, "bytesTotal": total, "started": "2026-01-02T11:58:20Z"}),
    )
}

pub(super) fn with_reason(phase: &str, reason: &str, message: &str) -> Value {
    copy(phase, json!({"reason": reason, "message": message}))
}

/// A cache as the API server has it: its nodes with their copies, and conditions.
pub(super) fn cache(name: &str, size: &str, nodes: &[(&str, Value)], conditions: &[Value]) -> Value {
    let detail: Map<String, Value> =
        nodes.iter().map(|(node, copy)| ((*node).into(), copy.clone())).collect();
    let phases: Map<String, Value> =
        nodes.iter().map(|(node, copy)| ((*node).into(), copy["phase"].clone())).collect();
    let of = |phase: &str| phases.values().filter(|of| *of == phase).count();
    json!({
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelCache",
        "metadata": {"name": name, "uid": format!("{name}-uid"), "creationTimestamp": "2025-12-30T12:00:00Z",
            "managedFields": [{"manager": "localmodel"}]},
        "spec": {"sourceModelUri": format!("hf://acme/{name}"), "modelSize": size, "nodeGroups": ["workers"]},
        "status": {
            "nodeStatus": phases,
            "nodes": detail,
            "copies": {"available": of("NodeDownloaded"), "failed": of("NodeDownloadError"), "total": nodes.len()},
            "conditions": conditions,
        },
    })
}

/// The same as KServe's own definitions keep it.
pub(super) fn pruned(mut object: Value) -> Value {
    if let Some(status) = object["status"].as_object_mut() {
        status.retain(|field, _| {
            !["nodes", "conditions", "ready", "models", "disks"].contains(&field.as_str())
        });
    }
    object
}

pub(super) fn namespaced(mut cache: Value, namespace: &str) -> Value {
    cache["kind"] = json!("LocalModelNamespaceCache");
    cache["metadata"]["namespace"] = json!(namespace);
    cache
}

/// The message of a gated repository.
pub(super) const GATED: &str = "acme/mixtral-8x7b-instruct is gated, and no token is given: accept its licence at https://huggingface.co/acme/mixtral-8x7b-instruct, then put a token in HF_TOKEN (in a cluster: key HF_TOKEN of the secret that the ClusterStorageContainer names)";

/// The cache that has something of everything.
pub(super) fn mixtral() -> Value {
    let nodes = [
        ("gpu-a", downloading(56 * GIB, 87 * GIB)),
        ("gpu-b", with_reason("NodeDownloadError", "RepositoryGated", GATED)),
        ("gpu-c", complete(87 * GIB)),
        (
            "gpu-d",
            with_reason(
                "NodeDownloadPending",
                "SecretNotFound",
                "secret \"hf-secret\" not found in namespace kserve-localmodel-jobs",
            ),
        ),
        ("gpu-e", with_reason("NodeNotReady", "NodeNotReady", "node is NotReady")),
    ];
    let ready = condition(
        "Ready",
        "False",
        "RepositoryGated",
        "1/5 copies available, 1 on a NotReady node; 1/5 copies failed; on gpu-b: acme/mixtral-8x7b-instruct is gated",
    );
    let mut cache = cache("mixtral-8x7b-instruct", "90Gi", &nodes, &[ready]);
    cache["spec"]["storage"] = json!({"key": "hub"});
    cache["status"]["inferenceServices"] = json!([{"namespace": "chat", "name": "assistant"}]);
    cache
}

/// Caches of the cluster.
pub(super) fn caches() -> Vec<Value> {
    let warm = [("gpu-a", complete(15 * GIB)), ("gpu-b", complete(15 * GIB)), ("gpu-c", complete(15 * GIB))];
    let available = condition("Ready", "True", "Available", "3/3 copies available");
    let capacity = "needs 90 GiB; LocalModelNodeGroup workers allows 1.5 TiB per node (1.4 TiB used on gpu-a, 1.4 TiB used on gpu-b, 1.4 TiB used on gpu-c): delete a cache of the group or raise its storageLimit";
    let blocked = [
        condition("InsufficientCapacity", "True", "InsufficientCapacity", capacity),
        condition("Ready", "False", "InsufficientCapacity", capacity),
    ];
    let mut held_up = downloading(GIB, 8 * GIB);
    held_up["reason"] = json!("RateLimited");
    held_up["message"] = json!(
        "https://huggingface.co/api/models/acme/qwen3-4b: too many requests: the hub limits how often this address or token may ask, for another 55 s (tried once so far, and again before long)"
    );
    vec![
        cache("llama3-8b", "16Gi", &warm, std::slice::from_ref(&available)),
        mixtral(),
        cache("falcon-180b", "360Gi", &[], &blocked),
        cache(
            "qwen3-4b",
            "8Gi",
            &[("gpu-a", held_up), ("gpu-b", complete(8 * GIB))],
            &[condition("Ready", "False", "Downloading", "1/2 copies available")],
        ),
    ]
}

/// Caches of namespaces.
pub(super) fn namespace_caches() -> Vec<Value> {
    let one = cache("reranker", "2Gi", &[("gpu-c", complete(GIB))], &[]);
    vec![namespaced(one, "search")]
}

pub(super) fn groups() -> Vec<Value> {
    let path = json!({"local": {"path": "/models"}});
    let stuck = "the agent on gpu-e cannot run: MountVolume.NewMounter initialization failed: path \"/nvme\" does not exist";
    vec![
        json!({
            "metadata": {"name": "workers"},
            "spec": {"storageLimit": "1700G", "persistentVolumeSpec": path},
            "status": {"used": "1500Gi", "available": "83.24Gi", "conditions": [condition("Ready", "True", "AgentsApplied", "volumes and agents are up to date")]},
        }),
        json!({
            "metadata": {"name": "archive"},
            "spec": {"storageLimit": "10T", "persistentVolumeSpec": {"local": {"path": "/nvme"}}},
            "status": {"used": "0", "available": "10T", "conditions": [
                condition("AgentNotRunning", "True", "AgentNotRunning", stuck),
                condition("Ready", "False", "AgentNotRunning", stuck),
            ]},
        }),
    ]
}

pub(super) fn nodes() -> Vec<Value> {
    let bad = json!({"reason": "DiskNotWritable", "message": "/models cannot be written by uid 1000: mount it writable, or chown it"});
    vec![
        json!({"metadata": {"name": "gpu-a"}, "spec": {"localModels": []}, "status": {"disks": {"workers": {"free": "1T"}}}}),
        json!({"metadata": {"name": "gpu-b"}, "spec": {"localModels": []}, "status": {
            "models": {"mixtral-8x7b-instruct": {"attempts": 3, "nextTry": "2026-01-02T12:02:10Z"}},
        }}),
        json!({"metadata": {"name": "gpu-f"}, "spec": {"localModels": []}, "status": {"disks": {"workers": bad}}}),
    ]
}

/// A hundred caches on a thousand nodes, most of them warm: `troubled` of them wait for a hub that is away,
/// for room for a Job, for bytes, and for nodes.
pub(super) fn large(troubled: usize) -> Vec<Cache> {
    let copies = |is_troubled| -> Vec<(String, Value)> {
        let of = |number: usize| match (is_troubled, number) {
            (true, 0..100) => {
                let away = "https://hub: answered 503 (tried 8 times)";
                with_reason("NodeDownloadError", "SourceUnavailable", away)
            }
            (true, 100..150) => {
                let full = "0/1000 nodes are available: 1 Insufficient cpu";
                with_reason("NodeDownloadPending", "Unschedulable", full)
            }
            (true, 150..200) => downloading(GIB * i64::try_from(number % 7).unwrap_or(0), 8 * GIB),
            (true, 200..210) => with_reason("NodeNotReady", "NodeNotReady", "node is NotReady"),
            _ => complete(8 * GIB),
        };
        (0..1000).map(|number| (format!("node-{number:04}.example.internal"), of(number))).collect()
    };
    let cache = |is_troubled| -> Cache {
        let copies = copies(is_troubled);
        let copies: Vec<(&str, Value)> =
            copies.iter().map(|(node, copy)| (node.as_str(), copy.clone())).collect();
        from(cache("m", "8Gi", &copies, &[]))
    };
    let (bad, good) = (cache(true), cache(false));
    let named = |index: usize| {
        let mut cache = if index < troubled { bad.clone() } else { good.clone() };
        cache.metadata.name = format!("a-model-with-a-long-name-{index:03}");
        cache
    };
    (0..100).map(named).collect()
}
