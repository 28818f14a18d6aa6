//! The fleet as a person wants to know it: each cache with its copies, what stands in the way and how
//! often, the room of the node groups; what is worst comes first. Also what `-o json` prints.

mod why;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;

pub use why::{Why, why};

use super::objects::{Cache, Group, Seen};
use super::pace::History;
use crate::api::CacheStatus;
use crate::api::cache::{NodeCopy, NodeStatus};
use crate::api::node::DiskStatus;
use crate::api::quantity;
use crate::download::source::without_secrets;
use crate::plan::conditions::READY;
use crate::plan::names::CacheKey;

/// Conditions that sum up others: they are no statements of their own about what is wrong.
const SUMS: [&str; 3] = [READY, "Progressing", "Degraded"];

/// How a copy or a cache fares, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// A download failed.
    Failed,
    /// Something stands in the cache's way, or no node is to keep it.
    Blocked,
    /// A download has not begun.
    Waiting,
    /// The node is not ready.
    NodeNotReady,
    /// A download is under way.
    Downloading,
    /// All that is wanted is there.
    Complete,
}

impl From<NodeStatus> for State {
    fn from(phase: NodeStatus) -> Self {
        match phase {
            NodeStatus::NodeDownloadError => Self::Failed,
            NodeStatus::NodeDownloadPending | NodeStatus::Unknown => Self::Waiting,
            NodeStatus::NodeNotReady => Self::NodeNotReady,
            NodeStatus::NodeDownloading => Self::Downloading,
            NodeStatus::NodeDownloaded => Self::Complete,
        }
    }
}

/// The whole fleet.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// When it was looked at.
    pub time: Time,
    /// The caches.
    pub caches: Vec<CacheView>,
    /// What stands in the way.
    pub reasons: Vec<Why>,
    /// The node groups, those that are not ready first.
    pub node_groups: Vec<GroupView>,
    /// The disks that cannot be used.
    pub disks: Vec<DiskView>,
    /// Nodes that keep copies and belong to no group any more: no agent runs there.
    pub left_behind: Vec<String>,
    /// Why all of this may be stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
    /// What could not be seen, and why.
    pub notes: Vec<String>,
}

/// How many copies fare how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub failed: usize,
    pub waiting: usize,
    pub node_not_ready: usize,
    pub downloading: usize,
    pub complete: usize,
    pub total: usize,
}

/// One cache.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheView {
    /// Its name.
    pub name: String,
    /// The namespace of a namespace cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where its model is stored, as it may be told.
    pub source: String,
    /// The room that it asks for on a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// The node groups that are to keep it.
    pub node_groups: Vec<String>,
    /// The worst of it.
    pub state: State,
    /// Whether at least one copy is available and no node that is ready lacks its copy.
    pub warm: bool,
    /// Whether it is in deletion.
    pub deleting: bool,
    /// Its copies, counted.
    pub copies: Counts,
    /// Bytes of all copies that are on disks, and that are to be there. What no node has told yet is taken
    /// as large as another copy, or as the room that the cache asks for.
    pub bytes_done: u64,
    /// The bytes that all copies have together.
    pub bytes_total: u64,
    /// The pace of all its downloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// How long the last of its downloads will still take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// What stands in the way of the cache as a whole.
    pub problems: Vec<Told>,
    /// Its copies, the worst first.
    pub nodes: Vec<CopyView>,
}

/// A reason, and the same for a person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Told {
    pub reason: String,
    pub message: String,
}

/// One copy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyView {
    /// The node.
    pub node: String,
    /// How it fares.
    pub state: State,
    /// The same as the cache's status has it.
    pub phase: NodeStatus,
    /// What the cache's status says beside it; nothing on KServe's own definitions.
    #[serde(flatten)]
    pub detail: Detail,
    /// How fast it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// How long it will still take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

impl CopyView {
    /// Whether something stands in its way, if only for as long as its download tries again.
    fn is_held_up(&self) -> bool {
        let is_moving = self.state == State::Downloading && self.detail.reason.is_none();
        self.state != State::Complete && !is_moving
    }
}

/// The detail of a copy: what `status.nodes` says beside the phase.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
}

/// One node group.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// The most that models may take on one of its nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// What the planned models take on the fullest node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
    /// What is left there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
    /// The folder on each node that holds the models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What stands in its way.
    pub problems: Vec<Told>,
}

impl GroupView {
    /// How full the fullest node is planned.
    pub fn part(&self) -> Option<f64> {
        let bytes = |text: &Option<String>| {
            let quantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.clone()?);
            quantity::bytes(&quantity).ok()
        };
        let (used, limit) = (bytes(&self.used)?, bytes(&self.limit)?);
        #[expect(clippy::cast_precision_loss)]
        (limit > 0).then(|| used as f64 / limit as f64)
    }
}

/// A disk that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskView {
    pub node_group: String,
    pub reason: String,
    pub message: String,
    pub node: String,
}

