//! The documented walkthrough, in its order, with the substitutions that `walkthrough.rs` of the harness
//! lists.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use localmodel_e2e::command::kubectl;
use localmodel_e2e::objects::apply;
use localmodel_e2e::steady::quiet_for;
use localmodel_e2e::walkthrough::{CACHE, GROUP, printed, remove};
use localmodel_e2e::world::{World, beside_others_then};
use localmodel_e2e::{table, world};
use serde_json::json;

use crate::services;

#[tokio::test]
async fn the_documented_walkthrough_happens_as_printed() {
    let test = |world| async move {
        remove().await?;
        walkthrough(&world).await
    };
    beside_others_then("walkthrough", test, async |world| {
        // The second service guards the cache for as long as it is there.
        world.end_users().await?;
        // A group that caches use stays.
        let many = ["delete", "localmodelnamespacecaches", "--all", "-n", &world.name("many")];
        kubectl(&many).await?;
        remove().await
    })
    .await;
}

async fn walkthrough(world: &World) -> Result<()> {
    printed::steps(world).await?;
    // The node's object has every test's models, and their tests write.
    let _quiet = world::hold_others().await;
    printed::statuses(world).await?;
    ready_for_people().await?;
    printed::files_are_the_hubs(world).await?;
    fifty_more(world).await?;
    // "Deploy InferenceService using the LocalModelCache"
    services::documented(world).await?;
    quiet_for(Duration::from_mins(1)).await
}

/// Namespace caches of the documented group, so that the steady state is that of a cluster in use. They share
/// a copy, and each is told of by itself.
async fn fifty_more(world: &World) -> Result<()> {
    let namespace = world.namespace("many").await?;
    let source = world.model("m").await?;
    let caches: Vec<String> = (0..50)
        .map(|number| {
            json!({
                "apiVersion": "serving.kserve.io/v1alpha1",
                "kind": "LocalModelNamespaceCache",
                "metadata": {"name": world.name(&format!("m{number}")), "namespace": namespace},
                "spec": {"sourceModelUri": source, "modelSize": "1Mi", "nodeGroups": [GROUP]},
            })
            .to_string()
        })
        .collect();
    apply(&caches.join("\n---\n")).await?;
    for number in 0..50 {
        world.until_available_in(&namespace, &format!("m{number}"), 1, 1).await?;
    }
    Ok(())
}

/// What a person sees beyond the printed.
async fn ready_for_people() -> Result<()> {
    kubectl(&["wait", "--for=condition=Ready", "localmodelcache", CACHE, "--timeout=90s"]).await?;
    let short = table::rows(&kubectl(&["get", "lmc", CACHE]).await?);
    let row = short.first().context("a row")?;
    ensure!(row["READY"] == "1/1" && row["STATUS"] == "Available", "{row:?}");
    let explained = kubectl(&["explain", "localmodelcache.spec.nodeGroups"]).await?;
    ensure!(explained.contains("cannot be changed"), "{explained}");
    Ok(())
}
