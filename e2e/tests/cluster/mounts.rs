//! A tenant that mounts a serving claim as a whole, to read what others have on the disk (K4): before the
//! cache is there, and afterwards in every way that a pod can.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use localmodel::api::source::storage_key;
use localmodel::plan::mounts::UNSAFE_MOUNT;
use localmodel_e2e::accounts::tenant;
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, beside_others};
use serde_json::{Value, json};

use crate::gate::{idle, pod, serves};

#[tokio::test]
async fn a_tenant_mounts_one_model_of_a_serving_claim_and_never_the_claim_whole() {
    beside_others("whole", |world| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        let namespace = world.namespace("a").await?;
        let pods: Api<Pod> = Api::namespaced(tenant(&namespace).await?, &namespace);
        let source = world.model("m").await?;
        pods.create(&PostParams::default(), &whole(&world, "early", &json!({}))?)
            .await
            .context("nobody knows of a cache yet")?;

        world.cache("m", &source).await?;
        apply(&pod(&world, &namespace, "server", "m")).await?;
        let told = until_unsafe(&world).await?;
        ensure!(told.contains("delete early,"), "{told}");
        let volumes = world.names(world.in_cluster::<PersistentVolume>()).await?;
        ensure!(!volumes.contains(&format!("whole-m-whole-{namespace}")), "it has a volume: {volumes:?}");

        every_other_way(&world, &pods, &storage_key(&source)).await?;
        // The kubelet gives the disk to the agent when that is the first to mount it.
        world.until_available("m", 1, 1).await?;
        pods.delete("early", &DeleteParams::default()).await?;
        serves(&namespace, "server").await?;
        by_an_ephemeral_container(&world, &namespace).await
    })
    .await;
}

/// A pod that mounts the claim with these fields more in its mount.
fn whole(world: &World, name: &str, mount: &Value) -> Result<Pod> {
    let mut container = idle(world, "idle");
    container["volumeMounts"] = json!([{"name": "disk", "mountPath": "/disk"}]);
    container["volumeMounts"][0]
        .as_object_mut()
        .context("a mount")?
        .extend(mount.as_object().cloned().unwrap_or_default());
    let claim = json!({"claimName": "whole-m-whole", "readOnly": true});
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "disk", "persistentVolumeClaim": claim}],
        },
    }))?)
}

/// Waits until the cache says that a pod mounts its claim whole.
async fn until_unsafe(world: &World) -> Result<String> {
    until("condition UnsafeMount", || async {
        let status = world.get("m").await?.and_then(|cache| cache.status).unwrap_or_default();
        let told = status.conditions.into_iter().find(|condition| condition.type_ == UNSAFE_MOUNT);
        Ok(told.map(|condition| condition.message))
    })
    .await
}

/// All that admission refuses once the cache is there, and what it lets through.
async fn every_other_way(world: &World, pods: &Api<Pod>, key: &str) -> Result<()> {
    let tried = PostParams { dry_run: true, ..PostParams::default() };
    let one = json!({"subPath": format!("models/{key}/")});
    pods.create(&tried, &whole(world, "one-model", &one)?).await.context("one model")?;
    for mount in [
        json!({}),
        json!({"subPath": "models"}),
        json!({"subPath": "namespaces/other"}),
        json!({"subPathExpr": "$(HOME)"}),
    ] {
        let pod = whole(world, "late", &mount)?;
        refused(pods.create(&tried, &pod).await).with_context(|| format!("a mount with {mount}"))?;
    }
    let mut first = whole(world, "first", &json!({}))?;
    let spec = first.spec.as_mut().context("a spec")?;
    let mut container = spec.containers.first().context("a container")?.clone();
    container.name = "before".into();
    spec.init_containers = Some(vec![container]);
    for container in &mut spec.containers {
        container.volume_mounts = None;
    }
    refused(pods.create(&tried, &first).await).context("an init container")?;
    let mut ephemeral = whole(world, "whole-m", &json!({}))?;
    let volume = json!({"name": "whole", "ephemeral": {"volumeClaimTemplate": {"spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }}}});
    let spec = ephemeral.spec.as_mut().context("a spec")?;
    spec.volumes = Some(vec![serde_json::from_value(volume)?]);
    for mount in spec.containers.iter_mut().flat_map(|container| container.volume_mounts.iter_mut().flatten())
    {
        mount.name = "whole".into();
    }
    refused(pods.create(&tried, &ephemeral).await).context("an ephemeral volume of the claim's name")
}

/// A container that joins a running pod cannot have a subPath: it mounts all or nothing.
async fn by_an_ephemeral_container(world: &World, namespace: &str) -> Result<()> {
    // Whoever may edit a namespace may not add these; who may do everything is refused, too.
    let pods: Api<Pod> = world.in_namespace(namespace);
    let server = pods.get("server").await?;
    let volumes = server.spec.context("a spec")?.volumes.unwrap_or_default();
    let volume =
        volumes.into_iter().find(|volume| volume.persistent_volume_claim.is_some()).context("the model")?;
    let mut container = idle(world, "late");
    for field in ["ports", "readinessProbe", "resources"] {
        container.as_object_mut().context("a container")?.remove(field);
    }
    container["volumeMounts"] = json!([{"name": volume.name, "mountPath": "/disk"}]);
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [container]}}));
    refused(pods.patch_ephemeral_containers("server", &PatchParams::default(), &patch).await)
        .context("an ephemeral container")
}

fn refused(result: kube::Result<Pod>) -> Result<()> {
    let Err(error) = result else { anyhow::bail!("it was let through") };
    let words = "a claim of LocalModelCache whole-m may not be mounted whole";
    ensure!(error.to_string().contains(words), "{error}");
    Ok(())
}
