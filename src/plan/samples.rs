//! The objects of the documented walkthrough, and small variations of them, for the tests of the plan.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::cache::LocalModelCacheSpec;
use crate::api::{CacheSpec, ClusterStorageContainer, LocalModelCache, LocalModelNodeGroup, ModelEntry};
use crate::config::Config;

pub(super) const URI: &str = "hf://meta-llama/meta-llama-3-8b-instruct";
pub(super) const KEY: &str = "c277d78a31bc6624";
pub(super) const OWN_IMAGE: &str = "localmodel:1";

/// A value of a type from JSON.
pub(super) fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the sample parses")
}

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).expect("the fixture parses")
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// The documented node group, as the API server returns it.
pub(super) fn group() -> LocalModelNodeGroup {
    let mut group: LocalModelNodeGroup =
        yaml(include_str!("../../fixtures/walkthrough/local-model-node-group.yaml"));
    group.metadata.uid = Some("group-uid".into());
    group.metadata.generation = Some(1);
    group
}

/// A group of this name whose nodes carry the label `group=<name>`.
pub(super) fn group_named(name: &str) -> LocalModelNodeGroup {
    let mut group = group();
    group.metadata.name = Some(name.into());
    group.metadata.uid = Some(format!("{name}-uid"));
    group.spec.persistent_volume_spec.node_affinity = from(json!({"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "group", "operator": "In", "values": [name]}]},
    ]}}));
    group
}

/// The documented cache, as the API server returns it.
pub(super) fn cache() -> LocalModelCache {
    let mut cache: LocalModelCache = yaml(include_str!("../../fixtures/walkthrough/local-model-cache.yaml"));
    cache.metadata.uid = Some("cache-uid".into());
    cache.metadata.generation = Some(1);
    cache
}

/// A cache of this name and URI in these groups.
pub(super) fn cache_named(name: &str, uri: &str, groups: &[&str]) -> LocalModelCache {
    let spec = CacheSpec {
        source_model_uri: uri.into(),
        node_groups: groups.iter().map(ToString::to_string).collect(),
        ..cache().spec.0
    };
    LocalModelCache::new(name, LocalModelCacheSpec(spec))
}

/// A cache of group `workers` with a source of its own, of this size and made at this second.
pub(super) fn cache_sized(name: &str, size: &str, second: i64) -> LocalModelCache {
    let mut cache = cache_named(name, &format!("hf://o/{name}"), &["workers"]);
    cache.spec.0.model_size = Quantity(size.into());
    cache.metadata.creation_timestamp = Some(Time(at(second)));
    cache
}

/// The documented group with another limit.
pub(super) fn group_limited(limit: &str) -> LocalModelNodeGroup {
    let mut group = group();
    group.spec.storage_limit = Quantity(limit.into());
    group
}

/// The documented storage container.
pub(super) fn hf_hub() -> ClusterStorageContainer {
    yaml(include_str!("../../fixtures/walkthrough/cluster-storage-container.yaml"))
}

/// The documented settings.
pub(super) fn config() -> Config {
    let data: Value = yaml(include_str!("../../fixtures/walkthrough/inferenceservice-config.yaml"));
    Config::read(Some(&from(json!({ "data": data })))).expect("the documented settings")
}

/// A ready node with the documented label.
pub(super) fn node(name: &str) -> Node {
    labelled_node(name, &json!({"nvidia.com/gpu-product": "NVIDIA-A100-SXM4-80GB"}))
}

/// A ready node with these labels.
pub(super) fn labelled_node(name: &str, labels: &Value) -> Node {
    from(json!({
        "metadata": {"name": name, "uid": format!("{name}-uid"), "labels": labels},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

/// The same node while its kubelet says nothing.
pub(super) fn not_ready(mut node: Node) -> Node {
    node.status = from(json!({"conditions": [{"type": "Ready", "status": "Unknown"}]}));
    node
}

/// The documented entry.
pub(super) fn entry() -> ModelEntry {
    entry_of("meta-llama3-8b-instruct", URI)
}

/// An entry of a cache's first group.
pub(super) fn entry_of(model: &str, uri: &str) -> ModelEntry {
    ModelEntry { model_name: model.into(), source_model_uri: uri.into(), ..ModelEntry::default() }
}

/// The reference that makes an object the owner of another.
pub(super) fn owner<K: Resource<DynamicType = ()>>(object: &K) -> OwnerReference {
    object.controller_owner_ref(&()).expect("the sample has a name and a uid")
}
