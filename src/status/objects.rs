//! What the command reads of the cluster: of each object only what it shows. A list of a thousand nodes is
//! long, most of it is the API server's own book-keeping, and what is not read costs next to nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::api::CacheStatus;
use crate::api::cache::StorageSpec;
use crate::api::node::{DiskStatus, LocalModelNodeStatus};
use crate::api::node_group::LocalModelNodeGroupStatus;
use crate::plan::names::CacheKey;

/// Who an object is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// What tells it from an earlier one of its name.
    pub uid: Option<String>,
    /// When it was made.
    pub creation_timestamp: Option<Time>,
    /// Since when it is in deletion.
    pub deletion_timestamp: Option<Time>,
}

/// An object, of whatever kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, bound = "S: Deserialize<'de> + Default, T: Deserialize<'de> + Default")]
pub struct Object<S, T> {
    /// Who it is.
    pub metadata: Meta,
    /// What is asked.
    pub spec: S,
    /// How it fares.
    pub status: Option<T>,
}

/// Objects of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "O: Deserialize<'de>")]
pub struct Listed<O> {
    /// All of them.
    #[serde(default = "Vec::new")]
    pub items: Vec<O>,
}

/// A cache of either kind.
pub type Cache = Object<CacheAsk, CacheStatus>;
/// A node group.
pub type Group = Object<GroupAsk, LocalModelNodeGroupStatus>;
/// A `LocalModelNode` as the whole fleet needs it.
pub type Node = Object<IgnoredAny, Disks>;
/// A `LocalModelNode` as one cache's story needs it.
pub type WholeNode = Object<IgnoredAny, LocalModelNodeStatus>;

/// What a cache asks for. Also one that breaks a rule of today's definition is shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CacheAsk {
    /// Where the model is stored.
    pub source_model_uri: String,
    /// The room that it takes.
    pub model_size: Option<Quantity>,
    /// The node groups that keep it.
    pub node_groups: Vec<String>,
    /// The service account with the credentials.
    pub service_account_name: Option<String>,
    /// The storage secret's entry with the credentials.
    pub storage: Option<StorageSpec>,
}

/// What a node group asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupAsk {
    /// The most that models may take on a node.
    pub storage_limit: Option<Quantity>,
    /// The volume that its volumes are made like.
    pub persistent_volume_spec: Value,
}

impl GroupAsk {
    /// The folder on each node that holds the models.
    pub fn path(&self) -> Option<&str> {
        ["/local/path", "/hostPath/path"]
            .iter()
            .find_map(|at| self.persistent_volume_spec.pointer(at)?.as_str())
    }
}

/// What a node says of its disks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Disks {
    /// Its disks, by node group.
    pub disks: BTreeMap<String, DiskStatus>,
}

impl Cache {
    /// Which cache it is.
    pub fn key(&self) -> CacheKey {
        CacheKey { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }
}

/// What is known of the operator, which writes what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operator {
    /// It could not be asked.
    #[default]
    Unknown,
    /// One runs.
    Running,
    /// None runs, and this is when one spoke last, where that is known.
    Gone(Option<Timestamp>),
}

impl Operator {
    /// Why what is shown may be stale. KServe's own definitions keep no conditions: there somebody else writes.
    pub fn stale(self, caches: &[Cache], now: Timestamp) -> Option<String> {
        let Self::Gone(spoke) = self else { return None };
        let statuses = || caches.iter().filter_map(|cache| cache.status.as_ref());
        let conditions = || statuses().flat_map(|status| &status.conditions);
        if !caches.is_empty() && conditions().next().is_none() {
            return None;
        }
        let ago = |time: Timestamp| super::draw::age(time, now);
        let newest = conditions().map(|condition| condition.last_transition_time.0).max();
        let since = match (spoke, newest) {
            (Some(spoke), _) => format!("the last one reported {} ago", ago(spoke)),
            (None, Some(newest)) => {
                format!("there is no Lease, and the newest change is {} old", ago(newest))
            }
            (None, None) => "there is no Lease".to_owned(),
        };
        Some(format!("no operator is running ({since}): what is shown may be stale"))
    }
}

/// All that one look at the fleet sees.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The caches of both kinds.
    pub caches: Vec<Cache>,
    /// The node groups.
    pub groups: Vec<Group>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The nodes of Kubernetes that have labels of copies.
    pub labelled: Vec<String>,
    /// The operator.
    pub operator: Operator,
    /// What could not be seen, and why.
    pub notes: Vec<String>,
}
