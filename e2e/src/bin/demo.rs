//! Tells the documented walkthrough as a story: each command, and what it shows on this cluster.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::{Api, Client};
use localmodel::api::LocalModelCache;
use localmodel_e2e::command::{kubectl, on_node, run_with};
use localmodel_e2e::dump::dump;
use localmodel_e2e::kserve::serving::ask;
use localmodel_e2e::objects::apply;
use localmodel_e2e::setup::{Setup, setup};
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::{
    CACHE, JOBS, KEY, NODE, SERVICE, SERVICES, config_map, delete_service, documented, label, object, remove,
    serve, substitutions,
};
use localmodel_hub::{Control, Fault, FaultKind};

/// The documented source on the hub.
const REPOSITORY: &str = "meta-llama/meta-llama-3-8b-instruct";
/// Kilobytes a second that the hub sends on each connection to a pod without a cache: a shard of 2 MB then
/// takes as long as one of 4 GB at 200 MB/s.
const RATE: u64 = 100;

#[tokio::main]
async fn main() -> ExitCode {
    match tell().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dump(&format!("the demo stopped: {error:#}")).await;
            ExitCode::FAILURE
        }
    }
}

async fn tell() -> Result<()> {
    chapter(
        "The cluster",
        "A control plane and two workers; images, hub, operator and KServe are put in place.",
    );
    let setup = setup().await?;
    remove().await?;
    show(&["get", "nodes"]).await?;
    show(&["get", "deployment", "-n", "kserve"]).await?;
    say("Everything below is the documented walkthrough, word for word but for:");
    for (_, _, why) in substitutions(&setup.image) {
        println!("  - {why}");
    }
    settings(setup).await?;
    let cold = without_cache(setup).await?;
    group_and_cache(setup).await?;
    outcome().await?;
    let warm = with_cache(setup).await?;
    chapter("Cold and warm", "From `kubectl apply` of the service until it is ready, on this cluster.");
    println!(
        "  without a cache: {:5.1} s, from a hub that sends {RATE} kB/s on each connection,",
        cold.as_secs_f64()
    );
    println!("                            as a shard of 4 GB would come with 200 MB/s");
    println!("  with the cache:  {:5.1} s", warm.as_secs_f64());
    ending();
    Ok(())
}

async fn settings(setup: &Setup) -> Result<()> {
    chapter(
        "Enable the local model cache",
        "KServe's ConfigMap inferenceservice-config, section localModel.",
    );
    print!("{}", documented("inferenceservice-config.yaml")?);
    apply(&config_map(&setup.image)?).await?;
    chapter("Configure the job namespace", "The hub's token, and the container that downloads from hf://.");
    applied(setup, "hf-secret.yaml").await?;
    applied(setup, "cluster-storage-container.yaml").await
}

/// How long the service takes to be ready where its pod has to download.
async fn without_cache(setup: &Setup) -> Result<Duration> {
    chapter(
        "Before: a service without a cache",
        "The documented InferenceService, on a runtime with a stub that reads every byte and answers over HTTP.",
    );
    let hub = Control::new(&setup.control)?;
    let slow = FaultKind::Throttle { bytes_per_second: RATE * 1_000 };
    hub.fault(&Fault::always(REPOSITORY, slow)).await?;
    label(NODE).await?;
    let served = timed(setup).await;
    hub.clear_faults(REPOSITORY).await?;
    let cold = served?;
    say("KServe's storage initializer downloaded the model in its pod, as it would again in each next pod.");
    println!("Ready after {:.1} s.\n", cold.as_secs_f64());
    delete_service().await?;
    Ok(cold)
}

