//! Generated objects that people get wrong, on a real API server beside the running operator: each is refused
//! with a message, or told of in a condition or an Event, or it is valid and works; the operator lives on, and a
//! good cache is warm as soon as ever. `just sweep` applies 2,000, `just test` the first 400 of them.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use kube::ResourceExt;
use localmodel::api::ClusterStorageContainer;
use localmodel::plan::job::invalid_formats;
use localmodel_e2e::sweep::{Cluster, Generator, good_cache, prepare_good_caches};
use localmodel_e2e::wait::until;
use serde_json::{Value, json};

/// All of them, as `just sweep` applies them.
const OBJECTS: usize = 2000;
/// Those that `just test` applies.
const FEWER: usize = 400;
/// Objects that are there at the same time.
const BATCH: usize = 50;
/// A good cache is made beside one of so many batches.
const GOOD_OF: usize = 5;
/// How much longer than alone a good cache may take beside the others. An object that stood in its way would hold
/// it up for as long as the operator's retry takes, ten seconds at least.
const TOLERANCE: Duration = Duration::from_secs(8);
const SEED: u64 = 1;

/// What became of the objects.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    /// Reasons of condition Ready.
    told: BTreeMap<String, usize>,
    /// Storage containers, which have no status.
    plain: usize,
    /// Those of them with an Event.
    warned: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_applied_is_refused_or_told_of_and_holds_up_nobody_else() {
    if let Err(error) = apply_all().await {
        panic!("{error:#}");
    }
}

async fn apply_all() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.reset().await?;
    prepare_good_caches(&cluster).await?;
    let mut tally = Tally::default();
    let mut generator = Generator::new(SEED)?;
    let alone = warm_up(&cluster, 0).await?;
    let mut slowest = Duration::ZERO;
    let whole = env::var("LOCALMODEL_SWEEP").is_ok_and(|how| how == "whole");
    let objects = if whole { OBJECTS } else { FEWER };
    for batch in 0..objects / BATCH {
        let begun = Instant::now();
        let accepted = apply_batch(&cluster, &mut generator, &mut tally).await?;
        if batch % GOOD_OF == 0 {
            slowest = slowest.max(warm_up(&cluster, batch + 1).await?);
        }
        if let Err(error) = told(&cluster, &accepted, &mut tally).await {
            bail!("batch {batch}: {error:#}\n{}", cluster.logs());
        }
        remove(&cluster, &accepted).await.with_context(|| cluster.logs())?;
        println!(
            "batch {batch}: {} of {BATCH} accepted, in {:.1} s",
            accepted.len(),
            begun.elapsed().as_secs_f32()
        );
        let faults = cluster.faults();
        ensure!(faults.is_empty(), "{}\n{}", faults.join("\n"), cluster.logs());
    }
    println!("{tally:#?}\na good cache: {alone:?} alone, at most {slowest:?} beside others");
    ensure!(slowest < alone + TOLERANCE, "a good cache was held up: {slowest:?} instead of {alone:?}");
    Ok(())
}

/// Makes a good cache; returns how long it took until it was warm.
async fn warm_up(cluster: &Cluster, number: usize) -> Result<Duration> {
    let begun = Instant::now();
    let path = good_cache(cluster, number).await?;
    until("the good cache to be warm", || async {
        let cache = cluster.request(Request::get(&path)).await?;
        let ready = ready(&cache).map(|condition| condition["status"].clone());
        ensure!(ready == Some(json!("True")), "{}", cache["status"]);
        Ok(Some(()))
    })
    .await
    .with_context(|| cluster.logs())?;
    Ok(begun.elapsed())
}

/// Applies the next objects; returns those that were accepted, by their path.
async fn apply_batch(
    cluster: &Cluster,
    generator: &mut Generator,
    tally: &mut Tally,
) -> Result<BTreeMap<String, Value>> {
    let mut accepted = BTreeMap::new();
    for _ in 0..BATCH {
        let object = generator.object();
        match cluster.make(&object).await? {
            Ok(path) => drop(accepted.insert(path, object)),
            Err(message) => {
                ensure!(!message.trim().is_empty(), "refused without a word: {object:#}");
                tally.refused += 1;
            }
        }
    }
    Ok(accepted)
}

fn ready(object: &Value) -> Option<&Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")
}

/// Waits until each object says in a condition how it fares, in words for a person.
async fn told(cluster: &Cluster, accepted: &BTreeMap<String, Value>, tally: &mut Tally) -> Result<()> {
    for (path, object) in accepted {
        if object["kind"] == "ClusterStorageContainer" {
            tally.plain += 1;
            tally.warned += usize::from(warned(cluster, object).await?);
            continue;
        }
        let reason = until(&format!("a condition of {object:#}"), || async {
            let found = cluster.request(Request::get(path)).await?;
            let condition = ready(&found).context("no condition Ready")?;
            ensure!(
                condition["observedGeneration"] == found["metadata"]["generation"],
                "it is of another generation: {condition}"
            );
            let message = condition["message"].as_str().unwrap_or_default();
            ensure!(!message.is_empty(), "no message: {condition}");
            Ok(condition["reason"].as_str().map(str::to_owned))
        })
        .await?;
        *tally.told.entry(reason).or_default() += 1;
    }
    Ok(())
}

/// Waits until a storage container whose expressions cannot be read has an Event that says so, for each of them;
/// false for one that is right (K1).
async fn warned(cluster: &Cluster, object: &Value) -> Result<bool> {
    let container: ClusterStorageContainer = serde_json::from_value(object.clone())
        .with_context(|| format!("accepted, and cannot be read: {object:#}"))?;
    let invalid = invalid_formats(&container);
    if invalid.is_empty() {
        return Ok(false);
    }
    let path = format!(
        "/api/v1/namespaces/default/events?fieldSelector=reason=InvalidExpression,involvedObject.name={}",
        container.name_any()
    );
    until(&format!("an Event on {object:#}"), || async {
        let events = cluster.request(Request::get(&path)).await?;
        let notes: Vec<&str> =
            events["items"].as_array().into_iter().flatten().filter_map(|e| e["message"].as_str()).collect();
        let is_told = |words: &String| notes.iter().any(|note| note.contains(words.as_str()));
        ensure!(invalid.iter().all(is_told), "{notes:?} do not say {invalid:?}");
        Ok(Some(true))
    })
    .await
}

/// Deletes them all, and waits until they are gone: what is wrong with an object does not keep it.
async fn remove(cluster: &Cluster, accepted: &BTreeMap<String, Value>) -> Result<()> {
    for path in accepted.keys() {
        cluster.request(Request::delete(path)).await?;
    }
    until("the end of the objects", || async {
        let mut left = BTreeSet::new();
        for path in accepted.keys() {
            if cluster.is_there(path).await? {
                left.insert(path);
            }
        }
        ensure!(left.is_empty(), "there still is {left:?}");
        Ok(Some(()))
    })
    .await
}
