//! Labels and annotations that anybody can write: what they get a tenant of another's models.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use localmodel::api::source::storage_key;
use localmodel::plan::names::{
    CHOSEN_GROUP, POD_MODEL, POD_MODEL_NAMESPACE, SERVICE_CLAIM, SERVICE_MODEL, SERVICE_NAMESPACE,
};
use localmodel_e2e::attack::{Platform, Tenant, attack, pod, try_create, try_delete, try_patch};
use localmodel_e2e::sweep::control_plane::create;
use localmodel_e2e::sweep::objects;
use localmodel_e2e::wait::until;
use serde_json::{Value, json};

/// A group of no node: the volumes of its caches wait for no agent.
async fn group(platform: &Platform) -> Result<String> {
    let name = platform.unique("nowhere");
    let mut group = objects::group();
    group["metadata"]["name"] = json!(name);
    let affinity =
        &mut group["spec"]["persistentVolumeSpec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    affinity[0]["matchExpressions"][0]["key"] = json!(name);
    create(&platform.client, &group).await?;
    Ok(name)
}

async fn namespace_cache(owner: &Tenant, name: &str, group: &str) -> Result<()> {
    let mut cache = objects::namespace_cache(name, &format!("acme/{name}"), "");
    cache["metadata"]["namespace"] = json!(owner.namespace);
    cache["spec"] = json!({
        "sourceModelUri": format!("hf://acme/{name}"), "modelSize": "1Gi", "nodeGroups": [group],
    });
    try_create(&owner.client, &cache).await?.map_err(anyhow::Error::msg)?;
    Ok(())
}

/// Waits until the operator has made the volume of a namespace's claim; returns its folder.
async fn until_volume(platform: &Platform, namespace: &str, claim: &str) -> Result<String> {
    until(&format!("the volume of {namespace}/{claim}"), || async {
        let volumes = of_namespace(platform, namespace).await?;
        Ok(volumes.into_iter().find(|(of, _)| of == claim).map(|(_, path)| path))
    })
    .await
}

/// The claims that volumes are kept for in a namespace, and the folder of each volume.
async fn of_namespace(platform: &Platform, namespace: &str) -> Result<Vec<(String, String)>> {
    let volumes: Api<PersistentVolume> = Api::all(platform.client.clone());
    let specs =
        volumes.list(&ListParams::default()).await?.items.into_iter().filter_map(|volume| volume.spec);
    let of = |spec: k8s_openapi::api::core::v1::PersistentVolumeSpec| {
        let claim = spec.claim_ref.filter(|claim| claim.namespace.as_deref() == Some(namespace))?;
        Some((claim.name?, spec.local?.path))
    };
    Ok(specs.filter_map(of).collect())
}

#[test]
fn labels_and_annotations_get_nobody_a_volume_of_another_namespaces_cache_nor_keep_it_from_going() {
    attack(async |platform| {
        let (victim, attacker) = (platform.tenant("victim").await?, platform.tenant("attacker").await?);
        let group = group(platform).await?;
        namespace_cache(&victim, "secret", &group).await?;
        let (claim, key) = (format!("secret-{group}"), storage_key("hf://acme/secret"));
        let asking = pod(&victim.namespace, "own", &json!({POD_MODEL: "secret"}));
        try_create(&victim.client, &asking).await?.map_err(anyhow::Error::msg)?;
        let path = until_volume(platform, &victim.namespace, &claim).await?;
        let expected = format!("{}/namespaces/{}/serve/{key}", objects::DISK, victim.namespace);
        ensure!(path == expected, "the victim's volume leads to {path}");

        for (name, labels) in disguises(&victim.namespace) {
            // The webhook is asked when a pod is created, and not when it is labelled.
            let unlabelled = pod(&attacker.namespace, name, &json!({}));
            try_create(&attacker.client, &unlabelled).await?.map_err(anyhow::Error::msg)?;
            let annotations = json!({CHOSEN_GROUP: group, SERVICE_CLAIM: claim});
            let labelled = json!({"metadata": {"labels": labels, "annotations": annotations}});
            let path = format!("/api/v1/namespaces/{}/pods/{name}", attacker.namespace);
            try_patch(&attacker.client, &path, &labelled).await?.map_err(anyhow::Error::msg)?;
        }
        // What the operator does for a pod that came after these.
        namespace_cache(&attacker, "own", &group).await?;
        let own = pod(&attacker.namespace, "own", &json!({POD_MODEL: "own"}));
        try_create(&attacker.client, &own).await?.map_err(anyhow::Error::msg)?;
        until_volume(platform, &attacker.namespace, &format!("own-{group}")).await?;

        let volumes = of_namespace(platform, &attacker.namespace).await?;
        let theirs = |(_, path): &(String, String)| !path.contains(&format!("/{}/", attacker.namespace));
        ensure!(!volumes.iter().any(theirs), "the attacker has a volume of another's: {volumes:?}");
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(platform.client.clone(), &attacker.namespace);
        let claims = claims.list(&ListParams::default()).await?.items;
        ensure!(claims.iter().all(|made| made.name_any() != claim), "the attacker has claim {claim}");

        let path = format!("/api/v1/namespaces/{}/pods/own", victim.namespace);
        try_delete(&victim.client, &format!("{path}?gracePeriodSeconds=0"))
            .await?
            .map_err(anyhow::Error::msg)?;
        let cache = format!(
            "/apis/serving.kserve.io/v1alpha1/namespaces/{}/localmodelnamespacecaches/secret",
            victim.namespace
        );
        until("the victim to delete its cache", || async {
            Ok(try_delete(&victim.client, &cache).await?.is_ok().then_some(()))
        })
        .await
    });
}

/// Pods that say that they use the victim's cache.
fn disguises(victim: &str) -> [(&'static str, Value); 3] {
    [
        ("ours", json!({POD_MODEL: "secret", POD_MODEL_NAMESPACE: victim})),
        ("of-kserve", json!({SERVICE_MODEL: "secret", SERVICE_NAMESPACE: victim})),
        (
            "both",
            json!({POD_MODEL: "secret", POD_MODEL_NAMESPACE: victim, SERVICE_MODEL: "secret", SERVICE_NAMESPACE: victim}),
        ),
    ]
}
