//! Nodes that join, leave and come back.

use anyhow::{Context, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use localmodel::api::LocalModelNodeGroup;
use localmodel::api::ModelStatus::ModelDownloaded;
use localmodel::plan::agent_pods::AGENT_NOT_RUNNING;
use localmodel::plan::source::INVALID_SOURCE;
use localmodel_e2e::command::kubectl;
use localmodel_e2e::objects::apply;
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
        kubectl(&["rollout", "status", "-n", "kserve", "daemonset/back-agent", "--timeout=120s"]).await?;
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

#[tokio::test]
async fn an_agent_that_cannot_run_is_told_of_in_the_kubelets_words_and_its_cache_heals_when_it_can() {
    beside_others("stuck", |world| async move {
        // The folder is missing on the node.
        apply(&world.group_yaml("stuck")).await?;
        world.join(WORKERS[0]).await?;
        world.cache("m", &world.model("m").await?).await?;
        let said = |conditions: &[Condition]| {
            let told = conditions.iter().find(|condition| condition.type_ == AGENT_NOT_RUNNING);
            told.filter(|told| told.message.contains(WORKERS[0]) && told.message.contains("does not exist"))
                .cloned()
        };
        let words = [AGENT_NOT_RUNNING, WORKERS[0], "/models/stuck", "does not exist"];
        world.until_described("m", &words).await?;
        until("the group's word about its agent", || async {
            let group = world.in_cluster::<LocalModelNodeGroup>().get("stuck").await?;
            Ok(said(&group.status.unwrap_or_default().conditions))
        })
        .await?;
        world.group().await?;
        let cache = world.until_available("m", 1, 1).await?;
        until("a cache that tells of no agent", || async {
            let status = world.get("m").await?.and_then(|cache| cache.status).unwrap_or_default();
            Ok(status.conditions.iter().all(|c| c.type_ != AGENT_NOT_RUNNING).then_some(()))
        })
        .await
        .with_context(|| format!("{:#?}", cache.status))
    })
    .await;
}

#[tokio::test]
async fn a_source_that_nothing_downloads_is_told_of_at_once_and_gets_no_job() {
    beside_others("invalid", |world| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        world.cache("half", "hf://only-one-part").await?;
        world.cache("foreign", "foreign://x").await?;
        for (cache, word) in [("half", "two parts"), ("foreign", "nothing downloads foreign://x")] {
            until("the condition InvalidSource", || async {
                let status = world.get(cache).await?.and_then(|cache| cache.status).unwrap_or_default();
                let told = status.conditions.into_iter().find(|condition| condition.type_ == INVALID_SOURCE);
                Ok(told.filter(|told| told.message.contains(word)))
            })
            .await?;
        }
        let node = world.node(WORKERS[0]).await?.context("the node's object")?;
        let planned = node.spec.local_models.iter().any(|entry| entry.model_name.starts_with("invalid"));
        ensure!(!planned, "{:?}", node.spec);
        ensure!(world.names(world.in_jobs::<Job>()).await?.is_empty(), "a Job was made");
        Ok(())
    })
    .await;
}
