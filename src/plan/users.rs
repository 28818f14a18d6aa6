//! Who uses a cache: services that KServe labelled, and pods that ask for one by a label of ours.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names::{
    CHOSEN_GROUP, CacheKey, POD_MODEL, POD_MODEL_NAMESPACE, SERVICE_MODEL, SERVICE_NAMESPACE,
};

/// The kinds of object that use a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// KServe's `InferenceService`.
    InferenceService,
    /// KServe's `LLMInferenceService`.
    LLMInferenceService,
    /// A pod with our label, of any workload (S10).
    Pod,
    /// A pod of a service of KServe's. Its service says what is made for it; while it lives it guards the
    /// cache, also when its service has let go already: it may be about to read the model.
    ServicePod,
}

impl Kind {
    /// The kind as people and the API server write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InferenceService => "InferenceService",
            Self::LLMInferenceService => "LLMInferenceService",
            Self::Pod | Self::ServicePod => "Pod",
        }
    }

    /// The kind as the API server's paths have it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::InferenceService => "inferenceservices",
            Self::LLMInferenceService => "llminferenceservices",
            Self::Pod | Self::ServicePod => "pods",
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

/// The user behind an object's metadata; `None` when it asks for no cache. One in deletion still counts:
/// its pods may run for as long as it is there. Only a pod of a service does not, which no longer begins
/// anything: who deletes a service and then its cache need not wait.
///
/// Anybody can write a label: one that names a cache of another namespace names nothing, whoever writes it.
pub fn user(kind: Kind, meta: &ObjectMeta) -> Option<User> {
    if kind == Kind::ServicePod && meta.deletion_timestamp.is_some() {
        return None;
    }
    let (name, namespace) = match kind {
        Kind::InferenceService | Kind::LLMInferenceService | Kind::ServicePod => {
            (SERVICE_MODEL, SERVICE_NAMESPACE)
        }
        Kind::Pod => (POD_MODEL, POD_MODEL_NAMESPACE),
    };
    let label = |key| meta.labels.as_ref()?.get(key).filter(|value| !value.is_empty()).cloned();
    let cache = CacheKey { namespace: label(namespace), name: label(name)? };
    if cache.namespace.is_some() && cache.namespace != meta.namespace {
        return None;
    }
    let group = meta.annotations.as_ref().and_then(|a| a.get(CHOSEN_GROUP)).filter(|g| !g.is_empty());
    Some(User {
        cache,
        kind,
        namespace: meta.namespace.clone()?,
        name: meta.name.clone()?,
        group: group.cloned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::samples::from;

    #[test]
    fn a_service_uses_the_cache_that_kserve_labelled_it_with() {
        let meta = from(json!({
            "name": "s", "namespace": "ns",
            "labels": {SERVICE_MODEL: "m", SERVICE_NAMESPACE: "ns", POD_MODEL: "not-a-pod"},
            "annotations": {CHOSEN_GROUP: "g"},
        }));
        let user = user(Kind::InferenceService, &meta).unwrap();
        assert_eq!(user.cache, CacheKey::namespaced("ns", "m"));
        assert_eq!(
            (user.namespace.as_str(), user.name.as_str(), user.group.as_deref()),
            ("ns", "s", Some("g"))
        );
    }

    #[test]
    fn a_label_that_names_a_cache_of_another_namespace_names_nothing() {
        for (kind, model, namespace) in [
            (Kind::Pod, POD_MODEL, POD_MODEL_NAMESPACE),
            (Kind::ServicePod, SERVICE_MODEL, SERVICE_NAMESPACE),
            (Kind::InferenceService, SERVICE_MODEL, SERVICE_NAMESPACE),
            (Kind::LLMInferenceService, SERVICE_MODEL, SERVICE_NAMESPACE),
        ] {
            let of = |own: &str| {
                let labels = json!({model: "secret", namespace: "victim"});
                user(kind, &from(json!({"name": "p", "namespace": own, "labels": labels})))
            };
            assert_eq!(of("attacker"), None, "{kind:?}");
            assert_eq!(of("victim").unwrap().cache, CacheKey::namespaced("victim", "secret"), "{kind:?}");
        }
    }

    #[test]
    fn kinds_are_named_as_the_api_server_names_them() {
        let kinds = [Kind::InferenceService, Kind::LLMInferenceService, Kind::Pod, Kind::ServicePod];
        let named = kinds.map(|kind| (kind.name(), kind.plural()));
        let pod = ("Pod", "pods");
        let services =
            [("InferenceService", "inferenceservices"), ("LLMInferenceService", "llminferenceservices")];
        assert_eq!(named, [services[0], services[1], pod, pod]);
    }

    #[test]
    fn an_object_without_a_label_or_with_an_empty_one_uses_nothing() {
        for labels in [json!({}), json!({SERVICE_MODEL: ""}), json!({POD_MODEL: "m"})] {
            let meta = from(json!({"name": "s", "namespace": "ns", "labels": labels}));
            assert_eq!(user(Kind::LLMInferenceService, &meta), None);
        }
    }

    #[test]
    fn a_pod_of_kserves_guards_its_cache_until_it_is_in_deletion() {
        let mut meta: ObjectMeta =
            from(json!({"name": "p", "namespace": "ns", "labels": {SERVICE_MODEL: "m"}}));
        assert_eq!(user(Kind::Pod, &meta), None);
        assert_eq!(user(Kind::ServicePod, &meta).unwrap().cache, CacheKey::cluster("m"));
        meta.deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
        assert_eq!(user(Kind::ServicePod, &meta), None);
    }
}
