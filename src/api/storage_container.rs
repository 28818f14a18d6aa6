//! `ClusterStorageContainer`: KServe's own kind, unchanged. Which container downloads which URIs.

use k8s_openapi::api::core::v1::Container;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The whole object but its metadata: `disabled` stands beside `spec`.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "serving.kserve.io",
    version = "v1alpha1",
    kind = "ClusterStorageContainer",
    doc = "The container that downloads models from the URIs that it supports.",
    category = "localmodel",
    no_spec,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Workload","type":"string","jsonPath":".spec.workloadType"}"#,
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.container.image"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct StorageContainer {
    /// The container and what it supports.
    pub spec: StorageContainerSpec,
    /// Whether this container is left out of the choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// The container and what it supports.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageContainerSpec {
    /// The container; for a download Job its args and volumeMounts are replaced.
    pub container: Container,
    /// The URIs that it can fetch: any one of them is enough.
    pub supported_uri_formats: Vec<SupportedUriFormat>,
    /// What it is used for: `initContainer` or `localModelDownloadJob`.
    #[serde(default = "init_container", skip_serializing_if = "Option::is_none")]
    pub workload_type: Option<String>,
    /// Whether it takes several pairs of source and destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supports_multi_model_download: Option<bool>,
}

#[allow(clippy::unnecessary_wraps)] // the shape that serde asks for
fn init_container() -> Option<String> {
    Some("initContainer".into())
}

/// A set of URIs: by prefix, else by regular expression.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
pub struct SupportedUriFormat {
    /// The URI starts with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The URI contains a match of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}
