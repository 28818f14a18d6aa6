//! Pods by our label alone, without anything of KServe's (S10): they find their model where they ask for
//! it, wait at the gate while their copy is not complete (S11), and change no byte of it (S6).

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::LogParams;
use kube::{Api, ResourceExt};
use localmodel::api::source::storage_key;
use localmodel::plan::names::{
    CHOSEN_GROUP, GATE_CONTAINER, POD_CONTAINERS, POD_MODEL, POD_MOUNT_PATH, WARM_PREFIX,
};
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::kserve::serving::container;
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::JOBS;
use localmodel_e2e::world::{WORKERS, World, beside_others};
use localmodel_hub::{Fault, FaultKind};
use serde_json::{Value, json};

const NODE: &str = WORKERS[0];
/// What the process waits for that runs as root, by which it is found; it never comes.
const ROOT: &str = "/label/root";

#[tokio::test]
async fn a_pod_waits_on_a_cold_and_on_a_wiped_node_and_after_a_failure_and_says_for_what() {
    beside_others("gate", |world| async move {
        world.group().await?;
        world.join(NODE).await?;
        let namespace = world.namespace("a").await?;
        let source = world.model("m").await?;
        let slow = Fault::always("gate/m", FaultKind::Throttle { bytes_per_second: 20_000 });
        world.hub.fault(&slow).await?;
        world.cache("m", &source).await?;
        let lost = world.model("lost").await?;
        world.hub.fault(&Fault::always("gate/lost", FaultKind::Status(404))).await?;
        world.cache("lost", &lost).await?;

        apply(&pod(&world, &namespace, "cold", "m")).await?;
        apply(&pod(&world, &namespace, "failed", "lost")).await?;
        gate_says(&world, &namespace, "cold", "the download is under way").await?;
        gate_says(&world, &namespace, "failed", "the download has failed: RepositoryNotFound: gate/lost")
            .await?;
        ensure!(!is_warm(&world, &source).await?, "a node with an unfinished copy is called warm");
        world.hub.clear_faults("gate/m").await?;
        serves(&namespace, "cold").await?;
        until("a warm node", || async { Ok(is_warm(&world, &source).await?.then_some(())) }).await?;

        world.hub.fault(&slow).await?;
        on_node(NODE, &format!("rm -r /models/gate/models/{}", storage_key(&source))).await?;
        until("a cold node", || async { Ok((!is_warm(&world, &source).await?).then_some(())) }).await?;
        apply(&pod(&world, &namespace, "wiped", "m")).await?;
        gate_says(&world, &namespace, "wiped", "the download is under way").await?;
        world.hub.clear_faults("gate/m").await?;
        serves(&namespace, "wiped").await?;

        // What was missing is there now, and a failed Job that is deleted asks for another try (A6).
        world.hub.clear_faults("gate/lost").await?;
        kubectl(&["delete", "jobs", "-n", JOBS, "-l", "model=gate-lost"]).await?;
        serves(&namespace, "failed").await
    })
    .await;
}

#[tokio::test]
async fn the_label_mounts_where_and_for_whom_the_annotations_say_and_nobody_can_write() {
    beside_others("label", |world| async move {
        world.group().await?;
        world.join(NODE).await?;
        let source = world.model("m").await?;
        world.cache("m", &source).await?;
        world.until_available("m", 1, 1).await?;
        let namespace = world.namespace("a").await?;
        apply(&annotated(&world, &namespace)).await?;
        serves(&namespace, "annotated").await?;
        let found = world.in_namespace::<Pod>(&namespace).get("annotated").await?;
        let spec = found.spec.context("a spec")?;
        let mounted = |name: &str| {
            let of = spec.containers.iter().find(|container| container.name == name)?;
            let mounts = of.volume_mounts.iter().flatten();
            Some(
                mounts
                    .map(|mount| mount.mount_path.clone())
                    .find(|path| !path.starts_with("/var/run/secrets")),
            )
        };
        ensure!(mounted("server") == Some(Some("/srv/weights".into())), "{:?}", spec.containers);
        ensure!(mounted("beside") == Some(None), "{:?}", spec.containers);

        // A tenant who may run anything mounts the model himself, as root and to write.
        kubectl(&["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce-"]).await?;
        // The API server may go by the label for another moment.
        let as_root = as_root(&world, &namespace, &storage_key(&source));
        until("the pod that runs as root", || async { apply(&as_root).await.map(Some) }).await?;
        kubectl(&["wait", "--for=condition=Ready", "pod/root", "-n", &namespace, "--timeout=180s"]).await?;
        cannot_write().await
    })
    .await;
}

