//! A cluster in use in which nothing happens: nothing is written either.

use std::time::Duration;

use anyhow::Result;
use localmodel_e2e::command::kubectl;
use localmodel_e2e::kserve::serving::{inference_service, until_ready};
use localmodel_e2e::objects::apply;
use localmodel_e2e::steady::quiet_for;
use localmodel_e2e::walkthrough::{GROUP, SOURCE, printed, remove};
use localmodel_e2e::world::{World, alone};
use serde_json::json;

#[tokio::test]
async fn for_a_minute_nothing_is_written_where_fifty_caches_are_warm_and_a_service_runs() {
    let test = |world| async move {
        remove().await?;
        quiet(&world).await
    };
    alone("steady", test, async |world| {
        // It guards the cache for as long as it is there, and caches keep their group.
        world.end_users().await?;
        kubectl(&["delete", "localmodelnamespacecaches", "--all", "-n", &world.name("many")]).await?;
        remove().await
    })
    .await;
}

async fn quiet(world: &World) -> Result<()> {
    printed::steps(world).await?;
    fifty_more(world).await?;
    let namespace = world.namespace("a").await?;
    apply(&inference_service(&namespace, "serves", SOURCE)).await?;
    until_ready("inferenceservice", &namespace, "serves").await?;
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
