//! The node group of a pod that names none: the first of the cache's groups that the pod can run on.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PodSpec};
use kube::ResourceExt;

use crate::api::LocalModelNodeGroup;
use crate::plan::selector;

/// The first group with a node that the pod's own constraints allow. Where no node is allowed now, nodes
/// may come: then the first group that has none yet, or the first of all.
pub(super) fn group<'a>(
    pod: &PodSpec,
    names: &'a [String],
    groups: &[Arc<LocalModelNodeGroup>],
    nodes: &[Arc<Node>],
) -> &'a str {
    let first = names.first().map_or("", String::as_str);
    if names.len() < 2 {
        return first;
    }
    let has_one = |name: &str, nodes: &[&Node]| {
        let group = groups.iter().find(|group| group.name_any() == name);
        let selector = group.and_then(|group| group.spec.node_selector());
        nodes.iter().any(|node| selector::matches(selector, node))
    };
    let nodes: Vec<&Node> = nodes.iter().map(|node| &**node).collect();
    let allowed: Vec<&Node> = nodes.iter().copied().filter(|node| allows(pod, node)).collect();
    let chosen = names.iter().find(|name| has_one(name, &allowed));
    chosen.or_else(|| names.iter().find(|name| !has_one(name, &nodes))).map_or(first, String::as_str)
}

/// Whether the pod's node name, node selector and required affinity allow a node.
fn allows(pod: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    pod.node_name.as_ref().is_none_or(|name| name.is_empty() || *name == node.name_any())
        && pod.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && (required.is_none() || selector::matches(required, node))
}
