//! The fleet in numbers, for the metrics: how each cache and each group fares. Counted anew whenever it is
//! asked, so that what is gone is in no number.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::cache::DEGRADED;
use super::capacity;
use super::conditions::READY;
use super::entries::PlannedCache;
use super::names::CacheKey;
use super::node_group;
use super::reasons;
use crate::api::cache::{CacheStatus, NodeStatus};
use crate::api::{LocalModelNode, LocalModelNodeGroup};

/// The phases of copies, in the order of [`CacheCount::copies`].
pub const PHASES: &[&str] =
    &["NodeNotReady", "NodeDownloadPending", "NodeDownloading", "NodeDownloaded", "NodeDownloadError"];

/// All caches and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The caches.
    pub caches: Vec<CacheCount>,
    /// The node groups.
    pub groups: Vec<GroupCount>,
}

/// One cache in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheCount {
    /// The namespace of a namespace cache; empty for a cluster cache.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why it is not ready, in a listed word; none when it is.
    pub not_ready: Option<&'static str>,
    /// Why it is degraded, in a listed word; none when it is not.
    pub degraded: Option<&'static str>,
    /// How many copies are in each of the [`PHASES`].
    pub copies: [i64; PHASES.len()],
    /// How many copies failed, by the listed word for it.
    pub failed: BTreeMap<&'static str, i64>,
}

/// One group in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCount {
    /// Its name.
    pub name: String,
    /// The bytes planned on its fullest node.
    pub used: i64,
    /// The bytes that it allows on a node; none when that cannot be read.
    pub limit: Option<i64>,
    /// Why it is not ready, in a listed word; none when it is.
    pub not_ready: Option<&'static str>,
    /// The problems that hold, as listed words.
    pub problems: BTreeSet<&'static str>,
}

/// A cache with the status that was written for it last.
pub fn cache(key: &CacheKey, status: Option<&CacheStatus>) -> CacheCount {
    let none = CacheStatus::default();
    let status = status.unwrap_or(&none);
    let mut copies = [0; PHASES.len()];
    for phase in status.node_status.values() {
        if let Some(count) = position(*phase).and_then(|at| copies.get_mut(at)) {
            *count += 1;
        }
    }
    let mut failed = BTreeMap::new();
    for (node, _) in status.node_status.iter().filter(|(_, of)| **of == NodeStatus::NodeDownloadError) {
        let reason = status.nodes.get(node).and_then(|copy| copy.reason.as_deref());
        *failed.entry(reasons::listed(reason.unwrap_or_default())).or_insert(0) += 1;
    }
    CacheCount {
        namespace: key.namespace.clone().unwrap_or_default(),
        name: key.name.clone(),
        not_ready: not_ready(status),
        degraded: reason(&status.conditions, DEGRADED, "True"),
        copies,
        failed,
    }
}

/// As condition `Ready` has it; KServe's own definition of caches keeps no conditions.
fn not_ready(status: &CacheStatus) -> Option<&'static str> {
    if status.conditions.iter().any(|condition| condition.type_ == READY) {
        return reason(&status.conditions, READY, "False");
    }
    let of = |phase| status.node_status.values().filter(|of| **of == phase).count();
    let (warm, away) = (of(NodeStatus::NodeDownloaded), of(NodeStatus::NodeNotReady));
    let is_warm = warm > 0 && warm + away == status.node_status.len();
    (!is_warm).then(|| reasons::listed(""))
}

/// The reason of a condition while it has this status, as a listed word.
fn reason(conditions: &[Condition], kind: &str, status: &str) -> Option<&'static str> {
    let found = conditions.iter().find(|condition| condition.type_ == kind && condition.status == status);
    found.map(|condition| reasons::listed(&condition.reason))
}

fn position(phase: NodeStatus) -> Option<usize> {
    match phase {
        NodeStatus::NodeNotReady => Some(0),
        NodeStatus::NodeDownloadPending => Some(1),
        NodeStatus::NodeDownloading => Some(2),
        NodeStatus::NodeDownloaded => Some(3),
        NodeStatus::NodeDownloadError => Some(4),
        NodeStatus::Unknown => None,
    }
}

