//! A cluster without KServe: its kinds of services are not defined, and may come later (S10, S12).

use anyhow::{Context, Result, ensure};
use localmodel_e2e::command::kubectl;
use localmodel_e2e::kserve;
use localmodel_e2e::kserve::serving::{inference_service, plain_deployment, until_ready};
use localmodel_e2e::objects::apply;
use localmodel_e2e::setup::restart_operator;
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, alone};

#[tokio::test]
async fn a_deployment_serves_from_the_cache_without_kserve_whose_services_count_once_it_comes() {
    alone(
        "standalone",
        |world| async move { without_kserve(&world).await },
        async |_| {
            kserve::define().await?;
            restart_operator().await
        },
    )
    .await;
}

async fn without_kserve(world: &World) -> Result<()> {
    let kinds = ["inferenceservices.serving.kserve.io", "llminferenceservices.serving.kserve.io"];
    kubectl(&[&["delete", "customresourcedefinition", "--timeout=120s"], &kinds[..]].concat()).await?;
    restart_operator().await?;

    world.group().await?;
    world.join(WORKERS[0]).await?;
    let source = world.model("m").await?;
    world.cache("m", &source).await?;
    world.until_available("m", 1, 1).await?;
    world.hub.clear_requests("standalone/m").await?;
    let namespace = world.namespace("a").await?;
    apply(&plain_deployment(world, &namespace, 1)).await?;
    kubectl(&["rollout", "status", "-n", &namespace, "deployment/plain", "--timeout=180s"]).await?;
    let asked = world.hub.requests("standalone/m").await?;
    ensure!(asked.is_empty(), "the hub was asked: {asked:?}");
    let refused = kubectl(&["delete", "localmodelcache", "standalone-m"]).await.err().context("deleted")?;
    let wanted = "LocalModelCache standalone-m is being used by Pod (";
    ensure!(refused.to_string().contains(wanted), "{refused}");

    // KServe comes; the operator is the same.
    let operator = operator().await?;
    kserve::define().await?;
    until("KServe's webhooks", || async {
        apply(&inference_service(&namespace, "late", &source)).await.map(Some)
    })
    .await?;
    until("the service in the cache's status", || async {
        let path = "jsonpath={.status.inferenceServices[*].name}";
        let listed = kubectl(&["get", "localmodelcache", "standalone-m", "-o", path]).await?;
        Ok((listed == "late").then_some(()))
    })
    .await?;
    until_ready("inferenceservice", &namespace, "late").await?;
    ensure!(self::operator().await? == operator, "the operator started again");
    Ok(())
}

/// The operator's pod, and how often it has started.
async fn operator() -> Result<String> {
    let of = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount}{end}";
    kubectl(&["get", "pods", "-n", "kserve", "-l", "app.kubernetes.io/name=localmodel-operator", "-o", of])
        .await
}
