//! What a pod that uses a cache gets at its creation: the claim and its mounts (S10), the preference for
//! warm nodes and the gate (S11).
//!
//! Everything is an addition: nothing that the pod has is changed or taken away, and what is there already
//! is not added twice. Who asks by our label is refused where the model cannot be had; the pods of KServe's
//! services, which have the claim from KServe, work without us and are then left as they are.

use std::sync::Arc;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::admission::{cache_name, list};
use super::entries::PlannedCache;
use super::names::{
    self, CHOSEN_GROUP, CacheKey, GATE_CONTAINER, MODEL_VOLUME, MOUNT_PATH, POD_CONTAINERS, POD_GATE,
    POD_MODEL, POD_MODEL_NAMESPACE, POD_MOUNT_PATH, SERVICE_MODEL, SERVICE_NAMESPACE,
};
use crate::api::LocalModelNodeGroup;
use crate::api::source::storage_key;

mod choice;
mod parts;

/// Why a pod is refused, in the words that the person reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no cache of that name.
    #[error(
        "label {POD_MODEL}: there is no LocalModelCache {model}, nor a LocalModelNamespaceCache {model} in namespace {namespace}; {known}, and kubectl get localmodelnamespacecaches -n {namespace} lists those of the namespace"
    )]
    UnknownCache {
        /// The name.
        model: String,
        /// The pod's namespace.
        namespace: String,
        /// Which cluster caches the pod could ask for.
        known: String,
    },
    /// The cache is being deleted.
    #[error("label {POD_MODEL}: {cache} is being deleted; make the pod again when there is a new one")]
    CacheInDeletion {
        /// The cache.
        cache: String,
    },
    /// The annotation names a group that the cache does not have.
    #[error(
        "annotation {CHOSEN_GROUP}: {cache} is not kept on node group {group}; its nodeGroups are {groups}"
    )]
    UnknownGroup {
        /// The group.
        group: String,
        /// The cache.
        cache: String,
        /// The cache's groups.
        groups: String,
    },
    /// The annotation names containers that the pod does not have.
    #[error("annotation {POD_CONTAINERS}: the pod has no container {name:?}; it has {containers}")]
    UnknownContainer {
        /// The name.
        name: String,
        /// The pod's containers.
        containers: String,
    },
    /// The annotation names a path at which nothing can be mounted.
    #[error(
        "annotation {POD_MOUNT_PATH}: {path:?} is no path for a mount: write an absolute one, without ':' and '..'"
    )]
    MountPath {
        /// The path.
        path: String,
    },
    /// A volume of the pod has the name that the model's has.
    #[error(
        "the pod has a volume {MODEL_VOLUME} of its own, which is the name of the model's volume: give it another name"
    )]
    VolumeTaken,
    /// Something else is mounted where the model would be.
    #[error(
        "container {container} has volume {volume} mounted at {path} already: say with annotation {POD_MOUNT_PATH} where the model goes"
    )]
    PathTaken {
        /// The container.
        container: String,
        /// What is mounted there.
        volume: String,
        /// The path.
        path: String,
    },
    /// The operator does not work at the moment.
    #[error("label {POD_MODEL}: no model can be mounted now: {0}")]
    StandingBack(String),
}

/// Which cache a pod asks for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// By our label: a cache of this name, a namespace cache first.
    Ours(String),
    /// By KServe's labels: this cache.
    KServes(CacheKey),
}

/// What the pod asks for; `None` for a pod that uses no cache.
pub fn wish(pod: &Pod) -> Option<Wish> {
    let label = |key| pod.labels().get(key).cloned();
    if let Some(model) = label(POD_MODEL) {
        return Some(Wish::Ours(model));
    }
    let namespace = label(SERVICE_NAMESPACE).filter(|namespace| !namespace.is_empty());
    label(SERVICE_MODEL).map(|name| Wish::KServes(CacheKey { namespace, name }))
}

/// What is known of the world when a pod is made.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The cache that the pod asks for, where there is one.
    pub cache: Option<PlannedCache<'a>>,
    /// Where there is none: the names of those that the pod could ask for, sorted.
    pub known: &'a [String],
    /// The groups of the cache that exist.
    pub groups: &'a [Arc<LocalModelNodeGroup>],
    /// The nodes; needed only where the cache has several groups.
    pub nodes: &'a [Arc<Node>],
    /// Our own image, for the gate.
    pub image: &'a str,
    /// Why the operator stands back, where it does (O1).
    pub standing_back: Option<&'a str>,
}