/// The view of what was seen.
pub fn fleet(seen: &Seen, history: &History, now: Timestamp) -> Fleet {
    let mut caches: Vec<CacheView> = seen.caches.iter().map(|cache| view(cache, history, now)).collect();
    let order = |cache: &CacheView| (cache.state, Reverse(cache.copies.failed), cache.key());
    caches.sort_by_cached_key(order);
    let mut node_groups: Vec<GroupView> = seen.groups.iter().map(group).collect();
    node_groups.sort_by_cached_key(|group| (group.problems.is_empty(), group.name.clone()));
    let disks = seen.nodes.iter().filter_map(|node| Some((&node.metadata.name, node.status.as_ref()?)));
    let mut disks: Vec<DiskView> = disks.flat_map(|(node, status)| bad_disks(node, &status.disks)).collect();
    disks.sort();
    let reasons = why(&caches);
    let has_agent = |name: &&String| seen.nodes.iter().any(|node| node.metadata.name == **name);
    let mut left_behind: Vec<String> =
        seen.labelled.iter().filter(|name| !has_agent(name)).cloned().collect();
    left_behind.sort();
    let stale = seen.operator.stale(&seen.caches, now);
    let notes = seen.notes.clone();
    Fleet { time: Time(now), caches, reasons, node_groups, disks, left_behind, stale, notes }
}

/// The view of one cache.
pub fn view(cache: &Cache, history: &History, now: Timestamp) -> CacheView {
    let key = cache.key();
    let none = CacheStatus::default();
    let status = cache.status.as_ref().unwrap_or(&none);
    let copy = |(node, phase): (&String, &NodeStatus)| {
        let detail = status.nodes.get(node);
        let moving = detail.filter(|_| *phase == NodeStatus::NodeDownloading);
        let pace = moving.and_then(|copy| history.pace(&key, node, copy, now));
        copy_view(node, *phase, detail, pace)
    };
    let mut nodes: Vec<CopyView> = status.node_status.iter().map(copy).collect();
    nodes.sort_by(|a, b| (a.state, &a.detail.reason, &a.node).cmp(&(b.state, &b.detail.reason, &b.node)));
    let copies = count(&nodes, status);
    let problems = problems(&status.conditions, &copies);
    let warm = is_warm(&status.conditions, &copies);
    let size = cache.spec.model_size.as_ref();
    let bytes = size.and_then(|size| u64::try_from(quantity::bytes(size).ok()?).ok());
    let (bytes_done, bytes_total) = sums(&nodes, &copies, bytes.unwrap_or(0));
    CacheView {
        name: key.name,
        namespace: key.namespace,
        source: without_secrets(&cache.spec.source_model_uri),
        size: size.map(|size| size.0.clone()),
        node_groups: cache.spec.node_groups.clone(),
        state: worst(&copies, !problems.is_empty()),
        warm,
        deleting: cache.metadata.deletion_timestamp.is_some(),
        copies,
        bytes_done,
        bytes_total,
        bytes_per_second: nodes.iter().filter_map(|copy| copy.bytes_per_second).reduce(u64::saturating_add),
        seconds_left: nodes.iter().filter_map(|copy| copy.seconds_left).max(),
        problems,
        nodes,
    }
}

/// As condition `Ready` has it, from the same list of reasons. KServe's own definitions keep no conditions.
fn is_warm(conditions: &[Condition], copies: &Counts) -> bool {
    match conditions.iter().find(|condition| condition.type_ == READY) {
        Some(ready) => ready.status == "True",
        None => copies.complete > 0 && copies.complete + copies.node_not_ready == copies.total,
    }
}

