//! `LocalModelNodeGroup`: which nodes, which disk, how much of it.

use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolumeClaimSpec, PersistentVolumeSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The nodes and the disk that a group stands for.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "serving.kserve.io",
    version = "v1alpha1",
    kind = "LocalModelNodeGroup",
    doc = "A group of nodes that keep models on a local disk, and the volumes that reach that disk.",
    shortname = "lmng",
    category = "localmodel",
    status = "LocalModelNodeGroupStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Limit","type":"string","jsonPath":".spec.storageLimit"}"#,
    printcolumn = r#"{"name":"Used","type":"string","jsonPath":".status.used"}"#,
    printcolumn = r#"{"name":"Available","type":"string","jsonPath":".status.available"}"#,
    printcolumn = r#"{"name":"Path","type":"string","jsonPath":".spec.persistentVolumeSpec.local.path"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct LocalModelNodeGroupSpec {
    /// The most that models may take on one node of this group, for example `1.7T`.
    #[x_kube(
        validation = Rule::new("isQuantity(string(self))")
            .message("storageLimit is not a quantity, for example 1.7T"),
        validation = Rule::new("!isQuantity(string(self)) || !quantity(string(self)).isLessThan(quantity('0'))")
            .message("storageLimit must not be negative")
    )]
    pub storage_limit: Quantity,
    /// Ours. The most that the caches of one namespace may take of storageLimit on one node, for example `200Gi`;
    /// without it any one may take all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("isQuantity(string(self))")
            .message("namespaceStorageLimit is not a quantity, for example 200Gi"),
        validation = Rule::new("!isQuantity(string(self)) || !quantity(string(self)).isLessThan(quantity('0'))")
            .message("namespaceStorageLimit must not be negative")
    )]
    pub namespace_storage_limit: Option<Quantity>,
    /// The volume that every volume of this group is made like. Its nodeAffinity.required says which
    /// nodes belong to the group, its local.path where their disk is. It cannot be changed, because
    /// volumes cannot: make a new group.
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("persistentVolumeSpec is immutable: make a new node group and move the caches to it")
    )]
    pub persistent_volume_spec: PersistentVolumeSpec,
    /// The claim that every claim of this group is made like.
    pub persistent_volume_claim_spec: PersistentVolumeClaimSpec,
}

impl LocalModelNodeGroupSpec {
    /// The nodes of this group: the required node affinity alone decides (G3).
    pub fn node_selector(&self) -> Option<&NodeSelector> {
        self.persistent_volume_spec.node_affinity.as_ref()?.required.as_ref()
    }

    /// The folder on each node that this group's volumes reach.
    pub fn path(&self) -> Option<&str> {
        let volume = &self.persistent_volume_spec;
        let local = volume.local.as_ref().map(|local| local.path.as_str());
        local.or_else(|| volume.host_path.as_ref().map(|host| host.path.as_str())).filter(|p| !p.is_empty())
    }
}

/// How the group fares.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalModelNodeGroupStatus {
    /// What the planned models take on the fullest node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Quantity>,
    /// What is left of storageLimit there; nothing where more is planned than it allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<Quantity>,
    /// Ours. What holds for the group as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
