//! The documented walkthrough, in its order, with the substitutions that `walkthrough.rs` of the harness
//! lists.

use anyhow::{Context, Result, ensure};
use localmodel_e2e::command::kubectl;
use localmodel_e2e::walkthrough::{CACHE, printed, remove};
use localmodel_e2e::world::{World, beside_others_then};
use localmodel_e2e::{table, world};

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
    // "Deploy InferenceService using the LocalModelCache"
    services::documented(world).await
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
