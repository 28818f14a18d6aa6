//! What happens to a cluster, step by step, and how each step shows that it is done.

use anyhow::{Context, Result};
use http::Request;
use localmodel::plan::names::{UNUSED_SINCE, WARM_PREFIX};
use localmodel_hub::TOKEN;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::control_plane::create;
use super::objects::{self, GROUP, LABEL, NODES, TEAM};
use super::state::State;

/// Something that a user, an administrator or time does.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is made.
    Make(Value),
    /// An object is deleted.
    Delete(Value),
    /// An object is changed by a merge patch.
    Patch(Value, Value),
}

/// Whether something holds, and if not, why.
pub type Verdict = std::result::Result<(), String>;
/// Whether a step is done.
type Done = fn(&State) -> Verdict;

/// A step and its end.
#[derive(Clone, Debug)]
pub struct Step {
    /// What happens, at once.
    pub changes: Vec<Change>,
    /// Whether what follows from it is there. It is then left until nobody writes any more.
    pub done: Done,
}

/// Steps, of which the last ones are disturbed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// All steps.
    pub steps: Vec<Step>,
    /// How many of them only prepare.
    pub prepared: usize,
}

impl Change {
    /// Does it.
    pub async fn make(&self, cluster: &Cluster) -> Result<()> {
        match self {
            Self::Make(object) => create(&cluster.client, object).await.map(drop),
            Self::Delete(object) => {
                let path = objects::path(object)?;
                cluster
                    .request(Request::delete(&path))
                    .await
                    .with_context(|| format!("deleting {path}"))
                    .map(drop)
            }
            Self::Patch(object, patch) => cluster.patch(&objects::path(object)?, patch).await,
        }
    }
}

/// All scenarios.
pub fn scenarios() -> Vec<Scenario> {
    vec![first_warm_up(), deletion(), node_leaves(), namespace_cache(), capacity_freed(), service()]
}

fn step(changes: impl IntoIterator<Item = Change>, done: Done) -> Step {
    Step { changes: changes.into_iter().collect(), done }
}

/// Both nodes, the group, and these caches.
fn begin(caches: impl IntoIterator<Item = Value>) -> Vec<Change> {
    let nodes = NODES.map(objects::node);
    nodes.into_iter().chain([objects::group()]).chain(caches).map(Change::Make).collect()
}

fn one() -> Value {
    objects::cache("one", "acme/one", 6)
}

fn warm_one() -> Step {
    step(begin([one()]), |state| is_warm(state, "LocalModelCache one", 1))
}

fn first_warm_up() -> Scenario {
    Scenario { name: "first warm-up", steps: vec![warm_one()], prepared: 0 }
}

fn deletion() -> Scenario {
    let delete = step([Change::Delete(one())], |state| is_gone(state, "LocalModelCache one", "one"));
    Scenario { name: "deletion", steps: vec![warm_one(), delete], prepared: 1 }
}

fn node_leaves() -> Scenario {
    let label = |value: Value| {
        Change::Patch(objects::node(NODES[1]), json!({"metadata": {"labels": {LABEL: value}}}))
    };
    let leave = step([label(Value::Null)], |state| {
        absent(state, "LocalModelNode node-b")?;
        absent(state, "Pod of DaemonSet workers-agent on node-b")?;
        is_available(state, "LocalModelCache one", 1)
    });
    let join = step([label(json!("yes"))], |state| is_warm(state, "LocalModelCache one", 1));
    Scenario { name: "a node leaves and returns", steps: vec![warm_one(), leave, join], prepared: 1 }
}

fn namespace_cache() -> Scenario {
    let cache = objects::namespace_cache("own", "team/gated", "reader");
    let account = objects::account("reader", TOKEN).map(Change::Make);
    let ready =
        step(begin([]).into_iter().chain(account), |state| present(state, "DaemonSet kserve/workers-agent"));
    let make =
        step([Change::Make(cache.clone())], |state| is_warm(state, "LocalModelNamespaceCache team/own", 1));
    let delete =
        step([Change::Delete(cache)], |state| is_gone(state, "LocalModelNamespaceCache team/own", "own"));
    Scenario { name: "a namespace cache with credentials", steps: vec![ready, make, delete], prepared: 1 }
}

