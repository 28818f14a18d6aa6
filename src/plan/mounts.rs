//! Which pods use a claim, and what is said of a serving claim that shows more of a disk than one model: earlier
//! versions made such claims, and KServe does. It is replaced once no pod uses it.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// A serving claim shows more than one model.
pub const SERVING_CLAIM_TOO_WIDE: &str = "ServingClaimTooWide";
/// The most pods that a message names.
const MOST_NAMES: usize = 10;

/// What keeps a claim that shows more than one model from being replaced: the pods that use it.
pub fn in_the_way(pods: &[Pod], claim: &str) -> Option<String> {
    let mut names: Vec<String> =
        pods.iter().filter(|pod| mounts(pod, claim)).map(ResourceExt::name_any).collect();
    names.sort();
    let namespace = pods.first()?.namespace().unwrap_or_default();
    let more = names.len().saturating_sub(MOST_NAMES);
    names.truncate(MOST_NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| {
        format!(
            "claim {namespace}/{claim} was made by KServe or an earlier version and shows all models of its disk: it is replaced once no pod uses it; scale the workloads of these pods to 0 and up again: {}{more}",
            names.join(", "),
        )
    })
}

/// Whether a pod that has not ended uses a claim of its namespace, by the claim's name or as an ephemeral volume
/// that comes to have this name.
pub fn mounts(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let is_it = volumes.any(|volume| match &volume.persistent_volume_claim {
        Some(source) => source.claim_name == claim,
        None => volume.ephemeral.is_some() && format!("{}-{}", pod.name_any(), volume.name) == claim,
    });
    is_it && !matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests;
