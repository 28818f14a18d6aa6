//! The status of a cache: its copies, its problems, and whether it is ready.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::admission::list;
use super::agent_pods;
use super::capacity::{INSUFFICIENT_CAPACITY, MODEL_SIZE_TOO_SMALL, NAMESPACE_LIMIT_REACHED};
use super::conditions::{self, Statement};
use super::copies::{self, Copy, NODE_NOT_READY};
use super::list_budget::NODE_LIST_FULL;
use super::names::CacheKey;
use super::node_group::STORAGE_LIMIT_EXCEEDED;
use super::reasons;
use super::serving;
use super::users::{Kind, User};
use crate::api::cache::{CacheStatus, ModelCopies, NodeCopy, NodeStatus};
use crate::api::quantity::human;

/// A group that a cache names does not exist (C5).
pub const NODE_GROUP_NOT_FOUND: &str = "NodeGroupNotFound";
/// Somebody else's volume has a name that this cache needs (C3).
pub const NAME_CONFLICT: &str = "NameConflict";
/// A volume of an earlier cache of the same name is still in deletion (D1).
pub const VOLUMES_TERMINATING: &str = "VolumesTerminating";
/// A node group's volume specs were changed after volumes had been made from them (G2).
pub const VOLUMES_OUTDATED: &str = "VolumesOutdated";

/// The cache is in deletion, and something uses it.
pub const DELETION_WAITS: &str = "DeletionWaits";

/// Copies are still to come by themselves.
pub const PROGRESSING: &str = "Progressing";
/// Something does not come right by itself.
pub const DEGRADED: &str = "Degraded";

/// A namespace cache's credentials cannot be read in its namespace, or not be copied (K4).
pub const CREDENTIALS_NOT_READY: &str = "CredentialsNotReady";

/// Conditions whose words count bytes that come and go with other caches.
const COUNTING: [&str; 4] =
    [INSUFFICIENT_CAPACITY, NAMESPACE_LIMIT_REACHED, NODE_LIST_FULL, STORAGE_LIMIT_EXCEEDED];

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
    /// How many nodes that are ready belong to its groups and have no room for it.
    pub lacking: usize,
    /// By node, a group of the cache's and why its agent does not run there (G8).
    pub stuck: &'a BTreeMap<String, (String, String)>,
    /// The time of this look.
    pub now: Timestamp,
}

/// The whole status.
pub fn status(view: &View) -> CacheStatus {
    let mut nodes = copies::nodes(view.key, view.copies);
    for (node, copy) in &mut nodes {
        let Some(before) = view.before.nodes.get(node) else { continue };
        remember(copy, before);
    }
    let count = copies::count(&nodes);
    let mut statements = view.problems.clone();
    statements.extend(agent_pods::told_of_copies(&mut nodes, view.stuck));
    let ready = ready(view, &statements, &count, &nodes);
    let degraded = degraded(view, &statements, &count, &nodes);
    let progressing = progressing(&statements, &count, &nodes);
    statements.extend([progressing, degraded, ready]);
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

/// A node's object that is made anew says nothing for a moment. What it said before must not become news when it
/// is said again: neither old damage nor a download that ended long ago (D4).
fn remember(copy: &mut NodeCopy, before: &NodeCopy) {
    copy.last_damage = copy.last_damage.take().or_else(|| before.last_damage.clone());
    let is_silent = copy.started.is_none()
        && copy.finished.is_none()
        && copy.bytes_done.is_none()
        && copy.reason.is_none();
    if is_silent {
        (copy.started, copy.finished) = (before.started.clone(), before.finished.clone());
    }
}

/// Why copies do not get on, the worst first: the sums say the same of them, in this order.
struct Trouble<'a> {
    /// The reason in a word that a condition can have.
    reason: &'a str,
    /// How many copies, and the first of them in words.
    message: String,
}

/// `Ready`: at least one copy is available, and no node that is ready lacks its copy. Its reason is the first
/// thing that a person wants to know.
fn ready(
    view: &View,
    problems: &[Statement],
    count: &ModelCopies,
    nodes: &BTreeMap<String, NodeCopy>,
) -> Statement {
    let so_far = so_far(count, nodes);
    let trouble = failed(count, nodes).or_else(|| blocked(count, nodes));
    if let Some(Trouble { reason, message }) = trouble {
        return Statement::ready(false, reason, format!("{so_far}; {message}"));
    }
    if is_available(count, nodes) && view.lacking == 0 {
        return Statement::ready(true, "Available", so_far);
    }
    if let Some(problem) = problems.iter().find(|problem| problem.kind != MODEL_SIZE_TOO_SMALL) {
        return Statement::ready(false, &problem.reason, problem.message.clone());
    }
    if let Some((reason, message)) = without_copies(view, count) {
        return Statement::ready(false, reason, message);
    }
    let any = |phase| nodes.values().any(|copy| copy.phase == phase);
    let reason = if any(NodeStatus::NodeDownloading) {
        "Downloading"
    } else if any(NodeStatus::NodeDownloadPending) {
        "DownloadPending"
    } else {
        NODE_NOT_READY
    };
    let first =
        nodes.iter().find_map(|(node, copy)| Some(format!("; on {node}: {}", copy.message.as_ref()?)));
    Statement::ready(false, reason, so_far + &first.unwrap_or_default())
}

