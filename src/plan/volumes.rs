//! Which volumes a cache and a group's agents have, and the next step towards them.
//!
//! A volume names its claim (`claimRef`), which keeps everybody else's claim away; the claim is made
//! without `volumeName` once the volume is available, because Kubernetes then binds at once, where a
//! claim that names its volume can wait for the binder's next resync.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use serde_json::json;

use super::drift;
use super::names::{self, CacheKey, MANAGED_BY, MANAGER};
use crate::api::{CacheSpec, LocalModelNodeGroup};

/// A volume and the claim that it is for, as they are wanted.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The volume.
    pub volume: PersistentVolume,
    /// The claim.
    pub claim: PersistentVolumeClaim,
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
    /// Delete a claim that can never bind again; it is made anew.
    DeleteClaim,
    /// Delete a volume that an earlier object of the same name left.
    DeleteVolume,
    /// A volume or claim of this name is still in deletion; the text says which.
    Wait(String),
    /// Somebody else's object has the name; the text says which and what to do.
    Conflict(String),
}

/// The download volumes of a cache in the job namespace (C1, C2).
pub fn download(
    cache: &CacheKey,
    spec: &CacheSpec,
    owner: OwnerReference,
    group: &LocalModelNodeGroup,
    job_namespace: &str,
) -> Pair {
    let group_name = group.name_any();
    let first = spec.node_groups.first() == Some(&group_name);
    let volume = names::download_volume(cache, &group_name, first);
    let claim = names::download_claim(cache, &group_name, first);
    pair(group, (volume, claim), job_namespace, Some((&cache.name, &spec.model_size)), owner)
}

/// The volumes through which the services of a namespace read a cache (S6). Every mount is read-only,
/// whatever the pod asks for: nobody can change a byte, no pod's fsGroup re-owns the disk, and a subPath
/// that does not exist holds a container back instead of being made.
pub fn serving(
    cache: &CacheKey,
    spec: &CacheSpec,
    owner: OwnerReference,
    group: &LocalModelNodeGroup,
    namespace: &str,
) -> Pair {
    let group_name = group.name_any();
    let volume = names::serving_volume(cache, &group_name, namespace);
    let claim = names::serving_claim(cache, &group_name);
    let mut pair = pair(group, (volume, claim), namespace, Some((&cache.name, &spec.model_size)), owner);
    for meta in [&mut pair.volume.metadata, &mut pair.claim.metadata] {
        meta.labels.get_or_insert_default().insert(names::SERVES.into(), names::label_value(namespace));
    }
    if let Some(spec) = &mut pair.volume.spec {
        spec.mount_options = Some(vec!["ro".into()]);
    }
    pair
}

/// The volumes through which a group's agents reach their disk (G1).
pub fn agent(group: &LocalModelNodeGroup, owner: OwnerReference, namespace: &str) -> Pair {
    let name = names::agent(&group.name_any());
    pair(group, (name.clone(), name), namespace, None, owner)
}

fn pair(
    group: &LocalModelNodeGroup,
    (volume_name, claim_name): (String, String),
    namespace: &str,
    cache: Option<(&str, &Quantity)>,
    owner: OwnerReference,
) -> Pair {
    let group_name = group.name_any();
    let mut names = vec![(names::NODE_GROUP, group_name.as_str())];
    names.extend(cache.map(|(name, _)| (names::CACHE, name)));
    let labels = names.iter().map(|(label, name)| ((*label).to_owned(), names::label_value(name)));
    let labels: BTreeMap<_, _> = labels.chain([(MANAGED_BY.into(), MANAGER.into())]).collect();
    let owners = vec![owner];
    let metadata = |name, namespace: Option<&str>| ObjectMeta {
        name: Some(name),
        namespace: namespace.map(Into::into),
        labels: Some(labels.clone()),
        annotations: names::full_names(&names),
        owner_references: Some(owners.clone()),
        ..ObjectMeta::default()
    };
    let mut volume_spec = group.spec.persistent_volume_spec.clone();
    let mut claim_spec =
        PersistentVolumeClaimSpec { volume_name: None, ..group.spec.persistent_volume_claim_spec.clone() };
    if let Some((_, size)) = cache {
        volume_spec.capacity.get_or_insert_default().insert("storage".into(), size.clone());
        let resources = claim_spec.resources.get_or_insert_default();
        resources.requests.get_or_insert_default().insert("storage".into(), size.clone());
    }
    volume_spec.persistent_volume_reclaim_policy = Some("Retain".into());
    volume_spec.claim_ref = Some(ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: Some(namespace.into()),
        name: Some(claim_name.clone()),
        ..ObjectReference::default()
    });
    Pair {
        volume: PersistentVolume {
            metadata: metadata(volume_name, None),
            spec: Some(volume_spec),
            status: None,
        },
        claim: PersistentVolumeClaim {
            metadata: metadata(claim_name, Some(namespace)),
            spec: Some(claim_spec),
            status: None,
        },
    }
}

