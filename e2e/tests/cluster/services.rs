//! Services of KServe's that start from the warm copy (S2 to S6), and what they may rely on.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use localmodel::api::{LocalModelCache, NamespacedName};
use localmodel::plan::names::{GATE_CONTAINER, UNUSED_SINCE};
use localmodel::plan::serving::GRACE;
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::kserve::serving::{Answer, ask, inference_service, llm_inference_service, until_ready};
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::{CACHE, KEY, NODE, SERVICE, SERVICES, SOURCE, serve};
use localmodel_e2e::world::{WORKERS, World, beside_others};
use serde_json::json;

/// The last step of the walkthrough, and a second service of another namespace. The cache is warm.
pub(crate) async fn documented(world: &World) -> Result<()> {
    let repository = SOURCE.strip_prefix("hf://").context("a source on the hub")?;
    let files = world.hub.files(repository, "main").await?;
    world.hub.clear_requests(repository).await?;
    serve(&world.setup.image).await?;
    let answer = ask(SERVICES, &format!("{SERVICE}-predictor"), 80).await?;
    let wanted = Answer { model: "llama3".into(), source: SOURCE.into(), files: files.clone() };
    ensure!(answer == wanted, "answered {answer:#?}, not {wanted:#?}");

    let other = world.namespace("other").await?;
    apply(&inference_service(&other, "second", SOURCE)).await?;
    until_ready("inferenceservice", &other, "second").await?;
    ensure!(ask(&other, "second-predictor", 80).await?.files == files, "the second service has other files");
    same_bytes(world, &[SERVICES, &other]).await?;
    let asked = world.hub.requests(repository).await?;
    ensure!(asked.is_empty(), "the hub was asked: {asked:?}");

    listed(world, &[format!("{SERVICES}/{SERVICE}"), format!("{other}/second")]).await?;
    kubectl(&["delete", "inferenceservice", "second", "-n", &other]).await?;
    kubectl(&["delete", "inferenceservice", SERVICE, "-n", SERVICES]).await.map(drop)
}

/// What the pods of these namespaces have mounted is one folder of the node's disk, same device, same inode, and its
/// files are those of the one copy.
async fn same_bytes(world: &World, namespaces: &[&str]) -> Result<()> {
    let served = format!("/models/serve/{KEY}/models/{KEY}");
    let disk = on_node(NODE, &format!("stat -c %d:%i {served}")).await?;
    let files =
        |folder: String| async move { on_node(NODE, &format!("cd {folder} && stat -c %d:%i *")).await };
    let (stored, shown) = (files(format!("/models/models/{KEY}")).await?, files(served).await?);
    ensure!(!stored.is_empty() && stored == shown, "the bytes are stored twice: {stored} and {shown}");
    for namespace in namespaces {
        for pod in
            Api::<Pod>::namespaced(world.client.clone(), namespace).list(&ListParams::default()).await?
        {
            let uid = pod.metadata.uid.context("a pod has a uid")?;
            // The gate mounts a folder of its own.
            let mounts = format!("find /var/lib/kubelet/pods/{uid}/volume-subpaths -mindepth 3 -maxdepth 3");
            let models = format!("{mounts} ! -path '*/{GATE_CONTAINER}/*' -exec stat -c %d:%i {{}} +");
            let mounted = on_node(NODE, &models).await?;
            ensure!(!mounted.trim().is_empty(), "{namespace}: nothing is mounted");
            ensure!(
                mounted.lines().all(|line| line == disk.trim()),
                "{namespace}: {mounted} instead of {disk}"
            );
        }
    }
    Ok(())
}

/// The documented cache's status lists these services.
async fn listed(world: &World, services: &[String]) -> Result<()> {
    until(&format!("{services:?} in the cache's status"), || async {
        let cache = world.in_cluster::<LocalModelCache>().get(CACHE).await?;
        let status = cache.status.context("a status")?;
        let found: Vec<_> = status.inference_services.iter().map(full_name).collect();
        ensure!(found == services, "{found:?}");
        Ok(Some(()))
    })
    .await
}

fn full_name(service: &NamespacedName) -> String {
    [&service.namespace, &service.name].map(|part| part.clone().unwrap_or_default()).join("/")
}

#[tokio::test]
async fn an_llm_inference_service_is_listed_guarded_and_mounted_like_an_inference_service() {
    beside_others("llm", |world| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        let source = world.model("m").await?;
        world.cache("m", &source).await?;
        world.until_available("m", 1, 1).await?;
        world.hub.clear_requests("llm/m").await?;

        let namespace = world.namespace("a").await?;
        apply(&llm_inference_service(&namespace, "serves", &source)).await?;
        until_ready("llminferenceservice", &namespace, "serves").await?;
        let answer = ask(&namespace, "serves-kserve-workload-svc", 8000).await?;
        ensure!(answer.files == world.hub.files("llm/m", "main").await?, "it read other files: {answer:?}");
        let asked = world.hub.requests("llm/m").await?;
        ensure!(asked.is_empty(), "the hub was asked: {asked:?}");
        until("the service in the cache's status", || async {
            let status = world.get("m").await?.and_then(|cache| cache.status).context("a status")?;
            let found: Vec<_> = status.llm_inference_services.iter().map(full_name).collect();
            ensure!(found == [format!("{namespace}/serves")], "{found:?}");
            Ok(Some(()))
        })
        .await?;
        let refused = kubectl(&["delete", "localmodelcache", "llm-m"]).await.err().context("deleted")?;
        let wanted = "LocalModelCache llm-m is being used by LLMInferenceService";
        ensure!(refused.to_string().contains(wanted), "{refused}");

        kubectl(&["delete", "llminferenceservice", "serves", "-n", &namespace]).await?;
        volumes_outlive_their_users_for_a_while(&world, &namespace).await?;
        apply(&llm_inference_service(&namespace, "again", &source)).await?;
        until_ready("llminferenceservice", &namespace, "again").await
    })
    .await;
}

/// The claim and its volume stay when their last user has gone, and say since when; ten minutes later both
/// go (S7).
async fn volumes_outlive_their_users_for_a_while(world: &World, namespace: &str) -> Result<()> {
    let (claim, volume) = ("llm-m-llm", format!("llm-m-llm-{namespace}"));
    let claims = world.in_namespace::<PersistentVolumeClaim>(namespace);
    let since = until("a note on the claim that nobody uses it", || async {
        let found = claims.get(claim).await?;
        Ok(found.annotations().get(UNUSED_SINCE).cloned())
    })
    .await?;
    ensure!(world.in_cluster::<PersistentVolume>().get_opt(&volume).await?.is_some(), "the volume is gone");
    // A pod that still mounts it would begin the time anew.
    kubectl(&["wait", "--for=delete", "pods", "--all", "-n", namespace, "--timeout=120s"]).await?;
    let earlier = since.parse::<Timestamp>()? - GRACE;
    let note = json!({"metadata": {"annotations": {UNUSED_SINCE: earlier.to_string()}}});
    claims.patch_metadata(claim, &PatchParams::default(), &Patch::Merge(note)).await?;
    until("the end of the claim and its volume", || async {
        ensure!(claims.get_opt(claim).await?.is_none(), "the claim is there");
        ensure!(
            world.in_cluster::<PersistentVolume>().get_opt(&volume).await?.is_none(),
            "the volume is there"
        );
        Ok(Some(()))
    })
    .await
}