/// Whether all copies on nodes that are ready are available, and at least one is: in a fleet one node is always
/// down.
fn is_available(count: &ModelCopies, nodes: &BTreeMap<String, NodeCopy>) -> bool {
    count.available > 0 && count.available + away(nodes) == count.total
}

/// Copies on nodes that are not ready.
fn away(nodes: &BTreeMap<String, NodeCopy>) -> i32 {
    copies::of_phase(nodes, NodeStatus::NodeNotReady)
}

fn so_far(count: &ModelCopies, nodes: &BTreeMap<String, NodeCopy>) -> String {
    let so_far = format!("{}/{} copies available", count.available, count.total);
    match away(nodes) {
        0 => so_far,
        1 => format!("{so_far}, 1 on a NotReady node"),
        away => format!("{so_far}, {away} on NotReady nodes"),
    }
}

/// Copies whose download failed.
fn failed<'a>(count: &ModelCopies, nodes: &'a BTreeMap<String, NodeCopy>) -> Option<Trouble<'a>> {
    let is_failed = |copy: &NodeCopy| copy.phase == NodeStatus::NodeDownloadError;
    trouble(count, nodes, is_failed, "failed", "DownloadFailed")
}

/// Copies that wait for somebody to act.
fn blocked<'a>(count: &ModelCopies, nodes: &'a BTreeMap<String, NodeCopy>) -> Option<Trouble<'a>> {
    trouble(count, nodes, is_blocked, "blocked", "DownloadPending")
}

/// Whether a copy waits for something that does not come by itself.
fn is_blocked(copy: &NodeCopy) -> bool {
    let waits = matches!(copy.phase, NodeStatus::NodeDownloadPending | NodeStatus::Unknown);
    waits && copy.reason.as_deref().is_some_and(|reason| !reasons::passes(reason))
}

fn trouble<'a>(
    count: &ModelCopies,
    nodes: &'a BTreeMap<String, NodeCopy>,
    is_in_trouble: impl Fn(&NodeCopy) -> bool,
    word: &str,
    otherwise: &'static str,
) -> Option<Trouble<'a>> {
    let number = nodes.values().filter(|copy| is_in_trouble(copy)).count();
    let (node, copy) = nodes.iter().find(|(_, copy)| is_in_trouble(copy))?;
    let reason = reasons::of_condition(copy.reason.as_deref(), otherwise);
    let why = copy.message.as_deref().unwrap_or("no message was given");
    Some(Trouble { reason, message: format!("{number}/{} copies {word}; on {node}: {why}", count.total) })
}

/// Why no node is planned to have a copy.
fn without_copies(view: &View, count: &ModelCopies) -> Option<(&'static str, &'static str)> {
    match (count.total, view.enabled) {
        (0, false) => Some((
            "Disabled",
            "caching is disabled: set localModel.enabled in ConfigMap inferenceservice-config",
        )),
        (0, true) => Some(("NoNodes", "no node matches the node groups")),
        _ => None,
    }
}

/// `Progressing`: copies are still to come by themselves.
fn progressing(problems: &[Statement], count: &ModelCopies, nodes: &BTreeMap<String, NodeCopy>) -> Statement {
    let running = copies::of_phase(nodes, NodeStatus::NodeDownloading);
    let is_pending = |copy: &&NodeCopy| copy.phase == NodeStatus::NodeDownloadPending;
    let (blocked, pending): (Vec<&NodeCopy>, Vec<&NodeCopy>) =
        nodes.values().filter(is_pending).partition(|copy| is_blocked(copy));
    let going = problems.iter().find(|problem| is_passing(problem));
    let (holds, reason, message) = if running > 0 {
        (true, "Downloading", format!("{running}/{} copies downloading", count.total))
    } else if !pending.is_empty() {
        let message = format!("{}/{} downloads have not started", pending.len(), count.total);
        (true, "DownloadPending", message)
    } else if let Some(problem) = going {
        (true, problem.kind, problem.message.clone())
    } else if !blocked.is_empty() {
        let message = format!("{}/{} downloads cannot start: see Degraded", blocked.len(), count.total);
        (false, "Blocked", message)
    } else {
        (false, "Settled", "no downloads in progress or pending".to_owned())
    };
    Statement { kind: PROGRESSING, holds, reason: reason.into(), message }
}

/// What an earlier cache of the name leaves goes by itself.
fn is_passing(problem: &Statement) -> bool {
    problem.kind == VOLUMES_TERMINATING
}