/// How long it takes with the warm cache, and proof that the hub had no part in it.
async fn with_cache(setup: &Setup) -> Result<Duration> {
    chapter("Deploy the InferenceService", "The same again. KServe finds the cache by its source.");
    let hub = Control::new(&setup.control)?;
    hub.clear_requests(REPOSITORY).await?;
    let warm = timed(setup).await?;
    println!("Ready after {:.1} s.\n", warm.as_secs_f64());
    show(&["get", "inferenceservice", SERVICE, "-n", SERVICES, "--show-labels"]).await?;
    show(&["get", "pvc", "-n", SERVICES]).await?;
    show(&["get", "localmodelcache", CACHE, "-o", "jsonpath={.status.inferenceServices}"]).await?;
    say("\nWhat it answers over HTTP, each file with its SHA-256:");
    let answer = ask(SERVICES, &format!("{SERVICE}-predictor"), 80).await?;
    println!("  model {}, from {}", answer.model, answer.source);
    for (path, digest) in &answer.files {
        println!("  {digest}  {path}");
    }
    let asked = hub.requests(REPOSITORY).await?.len();
    println!("\nRequests to the hub meanwhile: {asked}");
    ensure!(asked == 0, "the service did not start from the cache");
    ensure!(answer.files == hub.files(REPOSITORY, "main").await?, "it read other files than the hub has");
    Ok(warm)
}

async fn timed(setup: &Setup) -> Result<Duration> {
    println!("$ kubectl apply -n {SERVICES} -f fixtures/walkthrough/inference-service.yaml");
    let since = Instant::now();
    serve(&setup.image).await?;
    Ok(since.elapsed())
}

async fn group_and_cache(setup: &Setup) -> Result<()> {
    chapter(
        "Create the node group",
        "Which nodes, and which folder of their disks. One worker has the GPU label.",
    );
    applied(setup, "local-model-node-group.yaml").await?;
    say("An agent starts on each node that matches:");
    until("the agents", || async {
        let rollout = ["rollout", "status", "-n", "kserve", "daemonset/workers-agent", "--timeout=90s"];
        kubectl(&rollout).await.map(Some)
    })
    .await?;
    show(&["get", "daemonset", "-n", "kserve", "workers-agent"]).await?;
    chapter("Create the cache", "Which model. The agent downloads it with a Job.");
    applied(setup, "local-model-cache.yaml").await?;
    let client = Client::try_default().await?;
    until("a warm cache", || async {
        let cache: LocalModelCache = Api::all(client.clone()).get(CACHE).await?;
        let copies = cache.status.and_then(|status| status.copies).unwrap_or_default();
        Ok((copies.available == 1).then_some(()))
    })
    .await?;
    show(&["get", "jobs", &format!("{CACHE}-{NODE}"), "-n", JOBS]).await?;
    show(&["get", "pvc", CACHE, "-n", JOBS]).await?;
    show(&["logs", "-n", JOBS, &format!("job/{CACHE}-{NODE}")]).await
}

async fn outcome() -> Result<()> {
    chapter("Check the status", "The cache knows its copies, the node its models.");
    show(&["get", "localmodelcache", CACHE]).await?;
    show(&["get", "localmodelcache", CACHE, "-oyaml"]).await?;
    show(&["get", "localmodelnode", NODE, "-oyaml"]).await?;
    chapter("The worker's disk", "Complete copies below models/, in a folder named after the source.");
    println!("$ docker exec {NODE} ls -l /models/models/{KEY}");
    println!("{}", on_node(NODE, &format!("ls -l /models/models/{KEY}")).await?);
    Ok(())
}

fn ending() {
    chapter("Look around", "The cluster stays up.");
    println!(
        "  eval \"$(hack/cluster env)\"                   # kubectl, kind and docker of this shell use it
  kubectl get lmc,lmng,lmn                      # caches, node groups, nodes
  kubectl describe lmc {CACHE}
  kubectl label node kind-worker2 nvidia.com/gpu-product=NVIDIA-A100-SXM4-80GB
                                                # warms the second worker by that alone
  kubectl delete lmc {CACHE} # is refused: the service uses it
  docker exec {NODE} rm -r /models/models/{KEY} # comes back within seconds
  hack/just test                                # every test, on this cluster
  hack/cluster down                             # removes it"
    );
}

fn chapter(title: &str, what: &str) {
    println!("\n=== {title}\n{what}\n");
}

fn say(what: &str) {
    println!("{what}");
}

async fn applied(setup: &Setup, name: &str) -> Result<()> {
    println!("$ kubectl apply -f fixtures/walkthrough/{name}");
    let manifest = object(&setup.image, name)?;
    println!("{}", run_with("kubectl", &["apply", "-f", "-"], &manifest).await?);
    Ok(())
}

async fn show(command: &[&str]) -> Result<()> {
    println!("$ kubectl {}", command.join(" "));
    println!("{}", kubectl(command).await?);
    Ok(())
}
