//! Names as long as Kubernetes allows them, and names that are one when they are joined (C11).

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::DeleteParams;
use localmodel::api::LocalModelNode;
use localmodel::api::cache::NodeStatus;
use localmodel::plan::names::POD_MODEL;
use localmodel_e2e::command::kubectl;
use localmodel_e2e::kserve::serving::{ask, container, inference_service, until_ready};
use localmodel_e2e::objects::{apply, if_there};
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, beside_others, beside_others_then};
use serde_json::json;

#[tokio::test]
async fn a_cache_with_dots_and_sixty_three_characters_is_warmed_serves_and_goes() {
    beside_others("long", |world| async move {
        let name = format!("{:x<63}", world.name("m.v1.0-"));
        let cache = name.strip_prefix(&world.name("")).context("the prefix")?;
        world.group().await?;
        world.join(WORKERS[0]).await?;
        let source = world.model("m").await?;
        world.cache(cache, &source).await?;
        world.until_available(cache, 1, 1).await?;

        let namespace = world.namespace("a").await?;
        apply(&inference_service(&namespace, "serves", &source)).await?;
        until_ready("inferenceservice", &namespace, "serves").await?;
        let answer = ask(&namespace, "serves-predictor", 80).await?;
        ensure!(answer.files == world.hub.files("long/m", "main").await?, "it read other files: {answer:?}");

        kubectl(&["delete", "inferenceservice", "serves", "-n", &namespace]).await?;
        kubectl(&["delete", "localmodelcache", &name, "--timeout=90s"]).await?;
        until("no file and no volume", || async {
            let files = world.files(WORKERS[0]).await?;
            let volumes = world.names(world.in_cluster::<PersistentVolume>()).await?;
            ensure!(files.is_empty() && volumes == ["long-agent"], "{files:?}, {volumes:?}");
            Ok(Some(()))
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_name_has_253_characters_is_planned_like_any_other() {
    let name = || format!("{:x<253}", "limits-");
    let test = |world: World| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        world.cache("m", &world.model("m").await?).await?;
        // A node without a machine: it never becomes ready.
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name(), "labels": {"test/limits": "yes"}},
        });
        apply(&node.to_string()).await?;
        let cache = world.until_available("m", 1, 2).await?;
        let said = cache.status.context("its status")?.node_status;
        ensure!(said.get(&name()) == Some(&NodeStatus::NodeNotReady), "{said:?}");
        let local = world.node(&name()).await?.context("the node's object")?;
        ensure!(local.spec.local_models.len() == 1, "{:?}", local.spec);

        world.in_cluster::<Node>().delete(&name(), &DeleteParams::default()).await?;
        world.until_available("m", 1, 1).await?;
        until("the end of the node's object", || async {
            Ok(world.in_cluster::<LocalModelNode>().get_opt(&name()).await?.is_none().then_some(()))
        })
        .await
    };
    beside_others_then("limits", test, async |world| {
        if_there(world.in_cluster::<Node>().delete(&name(), &DeleteParams::default()).await)?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn of_caches_whose_joined_names_are_one_the_older_has_it_and_the_other_says_so_until_it_is_free() {
    beside_others("names", |world| async move {
        let second = two_groups(&world).await?;
        // Its claim in the second group is called as the other cache's in its first.
        let older = world.model("older").await?;
        cache(&world.name("m"), &older, &[&world.prefix, &second]).await?;
        world.until_available("m", 1, 1).await?;
        let name = format!("{}-{second}", world.name("m"));
        let claims = world.in_jobs::<PersistentVolumeClaim>();
        until("the older cache's second claim", || async { Ok(claims.get_opt(&name).await?) }).await?;
        cache(&name, &world.model("younger").await?, &[&world.prefix]).await?;
        let younger = name.strip_prefix(&world.name("")).context("the prefix")?;
        world.until_described(younger, &["NameConflict", &name, "LocalModelCache names-m:"]).await?;
        world.until_available("m", 1, 1).await?;

        kubectl(&["delete", "localmodelcache", "names-m", "--timeout=90s"]).await?;
        world.until_available(younger, 1, 1).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn of_caches_whose_serving_claims_have_one_name_the_first_is_served_and_the_other_says_so() {
    beside_others("claims", |world| async move {
        let second = two_groups(&world).await?;
        // KServe mounts `claims-a-claims-claims` for both.
        cache("claims-a", &world.model("first").await?, &[&second]).await?;
        cache("claims-a-claims", &world.model("other").await?, &[&world.prefix]).await?;
        world.until_available("a", 1, 1).await?;
        world.until_available("a-claims", 1, 1).await?;
        let namespace = world.namespace("a").await?;
        apply(&reader(&world, &namespace, "claims-a")).await?;
        let claims = world.in_namespace::<PersistentVolumeClaim>(&namespace);
        until("the first cache's claim", || async { Ok(claims.get_opt("claims-a-claims-claims").await?) })
            .await?;
        apply(&reader(&world, &namespace, "claims-a-claims")).await?;
        let words = ["NameConflict", "claims-a-claims-claims", "LocalModelCache claims-a:"];
        world.until_described("a-claims", &words).await?;
        let first = kubectl(&["describe", "localmodelcache", "claims-a"]).await?;
        ensure!(!first.contains("NameConflict"), "{first}");
        Ok(())
    })
    .await;
}

/// Makes the test's group and a second one, whose name is the first's name twice, on the same node. Returns the
/// second's name.
async fn two_groups(world: &World) -> Result<String> {
    let second = world.name(&world.prefix);
    world.group().await?;
    apply(&world.group_yaml(&second)).await?;
    world.join(WORKERS[0]).await?;
    Ok(second)
}

/// A pod that asks for a cache; nobody schedules it.
fn reader(world: &World, namespace: &str, cache: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": cache, "namespace": namespace, "labels": {POD_MODEL: cache}},
        "spec": {"schedulerName": "nobody", "containers": [container("c", &world.setup.stub, 8080)]},
    })
    .to_string()
}

/// A cache of several groups.
async fn cache(name: &str, source: &str, groups: &[&str]) -> Result<()> {
    let cache = json!({
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelCache",
        "metadata": {"name": name},
        "spec": {"sourceModelUri": source, "modelSize": "1Gi", "nodeGroups": groups},
    });
    apply(&cache.to_string()).await
}
