//! What a node is to keep: the list in its `LocalModelNode`, a function of the node, the groups, the
//! caches, and what was planned there before.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::capacity::{self, Ledger, Waiting};
use super::names::{self, CacheKey};
use super::selector;
use crate::api::cache::{CacheStatus, NodeStatus};
use crate::api::node::{LocalModelNodeSpec, LocalModelNodeStatus, ModelEntry};
use crate::api::source::storage_key;
use crate::api::{
    CacheSpec, LocalModelCache, LocalModelNamespaceCache, LocalModelNode, LocalModelNodeGroup, ModelStatus,
};

/// A cache as the plan sees it.
#[derive(Clone, Debug)]
pub struct PlannedCache<'a> {
    /// Which cache.
    pub key: CacheKey,
    /// What it asks for.
    pub spec: &'a CacheSpec,
    /// When it was made: older caches come first among those that wait for room (C8).
    pub created: Option<Timestamp>,
    /// Whether it is in deletion; then nothing of it is planned any more.
    pub deleting: bool,
    /// Whether anything can download its source; else nothing new of it is planned (C7).
    pub fetchable: bool,
    /// The bytes of its largest complete copy, which may be more than it asks for; 0 while there is none.
    pub measured: i128,
}

impl PlannedCache<'_> {
    /// The bytes that it takes on each node; `None` when what it asks for cannot be read, or is nothing.
    pub fn size(&self) -> Option<i128> {
        capacity::asked(self.spec).map(|asked| asked.max(self.measured))
    }
}

/// The bytes of a cache's largest complete copy.
fn measured(status: Option<&CacheStatus>) -> i128 {
    let nodes = status.into_iter().flat_map(|status| status.nodes.values());
    let complete = nodes.filter(|copy| copy.phase == NodeStatus::NodeDownloaded);
    complete.filter_map(|copy| copy.bytes_total).max().unwrap_or(0).into()
}

/// What is planned on a node, and what does not fit there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePlan {
    /// The node's whole list, sorted.
    pub entries: Vec<ModelEntry>,
    /// What waits for room, the oldest first.
    pub waiting: Vec<Waiting>,
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
    let mut ledger = Ledger::default();
    for wish in &wishes {
        if let Some(held) = wish.held {
            ledger.keep(held, wish.copy, wish.size.unwrap_or(0));
        }
    }
    let mut waiting = Vec::new();
    let mut entries = Vec::new();
    for wish in wishes.iter().filter(|wish| enabled || wish.held.is_some()) {
        match wish.place(&mut ledger, enabled) {
            Some(group) => entries.push((&wish.cache.key, entry(wish.cache, group))),
            None => waiting.extend(wish.waits(&ledger)),
        }
    }
    entries.sort_by_key(|(key, _)| *key);
    NodePlan { entries: entries.into_iter().map(|(_, entry)| entry).collect(), waiting }
}

/// A cache that one of the node's groups asks for.
struct Wish<'a> {
    cache: &'a PlannedCache<'a>,
    /// The group through which the node is to keep it, the first that the node matches (N2), and the bytes
    /// that it allows.
    group: (&'a str, Option<i128>),
    /// The group through which its copy was planned before, if that can still be.
    held: Option<&'a str>,
    copy: capacity::Copy<'a>,
    size: Option<i128>,
}

