//! Every name that this project gives: objects, labels, annotations, folders. Nothing else puts two
//! names together.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::api::source::{is_hex, is_storage_key};
use crate::api::{LocalModelNode, ModelEntry};

/// The field manager of every write, and the value of the managed-by label.
pub const MANAGER: &str = "localmodel";

/// The label that says an object is ours.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label of an object that belongs to one cache.
pub const CACHE: &str = "localmodel.kserve.io/cache";
/// The label beside it where that is a namespace cache: its namespace.
pub const CACHE_NAMESPACE: &str = "localmodel.kserve.io/cache-namespace";
/// The label of what a namespace cache cannot own: the cache's uid, which tells it from an earlier cache
/// of the same name.
pub const CACHE_UID: &str = "localmodel.kserve.io/cache-uid";
/// The label of an object that belongs to one node group.
pub const NODE_GROUP: &str = "localmodel.kserve.io/node-group";
/// The label of a Job: the storage key of what it downloads.
pub const STORAGE_KEY: &str = "localmodel.kserve.io/storage-key";
/// The label of a serving volume and claim: the namespace of the services that read through it.
pub const SERVES: &str = "localmodel.kserve.io/serves";
/// The annotation of a serving claim that nobody uses any more: since when, in RFC 3339 (S7).
pub const UNUSED_SINCE: &str = "localmodel.kserve.io/unused-since";
/// The annotation that holds a digest of the manifest that was last applied.
pub const APPLIED: &str = "localmodel.kserve.io/applied";
/// The annotation of a `LocalModelNode` that names the node's groups, divided by commas. An agent whose
/// group is not among them touches nothing: its node has left, and the files stay (N5).
pub const MEMBER_OF: &str = "localmodel.kserve.io/member-of";
/// The annotation of a `LocalModelNode` that says how many bytes each model may have, by status key, as JSON: the
/// entries are KServe's, and its definition keeps nothing else in them.
pub const MODEL_SIZES: &str = "localmodel.kserve.io/model-sizes";
/// The annotation of the namespace of download Jobs with the priority class that the settings name: admission refuses
/// an agent's Job with any other.
pub const PRIORITY_CLASS: &str = "localmodel.kserve.io/priority-class";
/// The annotation of a download Job: digests of what it was made from, by which a change of its credentials
/// or of its container shows (A6).
pub const RECIPE: &str = "localmodel.kserve.io/recipe";
/// The annotation of a copy of credentials that has no values: why, as JSON with `reason` and `message`.
pub const CREDENTIALS_PROBLEM: &str = "localmodel.kserve.io/credentials-problem";
/// KServe's label of a download Job: the cache's name.
pub const JOB_MODEL: &str = "model";
/// KServe's label of a download Job: the node's name.
pub const JOB_NODE: &str = "node";
/// KServe's label of a download Job: the namespace of a namespace cache.
pub const JOB_NAMESPACE: &str = "modelNamespace";
/// KServe's label of a service, and of its pods, that use a cache: the cache's name (S2).
pub const SERVICE_MODEL: &str = "internal.serving.kserve.io/localmodel";
/// KServe's label beside it where the cache is a namespace cache: its namespace (S4).
pub const SERVICE_NAMESPACE: &str = "internal.serving.kserve.io/localmodel-namespace";
/// KServe's annotation of such a service: the claim that its pods mount.
pub const SERVICE_CLAIM: &str = "internal.serving.kserve.io/localmodel-pvc-name";
/// KServe's annotation of such a service: the cache's source.
pub const SERVICE_SOURCE: &str = "internal.serving.kserve.io/localmodel-sourceuri";
/// KServe's annotation with which a service or pod chooses a node group (S3, S10).
pub const CHOSEN_GROUP: &str = "serving.kserve.io/nodegroup";
/// The label by which any pod asks for a cache (S10).
pub const POD_MODEL: &str = "localmodel.kserve.io/model";
/// The label beside it where the cache is a namespace cache: its namespace. Set by our pod webhook.
pub const POD_MODEL_NAMESPACE: &str = "localmodel.kserve.io/model-namespace";
/// The pod annotation that says where the model is mounted; [`MOUNT_PATH`] without it (S10).
pub const POD_MOUNT_PATH: &str = "localmodel.kserve.io/mount-path";
/// The pod annotation that names the containers that get the model, divided by commas; all without it (S10).
pub const POD_CONTAINERS: &str = "localmodel.kserve.io/containers";
/// The pod annotation that leaves the gate out when it is `false` (S11).
pub const POD_GATE: &str = "localmodel.kserve.io/gate";
/// KServe's name of the volume through which a pod reaches a model.
pub const MODEL_VOLUME: &str = "kserve-pvc-source";
/// The gate: an init container that waits until the copy on its node is complete (S11).
pub const GATE_CONTAINER: &str = "localmodel-wait";
/// The gate's variable with the cache, for its log.
pub const GATE_MODEL: &str = "LOCALMODEL_MODEL";
/// The gate's variable with the node, for its log.
pub const GATE_NODE: &str = "LOCALMODEL_NODE";
/// What our node labels begin with; a warm node carries `<prefix><storage key>=<group>`.
pub const WARM_PREFIX: &str = "localmodel.kserve.io/";
/// The finalizer of a cluster cache (KServe's).
pub const FINALIZER: &str = "localmodel.kserve.io/finalizer";
/// The finalizer of a namespace cache (KServe's).
pub const NAMESPACE_FINALIZER: &str = "localmodelnamespacecache.kserve.io/finalizer";
/// The ConfigMap with KServe's settings, in the operator's namespace.
pub const CONFIG_MAP: &str = "inferenceservice-config";
/// Where agents and Jobs mount a disk.
pub const MOUNT_PATH: &str = "/mnt/models";
/// The container of a download Job where no `ClusterStorageContainer` names it.
pub const JOB_CONTAINER: &str = "kserve-localmodel-download";
/// The Service through which the API server reaches the webhook server.
pub const WEBHOOK_SERVICE: &str = "localmodel-webhook";
/// The Secret of the webhook server's certificate, in the operator's namespace.
pub const WEBHOOK_SECRET: &str = "localmodel-webhook-cert";
/// The `ValidatingWebhookConfiguration`: KServe's own name, taken over, because KServe's fails closed and
/// would block every cache once its server is gone (D6).
pub const VALIDATING_WEBHOOKS: &str = "localmodelcache.serving.kserve.io";
/// The `MutatingWebhookConfiguration`. It sorts after KServe's `inferenceservice.serving.kserve.io`, whose
/// pod webhook has then done its part.
pub const MUTATING_WEBHOOKS: &str = "localmodel.serving.kserve.io";
/// The service account of agents.
pub const AGENT_ACCOUNT: &str = "localmodel-agent";
/// The operator's Deployment, and the `app.kubernetes.io/name` of its pods.
pub const OPERATOR: &str = "localmodel-operator";

