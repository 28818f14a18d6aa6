//! What a node is to keep: the list in its `LocalModelNode`, a function of the node, the groups, the
//! caches, and what was planned there before.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::capacity::{self, Waiting};
use super::names::{self, CacheKey};
use super::selector;
use crate::api::cache::{CacheStatus, NodeStatus};
use crate::api::node::{LocalModelNodeSpec, LocalModelNodeStatus, ModelEntry};
use crate::api::source::storage_key;
use crate::api::{
    CacheSpec, LocalModelCache, LocalModelNamespaceCache, LocalModelNode, LocalModelNodeGroup, ModelStatus,
};

mod wishes;

use wishes::{Ledgers, wishes};

/// A cache as the plan sees it.
#[derive(Clone, Debug)]
pub struct PlannedCache<'a> {
    /// Which cache.
    pub key: CacheKey,
    /// What it asks for.
    pub spec: &'a CacheSpec,
    /// When it was made: older caches come first among those that wait for room (C8).
    pub created: Option<Timestamp>,
    /// Whether it is in deletion, and nothing uses it; then nothing of it is planned any more.
    pub deleting: bool,
    /// Whether anything can download its source; else nothing new of it is planned (C7).
    pub fetchable: bool,
    /// The bytes of its smallest complete copy, which may be more than it asks for; 0 while there is none. What one
    /// node says beside others makes it no larger.
    pub measured: i128,
}

impl PlannedCache<'_> {
    /// The bytes that it takes on each node; `None` when what it asks for cannot be read, or is nothing.
    pub fn size(&self) -> Option<i128> {
        capacity::asked(self.spec).map(|asked| asked.max(self.measured))
    }
}

/// The bytes of a cache's smallest complete copy.
fn measured(status: Option<&CacheStatus>) -> i128 {
    let nodes = status.into_iter().flat_map(|status| status.nodes.values());
    let complete = nodes.filter(|copy| copy.phase == NodeStatus::NodeDownloaded);
    complete.filter_map(|copy| copy.bytes_total).min().unwrap_or(0).into()
}

/// What is planned on a node, and what does not fit there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePlan {
    /// The node's whole list, sorted.
    pub entries: Vec<ModelEntry>,
    /// What waits for room, the oldest first.
    pub waiting: Vec<Waiting>,
    /// The bytes that each entry is planned with, by status key; none where its size cannot be read.
    pub sizes: BTreeMap<String, u64>,
}

impl<'a> From<&'a LocalModelCache> for PlannedCache<'a> {
    fn from(cache: &'a LocalModelCache) -> Self {
        Self {
            key: CacheKey::cluster(cache.name_any()),
            spec: &cache.spec,
            created: created(&cache.metadata),
            deleting: cache.metadata.deletion_timestamp.is_some(),
            fetchable: true,
            measured: measured(cache.status.as_ref()),
        }
    }
}

impl<'a> From<&'a LocalModelNamespaceCache> for PlannedCache<'a> {
    fn from(cache: &'a LocalModelNamespaceCache) -> Self {
        Self {
            key: CacheKey { namespace: cache.namespace(), name: cache.name_any() },
            spec: &cache.spec,
            created: created(&cache.metadata),
            deleting: cache.metadata.deletion_timestamp.is_some(),
            fetchable: true,
            measured: measured(cache.status.as_ref()),
        }
    }
}

fn created(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.creation_timestamp.as_ref().map(|time| time.0)
}

/// The groups that the node belongs to, sorted. A node of any group has a `LocalModelNode` (N1).
pub fn groups_of_node(node: &Node, groups: &[&LocalModelNodeGroup]) -> Vec<String> {
    let of_node = groups.iter().filter(|group| selector::matches(group.spec.node_selector(), node));
    let mut names: Vec<String> = of_node.map(|group| group.name_any()).collect();
    names.sort();
    names
}

/// Whether a node belongs to one of a cache's groups.
fn is_of_group(node: &Node, spec: &CacheSpec, groups: &[&LocalModelNodeGroup]) -> bool {
    let mut of_cache = groups.iter().filter(|group| spec.node_groups.contains(&group.name_any()));
    of_cache.any(|group| selector::matches(group.spec.node_selector(), node))
}

/// The node's whole list, sorted: at most one entry per cache that one of its groups asks for (N1). A copy
/// that was planned before keeps its place, also where another cache asks for it now than then; what is new
/// is planned where there is room for it, older caches first (C8), and not while caching is disabled (C9).
pub fn entries(
    node: &Node,
    groups: &[&LocalModelNodeGroup],
    caches: &[PlannedCache],
    before: &[ModelEntry],
    enabled: bool,
) -> NodePlan {
    let mut wishes = wishes(node, groups, caches, before);
    wishes.sort_by_key(|wish| (wish.cache.created, &wish.cache.key.name, &wish.cache.key.namespace));
    let mut ledgers = Ledgers::default();
    for wish in &mut wishes {
        if let Some(held) = wish.held {
            wish.size = wish.size.map(|size| ledgers.room.granted(held.name, wish.copy, size, held.share));
            ledgers.room.keep(held.name, wish.copy, wish.size.unwrap_or(0));
            ledgers.list.keep(wish.copy.0, wish.bytes_held());
        }
    }
    let mut waiting = Vec::new();
    let mut entries = Vec::new();
    let mut sizes = BTreeMap::new();
    for wish in wishes.iter().filter(|wish| enabled || wish.held.is_some()) {
        let (group, short) = wish.place(&mut ledgers, enabled);
        waiting.extend(short);
        let Some(group) = group else { continue };
        let (entry, short) = wish.listed(&mut ledgers.list, group);
        waiting.extend(short.or_else(|| wish.waits_for_share(&ledgers.room)));
        // A download may not be as large as a copy that was measured, but as its cache says.
        let size = wish.size.min(capacity::asked(wish.cache.spec));
        sizes.extend(size.and_then(|size| Some((entry.status_key(), size.try_into().ok()?))));
        entries.push((&wish.cache.key, entry));
    }
    entries.sort_by_key(|(key, _)| *key);
    NodePlan { entries: entries.into_iter().map(|(_, entry)| entry).collect(), waiting, sizes }
}

