//! The status of a node group: how full its nodes are planned, and what stands in its way (G6, G7).

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use kube::ResourceExt;

use super::admission::list;
use super::agent_pods;
use super::capacity::{self, Ledger};
use super::conditions::{Statement, conditions};
use super::entries::{PlannedCache, group_of_entry};
use super::names::{self, CacheKey};
use crate::api::node_group::LocalModelNodeGroupStatus;
use crate::api::quantity::exact;
use crate::api::{CacheSpec, LocalModelNode, LocalModelNodeGroup};

/// The group's `storageLimit` cannot be read (G7).
pub const INVALID_STORAGE_LIMIT: &str = "InvalidStorageLimit";
/// More is planned on a node than the group allows: it was so before, or a limit was lowered, or a model
/// has become larger (C8).
pub const STORAGE_LIMIT_EXCEEDED: &str = "StorageLimitExceeded";

/// A node's agent cannot use its disk, or has no room left on it (A2).
pub const DISK_UNUSABLE: &str = "DiskUnusable";

/// The bytes that are planned for one group on each node (G6).
pub type Usage = BTreeMap<String, i128>;

/// The planned bytes of a group, from the nodes' lists.
pub fn usage(group: &str, nodes: &[&LocalModelNode], caches: &[PlannedCache]) -> Usage {
    let specs: HashMap<&CacheKey, &CacheSpec> = caches.iter().map(|cache| (&cache.key, cache.spec)).collect();
    let of_node = |node: &&LocalModelNode| {
        let mut ledger = Ledger::default();
        for entry in &node.spec.local_models {
            let Some(spec) = specs.get(&CacheKey::of(entry)) else { continue }; // it is about to go
            if group_of_entry(entry, spec) == Some(group) {
                let copy = (entry.namespace(), entry.source_model_uri.as_str());
                ledger.keep(group, copy, capacity::asked(spec).unwrap_or(0));
            }
        }
        (node.name_any(), ledger.used(group))
    };
    nodes.iter().map(of_node).filter(|(_, used)| *used > 0).collect()
}

/// What the group's agents say of disks that they cannot use.
pub fn disks(group: &str, nodes: &[&LocalModelNode]) -> Option<Statement> {
    let said = |node: &&LocalModelNode| {
        if !names::is_member(node, group) {
            return None; // it has left, and nobody mends what it said
        }
        let disk = node.status.as_ref()?.disks.get(group)?;
        let reason = disk.reason.as_ref()?;
        Some(format!("on {}: {}", node.name_any(), disk.message.as_ref().unwrap_or(reason)))
    };
    let mut said: Vec<String> = nodes.iter().filter_map(said).collect();
    said.sort();
    (!said.is_empty()).then(|| Statement::problem(DISK_UNUSABLE, list(&said)))
}

/// What a group's status is made from.
#[derive(Debug)]
pub struct View<'a> {
    /// The group, with its status before.
    pub group: &'a LocalModelNodeGroup,
    /// What is planned on its nodes.
    pub usage: &'a Usage,
    /// What is told of disks that cannot be used.
    pub disks: Option<Statement>,
    /// What stands in the way of its agents.
    pub problems: Vec<Statement>,
    /// Why its agents do not run, by node (G8).
    pub stuck: &'a BTreeMap<String, String>,
    /// The time of this look.
    pub now: Timestamp,
}

/// The whole status. A limit that is exceeded, and nodes where the agent does not run, stand beside `Ready`:
/// the other agents work all the same.
pub fn status(view: &View) -> LocalModelNodeGroupStatus {
    let before = view.group.status.clone().unwrap_or_default();
    let fullest = view.usage.values().copied().max().unwrap_or(0);
    let allowed = capacity::allowed(view.group);
    let mut statements = view.problems.clone();
    if let Err(error) = &allowed {
        let message = format!("storageLimit cannot be read: {error}; until it can, nothing new is planned");
        statements.push(Statement::problem(INVALID_STORAGE_LIMIT, message));
    }
    statements.push(match statements.first() {
        None => Statement::ready(true, "AgentsApplied", "volumes and agents are as wanted"),
        Some(problem) => Statement::ready(false, &problem.reason, problem.message.clone()),
    });
    let allowed = allowed.ok();
    statements.extend(agent_pods::problem_of_group(view.stuck));
    statements.extend(allowed.and_then(|allowed| exceeded(view.usage, allowed)));
    statements.extend(view.disks.clone());
    LocalModelNodeGroupStatus {
        used: Some(exact(fullest)),
        available: allowed.map(|allowed| exact((allowed - fullest).max(0))),
        conditions: conditions(&statements, &before.conditions, view.group.metadata.generation, view.now),
    }
}

fn exceeded(usage: &Usage, allowed: i128) -> Option<Statement> {
    let over = usage.iter().filter(|(_, used)| **used > allowed);
    let over: Vec<String> = over.map(|(node, used)| format!("{} on {node}", exact(*used).0)).collect();
    let message = || {
        format!(
            "more is planned than the {} that storageLimit allows on a node: {}; it stays, and nothing new is planned there until caches are deleted or storageLimit is raised",
            exact(allowed).0,
            list(&over)
        )
    };
    (!over.is_empty()).then(|| Statement::problem(STORAGE_LIMIT_EXCEEDED, message()))
}

#[cfg(test)]
mod tests;
