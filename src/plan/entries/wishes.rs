//! What caches ask of one node, and what of it the node has space for.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::{PlannedCache, entry, group_of_entry};
use crate::api::LocalModelNodeGroup;
use crate::api::node::ModelEntry;
use crate::plan::capacity::{self, Ledger, Limit, Waiting};
use crate::plan::list_budget::{self, Full, ListLedger};
use crate::plan::names::CacheKey;
use crate::plan::selector;

/// What is taken of a node already.
#[derive(Default)]
pub(super) struct Ledgers<'a> {
    pub(super) room: Ledger<'a>,
    pub(super) list: ListLedger<'a>,
}

/// A group with what it allows on a node.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) name: &'a str,
    /// The bytes that it allows; `None` where that cannot be read.
    allowed: Option<i128>,
    /// The bytes that it allows each namespace, where it sets a share.
    pub(super) share: Option<i128>,
}

/// A cache that one of the node's groups asks for.
pub(super) struct Wish<'a> {
    pub(super) cache: &'a PlannedCache<'a>,
    /// The group through which the node is to keep it, the first that the node matches (N2).
    group: Asked<'a>,
    /// The group through which its copy was planned before, if that can still be.
    pub(super) held: Option<Asked<'a>>,
    /// Its entry as it stands in the list.
    before: Option<&'a ModelEntry>,
    pub(super) copy: capacity::Copy<'a>,
    /// The bytes that it asks for.
    asked: Option<i128>,
    /// The bytes that it is planned with: of a copy that has its place already no more than its namespace's share.
    pub(super) size: Option<i128>,
}

impl<'a> Wish<'a> {
    /// The group through which the node keeps it, or what it waits for. What was planned through another of its
    /// groups goes over where there is room, and else stays (N2, C8). Nothing is said where its size or source makes
    /// no sense, which is told elsewhere.
    pub(super) fn place(
        &self,
        ledgers: &mut Ledgers<'a>,
        enabled: bool,
    ) -> (Option<&'a str>, Option<Waiting>) {
        let (group, held) = (self.group.name, self.held.map(|held| held.name));
        if !enabled || !self.cache.fetchable || held == Some(group) {
            return (held, None);
        }
        let Some(size) = self.size else { return (held, None) };
        if let Some(short) = self.short(ledgers, size) {
            return (held, Some(short).filter(|_| held.is_none()));
        }
        match held {
            Some(held) => ledgers.room.give_up(held, self.copy, size),
            None => ledgers.list.keep(self.copy.0, self.bytes()),
        }
        ledgers.room.keep(group, self.copy, size);
        (Some(group), None)
    }

    /// What the node has too little of.
    fn short(&self, Ledgers { room, list }: &Ledgers<'a>, size: i128) -> Option<Waiting> {
        let Asked { name, allowed, share } = self.group;
        let waits = |limit, used, allowed| Waiting {
            cache: self.cache.key.clone(),
            group: name.to_owned(),
            limit,
            asked: size,
            used,
            allowed,
        };
        if !room.fits(name, self.copy, size, allowed) {
            return Some(waits(Limit::Group, room.used_beside(name, self.copy), allowed));
        }
        if !room.fits_share(name, self.copy, size, share) {
            let used = room.used_of_namespace_beside(name, self.copy);
            return Some(waits(Limit::Namespace, used, share));
        }
        let full = list.fits(self.copy.0, self.bytes()).err().filter(|_| self.held.is_none())?;
        Some(self.waits_for_list(full))
    }

    /// What a copy lacks that has its place and asks for more than its namespace's share leaves.
    pub(super) fn waits_for_share(&self, room: &Ledger<'a>) -> Option<Waiting> {
        let (held, asked) = (self.held?, self.asked.filter(|asked| self.size < Some(*asked))?);
        Some(Waiting {
            cache: self.cache.key.clone(),
            group: held.name.to_owned(),
            limit: Limit::Namespace,
            asked,
            used: room.used_of_namespace_beside(held.name, self.copy),
            allowed: held.share,
        })
    }

