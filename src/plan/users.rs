//! Who uses a cache: services that KServe labelled, and pods that ask for one by a label of ours.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names::{CHOSEN_GROUP, CacheKey, SERVICE_MODEL, SERVICE_NAMESPACE};

/// The kinds of object that use a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// KServe's InferenceService.
    InferenceService,
    /// KServe's LLMInferenceService.
    LLMInferenceService,
    /// A pod with our label, of any workload (S10).
    Pod,
}

impl Kind {
    /// The kind as people and the API server write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InferenceService => "InferenceService",
            Self::LLMInferenceService => "LLMInferenceService",
            Self::Pod => "Pod",
        }
    }
}

/// One object that uses a cache.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The cache.
    pub cache: CacheKey,
    /// What uses it.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node group that it chose; `None` for the cache's first.
    pub group: Option<String>,
}

/// The user behind a service of this kind; `None` when KServe has not labelled it. One in deletion still
/// counts: its pods may run for as long as it is there.
pub fn service(kind: Kind, meta: &ObjectMeta) -> Option<User> {
    let label = |key| meta.labels.as_ref()?.get(key).filter(|value| !value.is_empty()).cloned();
    let group = meta.annotations.as_ref().and_then(|a| a.get(CHOSEN_GROUP)).filter(|g| !g.is_empty());
    Some(User {
        cache: CacheKey { namespace: label(SERVICE_NAMESPACE), name: label(SERVICE_MODEL)? },
        kind,
        namespace: meta.namespace.clone()?,
        name: meta.name.clone()?,
        group: group.cloned(),
    })
}
