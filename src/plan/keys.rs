//! Every label and annotation that this project reads or writes, for the reference.

use super::names::{
    APPLIED, CACHE, CACHE_NAMESPACE, CACHE_UID, CHOSEN_GROUP, CREDENTIALS_PROBLEM, MANAGED_BY, MEMBER_OF,
    MODEL_SIZES, NODE_GROUP, POD_CONTAINERS, POD_GATE, POD_MODEL, POD_MODEL_NAMESPACE, POD_MOUNT_PATH,
    PRIORITY_CLASS, RECIPE, SERVES, SERVICE_CLAIM, SERVICE_MODEL, SERVICE_NAMESPACE, SERVICE_SOURCE,
    STORAGE_KEY, UNUSED_SINCE,
};

/// Who writes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A person, to ask for something.
    User,
    /// This project.
    Ours,
    /// KServe.
    KServe,
}

/// A label or an annotation.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key.
    pub key: &'static str,
    /// `label` or `annotation`.
    pub kind: &'static str,
    /// The kinds of object that have it.
    pub on: &'static str,
    /// Who writes it.
    pub writer: Writer,
    /// What it says.
    pub meaning: &'static str,
}

const fn key(
    writer: Writer,
    key: &'static str,
    kind: &'static str,
    on: &'static str,
    meaning: &'static str,
) -> Key {
    Key { key, kind, on, writer, meaning }
}

use Writer::{KServe, Ours, User};

/// All of them, what people write first.
pub const ALL: &[Key] = &[
    key(
        User,
        POD_MODEL,
        "label",
        "Pod",
        "Mounts the model of the LocalModelCache, or of the LocalModelNamespaceCache of the pod's namespace, with this \
         name. The pod prefers nodes with a complete copy, and waits for the copy before its containers start.",
    ),
    key(
        User,
        POD_MOUNT_PATH,
        "annotation",
        "Pod",
        "The absolute path at which the model is mounted; `/mnt/models` without it.",
    ),
    key(
        User,
        POD_CONTAINERS,
        "annotation",
        "Pod",
        "The containers that get the model, separated by commas; all without it.",
    ),
    key(
        User,
        POD_GATE,
        "annotation",
        "Pod",
        "`false` leaves out the init container `localmodel-wait`: the pod starts whether the copy is complete or not.",
    ),
    key(
        User,
        CHOSEN_GROUP,
        "annotation",
        "Pod, InferenceService, LLMInferenceService",
        "The node group whose copy is used, where the cache has several.",
    ),
    key(
        Ours,
        POD_MODEL_NAMESPACE,
        "label",
        "Pod",
        "The namespace of the LocalModelNamespaceCache that the pod uses; empty for a LocalModelCache.",
    ),
    key(
        Ours,
        "localmodel.kserve.io/KEY",
        "label",
        "Node",
        "The node has a complete copy of the model with this storage key, through this node group. For a namespace \
         cache eight digits that stand for the namespace follow the key.",
    ),
    key(Ours, MANAGED_BY, "label", "all that we create", "`localmodel`."),
    key(
        Ours,
        CACHE,
        "label",
        "PersistentVolume, PersistentVolumeClaim, Secret",
        "The cache that it belongs to.",
    ),
    key(
        Ours,
        CACHE_NAMESPACE,
        "label",
        "PersistentVolume, PersistentVolumeClaim, Secret",
        "The namespace of that cache, if it is a namespace cache.",
    ),
    key(
        Ours,
        CACHE_UID,
        "label",
        "PersistentVolume, PersistentVolumeClaim, Secret",
        "The uid of a namespace cache, which tells it from an earlier one of its name.",
    ),
    key(
        Ours,
        NODE_GROUP,
        "label",
        "DaemonSet, Pod, PersistentVolume, PersistentVolumeClaim, Job",
        "The node group that it belongs to.",
    ),
    key(Ours, STORAGE_KEY, "label", "Job, Pod", "The storage key of the model that is downloaded."),
    key(
        Ours,
        SERVES,
        "label",
        "PersistentVolume, PersistentVolumeClaim",
        "The namespace of the services that read through it.",
    ),
    key(Ours, UNUSED_SINCE, "annotation", "PersistentVolumeClaim", "Since when no service uses the claim."),
    key(Ours, APPLIED, "annotation", "all that we create", "A digest of the manifest that was applied last."),
    key(
        Ours,
        MEMBER_OF,
        "annotation",
        "LocalModelNode",
        "The node groups of the node. The agent of any other group leaves the disk alone.",
    ),
    key(Ours, MODEL_SIZES, "annotation", "LocalModelNode", "The bytes that each model may have, as JSON."),
    key(
        Ours,
        PRIORITY_CLASS,
        "annotation",
        "Namespace of download Jobs",
        "The priority class of the settings: admission refuses an agent's Job with any other.",
    ),
    key(
        Ours,
        RECIPE,
        "annotation",
        "Job",
        "Digests of what the Job was made from; when they change the download is tried again.",
    ),
    key(
        Ours,
        CREDENTIALS_PROBLEM,
        "annotation",
        "Secret",
        "Why the credentials of a namespace cache could not be copied, as JSON.",
    ),
    key(
        KServe,
        SERVICE_MODEL,
        "label",
        "InferenceService, LLMInferenceService, Pod",
        "The cache that it uses.",
    ),
    key(
        KServe,
        SERVICE_NAMESPACE,
        "label",
        "InferenceService, LLMInferenceService, Pod",
        "The namespace of that cache, if it is a namespace cache.",
    ),
    key(KServe, SERVICE_CLAIM, "annotation", "InferenceService, Pod", "The claim that its pods mount."),
    key(KServe, SERVICE_SOURCE, "annotation", "InferenceService, Pod", "The source of the cache."),
];
