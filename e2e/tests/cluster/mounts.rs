//! What a tenant sees who mounts a serving claim in every way that a pod can: the one model that the claim is for
//! and its gate, and nothing that can be written. No admission has a part in that.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::Api;
use kube::api::PostParams;
use localmodel::api::source::storage_key;
use localmodel_e2e::accounts::tenant;
use localmodel_e2e::command::on_node;
use localmodel_e2e::kserve::serving::container;
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, beside_others};
use serde_json::{Value, json};

use crate::gate::{pod, serves};

const NODE: &str = WORKERS[0];
/// A user and a group that nothing on the disk belongs to.
const STRANGER: u32 = 4321;

#[tokio::test]
async fn whoever_mounts_a_serving_claim_sees_one_model_and_its_gate_and_writes_nothing() {
    beside_others("whole", |world| async move {
        world.group().await?;
        world.join(NODE).await?;
        let (anybody, victim) = (world.namespace("anybody").await?, world.namespace("victim").await?);
        let (shared, secret) = (world.model("m").await?, world.model("secret").await?);
        world.cache("m", &shared).await?;
        world.namespace_cache(&victim, "own", &shared).await?;
        world.namespace_cache(&victim, "secret", &secret).await?;
        for cache in ["own", "secret"] {
            world.until_available_in(&victim, cache, 1, 1).await?;
        }
        world.until_available("m", 1, 1).await?;
        let files = world.files(NODE).await?;
        let of_victim = format!("./namespaces/{victim}/models/{}/config.json", storage_key(&secret));
        ensure!(files.contains(&of_victim), "the victim's model is not there: {files:?}");

        for (namespace, cache) in [(&anybody, "m"), (&victim, "own")] {
            apply(&pod(&world, namespace, "server", cache)).await?;
            serves(namespace, "server").await?;
            let claim = format!("whole-{cache}-whole");
            sees_one_model(&world, namespace, &claim, &storage_key(&shared)).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_group_with_a_host_path_serves_through_a_volume_that_is_mounted_read_only() {
    beside_others("hostpath", |world| async move {
        // The kubelet gives a hostPath to nobody's group.
        on_node(NODE, "mkdir -p /models/hostpath && chmod 2777 /models/hostpath").await?;
        let group = world.group_yaml("hostpath");
        apply(&group.replace("local: {path: /models/hostpath}", "hostPath: {path: /models/hostpath}"))
            .await?;
        world.join(NODE).await?;
        let source = world.model("m").await?;
        world.cache("m", &source).await?;
        world.until_available("m", 1, 1).await?;
        let namespace = world.namespace("a").await?;
        apply(&pod(&world, &namespace, "server", "m")).await?;
        serves(&namespace, "server").await?;
        let volume = format!("hostpath-m-hostpath-{namespace}");
        let spec = world.in_cluster::<PersistentVolume>().get(&volume).await?.spec.context("a spec")?;
        ensure!(spec.local.is_some() && spec.host_path.is_none(), "{spec:?}");
        sees_one_model(&world, &namespace, "hostpath-m-hostpath", &storage_key(&source)).await
    })
    .await;
}

/// Mounts a claim whole, by the subPath of its model and by those of others' things, as a stranger with a tenant's
/// rights.
async fn sees_one_model(world: &World, namespace: &str, claim: &str, key: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(tenant(namespace).await?, namespace);
    let model = format!("models/{key}");
    for (name, sub_path, read) in [("all", None, model.as_str()), ("model", Some(model.as_str()), "")] {
        let folder = format!("/{namespace}/{name}");
        let stranger = stranger(world, name, claim, &folder, sub_path, read)?;
        pods.create(&PostParams::default(), &stranger).await.context("a tenant may make any pod")?;
        // Its server has read every byte.
        serves(namespace, name).await?;
        let mounted = mounted_folder(&folder).await?;
        let found = on_node(NODE, &format!("cd {mounted} && find . -mindepth 1 | sort")).await?;
        ensure!(found.contains("config.json"), "{found}");
        let parts = ["./models", "./gate"].map(|part| [part.to_owned(), format!("{part}/{key}")]);
        let is_of_model = |path: &str| {
            sub_path.is_some()
                || parts
                    .iter()
                    .any(|[part, of]| path == part || path == of || path.starts_with(&format!("{of}/")))
        };
        ensure!(found.lines().all(is_of_model), "{name} sees {found}");
        for attempt in ["touch more", "mkdir more", "rm -r *"] {
            let refused = on_node(NODE, &format!("cd {mounted} && {attempt}")).await;
            let refused = refused.err().with_context(|| format!("{attempt}: it was written"))?;
            ensure!(format!("{refused:#}").contains("Read-only file system"), "{attempt}: {refused:#}");
        }
    }
    // The kubelet makes nothing on a volume that is read-only, and finds nothing of others.
    for (name, path) in [("others", "namespaces"), ("incoming", "incoming"), ("serve", "serve")] {
        let stranger = stranger(world, name, claim, "/theirs", Some(path), "")?;
        pods.create(&PostParams::default(), &stranger).await?;
        until(&format!("a refusal of subPath {path}"), || async {
            let status = pods.get(name).await?.status.unwrap_or_default();
            let waiting =
                status.container_statuses.into_iter().flatten().filter_map(|container| container.state);
            let reasons: Vec<_> = waiting.filter_map(|state| state.waiting?.reason).collect();
            Ok((reasons == ["CreateContainerConfigError"]).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// A pod whose server reads a part of what it mounts.
fn stranger(
    world: &World,
    name: &str,
    claim: &str,
    folder: &str,
    sub_path: Option<&str>,
    read: &str,
) -> Result<Pod> {
    let mut server = container("server", &world.setup.stub, 8080);
    server["args"] = json!([format!("--model-dir={folder}/{read}")]);
    server["volumeMounts"] = json!([{"name": "disk", "mountPath": folder, "subPath": sub_path}]);
    let security: Value = json!({"fsGroup": STRANGER, "runAsUser": STRANGER, "runAsGroup": STRANGER});
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "securityContext": security,
            "containers": [server],
            "volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }))?)
}

/// Where the node sees what a pod has mounted at a folder.
async fn mounted_folder(folder: &str) -> Result<String> {
    // The newest is the shell that asks.
    let find = format!("pgrep -o -f -- '--model-dir={folder}/'");
    let process = until("the pod's process", || async { on_node(NODE, &find).await.map(Some) }).await?;
    Ok(format!("/proc/{}/root{folder}", process.trim()))
}
