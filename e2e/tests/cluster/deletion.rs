//! What is left when a cache is deleted: nothing.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::runtime::watcher::watch_object;
use localmodel::api::LocalModelNode;
use localmodel::api::ModelStatus::ModelDownloading;
use localmodel::api::source::storage_key;
use localmodel_e2e::command::kubectl;
use localmodel_e2e::wait::{PATIENCE, until};
use localmodel_e2e::world::{WORKERS, World, beside_others};
use localmodel_hub::{Fault, FaultKind};
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn a_cache_deleted_while_its_job_runs_leaves_nothing_either() {
    beside_others("midway", |world| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        let source = world.model("m").await?;
        world.hub.fault(&Fault::always("midway/m", FaultKind::Throttle { bytes_per_second: 1000 })).await?;
        world.cache("m", &source).await?;
        world.until_status(WORKERS[0], "m", ModelDownloading).await?;
        progress_costs_a_write_in_five_seconds(&world).await?;
        delete(&world).await?;
        nothing_is_left(&world, WORKERS[0]).await
    })
    .await;
}

/// While a download is under way its progress is in the status of the node, and costs it no more (A8). What else is
/// told of the node, as the room on its disk, is told when it is so.
async fn progress_costs_a_write_in_five_seconds(world: &World) -> Result<()> {
    let key = world.name("m");
    let said = watch_object(world.in_cluster::<LocalModelNode>(), WORKERS[0]).filter_map(|seen| {
        let said = seen.ok().flatten().and_then(|local| local.status?.models.remove(&key));
        std::future::ready(said)
    });
    let mut said = pin!(said);
    let (mut last, mut told) = (None, Vec::new());
    let listen = async {
        // The first two of them are of its beginning.
        while told.len() < 7 {
            let new = said.next().await.context("the watch has ended")?;
            if last.as_ref() != Some(&new) {
                told.push(Instant::now());
                last = Some(new);
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, listen).await.with_context(|| format!("no progress is told after {last:?}"))??;
    // One of them may have been heard late.
    let within = told[6].duration_since(told[2]);
    ensure!(within > Duration::from_secs(4 * 5 - 3), "four times progress within {within:?}");
    Ok(())
}

#[tokio::test]
async fn a_cache_made_anew_under_the_same_name_becomes_warm() {
    beside_others("again", |world| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        let source = world.model("m").await?;
        world.cache("m", &source).await?;
        world.until_available("m", 1, 1).await?;
        let old = world.get("m").await?.and_then(|cache| cache.metadata.uid);
        kubectl(&["delete", "localmodelcache", &world.name("m"), "--wait=false"]).await?;
        until("the old cache's end", || async {
            Ok((world.get("m").await?.and_then(|cache| cache.metadata.uid) != old).then_some(()))
        })
        .await?;
        world.cache("m", &source).await?;
        world.until_available("m", 1, 1).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_cache_leaves_nothing_but_what_another_one_has() {
    beside_others("share", |world| async move {
        world.group().await?;
        world.join(WORKERS[1]).await?;
        world.cache("m", &world.model("m").await?).await?;
        let other = world.model("n").await?;
        world.cache("n", &other).await?;
        world.until_available("m", 1, 1).await?;
        world.until_available("n", 1, 1).await?;
        let is_others = |file: &&String| file.contains(&storage_key(&other));
        let others: Vec<String> = world.files(WORKERS[1]).await?.iter().filter(is_others).cloned().collect();
        ensure!(!others.is_empty(), "the other cache has files");
        delete(&world).await?;
        until("an entry and the files of the other cache alone", || async {
            let local = world.node(WORKERS[1]).await?;
            let status = local.and_then(|local| local.status).unwrap_or_default();
            let is_left = |name| status.model_status.contains_key(name);
            Ok((!is_left("share-m") && is_left("share-n") && world.files(WORKERS[1]).await? == others)
                .then_some(()))
        })
        .await?;
        kubectl(&["delete", "localmodelcache", &world.name("n")]).await?;
        nothing_is_left(&world, WORKERS[1]).await
    })
    .await;
}

async fn delete(world: &World) -> Result<()> {
    kubectl(&["delete", "localmodelcache", &world.name("m"), "--timeout=90s"]).await.map(drop)
}

async fn nothing_is_left(world: &World, node: &str) -> Result<()> {
    let prefix = format!("{}-", world.prefix);
    until("nothing left", || async {
        let files = world.files(node).await?;
        ensure!(files.is_empty(), "files: {files:?}");
        let left = [
            world.names(world.in_jobs::<Job>()).await?,
            world.names(world.in_jobs::<Pod>()).await?,
            world.names(world.in_jobs::<PersistentVolumeClaim>()).await?,
            world.names(world.in_cluster::<PersistentVolume>()).await?,
        ];
        let left: Vec<&String> =
            left.iter().flatten().filter(|name| **name != format!("{prefix}agent")).collect();
        ensure!(left.is_empty(), "objects: {left:?}");
        let status = world.node(node).await?.and_then(|local| local.status).unwrap_or_default();
        let keys: Vec<_> = status
            .model_status
            .keys()
            .chain(status.models.keys())
            .filter(|key| key.starts_with(&prefix))
            .collect();
        ensure!(keys.is_empty(), "status of {node}: {keys:?}");
        Ok(Some(()))
    })
    .await
}
