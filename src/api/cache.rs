//! `LocalModelCache` and `LocalModelNamespaceCache`: which model to keep warm, and on which nodes.

use std::collections::BTreeMap;
use std::ops::Deref;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::node::Damage;

/// What both kinds of cache ask for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheSpec {
    /// Where the model is stored, for example `hf://meta-llama/meta-llama-3-8b-instruct`. It cannot be
    /// changed: make a new cache for another model.
    #[schemars(length(max = 2048))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("StorageUri is immutable"),
        validation = Rule::new("self.size() > 0")
            .message("sourceModelUri must say where the model is stored, for example hf://owner/model")
    )]
    pub source_model_uri: String,
    /// The room that the model takes on each node's disk, for example `10Gi`. It is the size of the
    /// model's volumes and counts against the storageLimit of its node groups.
    #[x_kube(
        validation = Rule::new("isQuantity(string(self))")
            .message("modelSize is not a quantity, for example 10Gi"),
        validation = Rule::new("!isQuantity(string(self)) || quantity(string(self)).isGreaterThan(quantity('0'))")
            .message("modelSize must be more than 0, for example 10Gi")
    )]
    pub model_size: Quantity,
    /// The node groups whose nodes keep the model. The first one names the download volumes and
    /// cannot be changed; others can be added and removed.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(
        validation = Rule::new("self.all(group, self.exists_one(other, other == group))")
            .message("nodeGroups must not name a group twice"),
        validation = Rule::new("self.size() == 0 || oldSelf.size() == 0 || self[0] == oldSelf[0]")
            .message("the first of nodeGroups cannot be changed: the model's volumes are named after it")
    )]
    pub node_groups: Vec<String>,
    /// The service account whose secrets give access to the model's storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account_name: Option<String>,
    /// The entry of the storage secret that gives access to the model's storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
}

/// Which entry of the storage secret to use, and what to override in it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
pub struct StorageSpec {
    /// The key in the storage secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
    /// Values that override the secret's: at most 32, with 4096 characters in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(
        validation = Rule::new("self.all(key, key.size() <= 253)")
            .message("a key of storage.parameters may have 253 characters"),
        validation = Rule::new("self.map(key, key.size() + self[key].size()).sum() <= 4096")
            .message("all keys and values of storage.parameters may have 4096 characters")
    )]
    pub parameters: Option<BTreeMap<String, String>>,
}

/// A model kept warm on the nodes of its groups, for services of every namespace.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "serving.kserve.io",
    version = "v1alpha1",
    kind = "LocalModelCache",
    doc = "A model kept warm on the local disks of the nodes of its groups, for services of every namespace.",
    shortname = "lmc",
    category = "localmodel",
    status = "CacheStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("a cache's name can have at most 63 characters: it becomes the value of a label"),
    printcolumn = r#"{"name":"Source","type":"string","jsonPath":".spec.sourceModelUri"}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".spec.modelSize"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[cfg_attr(test, kube(cel))]
#[serde(transparent)]
pub struct LocalModelCacheSpec(pub CacheSpec);

/// A model kept warm for services of the cache's own namespace only.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "serving.kserve.io",
    version = "v1alpha1",
    kind = "LocalModelNamespaceCache",
    doc = "A model kept warm on the local disks of the nodes of its groups, for services of its own namespace only.",
    namespaced,
    shortname = "lmnc",
    category = "localmodel",
    status = "CacheStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("a cache's name can have at most 63 characters: it becomes the value of a label"),
    printcolumn = r#"{"name":"Source","type":"string","jsonPath":".spec.sourceModelUri"}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".spec.modelSize"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[cfg_attr(test, kube(cel))]
#[serde(transparent)]
pub struct LocalModelNamespaceCacheSpec(pub CacheSpec);

impl Deref for LocalModelCacheSpec {
    type Target = CacheSpec;
    fn deref(&self) -> &CacheSpec {
        &self.0
    }
}

impl Deref for LocalModelNamespaceCacheSpec {
    type Target = CacheSpec;
    fn deref(&self) -> &CacheSpec {
        &self.0
    }
}

/// Where a cache's copies are and how they fare.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStatus {
    /// What each planned node says of its copy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_status: BTreeMap<String, NodeStatus>,
    /// How many copies there are; zero counts are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<ModelCopies>,
    /// The InferenceServices that use this cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inference_services: Vec<NamespacedName>,
    /// The LLMInferenceServices that use this cache.
    #[serde(default, rename = "llmInferenceServices", skip_serializing_if = "Vec::is_empty")]
    pub llm_inference_services: Vec<NamespacedName>,
    /// Ours. What holds for the cache as a whole; `Ready` is true when at least one copy is available and no
    /// node that is ready lacks its copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Ours. The detail behind nodeStatus.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, NodeCopy>,
    /// Ours. Available copies of all, as text for the table of `kubectl get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
}

impl CacheStatus {
    /// The status as KServe's own definition keeps it.
    #[must_use]
    pub fn without_ours(self) -> Self {
        Self { conditions: Vec::new(), nodes: BTreeMap::new(), ready: None, ..self }
    }
}

/// What a node says of a copy (KServe's values, the empty one included).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum NodeStatus {
    /// The node is planned but not ready.
    NodeNotReady,
    /// The download has not begun.
    NodeDownloadPending,
    /// The download is under way.
    NodeDownloading,
    /// A complete copy is on the node.
    NodeDownloaded,
    /// The download failed.
    NodeDownloadError,
    /// No statement; KServe allows it, nothing of ours writes it. Values of a later KServe are read as it.
    #[serde(rename = "", other)]
    Unknown,
}

/// Counts of copies; a zero is left out.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct ModelCopies {
    /// Complete copies on nodes that are ready.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub available: i32,
    /// Planned copies, on nodes ready or not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total: i32,
    /// Copies whose download failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape that serde asks for
fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// A service that uses a cache.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub struct NamespacedName {
    /// The service's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One copy in detail.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCopy {
    /// The same value as in nodeStatus.
    pub phase: NodeStatus,
    /// Bytes of the copy that are on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    /// Bytes that the whole copy has, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// Files of the copy that are on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_done: Option<i64>,
    /// Files that the whole copy has, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_total: Option<i64>,
    /// Why the copy is in this phase, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for a person, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the last download began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// How a complete copy was last found damaged. It stays when the copy is mended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_damage: Option<Damage>,
}

impl NodeCopy {
    /// A copy of which nothing but its phase is known.
    pub fn of_phase(phase: NodeStatus) -> Self {
        Self {
            phase,
            bytes_done: None,
            bytes_total: None,
            files_done: None,
            files_total: None,
            reason: None,
            message: None,
            started: None,
            finished: None,
            last_damage: None,
        }
    }
}
