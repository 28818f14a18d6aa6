//! What a node is to keep: the list in its `LocalModelNode`, a function of the node, the groups, the
//! caches, and what was planned there before.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::{Resource, ResourceExt};

use super::names::{self, CacheKey};
use super::selector;
use crate::api::node::{LocalModelNodeSpec, LocalModelNodeStatus, ModelEntry};
use crate::api::source::{is_storage_key, storage_key};
use crate::api::{CacheSpec, LocalModelCache, LocalModelNode, LocalModelNodeGroup, ModelStatus};

/// A cache as the plan sees it.
#[derive(Clone, Debug)]
pub struct PlannedCache<'a> {
    /// Which cache.
    pub key: CacheKey,
    /// What it asks for.
    pub spec: &'a CacheSpec,
    /// Whether it is in deletion; then nothing of it is planned any more.
    pub deleting: bool,
}

impl<'a> From<&'a LocalModelCache> for PlannedCache<'a> {
    fn from(cache: &'a LocalModelCache) -> Self {
        Self {
            key: CacheKey::cluster(cache.name_any()),
            spec: &cache.spec,
            deleting: cache.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// The groups that the node belongs to, sorted. A node of any group has a `LocalModelNode` (N1).
pub fn groups_of_node(node: &Node, groups: &[&LocalModelNodeGroup]) -> Vec<String> {
    let of_node = groups.iter().filter(|group| selector::matches(group.spec.node_selector(), node));
    let mut names: Vec<String> = of_node.map(|group| group.name_any()).collect();
    names.sort();
    names
}

/// The group through which a node keeps a cache: the first of the cache's groups that the node
/// matches (N2).
pub fn group_of<'a>(
    node: &Node,
    spec: &CacheSpec,
    groups: &[&'a LocalModelNodeGroup],
) -> Option<&'a LocalModelNodeGroup> {
    spec.node_groups.iter().find_map(|name| {
        let group = groups.iter().find(|group| group.name_any() == *name)?;
        selector::matches(group.spec.node_selector(), node).then_some(*group)
    })
}

/// The node's whole list, sorted: exactly one entry per cache that one of its groups asks for (N1).
/// While caching is disabled only what was planned before stays (C9).
pub fn entries(
    node: &Node,
    groups: &[&LocalModelNodeGroup],
    caches: &[PlannedCache],
    before: &[ModelEntry],
    enabled: bool,
) -> Vec<ModelEntry> {
    let mut entries: Vec<(CacheKey, ModelEntry)> = caches
        .iter()
        .filter(|cache| !cache.deleting)
        .filter_map(|cache| {
            let entry = entry(cache, &group_of(node, cache.spec, groups)?.name_any());
            let planned_before = || before.iter().any(|b| b.status_key() == entry.status_key());
            (enabled || planned_before()).then(|| (cache.key.clone(), entry))
        })
        .collect();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn entry(cache: &PlannedCache, group: &str) -> ModelEntry {
    let implied = cache.key.namespace.is_none() && cache.spec.node_groups.first().is_some_and(|g| g == group);
    ModelEntry {
        model_name: cache.key.name.clone(),
        source_model_uri: cache.spec.source_model_uri.clone(),
        namespace: cache.key.namespace.clone(),
        node_group: (!implied).then(|| group.to_owned()),
        service_account_name: cache.spec.service_account_name.clone(),
        storage: cache.spec.storage.clone(),
    }
}

/// The node's object: its list, and the groups that it belongs to.
pub fn local_model_node(node: &Node, entries: Vec<ModelEntry>, member_of: &[String]) -> LocalModelNode {
    let mut local = LocalModelNode::new(&node.name_any(), LocalModelNodeSpec { local_models: entries });
    local.metadata.labels = Some([(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned())].into());
    local.metadata.annotations = Some([(names::MEMBER_OF.to_owned(), member_of.join(","))].into());
    local.metadata.owner_references = node.owner_ref(&()).map(|owner| vec![owner]);
    local
}

/// The labels that say which copies are complete on a node, group by storage key (N2).
pub fn warm_labels(
    node: &Node,
    groups: &[&LocalModelNodeGroup],
    caches: &[PlannedCache],
    entries: &[ModelEntry],
    status: Option<&LocalModelNodeStatus>,
) -> BTreeMap<String, String> {
    let downloaded = |entry: &ModelEntry| {
        status.and_then(|s| s.model_status.get(&entry.status_key())) == Some(&ModelStatus::ModelDownloaded)
    };
    entries
        .iter()
        .filter(|entry| entry.namespace.is_none() && downloaded(entry))
        .filter_map(|entry| {
            let cache =
                caches.iter().find(|c| c.key.namespace.is_none() && c.key.name == entry.model_name)?;
            let group = group_of(node, cache.spec, groups)?.name_any();
            Some((names::warm_label(&storage_key(&entry.source_model_uri), None), names::label_value(&group)))
        })
        .collect()
}

/// What to change in a node's labels so that exactly `wanted` of ours are there; `None` takes one away.
pub fn label_changes(node: &Node, wanted: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let ours = |key: &&String| key.strip_prefix(names::WARM_PREFIX).is_some_and(is_storage_key);
    let stale = node.labels().keys().filter(ours).filter(|key| !wanted.contains_key(*key));
    let missing = wanted.iter().filter(|(key, value)| node.labels().get(*key) != Some(value));
    stale.map(|key| (key.clone(), None)).chain(missing.map(|(k, v)| (k.clone(), Some(v.clone())))).collect()
}

/// Whether the kubelet says that the node is ready.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests;
