//! A cluster that KServe's own local-model controller and agent have warmed is taken over, and given
//! back, as docs/kserve.md tells people to (D5, D6, O1): nothing that is there is downloaded again, and
//! nothing that runs is disturbed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use localmodel::api::ModelStatus::{self, ModelDownloaded};
use localmodel::api::source::storage_key;
use localmodel_e2e::command::{kubectl, on_node, run_with};
use localmodel_e2e::kserve::local_model;
use localmodel_e2e::kserve::serving::{ask, inference_service, until_ready};
use localmodel_e2e::objects::apply;
use localmodel_e2e::setup::{define, install, install_from, manifests, restart_operator};
use localmodel_e2e::steady::quiet_for;
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::{CACHE, printed, remove};
use localmodel_e2e::world::{WORKERS, World, alone};
use localmodel_hub::{Fault, FaultKind};

/// The node that is warm.
const NODE: &str = WORKERS[0];
/// What KServe has downloaded when ours comes: `own` for a namespace cache, the others for cluster caches.
const WARM: [&str; 3] = ["served", "bare", "own"];
/// The services, and what each serves.
const SERVICES: [(&str, &str); 2] = [("running", "served"), ("mine", "own")];

#[tokio::test]
async fn a_cluster_warmed_by_kserve_is_taken_over_and_given_back_without_a_download() {
    let test = |world: World| async move {
        // What an earlier test had on the node is forgotten.
        until("no object of the node", || async { Ok(world.node(NODE).await?.is_none().then_some(())) })
            .await?;
        uninstall(&world).await?;
        define(&local_model::definitions().await?).await?;
        local_model::install_chart().await?;
        there_and_back(&world).await
    };
    alone("takeover", test, async |world| {
        local_model::remove().await?;
        // With our definitions, which the operator has to see.
        install(&world.setup.image).await?;
        restart_operator().await
    })
    .await;
}

async fn there_and_back(world: &World) -> Result<()> {
    let disk = format!("/models/{}", world.prefix);
    world.group().await?;
    world.join(NODE).await?;
    local_model::start(&[NODE], &disk).await?;
    let team = world.namespace("team").await?;
    let before = warmed_by_kserve(world, &team).await?;
    stands_back(world).await?;

    // "There"
    local_model::detach_chart().await?;
    local_model::stop().await?;
    let jobs = world.names(world.in_jobs::<Job>()).await?;
    world.hub.clear_faults("takeover/late").await?;
    for cache in ["served", "bare", "late"] {
        says(world, cache, ModelDownloaded).await?;
        kubectl(&["rollout", "status", "-n", "kserve", "daemonset/takeover-agent", "--timeout=120s"]).await?;
        world.until_available(cache, 1, 1).await?;
    }
    world.until_available_in(&team, "own", 1, 1).await?;
    is_as_before(world, &team, &before).await?;
    // KServe's Job of the namespace cache may go, to free its claim; none is made.
    let left = world.names(world.in_jobs::<Job>()).await?;
    ensure!(left.iter().all(|job| jobs.contains(job)), "a Job was doubled: {left:?} after {jobs:?}");
    a_new_pod_starts_warm(world, &team).await?;
    on_plain_definitions(world).await?;

    // "Our definitions, when it suits"
    define(&kubectl(&["kustomize", "crds"]).await?).await?;
    restart_operator().await?;
    for cache in ["served", "bare", "late"] {
        let name = world.name(cache);
        kubectl(&["wait", "--for=condition=Ready", "localmodelcache", &name, "--timeout=120s"]).await?;
    }

    // "Back"
    let before = pods(world, &team).await?;
    uninstall(world).await?;
    local_model::start(&[NODE], &disk).await?;
    until("a look of KServe's agent at the disk", || async {
        let status = kubectl(&["logs", "-n", "kserve", "daemonset/kserve-localmodelnode-agent"]).await?;
        Ok(status.contains("Model folder found").then_some(()))
    })
    .await?;
    for cache in ["served", "bare", "late"] {
        says(world, cache, ModelDownloaded).await?;
    }
    is_as_before(world, &team, &before).await
}

/// Caches as KServe fills them, one of them without a manifest as another initializer leaves it, and
/// services that run; one Job is in the middle of its work. The hub's requests count from here on.
async fn warmed_by_kserve(world: &World, team: &str) -> Result<BTreeMap<String, String>> {
    for cache in ["served", "bare"] {
        world.cache(cache, &world.model(cache).await?).await?;
    }
    world.namespace_cache(team, "own", &world.model("own").await?).await?;
    for cache in ["served", "bare"] {
        says(world, cache, ModelDownloaded).await?;
    }
    world.until_available_in(team, "own", 1, 1).await?;
    let key = storage_key("hf://takeover/bare");
    on_node(NODE, &format!("rm -r /models/takeover/models/{key}/.localmodel")).await?;
    for (service, cache) in SERVICES {
        apply(&inference_service(team, service, &format!("hf://takeover/{cache}"))).await?;
    }
    let [one, other] = SERVICES.map(|(service, _)| until_ready("inferenceservice", team, service));
    tokio::try_join!(one, other, download_under_way(world))?;
    for cache in WARM {
        world.hub.clear_requests(&format!("takeover/{cache}")).await?;
    }
    pods(world, team).await
}

