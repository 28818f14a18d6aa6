//! The status of a cache: its copies, its problems, and whether it is ready.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::capacity::INSUFFICIENT_CAPACITY;
use super::conditions::{self, Statement};
use super::copies::{self, Copy};
use super::names::CacheKey;
use super::node_group::STORAGE_LIMIT_EXCEEDED;
use super::serving;
use super::users::{Kind, User};
use crate::api::cache::{CacheStatus, ModelCopies, NodeCopy, NodeStatus};

/// A group that a cache names does not exist (C5).
pub const NODE_GROUP_NOT_FOUND: &str = "NodeGroupNotFound";
/// Somebody else's volume has a name that this cache needs (C3).
pub const NAME_CONFLICT: &str = "NameConflict";
/// A volume of an earlier cache of the same name is still in deletion (D1).
pub const VOLUMES_TERMINATING: &str = "VolumesTerminating";

/// A namespace cache's credentials cannot be read in its namespace, or not be copied (K4).
pub const CREDENTIALS_NOT_READY: &str = "CredentialsNotReady";

/// Conditions whose words count bytes that come and go with other caches.
const COUNTING: [&str; 2] = [INSUFFICIENT_CAPACITY, STORAGE_LIMIT_EXCEEDED];

/// What a cache's status is made from.
#[derive(Debug)]
pub struct View<'a> {
    /// Which cache.
    pub key: &'a CacheKey,
    /// Its generation, for `observedGeneration`.
    pub generation: Option<i64>,
    /// Its status before.
    pub before: &'a CacheStatus,
    /// Whether caching is enabled at all.
    pub enabled: bool,
    /// The nodes where it is planned.
    pub copies: &'a [Copy<'a>],
    /// Everything that uses any cache.
    pub users: &'a [User],
    /// What stands in its way.
    pub problems: Vec<Statement>,
    /// The time of this look.
    pub now: Timestamp,
}

/// The whole status.
pub fn status(view: &View) -> CacheStatus {
    let nodes = copies::nodes(view.key, view.copies);
    let count = copies::count(&nodes);
    let mut statements = view.problems.clone();
    statements.push(ready(view, &count, &nodes));
    CacheStatus {
        node_status: nodes.iter().map(|(node, copy)| (node.clone(), copy.phase)).collect(),
        ready: Some(format!("{}/{}", count.available, count.total)),
        copies: (count.total > 0).then_some(count),
        nodes,
        conditions: conditions::conditions(&statements, &view.before.conditions, view.generation, view.now),
        inference_services: serving::listed(view.key, Kind::InferenceService, view.users),
        llm_inference_services: serving::listed(view.key, Kind::LLMInferenceService, view.users),
    }
}

/// `Ready`: at least one copy, and all are available. Its reason is the first thing that a person
/// would want to know.
fn ready(view: &View, count: &ModelCopies, nodes: &BTreeMap<String, NodeCopy>) -> Statement {
    let so_far = format!("{} of {} copies are available", count.available, count.total);
    if let Some(failed) = nodes.iter().find(|(_, copy)| copy.phase == NodeStatus::NodeDownloadError) {
        let (node, copy) = failed;
        let message = copy.message.as_deref().unwrap_or("the download failed");
        return Statement::ready(false, "DownloadFailed", format!("{so_far}; on {node}: {message}"));
    }
    if count.total > 0 && count.available == count.total {
        return Statement::ready(true, "Available", so_far);
    }
    if let Some(problem) = view.problems.first() {
        return Statement::ready(false, &problem.reason, problem.message.clone());
    }
    if count.total == 0 && !view.enabled {
        let message = "caching is disabled: set localModel.enabled in ConfigMap inferenceservice-config";
        return Statement::ready(false, "Disabled", message);
    }
    if count.total == 0 {
        return Statement::ready(false, "NoNodes", "no node matches the node groups");
    }
    let any = |phase| nodes.values().any(|copy| copy.phase == phase);
    let reason = if any(NodeStatus::NodeDownloading) {
        "Downloading"
    } else if any(NodeStatus::NodeDownloadPending) {
        "DownloadPending"
    } else {
        "NodeNotReady"
    };
    let first =
        nodes.iter().find_map(|(node, copy)| Some(format!("; on {node}: {}", copy.message.as_ref()?)));
    Statement::ready(false, reason, so_far + &first.unwrap_or_default())
}

/// Something that happened to a cache, for an Event (O3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Whether somebody should look at it.
    pub warning: bool,
    /// What, in one word.
    pub reason: String,
    /// What, for a person.
    pub note: String,
    /// The node where it happened.
    pub node: Option<String>,
}

/// What a change of the status tells: copies that are complete or failed, and problems that are new.
pub fn happenings(before: &CacheStatus, after: &CacheStatus) -> Vec<Happening> {
    let changed =
        after.node_status.iter().filter(|(node, phase)| before.node_status.get(*node) != Some(phase));
    let copies = changed.filter_map(|(node, phase)| {
        let detail = after.nodes.get(node);
        let (reason, message) =
            detail.map(|copy| (copy.reason.as_deref(), copy.message.as_deref())).unwrap_or_default();
        let (warning, reason, note) = match phase {
            NodeStatus::NodeDownloaded => (false, "Downloaded", format!("a complete copy is on {node}")),
            NodeStatus::NodeDownloadError => {
                let message = message.unwrap_or("the download failed");
                (true, reason.unwrap_or("DownloadFailed"), format!("on {node}: {message}"))
            }
            _ => return None,
        };
        Some(Happening { warning, reason: reason.into(), note, node: Some(node.clone()) })
    });
    copies.chain(new_problems(&before.conditions, &after.conditions)).collect()
}

/// The problems among conditions that were not told before, of a cache or of a node group. What only
/// counts other bytes than before is no news.
pub fn new_problems(before: &[Condition], after: &[Condition]) -> Vec<Happening> {
    let told = |c: &Condition, b: &Condition| {
        b.type_ == c.type_ && (b.message == c.message || COUNTING.contains(&c.type_.as_str()))
    };
    let is_new = |c: &&Condition| c.type_ != conditions::READY && !before.iter().any(|b| told(c, b));
    let problem = |c: &Condition| Happening {
        warning: true,
        reason: c.reason.clone(),
        note: c.message.clone(),
        node: None,
    };
    after.iter().filter(is_new).map(problem).collect()
}

#[cfg(test)]
mod tests;
