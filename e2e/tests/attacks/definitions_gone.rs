//! Whoever deletes a definition deletes all objects of its kind, and says nothing of what is wanted.

use anyhow::{Context, Result, ensure};
use localmodel_e2e::attack::{NodeAgent, Platform, alone, apply, try_delete, try_get, try_patch};
use localmodel_e2e::sweep::objects::{self, NODES};
use localmodel_e2e::wait::until;
use serde_json::{Value, json};

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/localmodelcaches.serving.kserve.io";

fn node_path() -> String {
    format!("/apis/serving.kserve.io/v1alpha1/localmodelnodes/{}", NODES[0])
}

async fn node(platform: &Platform) -> Result<Value> {
    try_get(&platform.client, &node_path()).await?.map_err(anyhow::Error::msg)
}

async fn entries(platform: &Platform) -> Result<Vec<String>> {
    let list = node(platform).await?["spec"]["localModels"].as_array().cloned().unwrap_or_default();
    Ok(list.iter().filter_map(|entry| Some(entry["modelName"].as_str()?.to_owned())).collect())
}

async fn until_entries(platform: &Platform, wanted: &[&str]) -> Result<()> {
    let what = format!("the entries {wanted:?}");
    until(&what, || async { Ok((entries(platform).await? == wanted).then_some(())) }).await
}

async fn until_downloaded(platform: &Platform, name: &str) -> Result<()> {
    until("the copy to be found", || async {
        Ok((node(platform).await?["status"]["modelStatus"][name] == "ModelDownloaded").then_some(()))
    })
    .await
}

async fn cache(platform: &Platform, name: &str) -> Result<()> {
    apply(&platform.client, &objects::cache(name, &format!("acme/{name}"), 1)).await.map(drop)
}

#[test]
fn deleting_the_definition_of_caches_erases_nothing_and_no_list_and_deleting_a_cache_still_does() {
    alone(async |platform| {
        cache(platform, "one").await?;
        cache(platform, "two").await?;
        until_entries(platform, &["one", "two"]).await?;
        // An agent erases what no list has asked for.
        let agent = NodeAgent::start(platform, NODES[0], &["hf://acme/one", "hf://acme/two"]).await?;
        let (copy, other) = (agent.copy("hf://acme/one"), agent.copy("hf://acme/two"));
        until_downloaded(platform, "one").await?;
        until_downloaded(platform, "two").await?;
        // A cache that is deleted by itself is not wanted any more.
        let path = objects::path(&objects::cache("two", "acme/two", 1))?;
        try_delete(&platform.client, &path).await?.map_err(anyhow::Error::msg)?;
        until("the copy to be erased", || async { Ok((!other.exists()).then_some(())) }).await?;
        ensure!(copy.join("weights").exists(), "the copy is there");

        let definition = try_get(&platform.client, DEFINITION).await?.map_err(anyhow::Error::msg)?;
        try_delete(&platform.client, DEFINITION).await?.map_err(anyhow::Error::msg)?;
        until("the definition to be gone", || async {
            Ok(try_get(&platform.client, DEFINITION).await?.is_err().then_some(()))
        })
        .await?;
        ensure!(entries(platform).await? == ["one"], "the operator has emptied the list");

        // Also where somebody empties it: an agent asks for itself.
        platform.operator.stop().await?;
        let emptied = json!({"spec": {"localModels": []}});
        try_patch(&platform.client, &node_path(), &emptied).await?.map_err(anyhow::Error::msg)?;
        until("the agent to keep the copy", || async {
            let log = agent.log();
            Ok(log.contains("kept: the definition of its caches is gone").then_some(()))
        })
        .await
        .with_context(|| agent.log())?;
        ensure!(copy.join("weights").exists(), "the agent has erased the copy");

        // And where it comes back without its caches, which may be about to come back, too.
        let before = agent.log().matches("kept: the definition").count();
        let names = &definition["spec"];
        let again = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "localmodelcaches.serving.kserve.io"},
            "spec": names,
        });
        apply(&platform.client, &again).await?;
        until("the agent to keep the copy again", || async {
            Ok((agent.log().matches("kept: the definition").count() > before + 1).then_some(()))
        })
        .await?;
        ensure!(copy.join("weights").exists(), "the agent has erased the copy");
        Ok(())
    });
}
