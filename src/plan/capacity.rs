//! Room on the nodes' disks: what planned copies take of a group's `storageLimit`, and what is told of
//! copies that wait for room (C8, G7).

use std::collections::BTreeMap;

use kube::ResourceExt;

use super::admission::list;
use super::conditions::Statement;
use super::list_budget::NODE_LIST_FULL;
use super::names::CacheKey;
use crate::api::quantity::{self, InvalidQuantity, at_least, human};
use crate::api::{CacheSpec, LocalModelNodeGroup};

/// A cache waits for room on a node, or asks for more than a node may ever give (C8, G7).
pub const INSUFFICIENT_CAPACITY: &str = "InsufficientCapacity";
/// A namespace's caches take its share of a group.
pub const NAMESPACE_LIMIT_REACHED: &str = "NamespaceLimitReached";
/// The conditions of a cache that waits for others to go.
pub const WAITING: [&str; 3] = [INSUFFICIENT_CAPACITY, NAMESPACE_LIMIT_REACHED, NODE_LIST_FULL];
/// A cache's `modelSize` is nothing that room can be kept for (G7).
pub const INVALID_SIZE: &str = "InvalidModelSize";

/// The model is larger than `modelSize` says.
pub const MODEL_SIZE_TOO_SMALL: &str = "ModelSizeTooSmall";

/// A copy as it takes room: the area that it lies in, and its source. A namespace's area holds bytes of its
/// own.
pub type Copy<'a> = (Option<&'a str>, &'a str);

/// What a copy does not fit into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// The group's `storageLimit`.
    #[default]
    Group,
    /// The share of it that each namespace has.
    Namespace,
    /// The list of the node.
    List,
    /// The part of that list that each namespace has.
    ListOfNamespace,
}

/// A copy that is not planned on a node, because it does not fit there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What it does not fit into: the numbers are of that.
    pub limit: Limit,
    /// The cache that asks for it.
    pub cache: CacheKey,
    /// The group whose nodes it is for.
    pub group: String,
    /// The bytes that it asks for.
    pub asked: i128,
    /// The bytes that other copies of the group take on the node.
    pub used: i128,
    /// The bytes that the group allows; `None` when that cannot be read.
    pub allowed: Option<i128>,
}

/// The room that copies take on one node, by group. What several caches ask for counts once, as the
/// largest that one of them says.
#[derive(Debug, Default)]
pub struct Ledger<'a>(BTreeMap<&'a str, Room<'a>>);

#[derive(Debug, Default)]
struct Room<'a> {
    used: i128,
    of_namespaces: BTreeMap<&'a str, i128>,
    copies: BTreeMap<Copy<'a>, Vec<i128>>,
}

impl<'a> Room<'a> {
    fn add(&mut self, copy: Copy<'a>, bytes: i128) {
        self.used += bytes;
        if let (Some(namespace), _) = copy {
            *self.of_namespaces.entry(namespace).or_default() += bytes;
        }
    }
}

impl<'a> Ledger<'a> {
    /// The bytes that a group's copies take.
    pub fn used(&self, group: &str) -> i128 {
        self.0.get(group).map_or(0, |room| room.used)
    }

    /// The bytes that a group's copies take without one of them.
    pub fn used_beside(&self, group: &str, copy: Copy<'a>) -> i128 {
        self.used(group) - self.size(group, copy)
    }

    /// Keeps room for a copy, whether there is any or not.
    pub fn keep(&mut self, group: &'a str, copy: Copy<'a>, size: i128) {
        let before = self.size(group, copy);
        let room = self.0.entry(group).or_default();
        room.copies.entry(copy).or_default().push(size);
        room.add(copy, size.max(before) - before);
    }

    /// Gives up what one cache keeps for a copy.
    pub fn give_up(&mut self, group: &'a str, copy: Copy<'a>, size: i128) {
        let before = self.size(group, copy);
        let Some(sizes) = self.0.get_mut(group).and_then(|room| room.copies.get_mut(&copy)) else { return };
        if let Some(at) = sizes.iter().position(|kept| *kept == size) {
            sizes.swap_remove(at);
        }
        let now = self.size(group, copy);
        self.0.entry(group).or_default().add(copy, now - before);
    }

