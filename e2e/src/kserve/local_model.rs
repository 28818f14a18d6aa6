//! KServe's own local-model controller and agent, for the time of a test: on one folder of the nodes'
//! disks, which stands for the disk that the agent's manifest names.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::certificate::Certificate;
use super::manifests::{part, with_image};
use super::{MANAGER, apply_as, folder, list, load};
use crate::command::{kubectl, on_node, run};
use crate::setup::until_webhooks_answer;
use crate::wait::until;
use crate::walkthrough::JOBS;

/// The chart that has KServe's definitions.
const CHART: &str = "kserve-localmodel-crd";
/// The label of the nodes on which KServe's agent runs.
const NODE_LABEL: &str = "kserve/localmodel";
/// KServe's controller.
const CONTROLLER: &str = "deployment/kserve-localmodel-controller-manager";
/// KServe's agent.
const AGENT: &str = "daemonset/kserve-localmodelnode-agent";

/// KServe's definitions of the kinds that we define too, as a cluster has them that runs KServe.
pub async fn definitions() -> Result<String> {
    Ok(part(&folder().await?, "localmodels")?.definitions.join("\n---\n"))
}

/// Makes the definitions that are there those of a release of KServe's chart.
pub async fn install_chart() -> Result<()> {
    let chart = format!("{}/{CHART}", folder().await?);
    run("helm", &["install", CHART, &chart, "--namespace", "kserve", "--take-ownership"]).await.map(drop)
}

/// Lets Helm forget the release, as the guide says, and proves that it has.
pub async fn detach_chart() -> Result<()> {
    kubectl(&["delete", "secret", "-n", "kserve", "-l", &format!("owner=helm,name={CHART}")]).await?;
    let forgotten = run("helm", &["uninstall", CHART, "--namespace", "kserve"]).await.err();
    let said = forgotten.context("Helm has removed KServe's definitions")?.to_string();
    ensure!(said.contains("not found"), "{said}");
    Ok(())
}

/// Starts KServe's controller, and its agent on these nodes.
pub async fn start(nodes: &[&str], disk: &str) -> Result<()> {
    let folder = folder().await?;
    let (controller, agent) = (load(&folder, "localmodel").await?, load(&folder, "localmodelnode").await?);
    let (agents, others): (Vec<_>, Vec<_>) =
        part(&folder, "localmodels")?.objects.into_iter().partition(|object| object["kind"] == "DaemonSet");
    let mut objects = Certificate::in_cluster().await?.with_bundle(with_image(others, &controller)?);
    objects.extend(with_image(agents, &agent)?.into_iter().map(|agent| on_disk(agent, disk)));
    for node in nodes {
        // The agent runs as this user and makes its folder itself.
        on_node(node, &format!("chown 1000:1000 {disk}")).await?;
        kubectl(&["label", "node", node, "--overwrite", &format!("{NODE_LABEL}=worker")]).await?;
    }
    apply_as(MANAGER, &list(&objects)).await?;
    // KServe's Jobs do not meet the "restricted" standard, which our own install enforces.
    kubectl(&["label", "namespace", JOBS, "pod-security.kubernetes.io/enforce-"]).await?;
    kubectl(&["scale", "-n", "kserve", CONTROLLER, "--replicas=1"]).await?;
    for workload in [CONTROLLER, AGENT] {
        kubectl(&["rollout", "status", "-n", "kserve", workload, "--timeout=180s"]).await?;
    }
    until_webhooks_answer().await
}

fn on_disk(mut agent: Value, disk: &str) -> Value {
    agent["spec"]["template"]["spec"]["volumes"] = json!([{"name": "models", "hostPath": {"path": disk}}]);
    agent
}

/// Stops both as the guide says: the controller is scaled to nothing, the agent loses its nodes.
pub async fn stop() -> Result<()> {
    kubectl(&["scale", "-n", "kserve", CONTROLLER, "--replicas=0"]).await?;
    kubectl(&["label", "nodes", "-l", NODE_LABEL, &format!("{NODE_LABEL}-")]).await?;
    until("the end of KServe's controller and agent", || async {
        let of = "control-plane in (kserve-localmodel-controller-manager,kserve-localmodelnode-agent)";
        let pods = kubectl(&["get", "pods", "-n", "kserve", "-l", of, "-o", "name"]).await?;
        Ok(pods.trim().is_empty().then_some(()))
    })
    .await
}

/// Removes all of it, as far as it is there.
pub async fn remove() -> Result<()> {
    kubectl(&["delete", "-n", "kserve", CONTROLLER, AGENT, "--ignore-not-found", "--timeout=120s"]).await?;
    kubectl(&["label", "nodes", "-l", NODE_LABEL, &format!("{NODE_LABEL}-")]).await?;
    let release = ["delete", "secret", "-n", "kserve", "-l", &format!("owner=helm,name={CHART}")];
    kubectl(&release).await?;
    let service = ["delete", "service", "localmodel-webhook-server-service", "-n", "kserve"];
    kubectl(&[&service[..], &["--ignore-not-found"]].concat()).await.map(drop)
}