/// A pod with the label and nothing else.
pub(crate) fn pod(world: &World, namespace: &str, name: &str, cache: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {POD_MODEL: world.name(cache)}},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [container("server", &world.setup.stub, 8080)],
        },
    })
    .to_string()
}

/// A pod that says of what group it reads, where, and in which of its containers.
fn annotated(world: &World, namespace: &str) -> String {
    let mut server = container("server", &world.setup.stub, 8080);
    server["args"] = json!(["--model-dir=/srv/weights"]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "annotated",
            "namespace": namespace,
            "labels": {POD_MODEL: world.name("m")},
            "annotations": {
                CHOSEN_GROUP: world.prefix,
                POD_MOUNT_PATH: "/srv/weights",
                POD_CONTAINERS: "server",
            },
        },
        "spec": {"terminationGracePeriodSeconds": 2, "containers": [server, idle(world, "beside")]},
    })
    .to_string()
}

/// A container of our image that stays and does nothing.
pub(crate) fn idle(world: &World, name: &str) -> Value {
    let mut idle = container(name, &world.setup.image, 8080);
    idle["args"] = json!(["wait", "/nothing"]);
    idle["readinessProbe"].take();
    idle
}

/// A pod that mounts a model by itself, as root and to write.
fn as_root(world: &World, namespace: &str, key: &str) -> String {
    let mut idle = idle(world, "root");
    idle["args"] = json!(["wait", ROOT]);
    idle["securityContext"] = json!({"runAsUser": 0});
    let sub_path = format!("models/{key}");
    idle["volumeMounts"] =
        json!([{"name": "model", "mountPath": "/mnt/models", "subPath": sub_path, "readOnly": false}]);
    let claim = format!("{}-{}", world.name("m"), world.prefix);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "root", "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [idle],
            "volumes": [{"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": false}}],
        },
    })
    .to_string()
}

/// Tries to change a byte, to add a file and to remove one as the pod's own root does it: through its mounts.
async fn cannot_write() -> Result<()> {
    // A pod is Ready a moment before its container's program has replaced the runtime's.
    let find = format!("pgrep -f '^/localmodel wait {ROOT}'");
    let process = until("the pod's process", || async { on_node(NODE, &find).await.map(Some) }).await?;
    let folder = format!("/proc/{}/root/mnt/models", process.trim());
    let before = on_node(NODE, &format!("cat {folder}/config.json | sha256sum")).await?;
    for attempt in ["echo x >> config.json", "touch more", "rm config.json"] {
        let refused =
            on_node(NODE, &format!("cd {folder} && {attempt}")).await.err().context("it was written")?;
        ensure!(format!("{refused:#}").contains("Read-only file system"), "{attempt}: {refused:#}");
    }
    let after = on_node(NODE, &format!("cat {folder}/config.json | sha256sum")).await?;
    ensure!(before == after, "{before} became {after}");
    Ok(())
}

/// Waits until the gate of a pod has said this, while nothing of the pod has started.
async fn gate_says(world: &World, namespace: &str, pod: &str, words: &str) -> Result<()> {
    let pods: Api<Pod> = world.in_namespace(namespace);
    let of_gate = LogParams { container: Some(GATE_CONTAINER.into()), ..LogParams::default() };
    until(&format!("{words:?} of the gate of {pod}"), || async {
        let said = pods.logs(pod, &of_gate).await?;
        ensure!(said.contains(words), "it says {said}");
        Ok(Some(()))
    })
    .await?;
    let status = pods.get(pod).await?.status.unwrap_or_default();
    let mut containers = status.container_statuses.into_iter().flatten();
    ensure!(containers.all(|container| container.started != Some(true)), "{pod} has started");
    Ok(())
}

/// Waits until the pod's server has read a whole model.
pub(crate) async fn serves(namespace: &str, pod: &str) -> Result<()> {
    kubectl(&["wait", "--for=condition=Ready", "pod", pod, "-n", namespace, "--timeout=180s"]).await.map(drop)
}

/// Whether the node is called warm for a model.
async fn is_warm(world: &World, source: &str) -> Result<bool> {
    let node = world.in_cluster::<Node>().get(NODE).await?;
    Ok(node.labels().contains_key(&format!("{WARM_PREFIX}{}", storage_key(source))))
}
