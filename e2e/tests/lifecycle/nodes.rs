//! A node that falls silent, is deleted, and is replaced under its name (N4, N5).

use anyhow::{Result, ensure};
use localmodel::api::cache::{CacheStatus, NodeStatus};
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, alone};

const NODE: &str = WORKERS[1];

#[tokio::test]
async fn a_node_that_is_silent_deleted_and_replaced_is_told_of_and_warmed_anew() {
    alone(
        "replaced",
        |world| async move { replaced(&world).await },
        async |_| {
            on_node(NODE, "systemctl start kubelet").await?;
            kubectl(&["wait", "--for=condition=Ready", &format!("node/{NODE}"), "--timeout=120s"])
                .await
                .map(drop)
        },
    )
    .await;
}

async fn replaced(world: &World) -> Result<()> {
    world.group().await?;
    world.join(WORKERS[0]).await?;
    world.join(NODE).await?;
    world.cache("m", &world.model("m").await?).await?;
    world.until_available("m", 2, 2).await?;
    world.hub.clear_requests("replaced/").await?;
    let planned = world.node(NODE).await?.map(|local| local.spec);

    on_node(NODE, "systemctl stop kubelet").await?;
    until("NodeNotReady", || async {
        let status = status(world).await?;
        Ok((status.node_status.get(NODE) == Some(&NodeStatus::NodeNotReady)).then_some(()))
    })
    .await?;
    world.until_available("m", 1, 2).await?;
    ensure!(world.node(NODE).await?.map(|local| local.spec) == planned, "a silent node has another list");
    world.until_described("m", &["NodeNotReady", NODE]).await?;
    on_node(NODE, "systemctl start kubelet").await?;
    world.until_available("m", 2, 2).await?;
    let asked = world.hub.requests("replaced/").await?;
    ensure!(asked.is_empty(), "downloaded again: {asked:?}");

    kubectl(&["delete", "node", NODE]).await?;
    world.until_available("m", 1, 1).await?;
    until("no object of the node's", || async { Ok(world.node(NODE).await?.is_none().then_some(())) })
        .await?;
    ensure!(!status(world).await?.nodes.contains_key(NODE), "a node that is gone is still listed");

    // Another machine takes its name, with an empty disk.
    on_node(NODE, "find /models/replaced -mindepth 1 -delete; systemctl restart kubelet").await?;
    until("the node's registration", || async {
        Ok(kubectl(&["get", "node", NODE, "--ignore-not-found", "-o", "name"])
            .await?
            .contains(NODE)
            .then_some(()))
    })
    .await?;
    world.join(NODE).await?;
    world.until_available("m", 2, 2).await?;
    ensure!(world.files(WORKERS[0]).await? == world.files(NODE).await?, "both disks hold the same files");
    Ok(())
}

async fn status(world: &World) -> Result<CacheStatus> {
    Ok(world.get("m").await?.and_then(|cache| cache.status).unwrap_or_default())
}
