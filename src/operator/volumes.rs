//! Carries out the plan's steps towards a pair of volume and claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::cache_volumes::exactly;
use super::context::Context;
use crate::error::{Doing, Error};
use crate::plan::cache::{NAME_CONFLICT, VOLUMES_OUTDATED, VOLUMES_TERMINATING};
use crate::plan::conditions::Statement;
use crate::plan::mounts::SERVING_CLAIM_TOO_WIDE;
use crate::plan::names::MANAGER;
use crate::plan::volumes::{Pair, Step, outdated, step};

/// What stands in the way of a pair.
#[derive(Debug, PartialEq)]
pub(super) enum Obstacle {
    /// An earlier object's volume is in deletion.
    Terminating(String),
    /// Somebody else's object has the name.
    Conflict(String),
    /// The claim is KServe's and has to go, once nothing of KServe's runs on it any more.
    Theirs(String),
    /// The claim shows more than one model and has to go, once no pod uses it any more.
    Wide(String),
    /// The pair works, and is not what its group says now.
    Outdated(String),
}

impl Obstacle {
    /// The condition that tells of it.
    pub(super) fn problem(&self) -> Statement {
        match self {
            Self::Wide(message) => Statement::problem(SERVING_CLAIM_TOO_WIDE, message),
            Self::Terminating(message) | Self::Theirs(message) => {
                Statement::problem(VOLUMES_TERMINATING, message)
            }
            Self::Conflict(message) => Statement::problem(NAME_CONFLICT, message),
            Self::Outdated(message) => Statement::problem(VOLUMES_OUTDATED, message),
        }
    }
}

/// Takes the next step, if there is one; the write's own event brings the one after it.
pub(super) async fn advance(context: &Context, wanted: &Pair) -> Result<Option<Obstacle>, Error> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let namespace = wanted.claim.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
    let (volume_name, claim_name) = (wanted.volume.name_any(), wanted.claim.name_any());
    let volume = match context.stores.volumes.store.get(&ObjectRef::new(&volume_name)) {
        Some(volume) => Some((*volume).clone()),
        // The store holds only objects of ours: somebody else's may have the name.
        None => {
            volumes.get_opt(&volume_name).await.doing(|| format!("reading PersistentVolume {volume_name}"))?
        }
    };
    let claim_ref = ObjectRef::new(&claim_name).within(&namespace);
    let claim = match context.stores.claims.store.get(&claim_ref) {
        Some(claim) => Some((*claim).clone()),
        None => claims
            .get_opt(&claim_name)
            .await
            .doing(|| format!("reading PersistentVolumeClaim {claim_name}"))?,
    };
    let step = step(wanted, volume.as_ref(), claim.as_ref());
    match &step {
        Step::Done => {
            return Ok(volume.and_then(|volume| outdated(wanted, &volume)).map(Obstacle::Outdated));
        }
        Step::Wait(message) => return Ok(Some(Obstacle::Terminating(message.clone()))),
        Step::Conflict(message) => return Ok(Some(Obstacle::Conflict(message.clone()))),
        Step::NarrowClaim(message) => return Ok(Some(Obstacle::Wide(message.clone()))),
        Step::ReplaceClaim(message) => return Ok(Some(Obstacle::Theirs(message.clone()))),
        Step::CreateVolume => volumes.create(&created(), &wanted.volume).await.map(drop),
        Step::CreateClaim => claims.create(&created(), &wanted.claim).await.map(drop),
        Step::AdoptVolume => volumes
            .patch(
                &volume_name,
                &PatchParams::default(),
                &Patch::Merge(as_seen(adopt_volume(&wanted.volume, volume.as_ref()), volume.as_ref())),
            )
            .await
            .map(drop),
        Step::AdoptClaim => claims
            .patch(
                &claim_name,
                &PatchParams::default(),
                &Patch::Merge(as_seen(adopt(&wanted.claim.metadata), claim.as_ref())),
            )
            .await
            .map(drop),
        Step::FreeVolume => {
            let body = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
            let body = as_seen(body, volume.as_ref());
            volumes.patch(&volume_name, &PatchParams::default(), &Patch::Merge(&body)).await.map(drop)
        }
        Step::DeleteClaim => claims.delete(&claim_name, &seen(claim.as_ref())).await.map(drop),
        Step::DeleteVolume => volumes.delete(&volume_name, &seen(volume.as_ref())).await.map(drop),
    }
    .doing(|| format!("{step} for PersistentVolumeClaim {namespace}/{claim_name}"))?;
    tracing::info!(%step, volume = volume_name, claim = claim_name, namespace, "a step towards volumes");
    Ok(None)
}

/// A patch of the object that was looked at: a decision that comes late changes nothing.
fn as_seen<K: Resource>(mut patch: Value, object: Option<&K>) -> Value {
    patch["metadata"]["resourceVersion"] =
        json!(object.and_then(|object| object.meta().resource_version.as_ref()));
    patch
}

/// A deletion of the object that was looked at.
fn seen<K: Resource>(object: Option<&K>) -> DeleteParams {
    object.map(exactly).unwrap_or_default()
}

fn created() -> PostParams {
    PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() }
}

fn adopt(meta: &kube::core::ObjectMeta) -> Value {
    json!({"metadata": {"labels": meta.labels, "ownerReferences": meta.owner_references}})
}

/// KServe's serving volumes can be written through: later mounts of an adopted one are as ours, where the kubelet
/// takes options for its kind.
fn adopt_volume(volume: &PersistentVolume, live: Option<&PersistentVolume>) -> Value {
    let mut body = adopt(&volume.metadata);
    let has_options = live.and_then(|live| live.spec.as_ref()).is_some_and(|spec| spec.local.is_some());
    let options = volume.spec.as_ref().and_then(|spec| spec.mount_options.as_ref());
    if let Some(options) = options.filter(|_| has_options) {
        body["spec"] = json!({"mountOptions": options});
    }
    body
}
