//! Objects applied, awaited and looked at through the API. A `kubectl` for each of hundreds of calls would take
//! more of the machine than all that is tested.

use anyhow::{Context, Result, ensure};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

/// Who owns what tests apply.
const MANAGER: &str = "e2e";

/// Applies manifests as `kubectl apply --server-side --force-conflicts` does, one after the other.
pub async fn apply(manifests: &str) -> Result<()> {
    let client = Client::try_default().await?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(manifests).context("the manifests")?;
    let objects: Vec<Value> = objects.into_iter().filter(|object| !object.is_null()).collect();
    ensure!(!objects.is_empty(), "nothing to apply");
    for object in objects {
        apply_one(&client, serde_json::from_value(object)?).await?;
    }
    Ok(())
}

async fn apply_one(client: &Client, object: DynamicObject) -> Result<()> {
    let types = object.types.as_ref().context("an object without apiVersion and kind")?;
    let kind = GroupVersionKind::try_from(types)?;
    let (resource, capabilities) = pinned_kind(client, &kind).await?;
    let api: Api<DynamicObject> = match (capabilities.scope, object.namespace()) {
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), &namespace, &resource),
        (Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), &resource),
    };
    let parameters = PatchParams::apply(MANAGER).force().validation_strict();
    api.patch(&object.name_any(), &parameters, &Patch::Apply(&object)).await?;
    Ok(())
}

/// What can use a cache in a namespace: KServe's kinds, which need not be defined, what makes pods, and pods.
pub fn users_of_caches(client: &Client, namespace: &str) -> [Api<DynamicObject>; 4] {
    [
        ("serving.kserve.io", "v1beta1", "InferenceService"),
        ("serving.kserve.io", "v1alpha2", "LLMInferenceService"),
        ("apps", "v1", "Deployment"),
        ("", "v1", "Pod"),
    ]
    .map(|(group, version, kind)| {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(client.clone(), namespace, &resource)
    })
}

/// An answer, or nothing where the object or its kind is not there.
pub fn if_there<T>(answer: kube::Result<T>) -> kube::Result<Option<T>> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        other => other.map(Some),
    }
}
