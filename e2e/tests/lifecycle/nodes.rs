//! Nodes that fall silent, that are deleted, and that are replaced by an empty machine of the same name (N4, N5).
//! What runs on them besides goes with them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use localmodel::api::cache::NodeStatus;
use localmodel::plan::names::{JOB_NODE, NODE_GROUP, OPERATOR};
use localmodel_e2e::admission::{TEAM, pod};
use localmodel_e2e::command::{kubectl, on_node, run};
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

#[tokio::test]
async fn the_death_of_an_operators_node_stops_the_creation_of_pods_for_less_than_forty_seconds() {
    let test = |world: World| async move {
        world.group().await?;
        world.cache("m", "hf://dead/m").await?;
        until("an operator on each worker", || async {
            let mut nodes = operators(&world).await?;
            nodes.sort();
            ensure!(nodes == WORKERS, "they are on {nodes:?}");
            Ok(Some(()))
        })
        .await?;
        ensure!(longest_without_pods(&world, Duration::from_secs(5)).await? < Duration::from_secs(2));
        run("docker", &["pause", WORKERS[0]]).await?;
        // Long enough for Kubernetes to find the node dead, and to replace what ran there.
        let longest = longest_without_pods(&world, Duration::from_mins(2)).await?;
        println!("no pod could be created for {longest:?}");
        ensure!(longest < Duration::from_secs(40), "no pod could be created for {longest:?}");
        Ok(())
    };
    alone("dead", test, async |_| {
        // An error means that it is not paused.
        let _ = run("docker", &["unpause", WORKERS[0]]).await;
        everything_runs().await
    })
    .await;
}

/// A cache that is complete on both workers. Returns them.
async fn warm_both(world: &World) -> Result<[&'static str; 2]> {
    world.group().await?;
    for node in WORKERS {
        world.join(node).await?;
    }
    world.cache("m", &world.model("m").await?).await?;
    world.until_available("m", 2, 2).await?;
    Ok(WORKERS)
}

/// The nodes on which operators are ready.
async fn operators(world: &World) -> Result<Vec<String>> {
    let of_operator = ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR}"));
    let pods = world.in_namespace::<Pod>("kserve").list(&of_operator).await?.items;
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    Ok(pods.iter().filter(is_ready).filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect())
}

/// The longest time within which no pod that uses the cache could be created, of this time.
async fn longest_without_pods(world: &World, watched: Duration) -> Result<Duration> {
    let pods: Api<Pod> = world.in_namespace(TEAM);
    let pod: Pod = serde_saphyr::from_str(&pod(
        "dead-pod",
        &format!("localmodel.kserve.io/model: {}", world.name("m")),
    ))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    while begun.elapsed() < watched {
        pace.tick().await;
        let created = pods.create(&dry_run, &pod).await;
        longest = longest.max(last.elapsed());
        if created.is_ok() {
            last = Instant::now();
        }
    }
    Ok(longest)
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