/// `Degraded`: something does not come right by itself, even where `Ready` holds. A cache that is neither ready
/// nor progressing is degraded.
fn degraded(
    view: &View,
    problems: &[Statement],
    count: &ModelCopies,
    nodes: &BTreeMap<String, NodeCopy>,
) -> Statement {
    let holds = |reason: &str, message: String| Statement {
        kind: DEGRADED,
        holds: true,
        reason: reason.into(),
        message,
    };
    if let Some(Trouble { reason, message }) = failed(count, nodes).or_else(|| blocked(count, nodes)) {
        return holds(reason, message);
    }
    if let Some(problem) = problems.iter().find(|problem| !is_passing(problem)) {
        return holds(&problem.reason, problem.message.clone());
    }
    let away = nodes.iter().filter(|(_, copy)| copy.phase == NodeStatus::NodeNotReady);
    let away: Vec<String> = away.map(|(node, _)| node.clone()).collect();
    if !away.is_empty() {
        let message = format!("{}/{} copies on NotReady nodes: {}", away.len(), count.total, list(&away));
        return holds(NODE_NOT_READY, message);
    }
    if let Some((reason, message)) = without_copies(view, count).filter(|_| problems.is_empty()) {
        return holds(reason, message.to_owned());
    }
    Statement { kind: DEGRADED, holds: false, reason: "AsExpected".into(), message: "no problems".into() }
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

/// What a change of the status tells: downloads that ended, copies that somebody has to help, and problems that are
/// new. Whatever makes `Degraded` true is told.
pub fn happenings(before: &CacheStatus, after: &CacheStatus) -> Vec<Happening> {
    let copies = after.node_status.iter().filter_map(|(node, phase)| of_copy(node, *phase, before, after));
    let mut all: Vec<Happening> = copies
        .chain(damaged(before, after))
        .chain(new_problems(&before.conditions, &after.conditions))
        .collect();
    all.extend(newly_degraded(before, after, &all));
    all
}

/// What became of the copy on a node.
fn of_copy(node: &str, phase: NodeStatus, before: &CacheStatus, after: &CacheStatus) -> Option<Happening> {
    let bare = NodeCopy::of_phase(phase);
    let copy = after.nodes.get(node).unwrap_or(&bare);
    let known = before.nodes.get(node);
    let is_same_phase = before.node_status.get(node) == Some(&phase);
    let is_same = is_same_phase && known.is_none_or(|known| known.reason == copy.reason);
    let (warning, reason, words) = match phase {
        NodeStatus::NodeDownloaded if has_ended(node, before, after) => {
            (false, "Downloaded", format!("downloaded to {node}{}", how(copy)))
        }
        NodeStatus::NodeDownloadError if !is_same => {
            let message = copy.message.as_deref().unwrap_or("the download failed");
            (true, copy.reason.as_deref().unwrap_or("DownloadFailed"), format!("on {node}: {message}"))
        }
        _ if is_blocked(copy) && !is_same => {
            let message = copy.message.as_deref().unwrap_or("the download cannot start");
            (true, copy.reason.as_deref().unwrap_or("DownloadPending"), format!("on {node}: {message}"))
        }
        _ => return None,
    };
    Some(Happening { warning, reason: reason.into(), note: words, node: Some(node.to_owned()) })
}

/// Whether a download has ended: a copy that is only seen again was not downloaded. KServe's own definition keeps no
/// times.
fn has_ended(node: &str, before: &CacheStatus, after: &CacheStatus) -> bool {
    let Some(copy) = after.nodes.get(node) else {
        return before.node_status.get(node) == Some(&NodeStatus::NodeDownloading);
    };
    let known = before.nodes.get(node).and_then(|known| known.finished.as_ref());
    copy.finished.is_some() && copy.finished.as_ref() != known
}

/// How much came, and how long it took.
fn how(copy: &NodeCopy) -> String {
    let bytes = copy.bytes_total.map(|bytes| human(bytes.into()));
    let took = copy.started.as_ref().zip(copy.finished.as_ref());
    let took = took.map(|(begun, ended)| ended.0.duration_since(begun.0).as_secs().max(0));
    match (bytes, took) {
        (Some(bytes), Some(took)) => format!(" ({bytes} in {took} s)"),
        (Some(bytes), None) => format!(" ({bytes})"),
        (None, _) => String::new(),
    }
}

/// A cause of `Degraded` that nothing else tells of. A node that is not ready has Events of its own.
fn newly_degraded(before: &CacheStatus, after: &CacheStatus, told: &[Happening]) -> Option<Happening> {
    let cause = |status: &'_ CacheStatus| {
        let found = status.conditions.iter().find(|c| c.type_ == DEGRADED && c.status == "True");
        found.map(|c| (c.reason.clone(), c.message.clone()))
    };
    let (reason, note) = cause(after)?;
    let is_known = cause(before).is_some_and(|(known, _)| known == reason)
        || before.conditions.iter().any(|c| c.type_ == reason)
        || before.nodes.values().any(|copy| copy.reason.as_ref() == Some(&reason));
    let is_told = told.iter().any(|happening| happening.warning && happening.reason == reason);
    let is_news = !is_known && !is_told && reason != NODE_NOT_READY;
    is_news.then_some(Happening { warning: true, reason, note, node: None })
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
