//! The status of a node group: how full its nodes are planned, and what stands in its way (G6, G7).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use super::admission::list;
use super::agent_pods::{self, Stuck};
use super::capacity::{self, Ledger};
use super::conditions::{Statement, conditions};
use super::copies::NODE_NOT_READY;
use super::entries::{self, PlannedCache, group_of_entry};
use super::names::{self, CacheKey};
use super::pass::DISK_FULL;
use super::selector;
use super::sizes;
use super::text::{MESSAGE_MAX, REASON_MAX, cut};
use crate::api::node_group::LocalModelNodeGroupStatus;
use crate::api::quantity::{self, at_least, at_most, human};
use crate::api::{LocalModelNode, LocalModelNodeGroup};

/// The group's `storageLimit` cannot be read (G7).
pub const INVALID_STORAGE_LIMIT: &str = "InvalidStorageLimit";
/// More is planned on a node than the group allows: it was so before, or a limit was lowered, or a model
/// has become larger (C8).
pub const STORAGE_LIMIT_EXCEEDED: &str = "StorageLimitExceeded";

/// `storageLimit` is more than a disk of the group holds.
pub const STORAGE_LIMIT_TOO_LARGE: &str = "StorageLimitTooLarge";

/// A node's agent cannot use its disk, or has no room left on it (A2).
pub const DISK_UNUSABLE: &str = "DiskUnusable";

/// The bytes that are planned for one group on each node (G6).
pub type Usage = BTreeMap<String, i128>;

/// The planned bytes of a group, from the nodes' lists.
pub fn usage(group: &str, nodes: &[&LocalModelNode], caches: &[PlannedCache]) -> Usage {
    let caches: HashMap<&CacheKey, &PlannedCache> = caches.iter().map(|cache| (&cache.key, cache)).collect();
    let of_node = |node: &&LocalModelNode| {
        let mut ledger = Ledger::default();
        let sizes = sizes::of(node);
        for entry in &node.spec.local_models {
            let Some(cache) = caches.get(&CacheKey::of(entry)) else { continue }; // it is about to go
            if group_of_entry(entry, cache.spec) == Some(group) {
                let copy = (entry.namespace(), entry.source_model_uri.as_str());
                let planned = sizes.get(&entry.status_key()).map(|size| i128::from(*size));
                // A size that was measured is planned with, too.
                let planned = planned.map(|size| size.max(cache.measured)).or_else(|| cache.size());
                ledger.keep(group, copy, planned.unwrap_or(0));
            }
        }
        (node.name_any(), ledger.used(group))
    };
    nodes.iter().map(of_node).filter(|(_, used)| *used > 0).collect()
}

/// What the agents of a group say of their disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disks(BTreeMap<String, Disk>);

/// What one agent says of its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Disk {
    capacity: Option<i128>,
    free: Option<i128>,
    problem: Option<(String, String)>,
    /// Whether nothing has been said yet.
    is_silent: bool,
}

/// The disks of a group, from the nodes' objects.
pub fn disks(group: &str, nodes: &[&LocalModelNode]) -> Disks {
    let disk = |node: &&LocalModelNode| {
        if !names::is_member(node, group) {
            return None; // it has left, and nobody updates what it said
        }
        let said = node.status.as_ref().and_then(|status| status.disks.get(group));
        let Some(said) = said else {
            return Some((node.name_any(), Disk { is_silent: true, ..Disk::default() }));
        };
        let bytes = |of: &Option<Quantity>| of.as_ref().and_then(|of| quantity::bytes(of).ok());
        let problem = said.reason.as_ref();
        let problem = problem.map(|reason| {
            (cut(reason, REASON_MAX), cut(said.message.as_ref().unwrap_or(reason), MESSAGE_MAX))
        });
        let disk =
            Disk { capacity: bytes(&said.capacity), free: bytes(&said.free), problem, is_silent: false };
        Some((node.name_any(), disk))
    };
    Disks(nodes.iter().filter_map(disk).collect())
}

impl Disks {
    /// The disks that cannot be used, of those nodes that are ready.
    fn unusable(&self, ready: &BTreeSet<String>) -> Option<Statement> {
        let of_ready = self.0.iter().filter(|(node, _)| ready.contains(*node));
        let told = of_ready
            .filter_map(|(node, disk)| Some(format!("on {node}: {}", disk.problem.as_ref()?.1)))
            .collect::<Vec<_>>();
        (!told.is_empty()).then(|| Statement::problem(DISK_UNUSABLE, list(&told)))
    }

    /// The nodes whose agents have not said anything yet.
    fn silent(&self) -> impl Iterator<Item = &String> {
        self.0.iter().filter(|(_, disk)| disk.is_silent).map(|(node, _)| node)
    }

    /// What is told of a limit that a disk can never give.
    fn too_small(&self, allowed: i128, limit: &str) -> Option<Statement> {
        let small = self.0.iter().filter_map(|(node, disk)| Some((node, disk.capacity?)));
        let small = small.filter(|(_, capacity)| *capacity < allowed);
        let small: Vec<String> =
            small.map(|(node, capacity)| format!("{} on {node}", human(capacity))).collect();
        let message = || {
            format!(
                "storageLimit is {limit}, but the disk is smaller: {}; lower storageLimit to what the disks hold",
                list(&small)
            )
        };
        (!small.is_empty()).then(|| Statement::problem(STORAGE_LIMIT_TOO_LARGE, message()))
    }
}

