//! What pods may mount of a serving claim: a model, or its gate, and never the claim as a whole, through which
//! all models of the disk could be read, those of every namespace (K4). Admission refuses such pods by the names
//! that claims of a cache have (`deploy/base/mount-policies.yaml`). It cannot refuse those that were there before
//! the cache: the volume behind the claim is not made before they are gone.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodSpec, VolumeMount};
use kube::ResourceExt;

use super::names::{GATE, MODELS, POD_MODEL};
use crate::api::source::is_storage_key;

/// A pod mounts a serving claim as a whole (K4).
pub const UNSAFE_MOUNT: &str = "UnsafeMount";

/// How long after a cache was made admission knows of it for sure. It is told by watches, as the operator is.
const KNOWN_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// Until when the volume behind a serving claim has to wait, if it has to. A time that is yet to come is another
/// clock's, and is not believed.
pub fn unknown_until(created: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let known = created.filter(|created| *created <= now)? + KNOWN_AFTER;
    (known > now).then_some(known)
}

/// Why the volume behind a claim is not made yet: pods that mount all of it.
pub fn problem(pods: &[Pod], claim: &str) -> Option<String> {
    let in_the_way: Vec<&Pod> = pods.iter().filter(|pod| is_unsafe(pod, claim)).collect();
    let namespace = in_the_way.first()?.namespace().unwrap_or_default();
    let names: Vec<String> = in_the_way.into_iter().map(ResourceExt::name_any).collect();
    Some(format!(
        "claim {namespace}/{claim} gets no volume as long as a pod mounts it whole, with everybody's models: delete {}, and let label {POD_MODEL} mount the model, or give the mount subPath {MODELS}/<storage key>/",
        names.join(", "),
    ))
}

/// Whether a pod that has not ended mounts a claim of its namespace.
pub fn mounts(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed")) && volumes(pod, claim).next().is_some()
}

/// Whether it mounts more of it than a model or a gate.
fn is_unsafe(pod: &Pod, claim: &str) -> bool {
    let of_claim: Vec<&str> = volumes(pod, claim).collect();
    let is_whole = |mount: &VolumeMount| of_claim.contains(&mount.name.as_str()) && !is_of_one_model(mount);
    mounts(pod, claim) && pod.spec.iter().flat_map(all_mounts).any(is_whole)
}

/// The volumes of a pod that are a claim of its namespace, by the claim's name or as an ephemeral volume that
/// comes to have this name.
fn volumes<'a>(pod: &'a Pod, claim: &'a str) -> impl Iterator<Item = &'a str> {
    let of_pod = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    of_pod.filter_map(move |volume| {
        let is_it = match &volume.persistent_volume_claim {
            Some(source) => source.claim_name == claim,
            None => volume.ephemeral.is_some() && format!("{}-{}", pod.name_any(), volume.name) == claim,
        };
        is_it.then_some(volume.name.as_str())
    })
}

fn all_mounts(spec: &PodSpec) -> impl Iterator<Item = &VolumeMount> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    containers
        .map(|container| &container.volume_mounts)
        .chain(ephemeral.map(|container| &container.volume_mounts))
        .flat_map(|mounts| mounts.iter().flatten())
}

/// Whether a mount shows a model or a gate, or what is below. Kubernetes lets no subPath lead out again.
fn is_of_one_model(mount: &VolumeMount) -> bool {
    let mut parts = mount.sub_path.as_deref().unwrap_or_default().split('/');
    matches!(parts.next(), Some(MODELS | GATE)) && parts.next().is_some_and(is_storage_key)
}

#[cfg(test)]
mod tests;
