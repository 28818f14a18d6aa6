//! Which volumes a cache and a group's agents have, and the next step towards them.
//!
//! A volume names its claim (`claimRef`), which keeps everybody else's claim away; the claim is made
//! without `volumeName` once the volume is available, because Kubernetes then binds at once, where a
//! claim that names its volume can wait for the binder's next resync.

mod relation;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{
    LocalVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::admission;
use super::names::{self, CACHE_NAMESPACE, CACHE_UID, CacheKey, MANAGED_BY, MANAGER, NAMESPACES, SERVE};
use crate::api::source::storage_key;
use crate::api::{CacheSpec, LocalModelNodeGroup};
use relation::{Relation, claim_relation, is_wide, same_volume, volume_relation};

/// A volume and the claim that it is for, as they are wanted.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The volume.
    pub volume: PersistentVolume,
    /// The claim.
    pub claim: PersistentVolumeClaim,
    /// Where KServe's pair of the same names begins, if that is somewhere else.
    pub theirs: Option<Theirs>,
}

/// A pair as KServe makes it: unowned, unlabelled, and with the volume at this folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Theirs {
    /// The folder on the node, as a volume names it.
    pub folder: Value,
    /// What becomes of it.
    pub then: Takeover,
}

/// What becomes of a pair of KServe's that begins at another folder than ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// It is ours from then on, and is replaced when no pod uses it any more.
    Adopt,
    /// It goes, claim first, and ours is made. The claim waits for the pods that name it.
    Replace,
}

/// The next step towards a pair; after it the world is looked at again.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Both are there as wanted, or Kubernetes is at work.
    Done,
    /// Make the volume.
    CreateVolume,
    /// Make the claim.
    CreateClaim,
    /// Put our labels and owner on a volume that somebody else made exactly as wanted.
    AdoptVolume,
    /// The same for a claim.
    AdoptClaim,
    /// Make the volume forget a claim that is gone, so that the next one can bind.
    FreeVolume,
    /// Delete a claim that can never bind again, or that is to be another; it is made anew.
    DeleteClaim,
    /// Delete a volume that an earlier object of the same name left, or KServe at another folder.
    DeleteVolume,
    /// A volume or claim of this name is still in deletion; the text says which.
    Wait(String),
    /// Delete the claim of a pair that KServe made at another folder, once nothing of KServe's uses it; the
    /// text says which.
    ReplaceClaim(String),
    /// Delete the claim of a serving pair that shows more than one model, once no pod uses it. Earlier versions of
    /// ours made such pairs, and KServe does. The text says which.
    NarrowClaim(String),
    /// Somebody else's object has the name; the text says which and what to do.
    Conflict(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::CreateVolume => "create volume",
            Self::CreateClaim => "create claim",
            Self::AdoptVolume => "adopt volume",
            Self::AdoptClaim => "adopt claim",
            Self::FreeVolume => "free volume",
            Self::DeleteClaim => "delete claim",
            Self::DeleteVolume => "delete volume",
            Self::Wait(_) => "wait",
            Self::ReplaceClaim(_) => "replace claim",
            Self::NarrowClaim(_) => "narrow claim",
            Self::Conflict(_) => "conflict",
        })
    }
}

/// The download volumes of a cache in the job namespace (C1, C2). Those of a namespace cache begin at its
/// namespace's area (C10), and have no owner: Kubernetes allows none across namespaces.
pub fn download(
    cache: &CacheKey,
    spec: &CacheSpec,
    owner: OwnerReference,
    group: &LocalModelNodeGroup,
    job_namespace: &str,
) -> Pair {
    let group_name = group.name_any();
    let first = spec.node_groups.first() == Some(&group_name);
    let pair = Wanted {
        group,
        volume: names::download_volume(cache, &group_name, first),
        claim: names::download_claim(cache, &group_name, first),
        namespace: job_namespace,
        cache: Some((cache, &spec.model_size)),
        owner,
    };
    let theirs = cache.namespace.as_ref().and(of_group(group));
    Pair { theirs: theirs.map(|folder| Theirs { folder, then: Takeover::Replace }), ..pair.pair() }
}

