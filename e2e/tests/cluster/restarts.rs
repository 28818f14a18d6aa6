//! No pod ever reads an empty or half-written folder (S11): a service of KServe's and a plain Deployment
//! are restarted again and again while their cache is repaired, deleted, made anew and loses a node.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use localmodel::api::source::storage_key;
use localmodel::plan::names::GATE_CONTAINER;
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::kserve::serving::{container, inference_service, plain_deployment};
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, beside_others};
use localmodel_hub::{Fault, FaultKind};
use serde_json::json;
use tokio::sync::RwLock;

const SOURCE: &str = "hf://restarts/m";
/// The plain Deployment's pods and the service's.
const PODS: usize = 3;
/// What the stub says when it has read anything but a whole model.
const LOUD: &str = "the model cannot be served";

/// What was seen of pods that read less than a whole model.
type Failures = Arc<Mutex<BTreeSet<String>>>;

#[tokio::test]
async fn no_pod_ever_reads_an_empty_or_half_written_folder() {
    beside_others("restarts", |world| async move {
        world.group().await?;
        for node in WORKERS {
            world.join(node).await?;
        }
        world.model("m").await?;
        world.cache("m", SOURCE).await?;
        world.until_available("m", 2, 2).await?;
        let namespace = world.namespace("a").await?;
        let failures = Failures::default();
        let watch = watched(&world, &namespace, failures.clone());
        let restless = restless(&world, &namespace, &failures);
        tokio::select! {
            ended = watch => ended,
            ended = restless => ended,
        }
    })
    .await;
}

async fn restless(world: &World, namespace: &str, failures: &Failures) -> Result<()> {
    a_failure_is_seen(world, namespace, failures).await?;
    apply(&plain_deployment(world, namespace, 2)).await?;
    apply(&inference_service(namespace, "service", SOURCE)).await?;
    all_serve(world, namespace).await?;
    // Held by whoever restarts; taken for itself by whoever does what no pod may meet.
    let calm = RwLock::new(());
    tokio::select! {
        ended = restart_for_ever(world, namespace, &calm) => ended?,
        ended = troubles(world, namespace, &calm) => ended?,
    }
    all_serve(world, namespace).await?;
    let failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    let others: Vec<_> = failures.iter().filter(|failure| !failure.starts_with("empty: ")).collect();
    ensure!(others.is_empty(), "{others:#?}");
    Ok(())
}

async fn troubles(world: &World, namespace: &str, calm: &RwLock<()>) -> Result<()> {
    repaired(world, namespace, calm).await.context("repaired")?;
    deleted_and_made_anew(world, namespace, calm).await.context("deleted and made anew")?;
    without_a_node(world).await.context("without a node")
}

/// Files are cut short on both nodes. Until an agent has seen it nobody can know, so nothing starts in that
/// moment; from then on pods come and wait, while the repair takes as long as it takes.
async fn repaired(world: &World, namespace: &str, calm: &RwLock<()>) -> Result<()> {
    let key = storage_key(SOURCE);
    {
        let _nobody_starts = calm.write().await;
        all_serve(world, namespace).await?;
        let slow = FaultKind::Throttle { bytes_per_second: 50_000 };
        world.hub.fault(&Fault::always("restarts/m", slow)).await?;
        for node in WORKERS {
            let largest = format!("ls -S /models/restarts/models/{key}/*.safetensors | head -1");
            on_node(node, &format!("truncate -s 1000 $({largest})")).await?;
        }
        for node in WORKERS {
            until("a closed gate", || async {
                let said = on_node(node, &format!("cat /models/restarts/gate/{key}/status.json")).await?;
                Ok((!said.contains("\"ModelDownloaded\"")).then_some(()))
            })
            .await?;
        }
    }
    until("a pod that waits at the gate", || async {
        let pods = pods(world, namespace).await?;
        Ok(pods.iter().any(is_at_the_gate).then_some(()))
    })
    .await?;
    world.hub.clear_faults("restarts/m").await?;
    world.until_available("m", 2, 2).await.map(drop)
}