/// The folder of complete copies, below a disk's root or a namespace's.
pub const MODELS: &str = "models";
/// The folder that download Jobs write.
pub const INCOMING: &str = "incoming";
/// The folder of what the gate reads: `gate/K/status.json` says how the copy fares.
pub const GATE: &str = "gate";
/// The folder of what pods mount: `serve/K` holds the model K and its gate, and nothing else.
pub const SERVE: &str = "serve";
/// The folder of namespace caches, below a disk's root; each namespace has its own folder in it.
pub const NAMESPACES: &str = "namespaces";

/// The longest name of a Job and the longest value of a label.
const LABEL_MAX: usize = 63;
/// The digits of a hash that stand for a namespace in a node label.
const NAMESPACE_DIGITS: usize = 8;
/// The longest name of a node that the name of a Job holds in full, whatever else it has to cut.
pub const WHOLE_NODE_MAX: usize = 43;
/// The longest name of other objects.
const NAME_MAX: usize = 253;

/// A cache, of either kind, printed as in the status of nodes (`M` or `NS/M`); cluster caches sort before namespace caches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey {
    /// The namespace of a namespace cache; `None` for a cluster cache.
    pub namespace: Option<String>,
    /// The cache's name.
    pub name: String,
}

impl CacheKey {
    /// The key of a cluster cache.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { namespace: None, name: name.into() }
    }

    /// The key of a namespace cache.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), name: name.into() }
    }

    /// The cache that an entry is of.
    pub fn of(entry: &ModelEntry) -> Self {
        Self { namespace: entry.namespace().map(Into::into), name: entry.model_name.clone() }
    }

    /// The parts of a name that is to be the cache's own.
    fn parts(&self) -> impl Iterator<Item = &str> {
        [self.name.as_str()].into_iter().chain(self.namespace.as_deref())
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.namespace {
            None => f.write_str(&self.name),
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// The claim of a cache in the job namespace. The first group's has the cache's own name.
pub fn download_claim(cache: &CacheKey, group: &str, first: bool) -> String {
    match (&cache.namespace, first) {
        (Some(namespace), _) => join(&[&cache.name, group, namespace, "download"], NAME_MAX),
        (None, true) => cache.name.clone(),
        (None, false) => join(&[&cache.name, group], NAME_MAX),
    }
}

/// The volume behind [`download_claim`].
pub fn download_volume(cache: &CacheKey, group: &str, first: bool) -> String {
    match (&cache.namespace, first) {
        (None, true) => join(&[&cache.name, "download"], NAME_MAX),
        (None, false) => join(&[&cache.name, group, "download"], NAME_MAX),
        (Some(_), _) => download_claim(cache, group, first),
    }
}

/// The claim through which the services of a namespace read a cache. KServe's pod webhook mounts this name.
pub fn serving_claim(cache: &CacheKey, group: &str) -> String {
    join(&[&cache.name, group], NAME_MAX)
}

/// The volume behind [`serving_claim`], for the services of one namespace.
pub fn serving_volume(cache: &CacheKey, group: &str, services: &str) -> String {
    join(&[&cache.name, group, services], NAME_MAX)
}

/// The `DaemonSet`, claim and volume of a group's agents.
pub fn agent(group: &str) -> String {
    join(&[group, "agent"], NAME_MAX)
}

/// The download Job of a cache on a node.
pub fn job(cache: &CacheKey, node: &str) -> String {
    let plain = job_parts(cache, node).join("-");
    if plain.len() <= LABEL_MAX { plain } else { job_hashed(cache, node, None) }
}

/// The same Job where somebody else's object has the plain name.
pub fn job_aside(cache: &CacheKey, node: &str) -> String {
    job_hashed(cache, node, None)
}

/// The same Job where even that name is taken: nobody takes a name in advance that contains the time.
pub fn job_unforeseen(cache: &CacheKey, node: &str, time: Timestamp) -> String {
    job_hashed(cache, node, Some(&time.as_nanosecond().to_string()))
}

/// A hash over all parts, and the node's whole name behind it: admission holds an agent to names that end so. A
/// node's name that leaves too little for the rest is cut.
fn job_hashed(cache: &CacheKey, node: &str, time: Option<&str>) -> String {
    let parts = job_parts(cache, node);
    let hashed_parts: Vec<&str> = parts.iter().copied().chain(time).collect();
    if node.len() > WHOLE_NODE_MAX {
        return cut(&parts.join("-"), &hashed_parts, LABEL_MAX);
    }
    let of_cache: Vec<&str> = cache.parts().collect();
    format!("{}-{node}", cut(&of_cache.join("-"), &hashed_parts, LABEL_MAX - 1 - node.len()))
}

fn job_parts<'a>(cache: &'a CacheKey, node: &'a str) -> Vec<&'a str> {
    cache.parts().chain([node]).collect()
}

/// The copy of a namespace cache's credentials in the job namespace. Always hashed: two tenants must never
/// have one name between them.
pub fn credentials(cache: &CacheKey) -> String {
    let parts: Vec<&str> = cache.parts().chain(["credentials"]).collect();
    hashed(&parts, NAME_MAX)
}

/// A text as the value of a label.
pub fn label_value(text: &str) -> String {
    join(&[text], LABEL_MAX)
}

/// The annotations that hold in full what labels had to shorten, by label; `None` when nothing was.
pub fn full_names(labels: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    let shortened = labels.iter().filter(|(_, full)| label_value(full) != *full);
    let annotation =
        |label: &str| if label.contains('/') { label.to_owned() } else { format!("{WARM_PREFIX}{label}") };
    let all: BTreeMap<_, _> =
        shortened.map(|(label, full)| (annotation(label), (*full).to_owned())).collect();
    (!all.is_empty()).then_some(all)
}

/// The node label that says a copy is complete; a namespace's own copy has its own label.
pub fn warm_label(storage_key: &str, namespace: Option<&str>) -> String {
    let tail = namespace.map(|namespace| {
        let digest = Sha256::digest(namespace.as_bytes());
        format!("-{}", hex::encode(&digest[..NAMESPACE_DIGITS / 2]))
    });
    format!("{WARM_PREFIX}{storage_key}{}", tail.unwrap_or_default())
}

/// Whether a node label says that a copy is complete: a storage key after the prefix and, for a namespace
/// cache, a dash and eight hexadecimal digits of its namespace.
pub fn is_warm_label(label: &str) -> bool {
    let Some(name) = label.strip_prefix(WARM_PREFIX) else { return false };
    let (key, namespace) = name.split_once('-').map_or((name, None), |(key, tail)| (key, Some(tail)));
    is_storage_key(key) && namespace.is_none_or(|tail| tail.len() == NAMESPACE_DIGITS && is_hex(tail))
}

/// Whether the operator counts a node to this group. It takes the group away in the same write as the
/// entries, so that an agent that is about to be ended does not erase what a node may come back to (N5).
pub fn is_member(local: &LocalModelNode, group: &str) -> bool {
    let groups = local.metadata.annotations.as_ref().and_then(|annotations| annotations.get(MEMBER_OF));
    groups.is_some_and(|groups| groups.split(',').any(|of| of == group))
}

/// The plain join where it fits, else [`hashed`].
fn join(parts: &[&str], max: usize) -> String {
    let plain = parts.join("-");
    if plain.len() <= max { plain } else { hashed(parts, max) }
}

/// As much of the plain join as fits, a dash, and eight hexadecimal digits of a hash over the parts.
fn hashed(parts: &[&str], max: usize) -> String {
    cut(&parts.join("-"), parts, max)
}

/// As much of a text as fits before a dash and eight hexadecimal digits of a hash over the parts.
fn cut(text: &str, parts: &[&str], max: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]); // no object's name contains it, so that other parts hash differently
    }
    let digest = hash.finalize();
    let tail = hex::encode(&digest[..4]);
    let end = text.floor_char_boundary(max - tail.len() - 1);
    format!("{}-{tail}", text[..end].trim_end_matches(['-', '.', '_']))
}

/// A text as an argument or a variable of a container, in which Kubernetes would replace `$(NAME)` by another variable:
/// in a source URI or an endpoint that would send the container's secrets to whoever is named there.
pub fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests;
