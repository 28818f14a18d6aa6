//! What the webhooks know, from the operator's stores.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::context::Context;
use crate::api::{LocalModelCache, LocalModelNamespaceCache, LocalModelNodeGroup};
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

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.stores.nodes.store.state()
    }

    fn users(&self) -> Vec<User> {
        Vec::new()
    }

    fn image(&self) -> &str {
        &self.image
    }

    fn standing_back(&self) -> Option<String> {
        None
    }

    async fn cache_now(&self, name: &str) -> Option<Arc<LocalModelCache>> {
        now(&Api::all(self.client.clone()), name).await
    }

    async fn namespace_cache_now(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<LocalModelNamespaceCache>> {
        now(&Api::namespaced(self.client.clone(), namespace), name).await
    }

    async fn has_group_now(&self, name: &str) -> bool {
        now(&Api::<LocalModelNodeGroup>::all(self.client.clone()), name).await.is_some()
    }
}

/// An object as the API server has it. Where it cannot be asked, what the stores say stands.
async fn now<K>(api: &Api<K>, name: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let found = api.get_opt(name).await;
    found
        .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), name, %error, "cannot be read"))
        .ok()?
        .map(Arc::new)
}
