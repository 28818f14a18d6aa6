//! Sources that a tenant may not have: files of the download Job, plain http.

use anyhow::{Result, ensure};
use localmodel_e2e::attack::{attack, try_create, try_get};
use localmodel_e2e::sweep::objects;
use localmodel_e2e::wait::until;
use serde_json::{Value, json};

#[test]
fn a_source_that_a_namespace_may_not_have_is_planned_nowhere_and_says_why() {
    attack(async |platform| {
        let tenant = platform.tenant("sources").await?;
        let cache = |name: &str, uri: &str| {
            let mut cache = objects::cache(name, "acme/model", 1);
            cache["kind"] = json!("LocalModelNamespaceCache");
            cache["metadata"]["namespace"] = json!(tenant.namespace);
            cache["spec"]["sourceModelUri"] = json!(uri);
            cache
        };
        let condition = async |cache: &Value| -> Result<Option<Value>> {
            let now = try_get(&tenant.client, &objects::path(cache)?).await?.map_err(anyhow::Error::msg)?;
            let conditions = now["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions.into_iter().find(|one| one["type"] == "SourceNotAllowed"))
        };
        let allowed = cache("allowed", "hf://acme/sources");
        try_create(&tenant.client, &allowed).await?.map_err(anyhow::Error::msg)?;
        for (name, uri) in [
            ("environment", "file:///proc/self/environ"),
            ("metadata", "http://169.254.169.254/latest/user-data"),
        ] {
            let cache = cache(name, uri);
            try_create(&tenant.client, &cache).await?.map_err(anyhow::Error::msg)?;
            let told = until("the cache to say why", || condition(&cache)).await?;
            ensure!(told["message"].as_str().unwrap_or_default().contains(uri), "{told}");
        }
        // The allowed one is planned on the nodes, beside which the others would stand.
        let nodes = "/apis/serving.kserve.io/v1alpha1/localmodelnodes";
        until("the allowed cache to be planned", || async {
            let planned = try_get(&platform.client, nodes).await?.map_err(anyhow::Error::msg)?.to_string();
            ensure!(planned.contains("hf://acme/sources"), "not planned yet");
            ensure!(!planned.contains("/proc/self") && !planned.contains("169.254"), "planned: {planned}");
            Ok(Some(()))
        })
        .await
    });
}