/// The volumes through which the services of a namespace read a cache. They lead to the folder of this one model,
/// so that whoever mounts all of it sees nothing else. Every mount is read-only, whatever the pod asks for: nobody
/// can change a byte, no pod's fsGroup re-owns the disk, and a subPath that does not exist holds a container back
/// instead of being made. Only `local` volumes have mount options.
///
/// A namespace cache is read in its own namespace, whoever asks.
pub fn serving(
    cache: &CacheKey,
    spec: &CacheSpec,
    owner: OwnerReference,
    group: &LocalModelNodeGroup,
    services: &str,
) -> Pair {
    let group_name = group.name_any();
    let namespace = cache.namespace.as_deref().unwrap_or(services);
    let pair = Wanted {
        group,
        volume: names::serving_volume(cache, &group_name, namespace),
        claim: names::serving_claim(cache, &group_name),
        namespace,
        cache: Some((cache, &spec.model_size)),
        owner,
    };
    let mut pair = pair.pair();
    for meta in [&mut pair.volume.metadata, &mut pair.claim.metadata] {
        meta.labels.get_or_insert_default().insert(names::SERVES.into(), names::label_value(namespace));
    }
    if let Some(volume) = &mut pair.volume.spec {
        let area = path_of(volume).unwrap_or_default().trim_end_matches('/').to_owned();
        let path = format!("{area}/{SERVE}/{}", storage_key(&spec.source_model_uri));
        volume.host_path = None;
        volume.local = Some(LocalVolumeSource { path, ..LocalVolumeSource::default() });
        volume.mount_options = Some(vec!["ro".into()]);
    }
    let theirs = of_group(group).map(|folder| Theirs { folder, then: Takeover::Adopt });
    Pair { theirs, ..pair }
}

/// The volumes through which a group's agents reach their disk (G1).
pub fn agent(group: &LocalModelNodeGroup, owner: OwnerReference, namespace: &str) -> Pair {
    let name = names::agent(&group.name_any());
    Wanted { group, volume: name.clone(), claim: name, namespace, cache: None, owner }.pair()
}

/// What a pair is made from.
struct Wanted<'a> {
    group: &'a LocalModelNodeGroup,
    volume: String,
    claim: String,
    /// The claim's namespace.
    namespace: &'a str,
    /// The cache and its size; none for the agents' own.
    cache: Option<(&'a CacheKey, &'a Quantity)>,
    /// The cache or group, also where it cannot own the pair.
    owner: OwnerReference,
}

impl Wanted<'_> {
    fn pair(self) -> Pair {
        let area = self.cache.and_then(|(cache, _)| cache.namespace.as_deref());
        let mut volume_spec = self.group.spec.persistent_volume_spec.clone();
        let mut claim_spec = PersistentVolumeClaimSpec {
            volume_name: None,
            ..self.group.spec.persistent_volume_claim_spec.clone()
        };
        if let Some((_, size)) = self.cache {
            volume_spec.capacity.get_or_insert_default().insert("storage".into(), size.clone());
            let resources = claim_spec.resources.get_or_insert_default();
            resources.requests.get_or_insert_default().insert("storage".into(), size.clone());
        }
        if let Some(namespace) = area {
            begin_at_area(&mut volume_spec, namespace);
        }
        volume_spec.persistent_volume_reclaim_policy = Some("Retain".into());
        volume_spec.claim_ref = Some(ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolumeClaim".into()),
            namespace: Some(self.namespace.into()),
            name: Some(self.claim.clone()),
            ..ObjectReference::default()
        });
        let (volume, claim) =
            (self.metadata(&self.volume, None), self.metadata(&self.claim, Some(self.namespace)));
        Pair {
            volume: PersistentVolume { metadata: volume, spec: Some(volume_spec), status: None },
            claim: PersistentVolumeClaim { metadata: claim, spec: Some(claim_spec), status: None },
            theirs: None,
        }
    }

    fn metadata(&self, name: &str, namespace: Option<&str>) -> ObjectMeta {
        let group = self.group.name_any();
        let cache = self.cache.map(|(cache, _)| cache);
        let mut names = vec![(names::NODE_GROUP, group.as_str())];
        names.extend(cache.map(|cache| (names::CACHE, cache.name.as_str())));
        let mut labels: BTreeMap<_, _> =
            names.iter().map(|(label, name)| ((*label).to_owned(), names::label_value(name))).collect();
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        let area = cache.and_then(|cache| cache.namespace.clone());
        let owner_references = area.is_none().then(|| vec![self.owner.clone()]);
        if let Some(area) = area {
            labels.insert(CACHE_NAMESPACE.into(), area);
            labels.insert(CACHE_UID.into(), self.owner.uid.clone());
        }
        ObjectMeta {
            name: Some(name.into()),
            namespace: namespace.map(Into::into),
            labels: Some(labels),
            annotations: names::full_names(&names),
            owner_references,
            ..ObjectMeta::default()
        }
    }
}

