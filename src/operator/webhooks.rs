//! What the webhooks know, from the operator's stores.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::context::Context;
use crate::api::{ClusterStorageContainer, LocalModelCache, LocalModelNamespaceCache, LocalModelNodeGroup};
use crate::config::EgressSettings;
use crate::plan::names::CacheKey;
use crate::plan::users::User;
use crate::webhook::World;

impl World for Context {
    fn cache(&self, name: &str) -> Option<Arc<LocalModelCache>> {
        self.stores.caches.store.get(&ObjectRef::new(name))
    }

    fn namespace_cache(&self, namespace: &str, name: &str) -> Option<Arc<LocalModelNamespaceCache>> {
        self.stores.namespace_caches.store.get(&ObjectRef::new(name).within(namespace))
    }

    fn group(&self, name: &str) -> Option<Arc<LocalModelNodeGroup>> {
        self.stores.groups.store.get(&ObjectRef::new(name))
    }

    fn caches(&self) -> Vec<Arc<LocalModelCache>> {
        self.stores.caches.store.state()
    }

    fn namespace_caches(&self) -> Vec<Arc<LocalModelNamespaceCache>> {
        self.stores.namespace_caches.store.state()
    }

    fn containers(&self) -> Vec<Arc<ClusterStorageContainer>> {
        self.stores.containers.store.state()
    }

    fn egress(&self) -> EgressSettings {
        self.stores.config().egress.clone()
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.stores.nodes.store.state()
    }

    fn image(&self) -> &str {
        &self.image
    }

    fn standing_back(&self) -> Option<String> {
        self.stores.standing_back()
    }

    async fn cache_now(&self, name: &str) -> Option<Arc<LocalModelCache>> {
        now(&Api::all(self.client.clone()), name).await.ok().flatten()
    }

    async fn namespace_cache_now(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<LocalModelNamespaceCache>> {
        now(&Api::namespaced(self.client.clone(), namespace), name).await.ok().flatten()
    }

    async fn caches_now(&self) -> Option<Vec<Arc<LocalModelCache>>> {
        let found = Api::<LocalModelCache>::all(self.client.clone()).list(&ListParams::default()).await;
        let told =
            |error: &kube::Error| tracing::warn!(%error, "caches are checked by what the watch has seen");
        Some(found.inspect_err(told).ok()?.items.into_iter().map(Arc::new).collect())
    }

    async fn users_now(&self, cache: &CacheKey) -> Vec<User> {
        let found = self.stores.users_now(&self.client, &cache.name).await;
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "users of a cache are checked by what the watches have seen");
            self.stores.users()
        })
    }

    async fn is_gone_now(&self, cache: &CacheKey) -> bool {
        let name = &cache.name;
        match &cache.namespace {
            None => is_gone(&Api::<LocalModelCache>::all(self.client.clone()), name).await,
            Some(namespace) => {
                let api = Api::<LocalModelNamespaceCache>::namespaced(self.client.clone(), namespace);
                is_gone(&api, name).await
            }
        }
    }

    async fn has_group_now(&self, name: &str) -> bool {
        let found = now(&Api::<LocalModelNodeGroup>::all(self.client.clone()), name).await;
        found.is_ok_and(|group| group.is_some())
    }
}

/// An object as the API server has it. An error is told here; what the stores say then stands.
async fn now<K>(api: &Api<K>, name: &str) -> Result<Option<Arc<K>>, ()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.get_opt(name).await {
        Ok(found) => Ok(found.map(Arc::new)),
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), name, %error, "cannot be read");
            Err(())
        }
    }
}

async fn is_gone<K>(api: &Api<K>, name: &str) -> bool
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let found = now(api, name).await;
    found.is_ok_and(|found| found.is_none_or(|object| object.meta().deletion_timestamp.is_some()))
}
