//! The status of a cache: its copies, its problems, and whether it is ready.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::agent_pods;
use super::capacity::INSUFFICIENT_CAPACITY;
use super::conditions::{self, Statement};
use super::copies::{self, Copy};
use super::names::CacheKey;
use super::node_group::STORAGE_LIMIT_EXCEEDED;
use super::pass;
use super::serving;
use super::users::{Kind, User};
use crate::api::cache::{CacheStatus, ModelCopies, NodeCopy, NodeStatus};

/// A group that a cache names does not exist (C5).
pub const NODE_GROUP_NOT_FOUND: &str = "NodeGroupNotFound";
/// Somebody else's volume has a name that this cache needs (C3).
pub const NAME_CONFLICT: &str = "NameConflict";
/// A volume of an earlier cache of the same name is still in deletion (D1).
pub const VOLUMES_TERMINATING: &str = "VolumesTerminating";
/// A node group's volume specs were changed after volumes had been made from them (G2).
pub const VOLUMES_OUTDATED: &str = "VolumesOutdated";

/// Copies are still to come by themselves.
pub const PROGRESSING: &str = "Progressing";
/// Something does not come right by itself.
pub const DEGRADED: &str = "Degraded";

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
    /// By node, a group of the cache's and why its agent does not run there (G8).
    pub stuck: &'a BTreeMap<String, (String, String)>,
    /// The time of this look.
    pub now: Timestamp,
}

/// The whole status.
pub fn status(view: &View) -> CacheStatus {
    let mut nodes = copies::nodes(view.key, view.copies);
    // A node's object that is made anew must not make old damage news when it is told again (D4).
    for (node, copy) in &mut nodes {
        let known = view.before.nodes.get(node).and_then(|before| before.last_damage.clone());
        copy.last_damage = copy.last_damage.take().or(known);
    }
    let count = copies::count(&nodes);
    let mut statements = view.problems.clone();
    statements.extend(agent_pods::told_of_copies(&mut nodes, view.stuck));
    let ready = ready(view, &statements, &count, &nodes);
    let degraded = degraded(&statements, &count, &nodes);
    statements.extend([progressing(&count, &nodes), degraded, ready]);
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
fn ready(
    view: &View,
    problems: &[Statement],
    count: &ModelCopies,
    nodes: &BTreeMap<String, NodeCopy>,
) -> Statement {
    let so_far = so_far(count);
    if let Some((reason, failed)) = failed(nodes) {
        return Statement::ready(false, reason, format!("{so_far}; {failed}"));
    }
    if count.total > 0 && count.available == count.total {
        return Statement::ready(true, "Available", so_far);
    }
    if let Some(problem) = problems.first() {
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

fn so_far(count: &ModelCopies) -> String {
    format!("{} of {} copies are available", count.available, count.total)
}

/// Why the first copy that failed did, in a word and for a person.
fn failed(nodes: &BTreeMap<String, NodeCopy>) -> Option<(&str, String)> {
    let (node, copy) = nodes.iter().find(|(_, copy)| copy.phase == NodeStatus::NodeDownloadError)?;
    // No download can help a disk.
    let of_disk = |reason: &&str| [pass::DISK_NOT_WRITABLE, pass::DISK_FULL].contains(reason);
    let reason = copy.reason.as_deref().filter(of_disk).unwrap_or("DownloadFailed");
    Some((reason, format!("on {node}: {}", copy.message.as_deref().unwrap_or("the download failed"))))
}

/// `Progressing`: copies are still to come by themselves.
fn progressing(count: &ModelCopies, nodes: &BTreeMap<String, NodeCopy>) -> Statement {
    let of = |phase| nodes.values().filter(|copy| copy.phase == phase).count();
    let (running, waiting) = (of(NodeStatus::NodeDownloading), of(NodeStatus::NodeDownloadPending));
    let (holds, reason, message) = if running > 0 {
        (true, "Downloading", format!("{running} of {} copies are being downloaded", count.total))
    } else if waiting > 0 {
        (true, "DownloadPending", format!("{waiting} of {} downloads have not begun", count.total))
    } else {
        (false, "Settled", "no download is under way or due".to_owned())
    };
    Statement { kind: PROGRESSING, holds, reason: reason.into(), message }
}

/// `Degraded`: something does not come right by itself, even where all copies are available.
fn degraded(problems: &[Statement], count: &ModelCopies, nodes: &BTreeMap<String, NodeCopy>) -> Statement {
    // What an earlier cache of the name leaves goes by itself.
    let lasting = problems.iter().find(|problem| problem.kind != VOLUMES_TERMINATING);
    let (holds, reason, message) = match (failed(nodes), lasting) {
        (Some((reason, failed)), _) => {
            let message = format!("{} of {} copies failed; {failed}", count.failed, count.total);
            (true, reason.to_owned(), message)
        }
        (None, Some(problem)) => (true, problem.reason.clone(), problem.message.clone()),
        (None, None) => (false, "AsExpected".to_owned(), "nothing stands in the way".to_owned()),
    };
    Statement { kind: DEGRADED, holds, reason, message }
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
    copies.chain(damaged(before, after)).chain(new_problems(&before.conditions, &after.conditions)).collect()
}

/// Copies that were complete and were found damaged since (A5), mended or not: whoever looks late learns of
/// it all the same. What an earlier status did not have yet is news only while the copy is not whole.
fn damaged(before: &CacheStatus, after: &CacheStatus) -> Vec<Happening> {
    let happening = |(node, copy): (&String, &NodeCopy)| {
        let damage = copy.last_damage.as_ref()?;
        let is_new = match before.nodes.get(node) {
            Some(before) => before.last_damage.as_ref() != Some(damage),
            None => copy.phase != NodeStatus::NodeDownloaded,
        };
        let note = format!("on {node}: {}", damage.message);
        is_new.then(|| Happening {
            warning: true,
            reason: damage.reason.clone(),
            note,
            node: Some(node.clone()),
        })
    };
    after.nodes.iter().filter_map(happening).collect()
}

/// The conditions that sum up the others, and are no news beside them.
const SUMS: [&str; 3] = [conditions::READY, PROGRESSING, DEGRADED];

/// The problems among conditions that were not told before, of a cache or of a node group. What only
/// counts other bytes than before is no news.
pub fn new_problems(before: &[Condition], after: &[Condition]) -> Vec<Happening> {
    let told = |c: &Condition, b: &Condition| {
        b.type_ == c.type_ && (b.message == c.message || COUNTING.contains(&c.type_.as_str()))
    };
    let is_new = |c: &&Condition| !SUMS.contains(&c.type_.as_str()) && !before.iter().any(|b| told(c, b));
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
