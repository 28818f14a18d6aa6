//! The serving volumes of a cache: which namespaces need which, and when those that nobody needs any
//! more go (S6 to S8).

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::copies::Copy;
use super::entries::is_ready;
use super::names::{CacheKey, UNUSED_SINCE};
use super::users::{Kind, User};
use crate::api::CacheSpec;
use crate::api::cache::NamespacedName;

/// How long a claim outlives its last user: a label that flaps, or a service that is made anew, finds its
/// volumes in place (S7).
pub const GRACE: SignedDuration = SignedDuration::from_mins(10);

/// The namespaces and node groups through which a cache is read now, each a pair of volume and claim. A
/// group that the cache does not have has no volumes: nothing is ever kept there (S3, S6). A namespace cache is
/// read in its own namespace alone.
pub fn in_use(cache: &CacheKey, spec: &CacheSpec, users: &[User]) -> BTreeSet<(String, String)> {
    let may_read = |user: &&User| cache.namespace.as_ref().is_none_or(|own| *own == user.namespace);
    let of_cache = users.iter().filter(|user| user.cache == *cache && user.kind != Kind::ServicePod);
    of_cache
        .filter(may_read)
        .filter_map(|user| {
            let group = user.group.as_ref().or(spec.node_groups.first())?;
            spec.node_groups.contains(group).then(|| (user.namespace.clone(), group.clone()))
        })
        .collect()
}

/// How long the first serving volumes of a cache wait for agents. One that cannot run is told of elsewhere (G8).
const FOR_AGENTS: SignedDuration = SignedDuration::from_mins(1);

/// Until when serving volumes wait, if they do: for the agents of the cache's nodes, which make the folders that the
/// volumes lead to. A pod that comes first waits longer than they need, because the kubelet tries less and less often.
pub fn waits_until(
    cache: &CacheKey,
    created: Option<Timestamp>,
    copies: &[Copy],
    now: Timestamp,
) -> Option<Timestamp> {
    let key = cache.to_string();
    let said = |copy: &Copy| {
        let status = copy.local.and_then(|local| local.status.as_ref());
        status.is_some_and(|status| status.model_status.contains_key(&key))
    };
    let is_awaited = copies.iter().any(|copy| is_ready(copy.node) && !said(copy));
    // A time that is yet to come is another clock's, and is not believed.
    let agents = created.filter(|created| *created <= now && is_awaited).map(|created| created + FOR_AGENTS);
    agents.filter(|until| *until > now)
}

/// The services of one kind that use a cache, sorted, as its status lists them.
pub fn listed(cache: &CacheKey, kind: Kind, users: &[User]) -> Vec<NamespacedName> {
    let of_kind = users.iter().filter(|user| user.cache == *cache && user.kind == kind);
    let mut names: Vec<NamespacedName> = of_kind
        .map(|user| NamespacedName { namespace: Some(user.namespace.clone()), name: Some(user.name.clone()) })
        .collect();
    names.sort();
    names.truncate(MOST_LISTED);
    names
}

/// The most services that a status lists: anybody may make more.
const MOST_LISTED: usize = 500;

/// What to do with a claim that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing.
    Keep,
    /// It is in use again: take the note away that it is not.
    Unmark,
    /// Nobody uses it any more: note since when.
    Mark,
    /// Its time ends then; look again.
    Until(Timestamp),
    /// Its time is over: delete it, unless a pod without any label of ours or KServe's mounts it.
    DeleteIfUnmounted,
}

/// The next step with a claim, by the note that it carries (S7).
pub fn claim(claim: &PersistentVolumeClaim, in_use: bool, now: Timestamp) -> Claim {
    if claim.metadata.deletion_timestamp.is_some() {
        return Claim::Keep;
    }
    let note = claim.annotations().get(UNUSED_SINCE);
    if in_use {
        return if note.is_some() { Claim::Unmark } else { Claim::Keep };
    }
    // A note that cannot be read, or that speaks of the future, is written anew.
    let since = note.and_then(|note| note.parse::<Timestamp>().ok()).filter(|since| *since <= now);
    match since {
        None => Claim::Mark,
        Some(since) if now < since + GRACE => Claim::Until(since + GRACE),
        Some(_) => Claim::DeleteIfUnmounted,
    }
}

#[cfg(test)]
mod tests;
