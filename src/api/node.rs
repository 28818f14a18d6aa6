//! `LocalModelNode`: which models one node keeps (spec, written by the operator) and how they fare
//! there (status, written by the node's agents).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache::StorageSpec;

/// The models that a node is to keep: one entry per cache, sorted, never more.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "serving.kserve.io",
    version = "v1alpha1",
    kind = "LocalModelNode",
    doc = "The models that one node keeps on its local disk, and how they fare there. It has the node's name.",
    shortname = "lmn",
    category = "localmodel",
    status = "LocalModelNodeStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Models","type":"string","jsonPath":".status.summary.models"}"#,
    printcolumn = r#"{"name":"Free","type":"string","jsonPath":".status.summary.free"}"#,
    printcolumn = r#"{"name":"Disk","type":"string","jsonPath":".status.summary.disk"}"#,
    printcolumn = r#"{"name":"Scrubbed","type":"date","jsonPath":".status.summary.lastScrub"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct LocalModelNodeSpec {
    /// The models, sorted by namespace and name.
    pub local_models: Vec<ModelEntry>,
}

/// One model on one node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelEntry {
    /// The cache's name.
    pub model_name: String,
    /// Where the model is stored.
    pub source_model_uri: String,
    /// The cache's namespace; absent for a cluster cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The node group whose disk keeps the model. Left out exactly when it is the first group of a
    /// cluster cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_group: Option<String>,
    /// The service account whose secrets give access to the model's storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// The entry of the storage secret that gives access to the model's storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
    /// The bytes that the cache says the model has, as an agent reads them from the annotation beside the entries.
    #[serde(skip)]
    pub model_size: Option<u64>,
}

impl ModelEntry {
    /// The cache's namespace; `None` for a cluster cache, for which KServe may write an empty one.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|namespace| !namespace.is_empty())
    }

    /// The entry's key in the status maps: `M`, or `NS/M` for a namespace cache (KServe's
    /// `GetStatusKey`).
    pub fn status_key(&self) -> String {
        match self.namespace() {
            None => self.model_name.clone(),
            Some(namespace) => format!("{namespace}/{}", self.model_name),
        }
    }
}

/// How the models fare on this node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalModelNodeStatus {
    /// The phase of each model, by `M` or `NS/M`; exactly the keys of spec (A9).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub model_status: BTreeMap<String, ModelStatus>,
    /// Ours. The detail behind modelStatus, by the same keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelDetail>,
    /// Ours. The node's disks, by node group.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<String, DiskStatus>,
    /// Ours. The node in a line, for the table of `kubectl get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<NodeSummary>,
}

/// A node in a line.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    /// Complete copies of all planned ones, for example `2/3`.
    pub models: String,
    /// The space that is left on the disk that has least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Quantity>,
    /// `Usable`, or the reasons why disks cannot be used.
    pub disk: String,
    /// Since when all bytes on all disks are known to have been right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scrub: Option<Time>,
}

impl LocalModelNodeStatus {
    /// The status as KServe's own definition keeps it.
    #[must_use]
    pub fn without_ours(self) -> Self {
        Self { models: BTreeMap::new(), disks: BTreeMap::new(), summary: None, ..self }
    }
}

/// The phase of a model on a node (KServe's values, the empty one included).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum ModelStatus {
    /// The download has not begun.
    ModelDownloadPending,
    /// The download is under way.
    ModelDownloading,
    /// A complete copy is on the disk.
    ModelDownloaded,
    /// The download failed.
    ModelDownloadError,
    /// No statement; KServe allows it, nothing of ours writes it. Values of a later KServe are read as it.
    #[serde(rename = "", other)]
    Unknown,
}

impl ModelStatus {
    /// The value as the API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModelDownloadPending => "ModelDownloadPending",
            Self::ModelDownloading => "ModelDownloading",
            Self::ModelDownloaded => "ModelDownloaded",
            Self::ModelDownloadError => "ModelDownloadError",
            Self::Unknown => "",
        }
    }
}

/// One model in detail.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelDetail {
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
    /// Why the model is in this phase, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for a person, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How often the download has failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// When the download is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Time>,
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

/// What befell a copy that was complete (A5).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// When it was found.
    pub time: Time,
    /// `CopyDamaged` or `CopyVanished`.
    pub reason: String,
    /// The files, and what is wrong with them.
    pub message: String,
}

/// A node group's disk on this node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskStatus {
    /// The size of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Quantity>,
    /// The room that is left on it. Written when it has changed by 5 %, or along with something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Quantity>,
    /// Since when all bytes are known to have been right: when the copy that was checked longest ago was
    /// compared with its digests, by the scrub or as it was downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scrub: Option<Time>,
    /// Bytes that the last scrub of each copy has read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrubbed_bytes: Option<i64>,
    /// Files that it found damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_files: Option<i64>,
    /// What lies on the disk that is not ours, at most ten names: it is left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ours: Vec<String>,
    /// Why the disk cannot be used, in one word; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for a person: path, user id and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