/// The group through which an entry's node keeps it: the cache's first where it names none.
pub fn group_of_entry<'a>(entry: &'a ModelEntry, spec: &'a CacheSpec) -> Option<&'a str> {
    entry
        .node_group
        .as_deref()
        .filter(|group| !group.is_empty())
        .or(spec.node_groups.first().map(String::as_str))
}

/// What a node is for one cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It keeps the cache, or will.
    Planned,
    /// It keeps the cache as it was: its list has no space for what has changed.
    Outdated(Waiting),
    /// It has no room for it.
    Waiting(Waiting),
    /// Nothing is asked of it.
    Nowhere,
}

/// What a node is for one of the caches. Its list may be about to be written: the plan says what it will be.
pub fn place(
    cache: &PlannedCache,
    node: &Node,
    groups: &[&LocalModelNodeGroup],
    caches: &[PlannedCache],
    local: Option<&LocalModelNode>,
    enabled: bool,
) -> Place {
    let is_it = |entry: &ModelEntry| {
        CacheKey::of(entry) == cache.key && entry.source_model_uri == cache.spec.source_model_uri
    };
    let listed = local.and_then(|local| local.spec.local_models.iter().find(|entry| is_it(entry)));
    if !is_of_group(node, cache.spec, groups) {
        return Place::Nowhere;
    }
    let is_shared = |group: &&&LocalModelNodeGroup| {
        capacity::share(group).is_some() && cache.spec.node_groups.contains(&group.name_any())
    };
    let has_share = cache.key.namespace.is_some() && groups.iter().any(|group| is_shared(&group));
    let is_current = |listed: &ModelEntry| {
        listed.storage == cache.spec.storage
            && listed.service_account_name == cache.spec.service_account_name
            && !has_share
    };
    if listed.is_some_and(is_current) {
        return Place::Planned;
    }
    if !enabled {
        return if listed.is_some() { Place::Planned } else { Place::Nowhere };
    }
    let plan = entries(node, groups, caches, &planned_before(node, caches, local), enabled);
    let waits = plan.waiting.into_iter().find(|waiting| waiting.cache == cache.key);
    match (plan.entries.iter().any(is_it), waits) {
        (true, None) => Place::Planned,
        (true, Some(waits)) => Place::Outdated(waits),
        (false, waits) => waits.map_or(Place::Nowhere, Place::Waiting),
    }
}

/// What was planned on a node. Where its object is gone, the node's own labels still say which copies are
/// there: they keep their place too (D4).
pub fn planned_before<'a>(
    node: &Node,
    caches: &[PlannedCache],
    local: Option<&'a LocalModelNode>,
) -> Cow<'a, [ModelEntry]> {
    if let Some(local) = local {
        return Cow::Borrowed(&local.spec.local_models);
    }
    let warm = |cache: &PlannedCache| {
        let key = storage_key(&cache.spec.source_model_uri);
        let value = node.labels().get(&names::warm_label(&key, cache.key.namespace.as_deref()))?;
        let group = cache.spec.node_groups.iter().find(|group| names::label_value(group) == *value)?;
        Some(entry(cache, group))
    };
    caches.iter().filter(|cache| !cache.deleting).filter_map(warm).collect()
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
        model_size: None,
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

/// The labels that say which copies are complete on a node, group by storage key (N2). Where no agent has spoken
/// of a copy since the node's object was made, its label stays: it says what has its place there until one does
/// (D4, C8).
pub fn warm_labels(
    node: &Node,
    caches: &[PlannedCache],
    entries: &[ModelEntry],
    status: Option<&LocalModelNodeStatus>,
) -> BTreeMap<String, String> {
    let said = |entry: &ModelEntry| status.and_then(|s| s.model_status.get(&entry.status_key()));
    entries
        .iter()
        .filter_map(|entry| {
            let cache = caches.iter().find(|cache| cache.key == CacheKey::of(entry))?;
            let group = group_of_entry(entry, cache.spec)?;
            let label = names::warm_label(&storage_key(&entry.source_model_uri), entry.namespace());
            let is_warm = match said(entry) {
                Some(phase) => *phase == ModelStatus::ModelDownloaded,
                None => node.labels().contains_key(&label),
            };
            is_warm.then(|| (label, names::label_value(group)))
        })
        .collect()
}

/// The warm labels that stay on a node that is of no group any more: where it comes back they say what has
/// its place there, so that a label that flaps costs nothing (N5).
pub fn labels_to_come_back_to(node: &Node, caches: &[PlannedCache]) -> BTreeMap<String, String> {
    let is_of = |cache: &PlannedCache, label: &str| {
        let key = storage_key(&cache.spec.source_model_uri);
        !cache.deleting && names::warm_label(&key, cache.key.namespace.as_deref()) == label
    };
    let stays = |label: &str| names::is_warm_label(label) && caches.iter().any(|cache| is_of(cache, label));
    let labels = node.labels().iter().filter(|(label, _)| stays(label));
    labels.map(|(label, group)| (label.clone(), group.clone())).collect()
}

/// What to change in a node's labels so that exactly `wanted` of ours are there; `None` takes one away.
pub fn label_changes(node: &Node, wanted: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let stale =
        node.labels().keys().filter(|key| names::is_warm_label(key)).filter(|key| !wanted.contains_key(*key));
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
