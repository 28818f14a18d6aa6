//! The checks of caches and node groups: what is known of others, and what the plan says.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use kube::ResourceExt;
use kube::core::admission::{AdmissionRequest, Operation};

use tokio::time::Instant;

use super::World;
use super::review::{Answer, Otherwise, answer};
use crate::api::{ClusterStorageContainer, LocalModelCache, LocalModelNamespaceCache, LocalModelNodeGroup};
use crate::plan::admission::{
    Refused, cache_deleted, cache_written, group_deleted, only_pods_of_services, users_of_group,
};
use crate::plan::entries::PlannedCache;
use crate::plan::names::CacheKey;

/// How long the deletion of a cache waits for pods whose service is gone; the API server waits for 5 s.
const LAST_PODS: Duration = Duration::from_secs(3);
/// The pause between two looks at them, each of which asks the API server.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Cluster caches (C6, C7, S9).
pub(super) async fn caches<W: World>(State(world): State<Arc<W>>, body: Bytes) -> Response {
    answer(body, Otherwise::Deny, async |request: AdmissionRequest<LocalModelCache>| {
        let Some(cache) = request.object.or(request.old_object) else { return Answer::default() };
        checked(&*world, &PlannedCache::from(&cache), &request.operation, false).await
    })
    .await
}

/// Namespace caches (C7, C10, S9).
pub(super) async fn namespace_caches<W: World>(State(world): State<Arc<W>>, body: Bytes) -> Response {
    answer(body, Otherwise::Deny, async |request: AdmissionRequest<LocalModelNamespaceCache>| {
        let Some(cache) = request.object.or(request.old_object) else { return Answer::default() };
        let (namespace, name) = (cache.namespace().unwrap_or_default(), cache.name_any());
        let there = world.namespace_cache(&namespace, &name).and_then(|there| there.uid());
        let knows_cache = there.is_some() && there == cache.uid();
        checked(&*world, &PlannedCache::from(&cache), &request.operation, knows_cache).await
    })
    .await
}

/// The deletion of node groups (G4).
pub(super) async fn groups<W: World>(State(world): State<Arc<W>>, body: Bytes) -> Response {
    answer(body, Otherwise::Deny, async |request: AdmissionRequest<LocalModelNodeGroup>| {
        let (shared, own) = (world.caches(), world.namespace_caches());
        let caches = shared.iter().map(|cache| PlannedCache::from(&**cache));
        let caches: Vec<PlannedCache> =
            caches.chain(own.iter().map(|cache| PlannedCache::from(&**cache))).collect();
        let mut users = users_of_group(&request.name, &caches);
        // What was deleted a moment ago, in the same breath as the group, does not count: one cache that is
        // still there is enough.
        while let Some(first) = users.first()
            && world.is_gone_now(first).await
        {
            users.remove(0);
        }
        told(group_deleted(&request.name, &users).map(|()| Vec::new()), &request.name)
    })
    .await
}

async fn checked<W: World>(
    world: &W,
    cache: &PlannedCache<'_>,
    operation: &Operation,
    knows_cache: bool,
) -> Answer {
    let name = &cache.key.name;
    if *operation == Operation::Delete {
        return told(deleted(world, &cache.key, knows_cache).await.map(|()| Vec::new()), name);
    }
    let (mut missing, mut groups) = (Vec::new(), Vec::new());
    for name in &cache.spec.node_groups {
        match world.group(name) {
            Some(group) => groups.push(group),
            // It may have been made a moment ago, in the same breath as the cache.
            None if world.has_group_now(name).await => {}
            None => missing.push(name.clone()),
        }
    }
    let groups: Vec<&LocalModelNodeGroup> = groups.iter().map(|group| &**group).collect();
    // One with the same source may have been made in the same breath.
    let new = cache.key.namespace.is_none() && *operation == Operation::Create;
    let now = if new { world.caches_now().await } else { None };
    let others = now.unwrap_or_else(|| world.caches());
    let others: Vec<PlannedCache> = others.iter().map(|cache| PlannedCache::from(&**cache)).collect();
    let containers = world.containers();
    let containers: Vec<&ClusterStorageContainer> = containers.iter().map(|container| &**container).collect();
    told(cache_written(cache, &others, &groups, &missing, &containers, &world.egress()), name)
}

/// A service may have been deleted in the same breath as its cache: its pods are told a moment later.
async fn deleted<W: World>(world: &W, cache: &CacheKey, knows_cache: bool) -> Result<(), Refused> {
    let end = Instant::now() + LAST_PODS;
    loop {
        let users = world.users_now(cache).await;
        let verdict = cache_deleted(cache, &users, knows_cache);
        if verdict.is_ok() || !only_pods_of_services(cache, &users) || Instant::now() >= end {
            return verdict;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn told(verdict: Result<Vec<String>, Refused>, object: &str) -> Answer {
    match verdict {
        Ok(warnings) => Answer { warnings, ..Answer::default() },
        Err(refused) => {
            tracing::info!(name = object, %refused, "an object is refused");
            Answer::deny(refused.to_string())
        }
    }
}