/// What is added to the pod.
pub fn additions(pod: &Pod, wish: &Wish, facts: &Facts) -> Result<Patch, Denied> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    match wish {
        Wish::Ours(model) => {
            if let Some(reason) = facts.standing_back {
                return Err(Denied::StandingBack(reason.to_owned()));
            }
            ours(pod, spec, model, facts)
        }
        Wish::KServes(_) if facts.standing_back.is_some() => Ok(Patch::default()),
        Wish::KServes(_) => Ok(kserves(pod, spec, facts).unwrap_or_default()),
    }
}

/// S10 and S11 for a pod with our label.
fn ours(pod: &Pod, spec: &PodSpec, model: &str, facts: &Facts) -> Result<Patch, Denied> {
    let cache = found(model, facts)?;
    let groups = &cache.spec.node_groups;
    let group = match annotation(pod, CHOSEN_GROUP) {
        None => choice::group(spec, groups, facts.groups, facts.nodes),
        Some(chosen) if groups.iter().any(|group| group == chosen) => chosen,
        Some(chosen) => {
            return Err(Denied::UnknownGroup {
                group: chosen.to_owned(),
                cache: cache_name(&cache.key),
                groups: list(groups),
            });
        }
    };
    let key = storage_key(&cache.spec.source_model_uri);
    let claim = names::serving_claim(&cache.key, group);
    let mut patch = Patch::default();
    match parts::volume(spec) {
        None => patch.0.push(append("volumes", spec.volumes.is_some(), parts::new_volume(&claim))),
        Some(volume) if parts::claim(volume) == Some(&claim) => {}
        Some(_) => return Err(Denied::VolumeTaken),
    }
    mounts(pod, spec, &key, &mut patch)?;
    record(pod, (cache, group), &mut patch);
    preference_and_gate(pod, spec, (cache, group, &key), facts, &mut patch);
    Ok(patch)
}

/// Notes on the pod what was chosen for it, for whoever keeps its volumes: the namespace of a namespace
/// cache, also where the pod claims another one, and a group that is not the cache's first.
fn record(pod: &Pod, (cache, group): (&PlannedCache, &str), patch: &mut Patch) {
    let namespace = cache.key.namespace.as_deref().unwrap_or_default();
    if pod.labels().get(POD_MODEL_NAMESPACE).map_or("", String::as_str) != namespace {
        patch.0.push(add(&["metadata", "labels", POD_MODEL_NAMESPACE], json!(namespace)));
    }
    let is_first = cache.spec.node_groups.first().is_some_and(|first| first == group);
    if is_first || annotation(pod, CHOSEN_GROUP).is_some() {
        return;
    }
    patch.0.push(match &pod.metadata.annotations {
        Some(_) => add(&["metadata", "annotations", CHOSEN_GROUP], json!(group)),
        None => add(&["metadata", "annotations"], json!({CHOSEN_GROUP: group})),
    });
}

fn found<'a>(model: &str, facts: &'a Facts) -> Result<&'a PlannedCache<'a>, Denied> {
    match &facts.cache {
        Some(cache) if cache.deleting => Err(Denied::CacheInDeletion { cache: cache_name(&cache.key) }),
        Some(cache) => Ok(cache),
        None => Err(Denied::UnknownCache {
            model: model.to_owned(),
            namespace: facts.namespace.to_owned(),
            known: match facts.known {
                [] => "there is no LocalModelCache at all".to_owned(),
                known => format!("there are LocalModelCaches {}", list(known)),
            },
        }),
    }
}

/// S11 for a pod of a KServe service: only where it mounts a claim of the cache.
fn kserves(pod: &Pod, spec: &PodSpec, facts: &Facts) -> Option<Patch> {
    // Anybody can write KServe's labels: nothing is told of a cache of another namespace.
    let is_readable =
        |cache: &&PlannedCache| cache.key.namespace.as_deref().is_none_or(|own| own == facts.namespace);
    let cache = facts.cache.as_ref().filter(|cache| !cache.deleting).filter(is_readable)?;
    let claim = parts::claim(parts::volume(spec)?)?;
    let group =
        cache.spec.node_groups.iter().find(|group| names::serving_claim(&cache.key, group) == *claim)?;
    let key = storage_key(&cache.spec.source_model_uri);
    let mut patch = Patch::default();
    preference_and_gate(pod, spec, (cache, group, &key), facts, &mut patch);
    Some(patch)
}