impl<'a> Wish<'a> {
    /// The group through which the node keeps it, if any can. What was planned through another of its
    /// groups goes over where there is room, and else stays (N2, C8).
    fn place(&self, ledger: &mut Ledger<'a>, enabled: bool) -> Option<&'a str> {
        let (group, allowed) = self.group;
        if !enabled || !self.cache.fetchable || self.held == Some(group) {
            return self.held;
        }
        let Some(size) = self.size else { return self.held };
        if !ledger.fits(group, self.copy, size, allowed) {
            return self.held;
        }
        if let Some(held) = self.held {
            ledger.give_up(held, self.copy, size);
        }
        ledger.keep(group, self.copy, size);
        Some(group)
    }

    /// What it waits for; nothing where its size or source makes no sense, which is told elsewhere.
    fn waits(&self, ledger: &Ledger) -> Option<Waiting> {
        if !self.cache.fetchable {
            return None;
        }
        let (group, allowed) = self.group;
        Some(Waiting {
            cache: self.cache.key.clone(),
            group: group.to_owned(),
            asked: self.size?,
            used: ledger.used_beside(group, self.copy),
            allowed,
        })
    }
}

fn wishes<'a>(
    node: &Node,
    groups: &[&LocalModelNodeGroup],
    caches: &'a [PlannedCache<'a>],
    before: &[ModelEntry],
) -> Vec<Wish<'a>> {
    let of_node = groups.iter().filter(|group| selector::matches(group.spec.node_selector(), node));
    let limits: HashMap<String, Option<i128>> =
        of_node.map(|group| (group.name_any(), capacity::allowed(group).ok())).collect();
    let by_key: HashMap<&CacheKey, &PlannedCache> = caches.iter().map(|cache| (&cache.key, cache)).collect();
    let mut planned = HashMap::<capacity::Copy, Vec<Held>>::new();
    for held in before.iter().filter_map(|entry| Held::of(entry, by_key.get(&CacheKey::of(entry)).copied())) {
        planned.entry((held.entry.namespace(), &held.entry.source_model_uri)).or_default().push(held);
    }
    let wish = |cache: &'a PlannedCache<'a>| {
        let mut of_both = cache.spec.node_groups.iter().filter(|name| limits.contains_key(*name));
        let mut names = of_both.clone();
        let first = names.next()?;
        let copy = (cache.key.namespace.as_deref(), cache.spec.source_model_uri.as_str());
        let held = |name: &&String| {
            let mut of_copy = planned.get(&copy).into_iter().flatten();
            of_copy.any(|held| held.group == name.as_str() && held.is_for(cache))
        };
        Some(Wish {
            cache,
            group: (first, limits[first]),
            held: of_both.find(held).map(String::as_str),
            copy,
            size: cache.size(),
        })
    };
    caches.iter().filter(|cache| !cache.deleting).filter_map(wish).collect()
}

/// The place that an entry keeps for its copy.
struct Held<'a> {
    entry: &'a ModelEntry,
    group: &'a str,
    /// Whether the cache that it was planned for asks for it no more: then whichever does has its place.
    is_left: bool,
}

impl<'a> Held<'a> {
    /// By the cache of the entry's name, if there is one; nothing where the entry does not name its group, and
    /// the cache that would tell has gone.
    fn of(entry: &'a ModelEntry, named: Option<&'a PlannedCache<'a>>) -> Option<Self> {
        let cache = named.filter(|cache| cache.spec.source_model_uri == entry.source_model_uri);
        let group = match cache {
            Some(cache) => group_of_entry(entry, cache.spec)?,
            None => entry.node_group.as_deref()?,
        };
        let asks =
            |cache: &PlannedCache| !cache.deleting && cache.spec.node_groups.iter().any(|name| name == group);
        Some(Self { entry, group, is_left: !cache.is_some_and(asks) })
    }

    fn is_for(&self, cache: &PlannedCache) -> bool {
        self.is_left || CacheKey::of(self.entry) == cache.key
    }
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
    let is_listed = || local.is_some_and(|local| local.spec.local_models.iter().any(is_it));
    if !is_of_group(node, cache.spec, groups) {
        return Place::Nowhere;
    }
    if is_listed() {
        return Place::Planned;
    }
    if !enabled {
        return Place::Nowhere;
    }
    let plan = entries(node, groups, caches, &planned_before(node, caches, local), enabled);
    if plan.entries.iter().any(is_it) {
        return Place::Planned;
    }
    let waits = plan.waiting.into_iter().find(|waiting| waiting.cache == cache.key);
    waits.map_or(Place::Nowhere, Place::Waiting)
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