/// Lets a volume of a group begin at a namespace's area of the group's disk.
pub fn begin_at_area(volume: &mut PersistentVolumeSpec, namespace: &str) {
    let local = volume.local.as_mut().map(|local| &mut local.path);
    if let Some(path) = local.or(volume.host_path.as_mut().map(|host| &mut host.path)) {
        *path = format!("{}/{NAMESPACES}/{namespace}", path.trim_end_matches('/'));
    }
}

/// The folder of a volume on its nodes.
fn path_of(volume: &PersistentVolumeSpec) -> Option<&str> {
    let local = volume.local.as_ref().map(|local| local.path.as_str());
    local.or(volume.host_path.as_ref().map(|host| host.path.as_str()))
}

/// The folder of a group's disk, as a volume names it.
fn of_group(group: &LocalModelNodeGroup) -> Option<Value> {
    group.spec.path().map(|_| folder_of(&group.spec.persistent_volume_spec))
}

fn folder_of(volume: &PersistentVolumeSpec) -> Value {
    json!({"local": volume.local, "hostPath": volume.host_path})
}

/// Whether an object is one of the cache with this uid, as its owner or its label says.
pub fn belongs(meta: &ObjectMeta, uid: &str) -> bool {
    let owners = meta.owner_references.iter().flatten();
    owners.map(|owner| owner.uid.as_str()).chain(label(meta, CACHE_UID)).any(|of| of == uid)
}

/// What to do next, given what is there. A volume of ours stays as it is, one exactly as wanted is
/// adopted, anything else is never touched (C3); one that was deleted comes back (C4).
pub fn step(wanted: &Pair, volume: Option<&PersistentVolume>, claim: Option<&PersistentVolumeClaim>) -> Step {
    // The claim comes first: a volume that is made beside somebody else's claim would bind to it.
    let claim_is = claim.map(|claim| claim_relation(wanted, claim, volume));
    match (claim, claim_is) {
        (Some(claim), Some(Relation::Foreign | Relation::Earlier | Relation::Replaced))
            if is_deleting(&claim.metadata) =>
        {
            return wait("PersistentVolumeClaim", &claim_name(claim));
        }
        (Some(claim), Some(Relation::Foreign)) => {
            return conflict("PersistentVolumeClaim", &claim_name(claim), &claim.metadata);
        }
        (_, Some(Relation::Earlier)) => return Step::DeleteClaim,
        (Some(claim), Some(Relation::Replaced)) => return replace(&claim_name(claim)),
        _ => {}
    }
    let claim = claim.zip(claim_is);
    match volume {
        Some(volume) => match volume_relation(wanted, volume) {
            Relation::Foreign => foreign_volume(volume),
            _ if is_deleting(&volume.metadata) => deleting_volume(volume, claim),
            Relation::Earlier | Relation::Replaced => Step::DeleteVolume,
            Relation::Adoptable => Step::AdoptVolume,
            Relation::Ours if is_wide(wanted, volume) => with_wide_volume(claim),
            Relation::Ours => with_volume(volume, claim),
        },
        None => match claim {
            Some((claim, Relation::Ours)) if is_deleting(&claim.metadata) => {
                wait("PersistentVolumeClaim", &claim_name(claim))
            }
            Some((claim, Relation::Ours)) if phase_of_claim(claim) == Some("Lost") => Step::DeleteClaim,
            _ => Step::CreateVolume,
        },
    }
}

/// What to tell of a volume of ours that was made from other volume specs than its group has now: it stays
/// as it is (G2). Only KServe's definition of groups lets them be changed.
pub fn outdated(wanted: &Pair, volume: &PersistentVolume) -> Option<String> {
    let folder = folder(wanted);
    if same_volume(wanted, volume, &folder) {
        return None;
    }
    Some(format!(
        "PersistentVolume {} keeps the folder and the nodes that its node group had when it was made: put the group's persistentVolumeSpec back, or make a new node group with the new one",
        volume.name_any()
    ))
}

/// The folder that a pair's volume is to lead to.
fn folder(wanted: &Pair) -> Value {
    wanted.volume.spec.as_ref().map(folder_of).unwrap_or_default()
}

