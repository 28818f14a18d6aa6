//! What the answers to a tenant's requests tell of others.

use anyhow::{Context, Result, ensure};
use localmodel::plan::names::POD_MODEL;
use localmodel_e2e::attack::{Tenant, attack, pod, try_create, try_get};
use localmodel_e2e::sweep::objects;
use serde_json::json;

/// A cache of the victim's, which the victim itself can see.
async fn private_cache(victim: &Tenant, name: &str) -> Result<()> {
    let mut cache = objects::cache(name, &format!("acme/{name}"), 1);
    cache["kind"] = json!("LocalModelNamespaceCache");
    cache["metadata"]["namespace"] = json!(victim.namespace);
    try_create(&victim.client, &cache).await?.map_err(anyhow::Error::msg)?;
    try_get(&victim.client, &objects::path(&cache)?).await?.map_err(anyhow::Error::msg)?;
    Ok(())
}

#[test]
fn a_pod_that_asks_for_an_unknown_model_is_refused_without_the_names_of_other_tenants_models() {
    attack(async |platform| {
        let (victim, attacker) = (platform.tenant("victim").await?, platform.tenant("attacker").await?);
        private_cache(&victim, "secret").await?;
        let asking = pod(&victim.namespace, "allowed", &json!({POD_MODEL: "secret"}));
        try_create(&victim.client, &asking).await?.map_err(anyhow::Error::msg)?;

        let asking = pod(&attacker.namespace, "curious", &json!({POD_MODEL: "secre"}));
        let words = try_create(&attacker.client, &asking).await?.err().context("the pod was created")?;
        ensure!(words.contains("secre"), "{words}");
        ensure!(!words.contains("secret") && !words.contains(&victim.namespace), "{words}");
        let read = format!(
            "/apis/serving.kserve.io/v1alpha1/namespaces/{}/localmodelnamespacecaches/secret",
            victim.namespace
        );
        ensure!(try_get(&attacker.client, &read).await?.is_err(), "the attacker reads the cache");
        Ok(())
    });
}
