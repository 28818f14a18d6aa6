//! The roll-up: from what nodes say of their copies to the status of a cache (N4, N6).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::entries::is_ready;
use super::names::CacheKey;
use super::text::{MESSAGE_MAX, REASON_MAX, cut_some};
use crate::api::cache::{ModelCopies, NodeCopy, NodeStatus};
use crate::api::node::Damage;
use crate::api::{LocalModelNode, ModelStatus};

/// A node that is to keep a copy is not ready.
pub const NODE_NOT_READY: &str = "NodeNotReady";

/// One planned copy: the node and what its `LocalModelNode` says, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Copy<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its object.
    pub local: Option<&'a LocalModelNode>,
}

/// The detail of each copy, by node.
pub fn nodes(cache: &CacheKey, copies: &[Copy]) -> BTreeMap<String, NodeCopy> {
    let key = cache.to_string();
    copies.iter().map(|copy| (copy.node.name_any(), node_copy(&key, copy))).collect()
}

fn node_copy(key: &str, copy: &Copy) -> NodeCopy {
    let status = copy.local.and_then(|l| l.status.as_ref());
    let detail = status.and_then(|s| s.models.get(key)).cloned().unwrap_or_default();
    let said = status.and_then(|s| s.model_status.get(key));
    let (phase, reason, message) = if is_ready(copy.node) {
        (phase(said), cut_some(detail.reason, REASON_MAX), cut_some(detail.message, MESSAGE_MAX))
    } else {
        (NodeStatus::NodeNotReady, Some(NODE_NOT_READY.into()), Some("node is NotReady".to_owned()))
    };
    NodeCopy {
        phase,
        bytes_done: detail.bytes_done,
        bytes_total: detail.bytes_total,
        files_done: detail.files_done,
        files_total: detail.files_total,
        reason,
        message,
        started: detail.started,
        finished: detail.finished,
        last_damage: detail.last_damage.map(Damage::cut),
    }
}

fn phase(said: Option<&ModelStatus>) -> NodeStatus {
    match said {
        Some(ModelStatus::ModelDownloading) => NodeStatus::NodeDownloading,
        Some(ModelStatus::ModelDownloaded) => NodeStatus::NodeDownloaded,
        Some(ModelStatus::ModelDownloadError) => NodeStatus::NodeDownloadError,
        Some(ModelStatus::ModelDownloadPending | ModelStatus::Unknown) | None => {
            NodeStatus::NodeDownloadPending
        }
    }
}

/// How many copies are in which phase.
pub fn count(nodes: &BTreeMap<String, NodeCopy>) -> ModelCopies {
    ModelCopies {
        available: of_phase(nodes, NodeStatus::NodeDownloaded),
        total: i32::try_from(nodes.len()).unwrap_or(i32::MAX),
        failed: of_phase(nodes, NodeStatus::NodeDownloadError),
    }
}

/// How many copies are in this phase.
pub fn of_phase(nodes: &BTreeMap<String, NodeCopy>, phase: NodeStatus) -> i32 {
    i32::try_from(nodes.values().filter(|copy| copy.phase == phase).count()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
