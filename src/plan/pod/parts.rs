//! The parts that are added to a pod.

use json_patch::PatchOperation;
use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PreferredSchedulingTerm, Volume, VolumeMount,
};
use serde_json::{Value, json};

use super::{add, append_to};
use crate::plan::names::{GATE, GATE_CONTAINER, GATE_MODEL, GATE_NODE, MODEL_VOLUME, MODELS};

/// Where the gate sees the state of the copy.
const GATE_PATH: &str = "/gate";
/// Nobody's user: the state of a copy is for everybody to read.
const GATE_USER: i64 = 65532;
/// The affinity that the scheduler weighs and does not insist on.
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The volume that has the model's name.
pub(super) fn volume(spec: &PodSpec) -> Option<&Volume> {
    spec.volumes.iter().flatten().find(|volume| volume.name == MODEL_VOLUME)
}

/// The claim behind a volume.
pub(super) fn claim(volume: &Volume) -> Option<&String> {
    volume.persistent_volume_claim.as_ref().map(|source| &source.claim_name)
}

pub(super) fn new_volume(claim: &str) -> Value {
    json!({"name": MODEL_VOLUME, "persistentVolumeClaim": {"claimName": claim, "readOnly": true}})
}

/// The mount of the model. Its folder ends in a slash, as KServe writes it.
pub(super) fn model_mount(path: &str, key: &str) -> VolumeMount {
    mount(path, format!("{MODELS}/{key}/"))
}

fn mount(path: &str, sub_path: String) -> VolumeMount {
    VolumeMount {
        name: MODEL_VOLUME.into(),
        mount_path: path.into(),
        sub_path: Some(sub_path),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

pub(super) fn is_same_mount(there: &VolumeMount, wanted: &VolumeMount) -> bool {
    (&there.name, &there.sub_path, there.read_only) == (&wanted.name, &wanted.sub_path, wanted.read_only)
}

/// The gate. Its limits are its requests, so that a pod whose other containers are guaranteed their
/// resources still is. It does nearly nothing, but with less than this the kernel makes the mere start of
/// its container take seconds, for which the service waits; the pod asks for no more because of it, unless
/// all its containers together ask for less.
pub(super) fn gate(image: &str, model: &str, key: &str) -> Value {
    let resources = json!({"cpu": "100m", "memory": "16Mi"});
    json!({
        "name": GATE_CONTAINER,
        "image": image,
        "args": ["wait", format!("{GATE_PATH}/status.json")],
        "env": [
            {"name": GATE_MODEL, "value": model},
            {"name": GATE_NODE, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
        ],
        "resources": {"requests": resources, "limits": resources},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount(GATE_PATH, format!("{GATE}/{key}/"))],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": GATE_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

/// The preference for nodes with this label; `None` where the pod has it.
pub(super) fn preference(spec: &PodSpec, label: &str, value: &str) -> Option<PatchOperation> {
    let requirement = NodeSelectorRequirement {
        key: label.into(),
        operator: "In".into(),
        values: Some(vec![value.into()]),
    };
    let term = PreferredSchedulingTerm {
        weight: 100,
        preference: NodeSelectorTerm {
            match_expressions: Some(vec![requirement]),
            ..NodeSelectorTerm::default()
        },
    };
    let Some(affinity) = &spec.affinity else {
        return Some(add(&["spec", "affinity"], json!({"nodeAffinity": {PREFERRED: [term]}})));
    };
    let Some(node_affinity) = &affinity.node_affinity else {
        return Some(add(&["spec", "affinity", "nodeAffinity"], json!({PREFERRED: [term]})));
    };
    let there = &node_affinity.preferred_during_scheduling_ignored_during_execution;
    let is_there = there.iter().flatten().any(|other| *other == term);
    let list = ["spec", "affinity", "nodeAffinity", PREFERRED];
    (!is_there).then(|| append_to(&list, there.is_some(), json!(term)))
}
