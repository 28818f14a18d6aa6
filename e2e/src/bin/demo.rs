//! Tells the documented walkthrough as a story: each command, and what it shows on this cluster.

use std::process::ExitCode;

use anyhow::Result;
use kube::{Api, Client};
use localmodel::api::LocalModelCache;
use localmodel_e2e::command::{apply, kubectl, on_node};
use localmodel_e2e::dump::dump;
use localmodel_e2e::setup::{Setup, setup};
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::{
    CACHE, JOBS, KEY, NODE, config_map, documented, label, object, remove, substitutions,
};

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
    chapter("The cluster", "A control plane and two workers; images, hub and operator are put in place.");
    let setup = setup().await?;
    remove().await?;
    show(&["get", "nodes"]).await?;
    show(&["get", "deployment", "-n", "kserve"]).await?;
    say("Everything below is the documented walkthrough, word for word but for:");
    for (_, _, why) in substitutions(&setup.image) {
        println!("  - {why}");
    }
    settings(setup).await?;
    group_and_cache(setup).await?;
    outcome().await?;
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

async fn group_and_cache(setup: &Setup) -> Result<()> {
    chapter(
        "Create the node group",
        "Which nodes, and which folder of their disks. One worker gets the GPU label.",
    );
    label(NODE).await?;
    applied(setup, "local-model-node-group.yaml").await?;
    say("An agent starts on each node that matches:");
    until("the agents", || async {
        let rollout = ["rollout", "status", "-n", "kserve", "daemonset/workers-agent", "--timeout=30s"];
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
    println!("{}", apply(&object(&setup.image, name)?).await?);
    Ok(())
}

async fn show(command: &[&str]) -> Result<()> {
    println!("$ kubectl {}", command.join(" "));
    println!("{}", kubectl(command).await?);
    Ok(())
}
