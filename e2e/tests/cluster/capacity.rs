//! Room on the nodes' disks: what waits for it, and what goes ahead when there is some (C8, G6, G7).

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use localmodel_e2e::command::kubectl;
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, beside_others};
use serde_json::json;

const WAITS: &str = "InsufficientCapacity";

#[tokio::test]
async fn what_does_not_fit_waits_with_its_numbers_and_goes_ahead_when_a_cache_is_deleted() {
    beside_others("room", |world| async move {
        group(&world, "1536Mi").await?;
        world.join(WORKERS[0]).await?;
        world.cache("first", &world.model("first").await?).await?;
        world.until_available("first", 1, 1).await?;
        until_group(&world, "1Gi", "512Mi").await?;

        world.cache("second", &world.model("second").await?).await?;
        let waits = until_it_waits(&world, "second").await?;
        for word in ["needs 1 GiB", "allows 1.5 GiB per node", "1 GiB used on kind-worker"] {
            ensure!(waits.message.contains(word), "{word:?} is not in {:?}", waits.message);
        }
        nothing_runs(&world, "second").await?;
        until("an Event that tells it", || async {
            let told = kubectl(&[
                "get",
                "events",
                "-A",
                "-o",
                "jsonpath={.items[*].involvedObject.name}",
                "--field-selector",
                &format!("reason={WAITS}"),
            ])
            .await?;
            Ok(told.contains(&world.name("second")).then_some(()))
        })
        .await?;

        kubectl(&["delete", "localmodelcache", &world.name("first"), "--timeout=90s"]).await?;
        world.until_available("second", 1, 1).await?;
        let conditions = conditions(&world, "second").await?;
        ensure!(!conditions.iter().any(|c| c.type_ == WAITS), "{conditions:?}");
        until_group(&world, "1Gi", "512Mi").await
    })
    .await;
}

#[tokio::test]
async fn a_limit_below_one_cache_is_told_and_a_higher_one_lets_it_go_ahead_on_both_nodes() {
    beside_others("raise", |world| async move {
        group(&world, "1G").await?;
        for node in WORKERS {
            world.join(node).await?;
        }
        world.cache("m", &world.model("m").await?).await?;
        let waits = until_it_waits(&world, "m").await?;
        ensure!(waits.message.contains("more than the 1G"), "{}", waits.message);
        until_group(&world, "0", "1G").await?;
        nothing_runs(&world, "m").await?;

        limit(&world, "2Gi").await?;
        world.until_available("m", 2, 2).await?;
        until_group(&world, "1Gi", "1Gi").await
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_sinks_takes_nothing_away_and_the_group_says_that_it_is_exceeded() {
    beside_others("sink", |world| async move {
        group(&world, "2Gi").await?;
        world.join(WORKERS[1]).await?;
        world.cache("m", &world.model("m").await?).await?;
        world.until_available("m", 1, 1).await?;
        let files = world.files(WORKERS[1]).await?;

        limit(&world, "512Mi").await?;
        until_group(&world, "1Gi", "0").await?;
        until("condition StorageLimitExceeded", || async {
            let said = "jsonpath={.status.conditions[?(@.type=='StorageLimitExceeded')].message}";
            let said = kubectl(&["get", "localmodelnodegroup", &world.prefix, "-o", said]).await?;
            Ok(said.contains("1 GiB on kind-worker2").then_some(()))
        })
        .await?;
        world.until_available("m", 1, 1).await?;
        ensure!(world.files(WORKERS[1]).await? == files, "its files are as they were");
        Ok(())
    })
    .await;
}

/// The test's group with this limit.
async fn group(world: &World, limit: &str) -> Result<()> {
    world.group().await?;
    self::limit(world, limit).await
}

async fn limit(world: &World, limit: &str) -> Result<()> {
    let change = json!({"spec": {"storageLimit": limit}}).to_string();
    let group = &world.prefix;
    kubectl(&["patch", "localmodelnodegroup", group, "--type=merge", "-p", &change]).await.map(drop)
}

/// Waits until the table of the test's group says so many bytes used and available.
async fn until_group(world: &World, used: &str, available: &str) -> Result<()> {
    until(&format!("{used} used and {available} available of group {}", world.prefix), || async {
        let table = kubectl(&["get", "localmodelnodegroup", &world.prefix]).await?;
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let (head, row) = (lines.next().context("a head")?, lines.next().context("a row")?);
        let cell =
            |name: &str| head.iter().position(|cell| *cell == name).and_then(|at| row.get(at)).copied();
        Ok((cell("USED") == Some(used) && cell("AVAILABLE") == Some(available)).then_some(()))
    })
    .await
}

async fn conditions(world: &World, cache: &str) -> Result<Vec<Condition>> {
    Ok(world.get(cache).await?.and_then(|cache| cache.status).map(|s| s.conditions).unwrap_or_default())
}

async fn until_it_waits(world: &World, cache: &str) -> Result<Condition> {
    until(&format!("condition {WAITS} of {cache}"), || async {
        let conditions = conditions(world, cache).await?;
        let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.reason == WAITS);
        Ok(conditions.into_iter().find(|c| c.type_ == WAITS && c.status == "True").filter(|_| ready))
    })
    .await
}

/// A cache that waits is in no list and has no Job.
async fn nothing_runs(world: &World, cache: &str) -> Result<()> {
    let name = world.name(cache);
    for node in WORKERS {
        let local = world.node(node).await?;
        let lists = local.iter().flat_map(|local| &local.spec.local_models);
        ensure!(!lists.into_iter().any(|entry| entry.model_name == name), "{name} is planned on {node}");
    }
    let jobs = world.names(world.in_jobs::<Job>()).await?;
    ensure!(!jobs.iter().any(|job| job.starts_with(&name)), "{jobs:?}");
    Ok(())
}