    fn waits_for_list(&self, full: Full) -> Waiting {
        let number = |bytes: usize| i128::try_from(bytes).unwrap_or(i128::MAX);
        Waiting {
            cache: self.cache.key.clone(),
            group: self.group.name.to_owned(),
            limit: if full.of_namespace { Limit::ListOfNamespace } else { Limit::List },
            asked: number(self.bytes()),
            used: number(full.used),
            allowed: Some(number(full.allowed)),
        }
    }

    /// What its entry takes of the list.
    fn bytes(&self) -> usize {
        list_budget::cost(&self.cache.key, self.cache.spec)
    }

    /// What its entry takes at least: it may stay as it is.
    pub(super) fn bytes_held(&self) -> usize {
        self.before.map_or(usize::MAX, list_budget::cost_of).min(self.bytes())
    }

    /// Its entry. One that has grown stays as it was where the list has no space for more.
    pub(super) fn listed(&self, list: &mut ListLedger<'a>, group: &str) -> (ModelEntry, Option<Waiting>) {
        let wanted = entry(self.cache, group);
        let is_as_before = |before: &ModelEntry| {
            before.storage == wanted.storage && before.service_account_name == wanted.service_account_name
        };
        let more = self.bytes() - self.bytes_held();
        if more == 0 || self.held.is_none() || self.before.is_some_and(is_as_before) {
            return (wanted, None);
        }
        if let (Err(full), Some(before)) = (list.fits(self.copy.0, more), self.before) {
            let stays = ModelEntry { node_group: wanted.node_group, ..before.clone() };
            return (stays, Some(self.waits_for_list(full)));
        }
        list.keep(self.copy.0, more);
        (wanted, None)
    }
}

/// Of each cache that one of the node's groups asks for.
pub(super) fn wishes<'a>(
    node: &Node,
    groups: &[&LocalModelNodeGroup],
    caches: &'a [PlannedCache<'a>],
    before: &'a [ModelEntry],
) -> Vec<Wish<'a>> {
    let of_node = groups.iter().filter(|group| selector::matches(group.spec.node_selector(), node));
    let limit = |group: &&LocalModelNodeGroup| (capacity::allowed(group).ok(), capacity::share(group));
    let limits: HashMap<String, (Option<i128>, Option<i128>)> =
        of_node.map(|group| (group.name_any(), limit(group))).collect();
    let by_key: HashMap<&CacheKey, &PlannedCache> = caches.iter().map(|cache| (&cache.key, cache)).collect();
    let mut planned = HashMap::<capacity::Copy, Vec<Held>>::new();
    for held in before.iter().filter_map(|entry| Held::of(entry, by_key.get(&CacheKey::of(entry)).copied())) {
        planned.entry((held.entry.namespace(), &held.entry.source_model_uri)).or_default().push(held);
    }
    let listed: HashMap<CacheKey, &ModelEntry> =
        before.iter().map(|entry| (CacheKey::of(entry), entry)).collect();
    let wish = |cache: &'a PlannedCache<'a>| {
        let mut of_both = cache.spec.node_groups.iter().filter(|name| limits.contains_key(*name));
        let mut names = of_both.clone();
        let first = names.next()?;
        let copy = (cache.key.namespace.as_deref(), cache.spec.source_model_uri.as_str());
        let held = |name: &&String| {
            let mut of_copy = planned.get(&copy).into_iter().flatten();
            of_copy.any(|held| held.group == name.as_str() && held.is_for(cache))
        };
        let asked_of = |name: &'a str| {
            let (allowed, share) = limits[name];
            Asked { name, allowed, share }
        };
        let is_same = |entry: &&ModelEntry| entry.source_model_uri == cache.spec.source_model_uri;
        Some(Wish {
            cache,
            group: asked_of(first),
            before: listed.get(&cache.key).copied().filter(is_same),
            held: of_both.find(held).map(|name| asked_of(name)),
            copy,
            asked: cache.size(),
            size: cache.size(),
        })
    };
    let may_be =
        |cache: &&PlannedCache| !cache.deleting && list_budget::too_large(&cache.key, cache.spec).is_none();
    caches.iter().filter(may_be).filter_map(wish).collect()
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
