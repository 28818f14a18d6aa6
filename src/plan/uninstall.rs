//! What goes when the operator is taken away: agents, their volumes, warm labels, webhooks that would
//! fail closed. Caches, groups, the nodes' objects, all other volumes and every file stay, so that another
//! operator, KServe's or a later one of ours, finds everything as it was (D5).

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::names::{self, MANAGED_BY, MANAGER};

/// What is there. The lists may hold more than is ours.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Configurations of webhooks that have one of our names.
    pub webhooks: Vec<Webhooks>,
    /// The `DaemonSets` of the operator's namespace.
    pub daemon_sets: Vec<ObjectMeta>,
    /// The claims of the operator's namespace.
    pub claims: Vec<ObjectMeta>,
    /// All volumes.
    pub volumes: Vec<ObjectMeta>,
    /// All nodes.
    pub nodes: Vec<ObjectMeta>,
}

/// A configuration of webhooks.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhooks {
    /// Its kind.
    pub kind: WebhookKind,
    /// Its name and resourceVersion.
    pub metadata: ObjectMeta,
    /// Its entries, each a webhook.
    pub entries: Vec<Value>,
}

/// The two kinds of configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookKind {
    /// `ValidatingWebhookConfiguration`.
    Validating,
    /// `MutatingWebhookConfiguration`.
    Mutating,
}

/// One thing that has to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// The thing.
    pub what: Target,
    /// Whether it is in deletion already.
    pub under_way: bool,
}

/// What has to go, by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A whole configuration of webhooks.
    Configuration(WebhookKind, String),
    /// Our entries in a configuration; what is given here stays in it.
    Entries(Box<Webhooks>),
    /// The agents of a group.
    DaemonSet(String),
    /// Their claim.
    Claim(String),
    /// Their volume.
    Volume(String),
    /// The labels of a warm node.
    Labels(String, Vec<String>),
}

impl fmt::Display for WebhookKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Validating => "ValidatingWebhookConfiguration",
            Self::Mutating => "MutatingWebhookConfiguration",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Configuration(kind, name) => write!(f, "{kind} {name}"),
            Self::Entries(kept) => {
                let name = kept.metadata.name.as_deref().unwrap_or_default();
                write!(f, "our entries of {} {name}", kept.kind)
            }
            Self::DaemonSet(name) => write!(f, "DaemonSet {name}"),
            Self::Claim(name) => write!(f, "PersistentVolumeClaim {name}"),
            Self::Volume(name) => write!(f, "PersistentVolume {name}"),
            Self::Labels(node, labels) => write!(f, "{} of Node {node}", labels.join(", ")),
        }
    }
}

/// Everything that has to go, in the order in which it goes. What is in deletion is in the list until it
/// is gone: nothing is left to do when the list is empty. `namespace` is the operator's.
pub fn removals(found: &Found, namespace: &str) -> Vec<Removal> {
    // Without the operator its webhooks refuse what others write: they go before anything takes time.
    let webhooks = found.webhooks.iter().filter_map(|webhooks| without_ours(webhooks, namespace));
    let webhooks = webhooks.map(|what| Removal { what, under_way: false });
    let agents = of_agents(&found.daemon_sets, Target::DaemonSet)
        .chain(of_agents(&found.claims, Target::Claim))
        .chain(of_agents(&found.volumes, Target::Volume));
    webhooks.chain(agents).chain(found.nodes.iter().filter_map(warm)).collect()
}

/// The volumes of caches, which stay.
pub fn volumes_of_caches(found: &Found) -> usize {
    found.volumes.iter().filter(|meta| is_ours(meta) && label(meta, names::CACHE).is_some()).count()
}

/// A configuration has our name when KServe's own is back under it too: only what points to us goes.
fn without_ours(webhooks: &Webhooks, namespace: &str) -> Option<Target> {
    let is_ours = |entry: &&Value| {
        let service = &entry["clientConfig"]["service"];
        service["name"] == names::WEBHOOK_SERVICE && service["namespace"] == namespace
    };
    let (ours, others): (Vec<_>, Vec<_>) = webhooks.entries.iter().partition(is_ours);
    match (ours.is_empty(), others.is_empty()) {
        (true, _) => None,
        (false, true) => Some(Target::Configuration(webhooks.kind, webhooks.metadata.name.clone()?)),
        (false, false) => Some(Target::Entries(Box::new(Webhooks {
            entries: others.into_iter().cloned().collect(),
            ..webhooks.clone()
        }))),
    }
}

/// What belongs to a group and to no cache is its agents'.
fn of_agents(objects: &[ObjectMeta], target: fn(String) -> Target) -> impl Iterator<Item = Removal> {
    let agents = objects.iter().filter(|meta| {
        is_ours(meta) && label(meta, names::NODE_GROUP).is_some() && label(meta, names::CACHE).is_none()
    });
    agents.filter_map(move |meta| {
        let under_way = meta.deletion_timestamp.is_some();
        Some(Removal { what: target(meta.name.clone()?), under_way })
    })
}

fn warm(node: &ObjectMeta) -> Option<Removal> {
    let labels = node.labels.iter().flatten().map(|(label, _)| label);
    let labels: Vec<String> = labels.filter(|label| names::is_warm_label(label)).cloned().collect();
    let what = Target::Labels(node.name.clone()?, labels.clone());
    (!labels.is_empty()).then_some(Removal { what, under_way: false })
}

fn is_ours(meta: &ObjectMeta) -> bool {
    label(meta, MANAGED_BY) == Some(MANAGER)
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests;
