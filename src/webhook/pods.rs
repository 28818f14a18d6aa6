//! The pod webhooks: what is known of the cache that a pod asks for, and what the plan adds to the pod.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::admission::AdmissionRequest;

use super::World;
use super::review::{Answer, Otherwise, answer};
use crate::api::{LocalModelCache, LocalModelNamespaceCache};
use crate::plan::entries::PlannedCache;
use crate::plan::names::CacheKey;
use crate::plan::pod::{Facts, Wish, additions, wish};

/// Pods with our label: they need the mount, or are refused.
pub(super) async fn ours<W: World>(State(world): State<Arc<W>>, body: Bytes) -> Response {
    answer(body, Otherwise::Deny, |request| mutate(world, request)).await
}

/// Pods of KServe's services: they work without us.
pub(super) async fn kserves<W: World>(State(world): State<Arc<W>>, body: Bytes) -> Response {
    answer(body, Otherwise::Allow, |request| mutate(world, request)).await
}

async fn mutate<W: World>(world: Arc<W>, request: AdmissionRequest<Pod>) -> Answer {
    let Some(pod) = &request.object else { return Answer::default() };
    let Some(wish) = wish(pod) else { return Answer::default() };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let standing_back = world.standing_back();
    let cache = match &wish {
        _ if standing_back.is_some() => None, // nothing is looked up in vain
        Wish::Ours(model) => by_name(&*world, namespace, model).await,
        Wish::KServes(key) => by_key(&*world, key),
    };
    let cache = cache.as_ref().map(Found::planned);
    let names = cache.as_ref().map(|cache| cache.spec.node_groups.as_slice()).unwrap_or_default();
    let groups: Vec<_> = names.iter().filter_map(|name| world.group(name)).collect();
    let nodes = if names.len() > 1 { world.nodes() } else { Vec::new() };
    let known = if cache.is_none() { known(&*world) } else { Vec::new() };
    let facts = Facts {
        namespace,
        cache,
        known: &known,
        groups: &groups,
        nodes: &nodes,
        image: world.image(),
        standing_back: standing_back.as_deref(),
    };
    match additions(pod, &wish, &facts) {
        Ok(patch) => Answer { patch, ..Answer::default() },
        Err(denied) => {
            let pod = if request.name.is_empty() { pod.metadata.generate_name.as_deref() } else { None };
            tracing::info!(namespace, pod = pod.unwrap_or(&request.name), %denied, "pod refused");
            Answer::deny(denied.to_string())
        }
    }
}

/// A cache of either kind.
enum Found {
    Cluster(Arc<LocalModelCache>),
    Namespaced(Arc<LocalModelNamespaceCache>),
}

impl Found {
    fn planned(&self) -> PlannedCache<'_> {
        match self {
            Self::Cluster(cache) => PlannedCache::from(&**cache),
            Self::Namespaced(cache) => PlannedCache::from(&**cache),
        }
    }
}

/// The namespace's own cache of this name, or the cluster's; one that is not in deletion, if there is any.
async fn by_name<W: World>(world: &W, namespace: &str, model: &str) -> Option<Found> {
    let own = world.namespace_cache(namespace, model).map(Found::Namespaced);
    let shared = || world.cache(model).map(Found::Cluster);
    if let Some(found) = first_alive(own, shared()) {
        return Some(found);
    }
    // It may have been made a moment ago, in the same breath as the pod.
    let own = world.namespace_cache_now(namespace, model).await.map(Found::Namespaced);
    if own.is_some() {
        return own;
    }
    world.cache_now(model).await.map(Found::Cluster)
}

fn first_alive(own: Option<Found>, shared: Option<Found>) -> Option<Found> {
    let is_alive = |found: &Found| !found.planned().deleting;
    let shared_is_alive = shared.as_ref().is_some_and(is_alive);
    match own {
        Some(own) if is_alive(&own) || !shared_is_alive => Some(own),
        _ => shared,
    }
}

fn by_key<W: World>(world: &W, key: &CacheKey) -> Option<Found> {
    match &key.namespace {
        None => world.cache(&key.name).map(Found::Cluster),
        Some(namespace) => world.namespace_cache(namespace, &key.name).map(Found::Namespaced),
    }
}

/// The names of the cluster caches, which every namespace may ask for. Those of a namespace are for its own people,
/// and whoever asks here is not known to be one.
fn known<W: World>(world: &W) -> Vec<String> {
    let mut names: Vec<String> = world.caches().iter().map(|cache| cache.name_any()).collect();
    names.sort();
    names
}
