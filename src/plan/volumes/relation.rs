//! Whose a volume or claim is that has a wanted name, and whether it is as wanted.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::{Pair, Takeover, folder, folder_of, is_deleting, label, path_of};
use crate::plan::drift;
use crate::plan::names::{self, CACHE_NAMESPACE, CACHE_UID, MANAGED_BY, MANAGER, SERVE};

/// Whose an object is that has a wanted name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// It has our label and the wanted owner.
    Ours,
    /// It has our label and an owner of the wanted kind and name that is gone.
    Earlier,
    /// It is what the plan would make, and has the wanted owner or none: KServe's.
    Adoptable,
    /// It is KServe's, at another folder, and has to go.
    Replaced,
    /// It is anything else, the volume of another object of ours with the same joined name included.
    Foreign,
}

pub(super) fn volume_relation(wanted: &Pair, live: &PersistentVolume) -> Relation {
    let ours = folder(wanted);
    match relation(&live.metadata, &wanted.volume.metadata) {
        Some(known) => known,
        None if same_volume(wanted, live, &ours) => Relation::Adoptable,
        None => match &wanted.theirs {
            Some(theirs) if same_volume(wanted, live, &theirs.folder) => match theirs.then {
                Takeover::Adopt => Relation::Adoptable,
                Takeover::Replace => Relation::Replaced,
            },
            _ => Relation::Foreign,
        },
    }
}

pub(super) fn claim_relation(
    wanted: &Pair,
    live: &PersistentVolumeClaim,
    volume: Option<&PersistentVolume>,
) -> Relation {
    let names = live.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    match relation(&live.metadata, &wanted.claim.metadata) {
        Some(known) => known,
        None if names != wanted.volume.metadata.name.as_deref() || is_deleting(&live.metadata) => {
            Relation::Foreign
        }
        None if volume.is_some_and(|volume| volume_relation(wanted, volume) == Relation::Replaced) => {
            Relation::Replaced
        }
        None => Relation::Adoptable,
    }
}

/// Whose an object is by owner and labels; `None` when it may be KServe's.
fn relation(live: &ObjectMeta, wanted: &ObjectMeta) -> Option<Relation> {
    let owners = live.owner_references.as_deref().unwrap_or_default();
    let (is_same, has_its_name) = if let Some(ours) = wanted.owner_references.iter().flatten().next() {
        let any = |is: &dyn Fn(&OwnerReference) -> bool| owners.iter().any(is);
        (
            any(&|owner| owner.uid == ours.uid),
            any(&|owner| (&owner.kind, &owner.name) == (&ours.kind, &ours.name)),
        )
    } else {
        let same = |key| label(live, key).is_some() && label(live, key) == label(wanted, key);
        let is_its_name = same(names::CACHE) && same(CACHE_NAMESPACE);
        (is_its_name && same(CACHE_UID), is_its_name)
    };
    match (label(live, MANAGED_BY) == Some(MANAGER), is_same, has_its_name) {
        (true, true, _) => Some(Relation::Ours),
        (true, false, true) => Some(Relation::Earlier),
        _ if label(live, CACHE_UID).is_some() => Some(Relation::Foreign), // another namespace cache's
        _ if is_same || owners.is_empty() => None,
        _ => Some(Relation::Foreign),
    }
}

/// Whether a volume leads to this folder, for the same claim, on the same nodes.
pub(super) fn same_volume(wanted: &Pair, live: &PersistentVolume, folder: &Value) -> bool {
    let (Some(wanted), Some(live)) = (&wanted.volume.spec, &live.spec) else { return false };
    let nodes = |spec: &PersistentVolumeSpec| json!(spec.node_affinity);
    drift::satisfied(folder, &folder_of(live))
        && drift::satisfied(&json!(wanted.claim_ref), &json!(live.claim_ref))
        // Both ways: a volume that fewer nodes reach is another volume.
        && drift::satisfied(&nodes(wanted), &nodes(live))
        && drift::satisfied(&nodes(live), &nodes(wanted))
}

/// Whether a serving volume shows more than the one model: not the folder of that model, on whatever disk.
pub(super) fn is_wide(wanted: &Pair, volume: &PersistentVolume) -> bool {
    let is_serving = label(&wanted.volume.metadata, names::SERVES).is_some();
    let end = |volume: &PersistentVolume| -> Option<String> {
        let path = path_of(volume.spec.as_ref()?)?;
        path.rfind(&format!("/{SERVE}/")).map(|at| path[at..].to_owned())
    };
    is_serving && end(volume) != end(&wanted.volume)
}
