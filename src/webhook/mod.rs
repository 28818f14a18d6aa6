//! The webhook server: what the API server asks before it makes a pod or changes a cache or a node group,
//! and the certificate under which it asks (O5).
//!
//! Each request is read from stores, decided by the plan, and answered; nothing is written.

pub mod authority;
mod keeper;
mod measured;
mod pods;
mod review;
mod server;
mod validation;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use k8s_openapi::api::core::v1::Node;

use crate::api::{ClusterStorageContainer, LocalModelCache, LocalModelNamespaceCache, LocalModelNodeGroup};
use crate::config::EgressSettings;
use crate::plan::names::CacheKey;
use crate::plan::users::User;
use crate::plan::webhooks;
pub use keeper::{Keeper, SETTLE};
pub use measured::measured;
pub use server::{Clients, Identity, serve};

/// What the webhooks know: the objects as the stores have them.
pub trait World: Send + Sync + 'static {
    /// A cluster cache.
    fn cache(&self, name: &str) -> Option<Arc<LocalModelCache>>;
    /// A namespace cache.
    fn namespace_cache(&self, namespace: &str, name: &str) -> Option<Arc<LocalModelNamespaceCache>>;
    /// A node group.
    fn group(&self, name: &str) -> Option<Arc<LocalModelNodeGroup>>;
    /// All cluster caches.
    fn caches(&self) -> Vec<Arc<LocalModelCache>>;
    /// All namespace caches.
    fn namespace_caches(&self) -> Vec<Arc<LocalModelNamespaceCache>>;
    /// All storage containers.
    fn containers(&self) -> Vec<Arc<ClusterStorageContainer>>;
    /// What the caches of namespaces may download from.
    fn egress(&self) -> EgressSettings;
    /// All nodes.
    fn nodes(&self) -> Vec<Arc<Node>>;
    /// Our own image, for the gate.
    fn image(&self) -> &str;
    /// Why the operator stands back, where it does (O1).
    fn standing_back(&self) -> Option<String>;

    /// The same cache asked of the API server: a store may lag behind what was made a moment ago.
    fn cache_now(&self, name: &str) -> impl Future<Output = Option<Arc<LocalModelCache>>> + Send;
    /// The same for a namespace cache.
    fn namespace_cache_now(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Option<Arc<LocalModelNamespaceCache>>> + Send;
    /// All cluster caches as the API server has them; `None` where it does not answer.
    fn caches_now(&self) -> impl Future<Output = Option<Vec<Arc<LocalModelCache>>>> + Send;
    /// Whatever uses a cache now: a service may have been made or deleted a moment ago. Where the API server does not
    /// answer, it is what the stores say.
    fn users_now(&self, cache: &CacheKey) -> impl Future<Output = Vec<User>> + Send;
    /// Whether the API server says that a cache is gone, or in deletion.
    fn is_gone_now(&self, cache: &CacheKey) -> impl Future<Output = bool> + Send;
    /// The same for a node group: whether it is there.
    fn has_group_now(&self, name: &str) -> impl Future<Output = bool> + Send;
}

/// The routes of all webhooks.
pub fn router<W: World>(world: Arc<W>) -> Router {
    Router::new()
        .route(webhooks::PODS_PATH, post(pods::ours::<W>))
        .route(webhooks::KSERVE_PODS_PATH, post(pods::kserves::<W>))
        .route(webhooks::CACHES_PATH, post(validation::caches::<W>))
        .route(webhooks::NAMESPACE_CACHES_PATH, post(validation::namespace_caches::<W>))
        .route(webhooks::GROUPS_PATH, post(validation::groups::<W>))
        .layer(DefaultBodyLimit::disable()) // the server has one
        .with_state(world)
}

#[cfg(test)]
mod tests;