fn capacity_freed() -> Scenario {
    let two = objects::cache("two", "acme/two", 3);
    let both = step(begin([one(), two]), |state| is_warm(state, "LocalModelCache one", 2));
    let waits = objects::cache("three", "acme/three", 5);
    let wait = step([Change::Make(waits)], |state| {
        let conditions =
            state.get("LocalModelCache three").map(|cache| cache["status"]["conditions"].to_string());
        let waits = conditions.is_some_and(|text| text.contains("InsufficientCapacity"));
        if waits { Ok(()) } else { Err("it does not wait for room".into()) }
    });
    let free = step([Change::Delete(one())], |state| {
        absent(state, "LocalModelCache one")?;
        is_warm(state, "LocalModelCache three", 2)
    });
    Scenario { name: "capacity is freed", steps: vec![both, wait, free], prepared: 2 }
}

fn service() -> Scenario {
    let service = objects::service("llm", "one");
    let claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": format!("one-{GROUP}"), "namespace": TEAM},
    });
    let come = step([Change::Make(service.clone())], |state| {
        let phase =
            &state.get("PersistentVolumeClaim team/one-workers").ok_or("no claim")?["status"]["phase"];
        if *phase == json!("Bound") { Ok(()) } else { Err(format!("the claim is {phase}")) }
    });
    let go = step([Change::Delete(service)], |state| {
        let claim = state.get("PersistentVolumeClaim team/one-workers").ok_or("no claim")?;
        let note = &claim["metadata"]["annotations"][UNUSED_SINCE];
        if note.is_null() { Err("nobody noted that it is unused".into()) } else { Ok(()) }
    });
    // Ten minutes pass.
    let long_ago = json!({"metadata": {"annotations": {UNUSED_SINCE: "2020-01-01T00:00:00Z"}}});
    let end = step([Change::Patch(claim, long_ago)], |state| {
        absent(state, "PersistentVolumeClaim team/one-workers")?;
        absent(state, "PersistentVolume one-workers-team")
    });
    Scenario { name: "a service comes and goes", steps: vec![warm_one(), come, go, end], prepared: 1 }
}

fn present(state: &State, key: &str) -> Verdict {
    state.contains_key(key).then_some(()).ok_or(format!("there is no {key}"))
}

fn absent(state: &State, key: &str) -> Verdict {
    (!state.contains_key(key)).then_some(()).ok_or(format!("there is {key}"))
}

fn is_available(state: &State, cache: &str, copies: u64) -> Verdict {
    let status = &state.get(cache).ok_or(format!("there is no {cache}"))?["status"]["copies"];
    let is_available = status["available"] == json!(copies) && status["total"] == json!(copies);
    is_available.then_some(()).ok_or(format!("{cache} has copies {status}"))
}

/// The cache is on both nodes, which carry so many warm labels each.
fn is_warm(state: &State, cache: &str, labels: usize) -> Verdict {
    is_available(state, cache, 2)?;
    for node in NODES {
        let found = warm_labels(state, node);
        if found != labels {
            return Err(format!("{node} has {found} warm labels"));
        }
    }
    Ok(())
}

fn warm_labels(state: &State, node: &str) -> usize {
    let labels = state.get(&format!("Node {node}")).and_then(|node| node["metadata"]["labels"].as_object());
    labels.into_iter().flat_map(|labels| labels.keys()).filter(|label| label.starts_with(WARM_PREFIX)).count()
}

/// Nothing is left of the only cache, which had this name.
fn is_gone(state: &State, cache: &str, name: &str) -> Verdict {
    absent(state, cache)?;
    let of_cache = |key: &&String| {
        let kind = key.split(' ').next().unwrap_or_default();
        matches!(kind, "Job" | "PersistentVolume" | "PersistentVolumeClaim") && key.contains(name)
    };
    if let Some(left) = state.keys().find(of_cache) {
        return Err(format!("{left} is left"));
    }
    for node in NODES {
        let files = state.get(&format!("Disk {node}")).map(Value::to_string).unwrap_or_default();
        if warm_labels(state, node) > 0 || files.contains("safetensors") {
            return Err(format!("{node} still has it"));
        }
    }
    Ok(())
}