impl CacheView {
    /// Which cache it is.
    pub fn key(&self) -> CacheKey {
        CacheKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// How much of it is on disks: by bytes, or by copies where no size is known.
    pub fn part(&self) -> f64 {
        #[expect(clippy::cast_precision_loss)]
        let part = |done: u64, total: u64| if total == 0 { 0.0 } else { done as f64 / total as f64 };
        match (self.warm, self.bytes_total) {
            (true, _) => 1.0,
            (false, 0) => part(self.copies.complete as u64, self.copies.total as u64),
            (false, total) => part(self.bytes_done, total),
        }
    }
}

fn copy_view(node: &str, phase: NodeStatus, detail: Option<&NodeCopy>, pace: Option<u64>) -> CopyView {
    let left = detail.and_then(|copy| {
        let left = copy.bytes_total?.checked_sub(copy.bytes_done?)?;
        u64::try_from(left).ok()
    });
    let seconds_left = left.zip(pace).filter(|(_, pace)| *pace > 0).map(|(left, pace)| left.div_ceil(pace));
    let detail = detail.cloned().map(|copy| Detail {
        bytes_done: copy.bytes_done,
        bytes_total: copy.bytes_total,
        reason: copy.reason.filter(|reason| !reason.is_empty()),
        message: copy.message.filter(|message| !message.is_empty()),
        started: copy.started,
        finished: copy.finished,
    });
    CopyView {
        node: node.to_owned(),
        state: phase.into(),
        phase,
        detail: detail.unwrap_or_default(),
        bytes_per_second: pace,
        seconds_left,
    }
}

/// By the nodes; by the sums of the status where it names no nodes.
fn count(nodes: &[CopyView], status: &CacheStatus) -> Counts {
    if nodes.is_empty() {
        let told = status.copies.clone().unwrap_or_default();
        let number = |count| usize::try_from(count).unwrap_or(0);
        let (failed, complete, total) = (number(told.failed), number(told.available), number(told.total));
        let waiting = total.saturating_sub(failed).saturating_sub(complete);
        return Counts { failed, waiting, complete, total, ..Counts::default() };
    }
    let of = |state| nodes.iter().filter(|copy| copy.state == state).count();
    Counts {
        failed: of(State::Failed),
        waiting: of(State::Waiting),
        node_not_ready: of(State::NodeNotReady),
        downloading: of(State::Downloading),
        complete: of(State::Complete),
        total: nodes.len(),
    }
}

fn worst(copies: &Counts, has_problems: bool) -> State {
    let states = [
        (copies.failed > 0, State::Failed),
        (has_problems || copies.total == 0, State::Blocked),
        (copies.waiting > 0, State::Waiting),
        (copies.node_not_ready > 0, State::NodeNotReady),
        (copies.downloading > 0, State::Downloading),
    ];
    states.iter().find(|(holds, _)| *holds).map_or(State::Complete, |(_, state)| *state)
}

fn sums(nodes: &[CopyView], copies: &Counts, asked: u64) -> (u64, u64) {
    let bytes = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let usual = nodes.iter().find_map(|copy| bytes(copy.detail.bytes_total)).unwrap_or(asked);
    if nodes.is_empty() {
        return (usual.saturating_mul(copies.complete as u64), usual.saturating_mul(copies.total as u64));
    }
    let copy = |copy: &CopyView| {
        let total = bytes(copy.detail.bytes_total).unwrap_or(usual);
        let complete = copy.state == State::Complete;
        (if complete { total } else { bytes(copy.detail.bytes_done).unwrap_or(0).min(total) }, total)
    };
    nodes.iter().map(copy).fold((0, 0), |(done, total), (d, t)| (total_of(done, d), total_of(total, t)))
}

fn total_of(a: u64, b: u64) -> u64 {
    a.saturating_add(b)
}

/// The conditions that name a problem, and why there is no copy where there is none.
fn problems(conditions: &[Condition], copies: &Counts) -> Vec<Told> {
    let told = |c: &Condition| Told { reason: c.reason.clone(), message: c.message.clone() };
    let named = conditions.iter().filter(|c| c.status == "True" && !SUMS.contains(&c.type_.as_str()));
    let mut problems: Vec<Told> = named.map(told).collect();
    if problems.is_empty() && copies.total == 0 {
        let ready = conditions.iter().find(|c| c.type_ == READY && c.status != "True");
        let silent = || {
            Told {
            reason: "NoNodes".into(),
            message: "no node is planned to keep it: see that the operator runs, that caching is enabled and that its node groups match nodes".into(),
        }
        };
        problems.push(ready.map_or_else(silent, told));
    }
    problems
}

/// The view of one node group.
pub fn group(group: &Group) -> GroupView {
    let status = group.status.as_ref();
    let ready = |c: &&Condition| {
        let holds = c.status == "True";
        if c.type_ == READY { !holds } else { holds && !SUMS.contains(&c.type_.as_str()) }
    };
    let conditions = status.into_iter().flat_map(|status| &status.conditions).filter(ready);
    // Ready repeats the first of the others.
    let problems: BTreeSet<Told> =
        conditions.map(|c| Told { reason: c.reason.clone(), message: c.message.clone() }).collect();
    GroupView {
        name: group.metadata.name.clone(),
        limit: group.spec.storage_limit.as_ref().map(|limit| limit.0.clone()),
        used: status.and_then(|status| Some(status.used.as_ref()?.0.clone())),
        available: status.and_then(|status| Some(status.available.as_ref()?.0.clone())),
        path: group.spec.path().map(Into::into),
        problems: problems.into_iter().collect(),
    }
}

/// The disks of a node that cannot be used.
pub fn bad_disks<'a>(
    node: &'a str,
    disks: &'a BTreeMap<String, DiskStatus>,
) -> impl Iterator<Item = DiskView> + 'a {
    disks.iter().filter_map(move |(group, disk)| {
        Some(DiskView {
            node_group: group.clone(),
            reason: disk.reason.clone()?,
            message: disk.message.clone().unwrap_or_default(),
            node: node.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests;