/// The step when the serving volume shows too much: it works for the pods that have it, and makes way when they
/// are gone.
fn with_wide_volume(claim: Option<(&PersistentVolumeClaim, Relation)>) -> Step {
    match claim {
        None => Step::DeleteVolume,
        Some((claim, Relation::Ours)) if is_deleting(&claim.metadata) => {
            wait("PersistentVolumeClaim", &claim_name(claim))
        }
        Some((claim, Relation::Ours)) if phase_of_claim(claim) == Some("Lost") => Step::DeleteClaim,
        Some((claim, Relation::Ours)) => Step::NarrowClaim(format!(
            "PersistentVolumeClaim {} shows more than one model: it is replaced once no pod uses it",
            claim_name(claim)
        )),
        Some(_) => Step::AdoptClaim,
    }
}

/// The step when the volume is there as wanted.
fn with_volume(volume: &PersistentVolume, claim: Option<(&PersistentVolumeClaim, Relation)>) -> Step {
    let is_free = matches!(phase(volume), Some("Released" | "Failed"));
    match claim {
        None if phase(volume) == Some("Available") => Step::CreateClaim,
        None if is_free => Step::FreeVolume,
        None => Step::Done, // Kubernetes has not yet looked at the volume or at its claim's end
        Some((claim, Relation::Ours)) if is_deleting(&claim.metadata) => {
            wait("PersistentVolumeClaim", &claim_name(claim))
        }
        Some((claim, Relation::Ours)) => match phase_of_claim(claim) {
            Some("Lost") => Step::DeleteClaim,
            Some("Bound") => Step::Done,
            // The volume remembers a claim of the same name that is gone.
            _ if is_free && claim_uid(volume) != claim.metadata.uid.as_deref() => Step::FreeVolume,
            _ => Step::Done,
        },
        Some(_) => Step::AdoptClaim,
    }
}

/// A volume in deletion waits for its claim to go.
fn deleting_volume(volume: &PersistentVolume, claim: Option<(&PersistentVolumeClaim, Relation)>) -> Step {
    match claim {
        Some((claim, _)) if is_deleting(&claim.metadata) => wait("PersistentVolumeClaim", &claim_name(claim)),
        Some((_, Relation::Ours)) => Step::DeleteClaim,
        Some(_) => Step::AdoptClaim,
        None => wait("PersistentVolume", &volume.name_any()),
    }
}

fn foreign_volume(volume: &PersistentVolume) -> Step {
    if is_deleting(&volume.metadata) {
        wait("PersistentVolume", &volume.name_any())
    } else {
        conflict("PersistentVolume", &volume.name_any(), &volume.metadata)
    }
}

fn wait(kind: &str, name: &str) -> Step {
    Step::Wait(format!("{kind} {name} is still being deleted"))
}

fn replace(claim: &str) -> Step {
    Step::ReplaceClaim(format!(
        "PersistentVolumeClaim {claim} was made by KServe for another folder: it is replaced once no Job uses it"
    ))
}

fn conflict(kind: &str, name: &str, meta: &ObjectMeta) -> Step {
    Step::Conflict(match of_cache(meta) {
        Some(cache) => {
            format!("{kind} {name} is that of {}: rename one of the two", admission::cache_name(&cache))
        }
        None => format!("{kind} {name} exists and is somebody else's: remove it or rename this object"),
    })
}

/// The cache that an object of ours belongs to: names of caches that differ can be one when they are joined (C11).
fn of_cache(meta: &ObjectMeta) -> Option<CacheKey> {
    let full = meta.annotations.as_ref().and_then(|annotations| annotations.get(names::CACHE));
    let name = full.map(String::as_str).or(label(meta, names::CACHE));
    let is_ours = label(meta, MANAGED_BY) == Some(MANAGER);
    let namespace = label(meta, CACHE_NAMESPACE).map(Into::into);
    name.filter(|_| is_ours).map(|name| CacheKey { namespace, name: name.into() })
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

fn claim_name(claim: &PersistentVolumeClaim) -> String {
    format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any())
}

fn claim_uid(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.claim_ref.as_ref()?.uid.as_deref()
}

fn phase(volume: &PersistentVolume) -> Option<&str> {
    volume.status.as_ref()?.phase.as_deref()
}

fn phase_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

#[cfg(test)]
mod tests;