/// The cache can be deleted once nobody uses it; its users are back before the new one is warm.
async fn deleted_and_made_anew(world: &World, namespace: &str, calm: &RwLock<()>) -> Result<()> {
    let disable = "serving.kserve.io/disable-localmodel";
    let annotate = ["annotate", "inferenceservice", "service", "-n", namespace];
    kubectl(&[&annotate[..], &[&format!("{disable}=true")]].concat()).await?;
    let scale = ["scale", "deployment/plain", "-n", namespace];
    kubectl(&[&scale[..], &["--replicas=0"]].concat()).await?;
    let name = world.name("m");
    until("the cache's end", || async {
        kubectl(&["delete", "localmodelcache", &name, "--ignore-not-found", "--timeout=20s"]).await.map(Some)
    })
    .await?;
    world.cache("m", SOURCE).await?;
    kubectl(&[&scale[..], &["--replicas=2"]].concat()).await?;
    kubectl(&[&annotate[..], &[&format!("{disable}-")]].concat()).await?;
    world.until_available("m", 2, 2).await?;
    // Pods that are made anew all the time are never all ready.
    let _nobody_starts = calm.write().await;
    all_serve(world, namespace).await
}

async fn without_a_node(world: &World) -> Result<()> {
    world.leave(WORKERS[0]).await?;
    world.until_available("m", 1, 1).await?;
    world.join(WORKERS[0]).await?;
    world.until_available("m", 2, 2).await.map(drop)
}

/// Deletes all pods as soon as one of those that took their place has started.
async fn restart_for_ever(world: &World, namespace: &str, calm: &RwLock<()>) -> Result<()> {
    let api = Api::<Pod>::namespaced(world.client.clone(), namespace);
    loop {
        let _going_on = calm.read().await;
        let before: BTreeSet<_> = pods(world, namespace).await?.iter().map(ResourceExt::name_any).collect();
        for name in &before {
            match api.delete(name, &DeleteParams::default().grace_period(1)).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        until("a new pod that has started", || async {
            let pods = pods(world, namespace).await?;
            let started = |pod: &Pod| statuses(pod).any(|status| status.started == Some(true));
            Ok(pods.iter().any(|pod| !before.contains(&pod.name_any()) && started(pod)).then_some(()))
        })
        .await?;
    }
}

/// Notes every container that said loudly that it had read less than a whole model; never ends by itself.
async fn watched(world: &World, namespace: &str, failures: Failures) -> Result<()> {
    let api = Api::<Pod>::namespaced(world.client.clone(), namespace);
    let mut changes = watcher(api, watcher::Config::default()).default_backoff().touched_objects().boxed();
    while let Some(pod) = changes.try_next().await? {
        let ends = statuses(&pod).flat_map(|status| [&status.state, &status.last_state]).flatten();
        let said = ends.filter_map(|state| state.terminated.as_ref()?.message.clone());
        for message in said.filter(|message| message.starts_with(LOUD)) {
            let failure = format!("{}: {message}", pod.name_any());
            failures.lock().unwrap_or_else(PoisonError::into_inner).insert(failure);
        }
    }
    bail!("the watch of pods has ended")
}

/// A pod with an empty folder, which must be noticed: else nothing here would prove anything.
async fn a_failure_is_seen(world: &World, namespace: &str, failures: &Failures) -> Result<()> {
    let mut server = container("server", &world.setup.stub, 8080);
    server["volumeMounts"] = json!([{"name": "empty", "mountPath": "/mnt/models"}]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "empty", "namespace": namespace},
        "spec": {"containers": [server], "volumes": [{"name": "empty", "emptyDir": {}}], "restartPolicy": "Never"},
    });
    apply(&pod.to_string()).await?;
    until("the failure of a pod with an empty folder", || async {
        let seen = failures.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(seen.iter().any(|failure| failure.starts_with("empty: ")).then_some(()))
    })
    .await?;
    kubectl(&["delete", "pod", "empty", "-n", namespace]).await.map(drop)
}

async fn pods(world: &World, namespace: &str) -> Result<Vec<Pod>> {
    Ok(Api::<Pod>::namespaced(world.client.clone(), namespace).list(&ListParams::default()).await?.items)
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|s| [&s.init_container_statuses, &s.container_statuses]).flatten().flatten()
}

fn is_at_the_gate(pod: &Pod) -> bool {
    let running =
        |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    statuses(pod).any(|status| status.name == GATE_CONTAINER && running(status))
}

/// Waits until all pods that should be there are, and each of them serves: none is stuck.
async fn all_serve(world: &World, namespace: &str) -> Result<()> {
    until("pods that all serve", || async {
        let pods = pods(world, namespace).await?;
        let ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        let waiting: Vec<_> = pods.iter().filter(|pod| !ready(pod)).map(ResourceExt::name_any).collect();
        ensure!(waiting.is_empty(), "not ready: {waiting:?}");
        ensure!(pods.len() == PODS, "{} pods instead of {PODS}", pods.len());
        Ok(Some(()))
    })
    .await
}
