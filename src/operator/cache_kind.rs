//! What the two kinds of cache differ in, so that everything else is written once.

use std::fmt::Debug;

use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{Context, Pruned};
use super::stores::Stores;
use crate::api::cache::CacheStatus;
use crate::api::{CacheSpec, LocalModelCache, LocalModelNamespaceCache};
use crate::plan::names::{CacheKey, FINALIZER, NAMESPACE_FINALIZER};

/// A kind of cache.
pub(super) trait CacheKind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
    /// KServe's finalizer of this kind.
    const FINALIZER: &'static str;

    fn spec(&self) -> &CacheSpec;

    fn status(&self) -> Option<&CacheStatus>;

    fn store(stores: &Stores) -> &Store<Self>;

    /// The kind where this object is.
    fn api(&self, client: &Client) -> Api<Self>;

    /// Whether the cluster's definition of this kind drops our own status fields.
    fn plain(context: &Context) -> &Pruned;

    fn key(&self) -> CacheKey {
        CacheKey { namespace: self.namespace(), name: self.name_any() }
    }
}

impl CacheKind for LocalModelCache {
    const FINALIZER: &'static str = FINALIZER;

    fn spec(&self) -> &CacheSpec {
        &self.spec
    }

    fn status(&self) -> Option<&CacheStatus> {
        self.status.as_ref()
    }

    fn store(stores: &Stores) -> &Store<Self> {
        &stores.caches.store
    }

    fn api(&self, client: &Client) -> Api<Self> {
        Api::all(client.clone())
    }

    fn plain(context: &Context) -> &Pruned {
        &context.plain_caches
    }
}

impl CacheKind for LocalModelNamespaceCache {
    const FINALIZER: &'static str = NAMESPACE_FINALIZER;

    fn spec(&self) -> &CacheSpec {
        &self.spec
    }

    fn status(&self) -> Option<&CacheStatus> {
        self.status.as_ref()
    }

    fn store(stores: &Stores) -> &Store<Self> {
        &stores.namespace_caches.store
    }

    fn api(&self, client: &Client) -> Api<Self> {
        Api::namespaced(client.clone(), &self.namespace().unwrap_or_default())
    }

    fn plain(context: &Context) -> &Pruned {
        &context.plain_namespace_caches
    }
}
