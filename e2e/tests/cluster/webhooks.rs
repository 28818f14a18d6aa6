//! What admission refuses, and a certificate that heals under way.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use localmodel::api::LocalModelCache;
use localmodel_e2e::admission::{TEAM, namespace_cache, pod, refused};
use localmodel_e2e::command::kubectl;
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{World, beside_others};
use serde_json::json;

const OPERATOR: &str = "app.kubernetes.io/name=localmodel-operator";
const CERTIFICATE: &str = "localmodel-webhook-cert";
/// "foreign" in base64.
const FOREIGN: &str = "Zm9yZWlnbg==";

#[tokio::test]
async fn a_source_taken_twice_a_group_in_use_and_a_group_that_is_not_there_are_refused_with_names() {
    beside_others("checks", |world| async move {
        world.group().await?;
        world.cache("m", "hf://checks/m").await?;
        let twice = world.cache("n", "hf://checks/m").await;
        refused(twice, "LocalModelCache checks-m has the same StorageURI hf://checks/m")?;

        let group = kubectl(&["delete", "localmodelnodegroup", "checks"]).await.map(drop);
        refused(group, "LocalModelNodeGroup checks is still used by LocalModelCache checks-m: delete them")?;

        let own = namespace_cache("checks-own", "checks-nowhere");
        let words = format!("LocalModelNamespaceCache {TEAM}/checks-own names checks-nowhere in nodeGroups");
        refused(apply(&own).await, &words)?;

        let pod = pod("checks-pod", "localmodel.kserve.io/model: checks-typo");
        let words = "there is no LocalModelCache checks-typo, nor a LocalModelNamespaceCache checks-typo in namespace default";
        refused(apply(&pod).await, words)
    })
    .await;
}

#[tokio::test]
async fn a_deleted_and_a_foreign_secret_heal_without_a_restart_and_no_request_is_refused() {
    beside_others("heals", |world| async move {
        let pods: Api<Pod> = Api::namespaced(world.client.clone(), "kserve");
        let operator = || async {
            let all = pods.list(&ListParams::default().labels(OPERATOR)).await?;
            Ok::<_, anyhow::Error>(all.items.iter().map(|pod| (pod.uid(), restarts(pod))).collect::<Vec<_>>())
        };
        let before = operator().await?;
        let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "kserve");
        let healed = async {
            let first = secrets.get(CERTIFICATE).await?;
            secrets.delete(CERTIFICATE, &DeleteParams::default()).await?;
            let second = replaced(&secrets, &first).await?;
            // Somebody else's, at first one that can be changed.
            let third = replaced(&secrets, &foreign(&secrets, &second, false).await?).await?;
            replaced(&secrets, &foreign(&secrets, &third, true).await?).await.map(drop)
        };
        tokio::select! {
            refused = ask_all_the_time(&world) => refused?,
            result = healed => result?,
        }
        ensure!(operator().await? == before, "the operator was started anew");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_edited_webhook_configuration_is_put_right() {
    beside_others("edited", |_| async move {
        let configuration = ["mutatingwebhookconfiguration", "localmodel.serving.kserve.io"];
        let edit = r#"[{"op": "remove", "path": "/webhooks/1"}, {"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 30}]"#;
        kubectl(&[&["patch"], &configuration[..], &["--type=json", "-p", edit]].concat()).await?;
        let shape = "jsonpath={range .webhooks[*]}{.name}={.timeoutSeconds} {end}";
        until("the list as it was", || async {
            let now = kubectl(&[&["get"], &configuration[..], &["-o", shape]].concat()).await?;
            Ok((now.trim() == "pods.localmodel.kserve.io=5 kserve-pods.localmodel.kserve.io=5").then_some(()))
        })
        .await
    })
    .await;
}

/// Puts somebody else's certificate in the place of ours, in one write: the operator would be faster than two.
async fn foreign(secrets: &Api<Secret>, ours: &Secret, immutable: bool) -> Result<Secret> {
    let mut foreign = ours.clone();
    foreign.immutable = Some(immutable);
    foreign.data =
        serde_json::from_value(json!({"tls.crt": FOREIGN, "tls.key": FOREIGN, "ca.crt": FOREIGN}))?;
    Ok(secrets.replace(CERTIFICATE, &PostParams::default(), &foreign).await?)
}

/// Waits until the Secret is another good one and in force: the bundle has its authority alone.
async fn replaced(secrets: &Api<Secret>, old: &Secret) -> Result<Secret> {
    until("a new certificate, trusted alone", || async {
        let secret = secrets.get(CERTIFICATE).await?;
        let authority = secret.data.as_ref().and_then(|data| data.get("ca.crt")).context("an authority")?;
        let bundle = kubectl(&[
            "get",
            "validatingwebhookconfiguration",
            "localmodelcache.serving.kserve.io",
            "-o",
            "jsonpath={.webhooks[0].clientConfig.caBundle}",
        ])
        .await?;
        let is_trusted = json!(authority) == json!(bundle.trim());
        Ok((is_trusted && secret.data != old.data).then_some(secret.clone()))
    })
    .await
}

/// Asks the webhooks one time after the other; ends only when one request is refused.
async fn ask_all_the_time(world: &World) -> Result<()> {
    let caches = world.in_cluster::<LocalModelCache>();
    let probe: LocalModelCache = serde_json::from_value(json!({
        "metadata": {"name": "heals-probe"},
        "spec": {"sourceModelUri": "hf://heals/probe", "modelSize": "1Gi", "nodeGroups": ["heals"]},
    }))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    loop {
        caches.create(&dry_run, &probe).await.context("a request while the certificate rotates")?;
    }
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().map(|container| container.restart_count).sum()
}
