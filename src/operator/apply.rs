//! Writes, each only when something differs.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Doing, Error};
use crate::plan::names::MANAGER;
use crate::plan::{drift, patch};

/// Applies a manifest on the server's side when the live object is not what it says, or when it was
/// last applied with something that it no longer says. Fields that others added stay. Returns whether it
/// wrote. The manifest was made for the live object, or for the resourceVersion that it has itself: where the
/// object has another meanwhile, that is a conflict.
pub(super) async fn apply<K>(api: &Api<K>, wanted: &K, live: Option<&K>) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = wanted.name_any();
    let failed = |error| Error::Manifest(name.clone(), error);
    let mut manifest = drift::stamped(serde_json::to_value(wanted).map_err(failed)?);
    if let Some(live) = live
        && drift::satisfied(&manifest, &serde_json::to_value(live).map_err(failed)?)
    {
        return Ok(false);
    }
    if let Some(version) = live.and_then(ResourceExt::resource_version) {
        // A decision that comes late changes nothing.
        manifest["metadata"]["resourceVersion"] = json!(version);
    }
    let kind = K::kind(&());
    api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&manifest))
        .await
        .doing(|| format!("applying {kind} {name}"))?;
    tracing::info!(%kind, name, "applied");
    Ok(true)
}

/// Patches the status so that it becomes `wanted`; `None` when it is already. Returns the status that
/// the server kept. The patch carries the resourceVersion that it was made for.
pub(super) async fn patch_status<K, S>(
    api: &Api<K>,
    object: &K,
    before: &S,
    wanted: &S,
) -> Result<Option<Value>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    S: Serialize,
{
    let name = object.name_any();
    let failed = |error| Error::Manifest(name.clone(), error);
    let (before, wanted) =
        (serde_json::to_value(before).map_err(failed)?, serde_json::to_value(wanted).map_err(failed)?);
    let Some(changes) = patch::merge(&before, &wanted) else { return Ok(None) };
    let body = json!({"metadata": {"resourceVersion": object.resource_version()}, "status": changes});
    let kept = api
        .patch_status(
            &name,
            &PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() },
            &Patch::Merge(&body),
        )
        .await
        .doing(|| format!("writing the status of {} {name}", K::kind(&())))?;
    let kept = serde_json::to_value(kept).map_err(failed)?;
    Ok(Some(kept["status"].clone()))
}