/// The model in each container that gets it.
fn mounts(pod: &Pod, spec: &PodSpec, key: &str, patch: &mut Patch) -> Result<(), Denied> {
    let place = mount_path(pod)?;
    let mount = parts::model_mount(place, key);
    for (kind, index, container) in chosen_containers(pod, spec)? {
        let there = container.volume_mounts.as_deref().unwrap_or_default();
        match there.iter().find(|mount| mount.mount_path.trim_end_matches('/') == place) {
            None => {
                let index = index.to_string();
                patch.0.push(append_to(
                    &["spec", kind, &index, "volumeMounts"],
                    container.volume_mounts.is_some(),
                    json!(mount),
                ));
            }
            Some(there) if parts::is_same_mount(there, &mount) => {}
            Some(there) => {
                return Err(Denied::PathTaken {
                    container: container.name.clone(),
                    volume: there.name.clone(),
                    path: place.to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn mount_path(pod: &Pod) -> Result<&str, Denied> {
    let written = annotation(pod, POD_MOUNT_PATH).unwrap_or(MOUNT_PATH);
    let path = written.trim_end_matches('/');
    let is_mountable =
        path.starts_with('/') && !path.contains(':') && path.split('/').all(|part| part != "..");
    if is_mountable { Ok(path) } else { Err(Denied::MountPath { path: written.to_owned() }) }
}

type Placed<'a> = (&'static str, usize, &'a Container);

/// The containers that get the model, each with its list and its place there: those that the annotation
/// names, init containers among them, or all that are none.
fn chosen_containers<'a>(pod: &Pod, spec: &'a PodSpec) -> Result<Vec<Placed<'a>>, Denied> {
    let placed = |kind, containers: &'a [Container]| {
        containers.iter().enumerate().map(move |(index, container)| (kind, index, container))
    };
    let plain = placed("containers", &spec.containers);
    let Some(named) = annotation(pod, POD_CONTAINERS) else { return Ok(plain.collect()) };
    let init = placed("initContainers", spec.init_containers.as_deref().unwrap_or_default());
    let all: Vec<Placed> = plain.chain(init.filter(|(_, _, c)| c.name != GATE_CONTAINER)).collect();
    let named: Vec<&str> = named.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    for name in &named {
        if !all.iter().any(|(_, _, container)| container.name == *name) {
            let containers: Vec<String> =
                all.iter().map(|(_, _, container)| container.name.clone()).collect();
            return Err(Denied::UnknownContainer { name: (*name).to_owned(), containers: list(&containers) });
        }
    }
    Ok(all.into_iter().filter(|(_, _, container)| named.contains(&container.name.as_str())).collect())
}

/// S11: a preference for nodes whose copy is complete, and the gate before everything else.
fn preference_and_gate(
    pod: &Pod,
    spec: &PodSpec,
    (cache, group, key): (&PlannedCache, &str, &str),
    facts: &Facts,
    patch: &mut Patch,
) {
    let label = names::warm_label(key, cache.key.namespace.as_deref());
    patch.0.extend(parts::preference(spec, &label, &names::label_value(group)));
    let is_left_out = annotation(pod, POD_GATE) == Some("false");
    let init = spec.init_containers.as_deref().unwrap_or_default();
    if is_left_out || init.iter().any(|container| container.name == GATE_CONTAINER) {
        return;
    }
    let gate = parts::gate(facts.image, &cache.key.to_string(), key);
    patch.0.push(match spec.init_containers {
        Some(_) => add(&["spec", "initContainers", "0"], gate),
        None => add(&["spec", "initContainers"], json!([gate])),
    });
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.annotations().get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// Puts a value at the end of a list of the pod's spec, which is made where there is none.
fn append(list: &str, exists: bool, value: Value) -> PatchOperation {
    append_to(&["spec", list], exists, value)
}

fn append_to(list: &[&str], exists: bool, value: Value) -> PatchOperation {
    if exists { add(&[list, &["-"]].concat(), value) } else { add(list, json!([value])) }
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

#[cfg(test)]
mod tests;