    /// The bytes that a namespace's copies take of a group without one of them.
    pub fn used_of_namespace_beside(&self, group: &str, copy: Copy<'a>) -> i128 {
        let of_namespaces = self.0.get(group).map(|room| &room.of_namespaces);
        let used = copy.0.and_then(|namespace| of_namespaces?.get(namespace).copied());
        used.map_or(0, |used| used - self.size(group, copy))
    }

    /// What a copy that has its place already may take: a namespace cannot take more than its share by a size that
    /// it writes later.
    pub fn granted(&self, group: &str, copy: Copy<'a>, size: i128, share: Option<i128>) -> i128 {
        let Some(share) = share.filter(|_| copy.0.is_some()) else { return size };
        size.min((share - self.used_of_namespace_beside(group, copy)).max(0))
    }

    /// Whether a copy fits into its namespace's share of the group, where there is one.
    pub fn fits_share(&self, group: &str, copy: Copy<'a>, size: i128, share: Option<i128>) -> bool {
        let is_more = size > self.size(group, copy);
        let used = self.used_of_namespace_beside(group, copy);
        copy.0.is_none() || !is_more || share.is_none_or(|share| used + size <= share)
    }

    /// Whether a copy fits: it takes nothing more than is kept for it already, or no more than is allowed.
    pub fn fits(&self, group: &str, copy: Copy<'a>, size: i128, allowed: Option<i128>) -> bool {
        let more = size - self.size(group, copy);
        more <= 0 || allowed.is_some_and(|allowed| self.used(group) + more <= allowed)
    }

    fn size(&self, group: &str, copy: Copy<'a>) -> i128 {
        let sizes = self.0.get(group).and_then(|room| room.copies.get(&copy));
        sizes.and_then(|sizes| sizes.iter().copied().max()).unwrap_or(0)
    }
}

/// The bytes that a group allows on each of its nodes.
pub fn allowed(group: &LocalModelNodeGroup) -> Result<i128, InvalidQuantity> {
    // The largest number that the API has keeps sums within theirs.
    Ok(quantity::bytes(&group.spec.storage_limit)?.clamp(0, i64::MAX.into()))
}

/// The bytes that a group allows each namespace on each of its nodes; nothing where that cannot be read, and `None`
/// where it sets no share.
pub fn share(group: &LocalModelNodeGroup) -> Option<i128> {
    let share = group.spec.namespace_storage_limit.as_ref()?;
    Some(quantity::bytes(share).unwrap_or(0).clamp(0, i64::MAX.into()))
}

/// The bytes that a cache asks for on each node; `None` when that cannot be read, or is nothing.
pub fn asked(spec: &CacheSpec) -> Option<i128> {
    quantity::bytes(&spec.model_size).ok().filter(|size| *size > 0).map(|size| size.min(i64::MAX.into()))
}

/// What is told of a cache whose model is larger than it says. The model is planned with its real size.
pub fn too_small(spec: &CacheSpec, measured: i128) -> Option<Statement> {
    let asked = asked(spec).filter(|asked| *asked < measured)?;
    let message = format!(
        "modelSize is {}, but the model has {}, with which it is planned: set modelSize to at least {}",
        human(asked),
        human(measured),
        at_least(measured).0
    );
    Some(Statement::problem(MODEL_SIZE_TOO_SMALL, message))
}

/// Why no node of a group can take a cache, as its limit stands (G7).
pub fn never_fits(spec: &CacheSpec, group: &LocalModelNodeGroup) -> Option<String> {
    let (name, asked) = (group.name_any(), asked(spec)?);
    match allowed(group) {
        Err(error) => Some(format!("storageLimit of LocalModelNodeGroup {name} cannot be read: {error}")),
        Ok(allowed) if asked > allowed => Some(format!(
            "needs {}, more than the {} that LocalModelNodeGroup {name} allows per node: raise its storageLimit or lower modelSize",
            spec.model_size.0, group.spec.storage_limit.0
        )),
        Ok(_) => None,
    }
}