/// What a group's status is made from.
#[derive(Debug)]
pub struct View<'a> {
    /// The group, with its status before.
    pub group: &'a LocalModelNodeGroup,
    /// All nodes.
    pub nodes: &'a [&'a Node],
    /// What is planned on its nodes.
    pub usage: &'a Usage,
    /// What is said of its disks.
    pub disks: &'a Disks,
    /// What stands in the way of its agents.
    pub problems: Vec<Statement>,
    /// How its agents run (G8).
    pub agents: &'a Stuck,
    /// The time of this look.
    pub now: Timestamp,
}

/// The whole status. A limit that is exceeded stands beside `Ready`: what is there works all the same.
pub fn status(view: &View) -> LocalModelNodeGroupStatus {
    let before = view.group.status.clone().unwrap_or_default();
    let fullest = view.usage.values().copied().max().unwrap_or(0);
    let allowed = capacity::allowed(view.group);
    let mut statements = view.problems.clone();
    if let Err(error) = &allowed {
        let message = format!("storageLimit cannot be read: {error}; until it can, nothing new is planned");
        statements.push(Statement::problem(INVALID_STORAGE_LIMIT, message));
    }
    let ready = |node: &&&Node| entries::is_ready(node);
    let ready: BTreeSet<String> = members(view).filter(ready).map(|node| node.name_any()).collect();
    statements.extend(agent_pods::problem_of_group(&view.agents.agents));
    statements.extend(view.disks.unusable(&ready));
    statements.push(self::ready(view, &statements, &ready));
    let (allowed, limit) = (allowed.ok(), view.group.spec.storage_limit.0.as_str());
    statements.extend(allowed.and_then(|allowed| exceeded(view.usage, allowed, limit)));
    statements.extend(allowed.and_then(|allowed| view.disks.too_small(allowed, limit)));
    LocalModelNodeGroupStatus {
        used: Some(at_least(fullest)),
        available: allowed.map(|allowed| at_most(available(view, allowed))),
        conditions: conditions(&statements, &before.conditions, view.group.metadata.generation, view.now),
    }
}

/// The nodes of the group.
fn members<'a>(view: &'a View<'a>) -> impl Iterator<Item = &'a &'a Node> {
    view.nodes.iter().filter(|node| selector::matches(view.group.spec.node_selector(), node))
}

/// `Ready`: on every node that is ready an agent runs and can use its disk. What is not known yet does not count
/// as well.
fn ready(view: &View, problems: &[Statement], ready: &BTreeSet<String>) -> Statement {
    if let Some(problem) = problems.first() {
        return Statement::ready(false, &problem.reason, problem.message.clone());
    }
    if members(view).next().is_none() {
        return Statement::ready(
            false,
            "NoNodes",
            "no node matches persistentVolumeSpec.nodeAffinity.required",
        );
    }
    if ready.is_empty() {
        return Statement::ready(false, NODE_NOT_READY, "all nodes of the group are NotReady");
    }
    let silent = view.disks.silent().filter(|node| ready.contains(*node));
    let starting: BTreeSet<&String> = view.agents.starting.iter().chain(silent).collect();
    if !starting.is_empty() {
        let starting: Vec<String> = starting.into_iter().cloned().collect();
        let message = format!("the agents on {} have not reported their disks yet", list(&starting));
        return Statement::ready(false, "AgentsStarting", message);
    }
    Statement::ready(true, "AgentsApplied", "volumes and agents are up to date")
}

/// What is left on the node that has least: of the limit, and of its disk.
fn available(view: &View, allowed: i128) -> i128 {
    let nodes: BTreeSet<&String> = view.usage.keys().chain(view.disks.0.keys()).collect();
    let of_node = |node: &String| {
        let of_limit = (allowed - view.usage.get(node).copied().unwrap_or(0)).max(0);
        let disk = view.disks.0.get(node);
        let is_full =
            disk.and_then(|disk| disk.problem.as_ref()).is_some_and(|(reason, _)| reason == DISK_FULL);
        let free = if is_full { Some(0) } else { disk.and_then(|disk| disk.free) };
        free.map_or(of_limit, |free| of_limit.min(free))
    };
    nodes.into_iter().map(of_node).min().unwrap_or(allowed)
}

fn exceeded(usage: &Usage, allowed: i128, limit: &str) -> Option<Statement> {
    let over = usage.iter().filter(|(_, used)| **used > allowed);
    let over: Vec<String> = over.map(|(node, used)| format!("{} on {node}", human(*used))).collect();
    let message = || {
        format!(
            "more is planned than storageLimit {limit} allows per node: {}; it stays, and nothing new is planned there until caches are deleted or storageLimit is raised",
            list(&over)
        )
    };
    (!over.is_empty()).then(|| Statement::problem(STORAGE_LIMIT_EXCEEDED, message()))
}

#[cfg(test)]
mod tests;
