//! Which volumes a cache and a group's agents have, and the next step towards them.
//!
//! A volume names its claim (`claimRef`), which keeps everybody else's claim away; the claim is made
//! without `volumeName` once the volume is available, because Kubernetes then binds at once, where a
//! claim that names its volume can wait for the binder's next resync.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
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
    /// An earlier object's volume is still in deletion; the text says which.
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
    let mut labels = labels(&group_name);
    labels.insert(names::CACHE.into(), names::label_value(&cache.name));
    let volume = names::download_volume(cache, &group_name, first);
    let claim = names::download_claim(cache, &group_name, first);
    pair(group, (volume, claim), job_namespace, Some(&spec.model_size), labels, owner)
}

/// The volumes through which a group's agents reach their disk (G1).
pub fn agent(group: &LocalModelNodeGroup, owner: OwnerReference, namespace: &str) -> Pair {
    let name = names::agent(&group.name_any());
    pair(group, (name.clone(), name), namespace, None, labels(&group.name_any()), owner)
}

fn labels(group: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MANAGED_BY.into(), MANAGER.into()),
        (names::NODE_GROUP.into(), names::label_value(group)),
    ])
}

fn pair(
    group: &LocalModelNodeGroup,
    (volume_name, claim_name): (String, String),
    namespace: &str,
    size: Option<&Quantity>,
    labels: BTreeMap<String, String>,
    owner: OwnerReference,
) -> Pair {
    let metadata = |name, namespace: Option<&str>| ObjectMeta {
        name: Some(name),
        namespace: namespace.map(Into::into),
        labels: Some(labels.clone()),
        owner_references: Some(vec![owner.clone()]),
        ..ObjectMeta::default()
    };
    let mut volume_spec = group.spec.persistent_volume_spec.clone();
    let mut claim_spec =
        PersistentVolumeClaimSpec { volume_name: None, ..group.spec.persistent_volume_claim_spec.clone() };
    if let Some(size) = size {
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
    let Some(volume) = volume else {
        return match claim {
            Some(claim) if is_ours(&claim.metadata, &wanted.claim.metadata) && is_lost(claim) => {
                in_deletion_or(claim, Step::DeleteClaim)
            }
            _ => Step::CreateVolume,
        };
    };
    if let Some(step) = volume_step(wanted, volume, claim) {
        return step;
    }
    let Some(claim) = claim else {
        return match phase(volume) {
            Some("Available") => Step::CreateClaim,
            Some("Released") => Step::FreeVolume,
            _ => Step::Done, // Kubernetes has not yet looked at the volume or at its claim's end
        };
    };
    claim_step(wanted, claim)
}

/// A step that the volume alone calls for; `None` when it is ours and alive.
fn volume_step(
    wanted: &Pair,
    volume: &PersistentVolume,
    claim: Option<&PersistentVolumeClaim>,
) -> Option<Step> {
    let name = volume.name_any();
    if is_ours(&volume.metadata, &wanted.volume.metadata) {
        let deleting = volume.metadata.deletion_timestamp.is_some();
        return match claim {
            // A volume in deletion waits for its claim to go.
            Some(claim) if deleting => Some(in_deletion_or(claim, Step::DeleteClaim)),
            _ if deleting => Some(Step::Wait(format!("PersistentVolume {name} is still being deleted"))),
            _ => None,
        };
    }
    if is_managed(&volume.metadata) {
        return Some(if volume.metadata.deletion_timestamp.is_some() {
            Step::Wait(format!("PersistentVolume {name} of an earlier object is still being deleted"))
        } else {
            Step::DeleteVolume
        });
    }
    Some(if is_unowned(&volume.metadata) && same_volume(wanted, volume) {
        Step::AdoptVolume
    } else {
        Step::Conflict(format!(
            "PersistentVolume {name} exists and is somebody else's: remove it or rename this object"
        ))
    })
}

fn claim_step(wanted: &Pair, claim: &PersistentVolumeClaim) -> Step {
    let name = format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any());
    let deleting = claim.metadata.deletion_timestamp.is_some();
    if is_ours(&claim.metadata, &wanted.claim.metadata) {
        return match phase_of_claim(claim) {
            _ if deleting => Step::Wait(format!("PersistentVolumeClaim {name} is still being deleted")),
            Some("Lost") => Step::DeleteClaim,
            _ => Step::Done,
        };
    }
    if is_managed(&claim.metadata) {
        return if deleting {
            Step::Wait(format!("PersistentVolumeClaim {name} of an earlier object is still being deleted"))
        } else {
            Step::DeleteClaim
        };
    }
    let bound_to_it =
        claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()) == wanted.volume.metadata.name.as_deref();
    if is_unowned(&claim.metadata) && bound_to_it && !deleting {
        return Step::AdoptClaim;
    }
    Step::Conflict(format!(
        "PersistentVolumeClaim {name} exists and is somebody else's: remove it or rename this object"
    ))
}

fn in_deletion_or(claim: &PersistentVolumeClaim, step: Step) -> Step {
    match claim.metadata.deletion_timestamp {
        None => step,
        Some(_) => Step::Wait(format!(
            "PersistentVolumeClaim {}/{} is still being deleted",
            claim.namespace().unwrap_or_default(),
            claim.name_any()
        )),
    }
}

/// Whether the object belongs to the same owner as the wanted one.
fn is_ours(live: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    let owner = |meta: &ObjectMeta| meta.owner_references.iter().flatten().map(|o| o.uid.clone()).next();
    is_managed(live) && owner(live) == owner(wanted)
}

/// Whether this project made or adopted the object, for whichever owner.
fn is_managed(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|by| by == MANAGER)
}

fn is_unowned(meta: &ObjectMeta) -> bool {
    meta.owner_references.as_ref().is_none_or(Vec::is_empty)
}

/// Whether a volume leads to the same folder, for the same claim, on the same nodes.
fn same_volume(wanted: &Pair, live: &PersistentVolume) -> bool {
    let part = |volume: &PersistentVolume| {
        volume.spec.as_ref().map(|spec| {
            json!({"local": spec.local, "hostPath": spec.host_path, "nodeAffinity": spec.node_affinity,
                "claimRef": spec.claim_ref})
        })
    };
    matches!((part(&wanted.volume), part(live)), (Some(wanted), Some(live)) if drift::satisfied(&wanted, &live))
}

fn phase(volume: &PersistentVolume) -> Option<&str> {
    volume.status.as_ref()?.phase.as_deref()
}

fn phase_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

fn is_lost(claim: &PersistentVolumeClaim) -> bool {
    phase_of_claim(claim) == Some("Lost")
}