/// What stands in the way of a cache's copies for want of room: `groups` are those of its groups that
/// exist, `waiting` the nodes where it waits.
pub fn problems(
    spec: &CacheSpec,
    groups: &[&LocalModelNodeGroup],
    waiting: &BTreeMap<String, Waiting>,
) -> Vec<Statement> {
    if asked(spec).is_none() {
        let said = match quantity::bytes(&spec.model_size) {
            Err(error) => error.to_string(),
            Ok(_) => format!("{} is no size", spec.model_size.0),
        };
        let message = format!(
            "modelSize cannot be planned with: {said}; write there how many bytes the model has, for example 10Gi"
        );
        return vec![Statement::problem(INVALID_SIZE, message)];
    }
    let of_group = |group: &&LocalModelNodeGroup| {
        let name = group.name_any();
        let is_it = |w: &Waiting| w.group == name && w.limit == Limit::Group;
        let nodes: Vec<(&String, &Waiting)> = waiting.iter().filter(|(_, w)| is_it(w)).collect();
        match never_fits(spec, group) {
            Some(why) if nodes.is_empty() => Some(why),
            Some(why) => Some(format!("{why} ({})", used(&nodes))),
            None => no_room(&nodes),
        }
    };
    let messages = groups.iter().filter_map(of_group);
    let mut all: Vec<Statement> =
        messages.map(|message| Statement::problem(INSUFFICIENT_CAPACITY, message)).collect();
    let mut others = BTreeMap::<(Limit, &str), Vec<(&String, &Waiting)>>::new();
    for (node, waits) in waiting.iter().filter(|(_, waits)| waits.limit != Limit::Group) {
        others.entry((waits.limit, &waits.group)).or_default().push((node, waits));
    }
    all.extend(
        others.into_iter().filter_map(|((limit, group), nodes)| beside_the_disk(limit, group, &nodes)),
    );
    all
}

/// What else a cache does not fit into than the group's limit.
fn beside_the_disk(limit: Limit, group: &str, nodes: &[(&String, &Waiting)]) -> Option<Statement> {
    let (_, first) = nodes.first()?;
    let namespace = first.cache.namespace.as_deref().unwrap_or_default();
    let (asked, allowed) = (human(first.asked), human(first.allowed.unwrap_or_default()));
    let taken: Vec<String> = nodes.iter().map(|(node, w)| format!("{} on {node}", human(w.used))).collect();
    let taken = list(&taken);
    let (kind, message) = match limit {
        Limit::Group => return None,
        Limit::Namespace => (
            NAMESPACE_LIMIT_REACHED,
            format!(
                "{asked} asked; of the {allowed} that LocalModelNodeGroup {group} allows namespace {namespace} on a node, its caches use {taken}: delete one of them, or have namespaceStorageLimit of the group raised"
            ),
        ),
        Limit::ListOfNamespace => (
            NODE_LIST_FULL,
            format!(
                "its entry has {asked}; of the {allowed} that namespace {namespace} may have in the list of a node, its caches use {taken}: delete one of them"
            ),
        ),
        Limit::List => (
            NODE_LIST_FULL,
            format!(
                "its entry has {asked}; of the {allowed} that the list of a node may have, caches use {taken}: delete a cache of LocalModelNodeGroup {group}"
            ),
        ),
    };
    Some(Statement::problem(kind, message))
}

/// How full the nodes of a group are where a cache waits.
fn no_room(nodes: &[(&String, &Waiting)]) -> Option<String> {
    let (_, Waiting { group, asked, allowed, .. }) = nodes.first()?;
    Some(format!(
        "needs {}; LocalModelNodeGroup {group} allows {} per node ({}): delete a cache of the group or raise its storageLimit",
        human(*asked),
        human(allowed.unwrap_or_default()),
        used(nodes)
    ))
}

fn used(nodes: &[(&String, &Waiting)]) -> String {
    let used = nodes.iter().map(|(node, waiting)| format!("{} used on {node}", human(waiting.used)));
    list(&used.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
