//! Caches that are deleted while the webhook that guards them is not there.

use anyhow::{Context, ensure};
use localmodel::plan::names::POD_MODEL;
use localmodel_e2e::attack::{alone, pod, try_create, try_delete, try_get};
use localmodel_e2e::sweep::control_plane::create;
use localmodel_e2e::sweep::objects;
use localmodel_e2e::wait::until;
use serde_json::{Value, json};

const CACHE: &str = "/apis/serving.kserve.io/v1alpha1/localmodelcaches/used";
const UNUSED: &str = "/apis/serving.kserve.io/v1alpha1/localmodelcaches/unused";
const WEBHOOKS: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/localmodelcache.serving.kserve.io";

#[test]
fn a_cache_that_a_pod_uses_stays_until_the_pod_is_gone_also_when_no_webhook_was_asked() {
    alone(async |platform| {
        let (admin, team) = (&platform.client, platform.tenant("team").await?);
        for name in ["used", "unused"] {
            create(admin, &objects::cache(name, &format!("acme/{name}"), 1)).await?;
        }
        let user = pod(&team.namespace, "predictor", &json!({POD_MODEL: "used"}));
        try_create(&team.client, &user).await?.map_err(anyhow::Error::msg)?;
        let planned = || async {
            let path = format!("/apis/serving.kserve.io/v1alpha1/localmodelnodes/{}", objects::NODES[0]);
            let node = try_get(admin, &path).await?.map_err(anyhow::Error::msg)?;
            let models = node["spec"]["localModels"].as_array().cloned().unwrap_or_default();
            let name = |model: &Value| model["modelName"].as_str().map(str::to_owned);
            anyhow::Ok(models.iter().filter_map(name).collect::<Vec<String>>())
        };
        until("both models on the node's list", || async {
            Ok((planned().await? == ["unused", "used"]).then_some(()))
        })
        .await?;

        for path in [WEBHOOKS, CACHE, UNUSED] {
            try_delete(admin, path).await?.map_err(anyhow::Error::msg)?;
        }
        until("the unused model to leave the list", || async {
            Ok((!planned().await?.contains(&"unused".to_owned())).then_some(()))
        })
        .await?;
        ensure!(planned().await? == ["used"], "the model that a pod reads is erased");
        until("the cache to say what it waits for", || async {
            let cache = try_get(admin, CACHE).await?.map_err(anyhow::Error::msg)?;
            let conditions = cache["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let waits = conditions.iter().find(|condition| condition["type"] == "DeletionWaits");
            let message = waits.and_then(|waits| waits["message"].as_str()).context("it says nothing")?;
            ensure!(message.starts_with("LocalModelCache used is being used by"), "{message}");
            Ok(Some(()))
        })
        .await?;

        let predictor = format!("/api/v1/namespaces/{}/pods/predictor?gracePeriodSeconds=0", team.namespace);
        try_delete(&team.client, &predictor).await?.map_err(anyhow::Error::msg)?;
        until("nothing on the list", || async { Ok(planned().await?.is_empty().then_some(())) }).await?;
        until("the cache to go", || async { Ok(try_get(admin, CACHE).await?.is_err().then_some(())) }).await
    });
}