/// A group with what is planned on its nodes.
pub fn group(group: &LocalModelNodeGroup, nodes: &[&LocalModelNode], caches: &[PlannedCache]) -> GroupCount {
    let usage = node_group::usage(&group.name_any(), nodes, caches);
    let bytes = |bytes: i128| i64::try_from(bytes).unwrap_or(i64::MAX);
    let conditions = group.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let problems = conditions.iter().filter(|of| of.type_ != READY && of.status == "True");
    GroupCount {
        name: group.name_any(),
        used: bytes(usage.into_values().max().unwrap_or(0)),
        limit: capacity::allowed(group).ok().map(bytes),
        not_ready: reason(conditions, READY, "False"),
        problems: problems.map(|condition| reasons::listed(&condition.type_)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::samples::{cache_sized, from, group_limited};

    fn count(status: serde_json::Value) -> CacheCount {
        cache(&CacheKey { namespace: Some("team".into()), name: "m".into() }, Some(&from(status)))
    }

    #[test]
    fn a_cache_whose_copies_are_all_there_is_ready_also_without_conditions() {
        let count = count(json!({"nodeStatus": {"a": "NodeDownloaded", "b": "NodeDownloaded"}}));
        assert_eq!((count.namespace.as_str(), count.name.as_str(), count.not_ready), ("team", "m", None));
        assert_eq!((count.copies, count.failed.len()), ([0, 0, 0, 2, 0], 0));
    }

    #[test]
    fn a_cache_that_is_not_ready_says_why_in_listed_words_alone() {
        let count = count(json!({
            "nodeStatus": {"a": "NodeDownloaded", "b": "NodeDownloadError", "c": "NodeDownloadError", "d": ""},
            "nodes": {
                "b": {"phase": "NodeDownloadError", "reason": "TokenMissing"},
                "c": {"phase": "NodeDownloadError", "reason": "something that a kubelet made up"},
            },
            "conditions": [{
                "type": "Ready", "status": "False", "reason": "DownloadFailed", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        }));
        assert_eq!(count.not_ready, Some("DownloadFailed"));
        assert_eq!(count.copies, [0, 0, 0, 1, 2]);
        assert_eq!(count.failed, BTreeMap::from([("Other", 1), ("TokenMissing", 1)]));
    }

    #[test]
    fn conditions_are_told_as_they_stand() {
        let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let count = count(json!({
            "nodeStatus": {"a": "NodeDownloaded", "b": "NodeNotReady"},
            "conditions": [condition("Ready", "True", "Available"), condition("Degraded", "True", "NodeNotReady")],
        }));
        assert_eq!((count.not_ready, count.degraded), (None, Some("NodeNotReady")));
        let mut sample = group_limited("10");
        sample.status = from(json!({"conditions": [
            condition("Ready", "False", "AgentNotRunning"), condition("AgentNotRunning", "True", "AgentNotRunning"),
            condition("StorageLimitTooLarge", "True", "StorageLimitTooLarge"),
        ]}));
        let count = group(&sample, &[], &[]);
        assert_eq!(count.not_ready, Some("AgentNotRunning"));
        assert_eq!(count.problems, BTreeSet::from(["AgentNotRunning", "StorageLimitTooLarge"]));
    }

    #[test]
    fn a_cache_without_a_status_is_not_ready() {
        let count = cache(&CacheKey::cluster("m"), None);
        assert_eq!((count.name.as_str(), count.not_ready, count.copies), ("m", Some("Other"), [0; 5]));
    }

    #[test]
    fn a_group_counts_its_fullest_node_and_has_no_limit_when_that_cannot_be_read() {
        let caches = [cache_sized("a", "4", 1)];
        let caches: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
        let node: LocalModelNode = from(json!({
            "metadata": {"name": "one"},
            "spec": {"localModels": [{"modelName": "a", "sourceModelUri": "hf://o/a"}]},
        }));
        let name = group_limited("10").name_any();
        let of = |limit| group(&group_limited(limit), &[&node], &caches);
        let counted = |limit| GroupCount {
            name: name.clone(),
            used: 4,
            limit,
            not_ready: None,
            problems: BTreeSet::new(),
        };
        assert_eq!(of("10"), counted(Some(10)));
        assert_eq!(of("much"), counted(None));
    }
}
