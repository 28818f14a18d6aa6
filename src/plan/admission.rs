//! What admission refuses and warns of: the checks that need more than the object itself, so that CEL
//! cannot make them (C6, C7, C10, G4, G7, S9).
//!
//! Anybody who reaches the webhook server can ask. An answer names what the question named and objects of the cluster,
//! and of a namespace's objects only how many there are; by name it gives those of a namespace cache's own namespace to
//! who knows that cache by its UID, as the API server does.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::capacity;
use super::entries::PlannedCache;
use super::names::CacheKey;
use super::source;
use super::users::{Kind, User};
use crate::api::{ClusterStorageContainer, LocalModelNodeGroup};
use crate::config::EgressSettings;
use crate::download::source::without_secrets;

/// The longest wait of a cache that goes for the last pods of its services.
const LAST_PODS: SignedDuration = SignedDuration::from_secs(30);
/// The most names that a message lists.
const MOST_NAMES: usize = 10;

/// Why a request is refused, in the words that the person reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another cluster cache has the same source (C6; KServe's words).
    #[error("LocalModelCache {other} has the same StorageURI {uri}")]
    SameSource {
        /// The other cache.
        other: String,
        /// The source of both, as it may be told.
        uri: String,
    },
    /// A namespace cache names groups that do not exist (C10).
    #[error(
        "{cache} names {groups} in nodeGroups, which does not exist: make that node group first, or name another"
    )]
    NoSuchGroup {
        /// The cache.
        cache: String,
        /// The groups.
        groups: String,
    },
    /// Something still uses the cache (S9; KServe's words).
    #[error("{cache} is being used by {user}")]
    CacheInUse {
        /// The cache.
        cache: String,
        /// The first of its users, or how many there are.
        user: String,
    },
    /// Caches still use the group (G4).
    #[error(
        "LocalModelNodeGroup {group} is still used by {caches}: delete them, or take the group out of their nodeGroups, first"
    )]
    GroupInUse {
        /// The group.
        group: String,
        /// The caches.
        caches: String,
    },
}

/// Checks a cache that is made or changed; returns what to warn of. `others` are all caches, `groups` those
/// of its groups that exist, `containers` what downloads foreign schemes, `egress` what namespaces may use.
pub fn cache_written(
    cache: &PlannedCache,
    others: &[PlannedCache],
    groups: &[&LocalModelNodeGroup],
    missing_groups: &[String],
    containers: &[&ClusterStorageContainer],
    egress: &EgressSettings,
) -> Result<Vec<String>, Refused> {
    let name = cache_name(&cache.key);
    let uri = &cache.spec.source_model_uri;
    if cache.key.namespace.is_some() && !missing_groups.is_empty() {
        return Err(Refused::NoSuchGroup { cache: name, groups: list(missing_groups) });
    }
    let is_same = |other: &&PlannedCache| {
        !other.deleting
            && other.key.namespace.is_none()
            && other.key != cache.key
            && other.spec.source_model_uri == *uri
    };
    if cache.key.namespace.is_none()
        && let Some(other) = others.iter().filter(is_same).map(|other| &other.key.name).min()
    {
        return Err(Refused::SameSource { other: other.clone(), uri: without_secrets(uri) });
    }
    let mut warnings = Vec::new();
    if !missing_groups.is_empty() {
        let groups = list(missing_groups);
        warnings.push(format!("{name} waits for {groups} in nodeGroups, which does not exist yet"));
    }
    let never = groups.iter().filter_map(|group| capacity::never_fits(cache.spec, group));
    warnings.extend(never.map(|why| format!("{name} waits: {why}")));
    let invalid = source::problem(&cache.key, uri, containers, egress);
    warnings.extend(invalid.map(|problem| format!("{name} cannot be downloaded: {}", problem.message)));
    Ok(warnings)
}