/// What to do next, given what is there. A volume of ours stays as it is, one exactly as wanted is
/// adopted, anything else is never touched (C3); one that was deleted comes back (C4).
pub fn step(wanted: &Pair, volume: Option<&PersistentVolume>, claim: Option<&PersistentVolumeClaim>) -> Step {
    // The claim comes first: a volume that is made beside somebody else's claim would bind to it.
    let claim_is = claim.map(|claim| claim_relation(wanted, claim));
    match (claim, claim_is) {
        (Some(claim), Some(Relation::Foreign | Relation::Earlier)) if is_deleting(&claim.metadata) => {
            return wait("PersistentVolumeClaim", &claim_name(claim));
        }
        (Some(claim), Some(Relation::Foreign)) => {
            return conflict("PersistentVolumeClaim", &claim_name(claim));
        }
        (_, Some(Relation::Earlier)) => return Step::DeleteClaim,
        _ => {}
    }
    let claim = claim.zip(claim_is);
    match volume {
        Some(volume) => match volume_relation(wanted, volume) {
            Relation::Foreign => foreign_volume(volume),
            _ if is_deleting(&volume.metadata) => deleting_volume(volume, claim),
            Relation::Earlier => Step::DeleteVolume,
            Relation::Adoptable => Step::AdoptVolume,
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
        conflict("PersistentVolume", &volume.name_any())
    }
}

fn wait(kind: &str, name: &str) -> Step {
    Step::Wait(format!("{kind} {name} is still being deleted"))
}

fn conflict(kind: &str, name: &str) -> Step {
    Step::Conflict(format!("{kind} {name} exists and is somebody else's: remove it or rename this object"))
}

/// Whose an object is that has a wanted name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// It has our label and the wanted owner.
    Ours,
    /// It has our label and an owner of the wanted kind and name that is gone.
    Earlier,
    /// It is what the plan would make, and has the wanted owner or none: KServe's.
    Adoptable,
    /// It is anything else, the volume of another object of ours with the same joined name included.
    Foreign,
}

fn volume_relation(wanted: &Pair, live: &PersistentVolume) -> Relation {
    relation(&live.metadata, &wanted.volume.metadata, || same_volume(wanted, live))
}

fn claim_relation(wanted: &Pair, live: &PersistentVolumeClaim) -> Relation {
    let volume = live.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    relation(&live.metadata, &wanted.claim.metadata, || {
        volume == wanted.volume.metadata.name.as_deref() && !is_deleting(&live.metadata)
    })
}

fn relation(live: &ObjectMeta, wanted: &ObjectMeta, is_as_wanted: impl Fn() -> bool) -> Relation {
    let owners = live.owner_references.as_deref().unwrap_or_default();
    let ours = wanted.owner_references.iter().flatten().next();
    let any = |is: fn(&OwnerReference, &OwnerReference) -> bool| {
        owners.iter().any(|owner| ours.is_some_and(|ours| is(owner, ours)))
    };
    let is_same = any(|owner, ours| owner.uid == ours.uid);
    let has_its_name = any(|owner, ours| (&owner.kind, &owner.name) == (&ours.kind, &ours.name));
    let is_managed =
        live.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == MANAGER);
    match (is_managed, is_same, has_its_name) {
        (true, true, _) => Relation::Ours,
        (true, false, true) => Relation::Earlier,
        _ if (is_same || owners.is_empty()) && is_as_wanted() => Relation::Adoptable,
        _ => Relation::Foreign,
    }
}

/// Whether a volume leads to the same folder, for the same claim, on the same nodes.
fn same_volume(wanted: &Pair, live: &PersistentVolume) -> bool {
    let (Some(wanted), Some(live)) = (&wanted.volume.spec, &live.spec) else { return false };
    let folder = |spec: &PersistentVolumeSpec| json!({"local": spec.local, "hostPath": spec.host_path});
    let nodes = |spec: &PersistentVolumeSpec| json!(spec.node_affinity);
    drift::satisfied(&folder(wanted), &folder(live))
        && drift::satisfied(&json!(wanted.claim_ref), &json!(live.claim_ref))
        // Both ways: a volume that fewer nodes reach is another volume.
        && drift::satisfied(&nodes(wanted), &nodes(live))
        && drift::satisfied(&nodes(live), &nodes(wanted))
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
