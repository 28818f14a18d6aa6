//! No token is told: neither in a log, nor in an Event, a status, a Job's specification or a metric (O4).

use std::fmt::Debug;

use anyhow::{Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, Resource, ResourceExt};
use localmodel::api::{LocalModelCache, LocalModelNamespaceCache, LocalModelNode, LocalModelNodeGroup};
use localmodel::plan::agent::{HEALTH_PORT, METRICS_PATH};
use localmodel_hub::{STRANGER_TOKEN, TOKEN};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::walkthrough::JOBS;

/// The tokens of the hub, and one that it does not accept.
const USED: [&str; 3] = [TOKEN, STRANGER_TOKEN, WRONG];
/// A token that the hub does not accept.
pub const WRONG: &str = "hf_wrong";
/// Looks at everything that tells of downloads now: what a test made goes after it.
pub async fn are_kept(client: &Client) -> Result<()> {
    objects::<Event>(Api::all(client.clone())).await?;
    objects::<LocalModelCache>(Api::all(client.clone())).await?;
    objects::<LocalModelNamespaceCache>(Api::all(client.clone())).await?;
    objects::<LocalModelNodeGroup>(Api::all(client.clone())).await?;
    objects::<LocalModelNode>(Api::all(client.clone())).await?;
    objects::<Job>(Api::namespaced(client.clone(), JOBS)).await?;
    logs(client, JOBS, "").await
}

/// Looks at what operator and agents have said so far, and at their metrics.
pub async fn are_kept_by_operator_and_agents(client: &Client) -> Result<()> {
    let ours = "app.kubernetes.io/name in (localmodel-operator,localmodel-agent)";
    logs(client, "kserve", ours).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kserve");
    for pod in pods.list(&ListParams::default().labels(ours).fields("status.phase=Running")).await? {
        let name = pod.name_any();
        let path = format!("/api/v1/namespaces/kserve/pods/{name}:{HEALTH_PORT}/proxy{METRICS_PATH}");
        let metrics = client.request_text(http::Request::get(path).body(Vec::new())?).await?;
        ensure!(metrics.contains("localmodel_"), "{name} has no metrics: {metrics}");
        told(&metrics, &format!("the metrics of {name}"))?;
    }
    Ok(())
}

async fn objects<K>(api: Api<K>) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    for object in api.list(&ListParams::default()).await? {
        let text = serde_json::to_string(&object)?;
        told(&text, &format!("{} {}", std::any::type_name::<K>(), object.name_any()))?;
    }
    Ok(())
}

async fn logs(client: &Client, namespace: &str, labels: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods.list(&ListParams::default().labels(labels)).await? {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        for container in containers.map(|container| container.name.clone()) {
            let of_container = LogParams { container: Some(container), ..LogParams::default() };
            // One that has not begun has no log, and one that has just gone no pod.
            if let Ok(log) = pods.logs(&pod.name_any(), &of_container).await {
                told(&log, &format!("the log of pod {namespace}/{}", pod.name_any()))?;
            }
        }
    }
    Ok(())
}

fn told(text: &str, place: &str) -> Result<()> {
    let lines = text.lines().filter(|line| USED.iter().any(|token| line.contains(token)));
    let lines: Vec<&str> = lines.collect();
    ensure!(lines.is_empty(), "a token is told in {place}: {lines:#?}");
    Ok(())
}