/// Checks that nothing uses a cache that is to be deleted. Services come before pods. Users are named only to who knows
/// the cache, and only those of its own namespace.
pub fn cache_deleted(cache: &CacheKey, users: &[User], knows_cache: bool) -> Result<(), Refused> {
    let mut users: Vec<&User> = users.iter().filter(|user| user.cache == *cache).collect();
    users.sort_by_key(|user| (user.kind, &user.namespace, &user.name));
    let Some(first) = users.first() else { return Ok(()) };
    let user = if knows_cache && cache.namespace.as_ref() == Some(&first.namespace) {
        format!("{} {}/{}", first.kind.name(), first.namespace, first.name)
    } else {
        counted(&users)
    };
    Err(Refused::CacheInUse { cache: cache_name(cache), user })
}

/// How many users of each kind there are.
fn counted(users: &[&User]) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for user in users {
        match kinds.last_mut() {
            Some((kind, count)) if *kind == user.kind.name() => *count += 1,
            _ => kinds.push((user.kind.name(), 1)),
        }
    }
    let namespaces: BTreeSet<&str> = users.iter().map(|user| user.namespace.as_str()).collect();
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} ({count})")).collect();
    format!("{} in {}", list(&kinds), plural(namespaces.len(), "namespace"))
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Whether nothing uses a cache but pods of services that have let go of it or are gone.
pub fn only_pods_of_services(cache: &CacheKey, users: &[User]) -> bool {
    users.iter().filter(|user| user.cache == *cache).all(|user| user.kind == Kind::ServicePod)
}

/// What a cache in deletion waits for: whoever uses it. Admission refuses to delete such a cache, but is not asked
/// when its definition is deleted, or when the webhook is not there. Pods of services that have let go of it are
/// waited for elsewhere, and not for ever.
pub fn deletion_waits_for(cache: &CacheKey, users: &[User]) -> Option<String> {
    let users: Vec<User> = users.iter().filter(|user| user.kind != Kind::ServicePod).cloned().collect();
    let refused = cache_deleted(cache, &users, true).err()?;
    Some(format!("{refused}: it stays, with its copies, until nothing uses it"))
}

/// Until when a cache that goes keeps its volumes for pods of services that have let go of it: one may have been
/// made while its deletion was asked for, and a claim in deletion that a pod has is in the way of a next cache of
/// this name. Such pods go by themselves, and are not waited for longer than this.
pub fn last_pods(cache: &CacheKey, users: &[User], deleted: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let has_users = users.iter().any(|user| user.cache == *cache);
    let until = deleted + LAST_PODS;
    (has_users && only_pods_of_services(cache, users) && deleted <= now && now < until).then_some(until)
}

/// The caches that name a group, sorted; those in deletion do not count.
pub fn users_of_group(group: &str, caches: &[PlannedCache]) -> Vec<CacheKey> {
    let names = |cache: &&PlannedCache| !cache.deleting && cache.spec.node_groups.iter().any(|g| g == group);
    let mut users: Vec<CacheKey> = caches.iter().filter(names).map(|cache| cache.key.clone()).collect();
    users.sort();
    users
}

/// Checks that no cache uses a group that is to be deleted.
pub fn group_deleted(group: &str, users: &[CacheKey]) -> Result<(), Refused> {
    if users.is_empty() {
        return Ok(());
    }
    let (shared, own): (Vec<&CacheKey>, Vec<&CacheKey>) =
        users.iter().partition(|user| user.namespace.is_none());
    let shared: Vec<String> = shared.into_iter().map(cache_name).collect();
    let namespaces: BTreeSet<_> = own.iter().map(|user| &user.namespace).collect();
    let own_caches = (!own.is_empty()).then(|| {
        let caches = plural(own.len(), "LocalModelNamespaceCache");
        format!("{caches} in {}", plural(namespaces.len(), "namespace"))
    });
    let caches = (!shared.is_empty()).then(|| list(&shared)).into_iter().chain(own_caches);
    Err(Refused::GroupInUse { group: group.to_owned(), caches: caches.collect::<Vec<_>>().join(", ") })
}

/// A cache as people and KServe write it.
pub fn cache_name(cache: &CacheKey) -> String {
    match &cache.namespace {
        None => format!("LocalModelCache {}", cache.name),
        Some(namespace) => format!("LocalModelNamespaceCache {namespace}/{}", cache.name),
    }
}

/// Names divided by commas: ten at most, and how many more there are.
pub fn list(names: &[String]) -> String {
    let shown = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