/// While KServe's controller runs, ours writes nothing but the event that says so.
async fn stands_back(world: &World) -> Result<()> {
    install_from("deploy/kserve", &world.setup.image).await?;
    until("an event that says that the operator stands back", || async {
        let said = kubectl(&["get", "events", "-n", "kserve", "-o", "jsonpath={.items[*].reason}"]).await?;
        Ok(said.contains("StandingBack").then_some(()))
    })
    .await?;
    let agents = kubectl(&["get", "daemonsets", "-n", "kserve", "-o", "name"]).await?;
    ensure!(!agents.contains("takeover-agent"), "an agent of ours beside KServe's: {agents}");
    let local = world.node(NODE).await?.context("the node's object")?;
    let writers: Vec<_> = local.managed_fields().iter().filter_map(|fields| fields.manager.clone()).collect();
    ensure!(!writers.iter().any(|writer| writer == "localmodel"), "written by {writers:?}");
    Ok(())
}

/// A Job of KServe's that is in the middle of its download.
async fn download_under_way(world: &World) -> Result<()> {
    let source = world.model("late").await?;
    world
        .hub
        .fault(&Fault::always("takeover/late", FaultKind::Throttle { bytes_per_second: 10_000 }))
        .await?;
    world.cache("late", &source).await?;
    says(world, "late", ModelStatus::ModelDownloading).await
}

/// Waits until the node's status says this of a cache.
async fn says(world: &World, cache: &str, wanted: ModelStatus) -> Result<()> {
    world.until_status(NODE, cache, wanted).await.map(drop)
}

/// The pods of a namespace: what tells whether one was replaced or started again.
async fn pods(world: &World, namespace: &str) -> Result<BTreeMap<String, String>> {
    let pods = Api::<Pod>::namespaced(world.client.clone(), namespace).list(&ListParams::default()).await?;
    let seen = |pod: &Pod| {
        let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let restarts: i32 = status.into_iter().flatten().map(|container| container.restart_count).sum();
        format!("{} restarted {restarts} times", pod.uid().unwrap_or_default())
    };
    Ok(pods.iter().map(|pod| (pod.name_any(), seen(pod))).collect())
}

/// The service's pods are those of before and answer, and nothing that was warm was asked of the hub.
async fn is_as_before(world: &World, team: &str, before: &BTreeMap<String, String>) -> Result<()> {
    let after = pods(world, team).await?;
    ensure!(after == *before, "pods {after:?} instead of {before:?}");
    for (service, cache) in SERVICES {
        let answer = ask(team, &format!("{service}-predictor"), 80).await?;
        let wanted = world.hub.files(&format!("takeover/{cache}"), "main").await?;
        ensure!(answer.files == wanted, "{service} answers {answer:?}");
    }
    for cache in WARM {
        let asked = world.hub.requests(&format!("takeover/{cache}")).await?;
        ensure!(asked.is_empty(), "{cache} was downloaded again: {asked:?}");
    }
    Ok(())
}

/// Pods in place of those that started on KServe's volumes.
async fn a_new_pod_starts_warm(world: &World, team: &str) -> Result<()> {
    let before = pods(world, team).await?;
    kubectl(&["delete", "pods", "--all", "-n", team, "--timeout=120s"]).await?;
    until("answers of the new pods", || async {
        let after = pods(world, team).await?;
        ensure!(after.len() == SERVICES.len(), "pods: {after:?}");
        ensure!(after.keys().all(|name| !before.contains_key(name)), "old pods: {after:?}");
        is_as_before(world, team, &after).await.map(Some)
    })
    .await
}

/// Takes ours away as the README says.
async fn uninstall(world: &World) -> Result<()> {
    let uninstall = manifests("deploy/uninstall", &world.setup.image).await?;
    run_with("kubectl", &["replace", "--force", "-f", "-"], &uninstall).await?;
    let job =
        ["wait", "-n", "kserve", "--for=condition=complete", "job/localmodel-uninstall", "--timeout=180s"];
    kubectl(&job).await?;
    kubectl(&["delete", "-k", "deploy/uninstall"]).await?;
    kubectl(&["delete", "-k", "deploy/kserve", "--ignore-not-found"]).await.map(drop)
}

/// The documented walkthrough on KServe's own definitions, which drop the fields that are ours: nothing is written again for
/// their sake.
async fn on_plain_definitions(world: &World) -> Result<()> {
    remove().await?;
    printed::steps(world).await?;
    printed::statuses(world).await?;
    let status = kubectl(&["get", "localmodelcache", CACHE, "-o", "jsonpath={.status}"]).await?;
    ensure!(!status.contains("conditions"), "the definitions are not KServe's: {status}");
    printed::files_are_the_hubs(world).await?;
    quiet_for(Duration::from_secs(11)).await?;
    remove().await
}
