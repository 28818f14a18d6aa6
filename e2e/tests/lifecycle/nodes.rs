//! Nodes that fall silent, that are deleted, and that are replaced by an empty machine of the same name (N4, N5).
//! What runs on them besides goes with them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use localmodel::api::cache::NodeStatus;
use localmodel::plan::names::{JOB_NODE, NODE_GROUP, OPERATOR};
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, alone};

#[tokio::test]
async fn a_node_that_falls_silent_is_not_ready_until_it_is_back_and_then_downloads_nothing() {
    let test = |world: World| async move {
        let [node, _] = warm_both(&world).await?;
        let list = || async { anyhow::Ok(world.node(node).await?.context("its object")?.spec.local_models) };
        let before = list().await?;
        world.hub.clear_requests("silent/").await?;
        on_node(node, "pkill -STOP -x kubelet").await?;
        let cache = world.until_available("m", 1, 2).await?;
        let said = cache.status.context("a status")?.node_status;
        ensure!(said.get(node) == Some(&NodeStatus::NodeNotReady), "{said:?}");
        world.until_described("m", &["NodeNotReady", node]).await?;
        ensure!(list().await? == before, "readiness changed the list: {:?}", list().await?);

        on_node(node, "pkill -CONT -x kubelet").await?;
        world.until_available("m", 2, 2).await?;
        ensure!(list().await? == before, "its return changed the list: {:?}", list().await?);
        let asked = world.hub.requests("silent/").await?;
        ensure!(asked.is_empty(), "the hub was asked: {asked:?}");
        Ok(())
    };
    alone("silent", test, async |_| {
        for node in WORKERS {
            on_node(node, "pkill -CONT -x kubelet").await?;
        }
        everything_runs().await
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_deleted_leaves_nothing_and_its_replacement_is_warmed_from_nothing() {
    let test = |world: World| async move {
        let [node, other] = warm_both(&world).await?;
        world.in_cluster::<Node>().delete(node, &DeleteParams::default()).await?;
        let cache = world.until_available("m", 1, 1).await?;
        let said = cache.status.context("a status")?.node_status;
        ensure!(said.keys().eq([other]), "{said:?}");
        until("nothing of the node", || async {
            ensure!(world.node(node).await?.is_none(), "its object is left");
            let of_node = ListParams::default().labels(&format!("{JOB_NODE}={node},{NODE_GROUP}=replaced"));
            ensure!(world.in_jobs::<Job>().list(&of_node).await?.items.is_empty(), "a Job is left");
            // Kubernetes takes the pods of a node that is gone away within a minute.
            let of_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
            let pods: Api<Pod> = world.in_namespace("kserve");
            ensure!(pods.list(&of_node).await?.items.is_empty(), "its pods are left");
            Ok(Some(()))
        })
        .await?;

        let files = world.files(other).await?;
        ensure!(world.files(node).await? == files, "no agent erases what a node that is gone has");
        on_node(node, "find /models/replaced -mindepth 1 -delete").await?;
        world.hub.clear_requests("replaced/").await?;
        registers_again(node).await?;
        world.join(node).await?;
        world.until_available("m", 2, 2).await?;
        until("the same files as before", || async {
            let found = world.files(node).await?;
            ensure!(found == files, "{found:?} in place of {files:?}");
            Ok(Some(()))
        })
        .await?;
        let asked = world.hub.requests("replaced/").await?;
        ensure!(!asked.is_empty(), "it is warm without a download");
        Ok(())
    };
    alone("replaced", test, async |_| {
        for node in WORKERS {
            if kubectl(&["get", "node", node]).await.is_err() {
                registers_again(node).await?;
            }
        }
        everything_runs().await
    })
    .await;
}

/// A cache that is complete on both workers. Returns them; the first one does not run the operator, whose webhooks
/// would be gone with it for a while.
async fn warm_both(world: &World) -> Result<[&'static str; 2]> {
    world.group().await?;
    for node in WORKERS {
        world.join(node).await?;
    }
    world.cache("m", &world.model("m").await?).await?;
    world.until_available("m", 2, 2).await?;
    let of_operator = format!("app.kubernetes.io/name={OPERATOR}");
    let path = "jsonpath={.items[*].spec.nodeName}";
    let runs_on = kubectl(&["get", "pods", "-n", "kserve", "-l", &of_operator, "-o", path]).await?;
    let [first, second] = WORKERS;
    Ok(if runs_on.split_whitespace().any(|node| node == first) { [second, first] } else { [first, second] })
}

/// A kubelet registers its node when it starts, and whoever keeps it running starts it again.
async fn registers_again(node: &str) -> Result<()> {
    on_node(node, "pkill -KILL -x kubelet").await?;
    until(&format!("the node {node}"), || async { kubectl(&["get", "node", node]).await.map(Some) }).await?;
    kubectl(&["wait", "--for=condition=Ready", "node", node, "--timeout=120s"]).await.map(drop)
}

/// What ran on the node runs elsewhere, or again.
async fn everything_runs() -> Result<()> {
    kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"]).await?;
    let wait =
        ["wait", "--for=condition=Available", "deployments", "--all", "-n", "kserve", "--timeout=180s"];
    kubectl(&wait).await.map(drop)
}
