//! Namespace caches: copies, volumes and folders of their own, beside cluster caches and taken over from
//! KServe (C10, D6).

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use localmodel::api::LocalModelNode;
use localmodel::api::source::storage_key;
use localmodel::plan::names;
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::kserve::serving::inference_service;
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::JOBS;
use localmodel_e2e::world::{WORKERS, World, beside_others};
use serde_json::json;

#[tokio::test]
async fn caches_of_one_name_and_source_have_separate_copies_and_one_leaves_without_the_other() {
    beside_others("both", |world| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        let team = world.namespace("team").await?;
        let source = world.model("m").await?;
        let key = storage_key(&source);
        world.cache("m", &source).await?;
        world.namespace_cache(&team, "m", &source).await?;
        world.until_available("m", 1, 1).await?;
        world.until_available_in(&team, "m", 1, 1).await?;

        let (root, area) = (format!("./models/{key}/"), format!("./namespaces/{team}/models/{key}/"));
        let files = world.files(WORKERS[0]).await?;
        let below = |folder: &str| -> Vec<String> {
            files.iter().filter_map(|file| file.strip_prefix(folder)).map(str::to_owned).collect()
        };
        ensure!(!below(&root).is_empty() && below(&root) == below(&area), "{files:#?}");
        gate_says_downloaded(&world, &format!("gate/{key}")).await?;
        gate_says_downloaded(&world, &format!("namespaces/{team}/gate/{key}")).await?;
        warm_labels(&world, &[names::warm_label(&key, None), names::warm_label(&key, Some(&team))]).await?;

        let (name, volume) = (world.name("m"), format!("both-m-both-{team}-download"));
        // KServe takes the namespace's cache before the cluster's (S4).
        apply(&inference_service(&team, "mine", &source)).await?;
        let guarded = kubectl(&["delete", "localmodelnamespacecache", &name, "-n", &team]).await.err();
        let wanted =
            format!("LocalModelNamespaceCache {team}/{name} is being used by InferenceService {team}/mine");
        let said = guarded.context("a cache in use was deleted")?.to_string();
        ensure!(said.contains(&wanted), "{said}");
        kubectl(&["delete", "inferenceservice", "mine", "-n", &team]).await?;
        kubectl(&["delete", "localmodelnamespacecache", &name, "-n", &team, "--timeout=90s"]).await?;
        until("nothing of the namespace cache", || async {
            let files = world.files(WORKERS[0]).await?;
            ensure!(!files.iter().any(|file| file.starts_with("./namespaces/")), "{files:#?}");
            let folder = on_node(WORKERS[0], "ls /models/both/namespaces").await?;
            ensure!(folder.trim().is_empty(), "a folder is left: {folder}");
            ensure!(
                world.in_cluster::<PersistentVolume>().get_opt(&volume).await?.is_none(),
                "the volume is left"
            );
            let claims = world.in_jobs::<PersistentVolumeClaim>();
            ensure!(claims.get_opt(&volume).await?.is_none(), "the claim is left");
            let of_namespace = kube::api::ListParams::default().labels(&format!("modelNamespace={team}"));
            let jobs = world.in_jobs::<Job>().list(&of_namespace).await?.items;
            ensure!(jobs.is_empty(), "a Job is left");
            Ok(Some(()))
        })
        .await?;
        warm_labels(&world, &[names::warm_label(&key, None)]).await?;
        world.until_available("m", 1, 1).await?;
        let left = world.files(WORKERS[0]).await?;
        ensure!(left.iter().any(|file| file.starts_with(&root)), "the other copy was touched: {left:#?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_cluster_cache_that_goes_leaves_the_namespaces_copy_and_takes_its_own() {
    beside_others("leave", |world| async move {
        world.group().await?;
        world.join(WORKERS[1]).await?;
        let team = world.namespace("team").await?;
        let source = world.model("m").await?;
        world.cache("m", &source).await?;
        world.namespace_cache(&team, "m", &source).await?;
        world.until_available("m", 1, 1).await?;
        world.until_available_in(&team, "m", 1, 1).await?;
        kubectl(&["delete", "localmodelcache", &world.name("m"), "--timeout=90s"]).await?;
        let area = format!("./namespaces/{team}/");
        until("files below the namespace only", || async {
            let files = world.files(WORKERS[1]).await?;
            ensure!(!files.is_empty() && files.iter().all(|file| file.starts_with(&area)), "{files:#?}");
            Ok(Some(()))
        })
        .await?;
        world.until_available_in(&team, "m", 1, 1).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_copy_that_kserve_made_for_a_namespace_cache_is_taken_over_without_a_download() {
    beside_others("taken", |world| async move {
        world.group().await?;
        let team = world.namespace("team").await?;
        let source = world.model("m").await?;
        let key = storage_key(&source);
        on_node(
            WORKERS[0],
            &format!(
                "mkdir -p /models/taken/models/{key} && cd /models/taken/models/{key} && echo weights > model"
            ),
        )
        .await?;
        kserves_volumes(&world, &team).await?;
        world.namespace_cache(&team, "m", &source).await?;
        let name = format!("taken-m-taken-{team}-download");
        until("the volumes of our own", || async {
            let volume = world.in_cluster::<PersistentVolume>().get(&name).await?;
            let path = volume.spec.and_then(|spec| spec.local).map(|local| local.path);
            ensure!(path == Some(format!("/models/taken/namespaces/{team}")), "{path:?}");
            let claim = world.in_jobs::<PersistentVolumeClaim>().get(&name).await?;
            ensure!(claim.labels().contains_key(names::MANAGED_BY), "the claim is still KServe's");
            Ok(Some(()))
        })
        .await?;
        world.join(WORKERS[0]).await?;
        vouch(&world, WORKERS[0], &format!("{team}/{}", world.name("m"))).await?;
        let folder = format!("/models/taken/models/{key}");
        on_node(WORKERS[0], &format!("mkdir -p {folder} && echo weights > {folder}/model")).await?;
        world.until_available_in(&team, "m", 1, 1).await?;
        until("the copy in both places", || async {
            let files = world.files(WORKERS[0]).await?;
            for place in [format!("./models/{key}/model"), format!("./namespaces/{team}/models/{key}/model")]
            {
                ensure!(files.contains(&place), "no {place} in {files:#?}");
            }
            Ok(Some(()))
        })
        .await?;
        let asked = world.hub.requests("taken/").await?;
        ensure!(asked.is_empty(), "the hub was asked: {asked:?}");
        Ok(())
    })
    .await;
}

/// The download volumes as KServe leaves them: at the root of the disk, unowned and unlabelled.
async fn kserves_volumes(world: &World, namespace: &str) -> Result<()> {
    let name = format!("taken-m-taken-{namespace}-download");
    apply(&format!(
        "
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {{storage: 1Gi}}
  local: {{path: /models/taken}}
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local-storage
  claimRef: {{apiVersion: v1, kind: PersistentVolumeClaim, name: {name}, namespace: {JOBS}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{{key: test/taken, operator: Exists}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}, namespace: {JOBS}}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Gi}}}}
  storageClassName: local-storage
  volumeName: {name}
"
    ))
    .await?;
    until("KServe's claim bound", || async {
        let claim = world.in_jobs::<PersistentVolumeClaim>().get(&name).await?;
        ensure!(claim.status.and_then(|status| status.phase).as_deref() == Some("Bound"), "it is not");
        Ok(Some(()))
    })
    .await
}

/// What KServe's agent said in the node's status before it went.
async fn vouch(world: &World, node: &str, key: &str) -> Result<()> {
    until("the entry", || async {
        let local = world.node(node).await?;
        let entries = local.map(|local| local.spec.local_models).unwrap_or_default();
        Ok(entries.iter().any(|entry| entry.status_key() == key).then_some(()))
    })
    .await?;
    let api = world.in_cluster::<LocalModelNode>();
    let said = json!({"status": {"modelStatus": {key: "ModelDownloaded"}}});
    let params = PatchParams { field_manager: Some("manager".into()), ..PatchParams::default() };
    api.patch_status(node, &params, &Patch::Merge(said)).await.context("KServe's status")?;
    Ok(())
}

async fn gate_says_downloaded(world: &World, folder: &str) -> Result<()> {
    let file = format!("/models/{}/{folder}/status.json", world.prefix);
    until(&format!("an open gate in {file}"), || async {
        let said = on_node(WORKERS[0], &format!("cat {file}")).await?;
        ensure!(said.contains("\"phase\":\"ModelDownloaded\""), "{said}");
        let mode = on_node(WORKERS[0], &format!("stat -c %a {file}")).await?;
        ensure!(mode.trim() == "644", "mode {mode}");
        Ok(Some(()))
    })
    .await
}

/// Waits until the first worker has exactly these of the model's warm labels.
async fn warm_labels(world: &World, wanted: &[String]) -> Result<()> {
    until("the warm labels", || async {
        let node = world.in_cluster::<Node>().get(WORKERS[0]).await?;
        let is_ours = |label: &&String| node.labels().get(*label).is_some_and(|group| *group == world.prefix);
        let found: Vec<&String> = node.labels().keys().filter(is_ours).collect();
        ensure!(found.iter().copied().eq(wanted), "{found:?}");
        Ok(Some(()))
    })
    .await
}
