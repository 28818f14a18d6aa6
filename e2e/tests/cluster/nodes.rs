//! Nodes that join, leave and come back.

use anyhow::ensure;
use localmodel::api::ModelStatus::ModelDownloaded;
use localmodel_e2e::command::kubectl;
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, beside_others};

#[tokio::test]
async fn a_second_worker_is_warmed_by_its_label_alone() {
    beside_others("second", |world| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        world.cache("m", &world.model("m").await?).await?;
        world.until_available("m", 1, 1).await?;
        world.join(WORKERS[1]).await?;
        world.until_available("m", 2, 2).await?;
        ensure!(
            world.files(WORKERS[0]).await? == world.files(WORKERS[1]).await?,
            "both disks hold the same files"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn neither_an_agent_that_restarts_nor_a_node_that_comes_back_downloads_anything() {
    beside_others("back", |world| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        world.cache("m", &world.model("m").await?).await?;
        world.until_available("m", 1, 1).await?;
        world.hub.clear_requests("back/").await?;

        let agent = "localmodel.kserve.io/node-group=back,app.kubernetes.io/name=localmodel-agent";
        kubectl(&["delete", "pod", "-n", "kserve", "-l", agent, "--wait"]).await?;
        kubectl(&["rollout", "status", "-n", "kserve", "daemonset/back-agent", "--timeout=60s"]).await?;
        world.until_status(WORKERS[0], "m", ModelDownloaded).await?;

        world.leave(WORKERS[0]).await?;
        until("a status without the node", || async {
            let cache = world.get("m").await?;
            Ok(cache.filter(|cache| cache.status.as_ref().is_some_and(|s| s.node_status.is_empty())))
        })
        .await?;
        world.join(WORKERS[0]).await?;
        world.until_available("m", 1, 1).await?;
        let asked = world.hub.requests("back/").await?;
        ensure!(asked.is_empty(), "the hub was asked again: {asked:?}");
        Ok(())
    })
    .await;
}
