//! The documented walkthrough: its objects word for word, and what has to be substituted where there is
//! neither the real hub nor a registry.

use anyhow::Result;
use serde_json::json;

use crate::command::{kubectl, on_node, root, run_with};
use crate::kserve::serving::until_ready;
use crate::objects::apply;
use crate::world::namespace;

pub mod printed;

/// The documented cache.
pub const CACHE: &str = "meta-llama3-8b-instruct";
/// The documented source.
pub const SOURCE: &str = "hf://meta-llama/meta-llama-3-8b-instruct";
/// The documented source's folder.
pub const KEY: &str = "c277d78a31bc6624";
/// The documented node group.
pub const GROUP: &str = "workers";
/// The documented node.
pub const NODE: &str = "kind-worker";
/// The documented service.
pub const SERVICE: &str = "huggingface-llama3";
/// A namespace for it; the documentation leaves that to its reader.
pub const SERVICES: &str = "walkthrough";
/// The namespace of download Jobs.
pub const JOBS: &str = "kserve-localmodel-jobs";

/// A documented text.
pub fn documented(name: &str) -> Result<String> {
    let path = root().join("fixtures/walkthrough").join(name);
    std::fs::read_to_string(&path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// Everything that differs from the documentation, each a text and what takes its place. `image` is ours.
pub fn substitutions(image: &str) -> Vec<(&'static str, String, &'static str)> {
    vec![
        (
            "kserve/storage-initializer:latest",
            image.to_owned(),
            "the image: ours, loaded into the nodes, because nothing can be pulled",
        ),
        (
            "HF_TOKEN: xxxx # fill in the hf hub token",
            format!("HF_TOKEN: {}", localmodel_hub::TOKEN),
            "the token: the mock hub's",
        ),
        (
            "    env:\n",
            "    env:\n    - name: HF_ENDPOINT\n      value: http://hub:8080\n".into(),
            "the hub: a container on the cluster's network",
        ),
        (
            "\"enabled\": true,",
            "\"enabled\": true, \"reconcilationFrequencyInSecs\": 5,".into(),
            "the agents' interval: a vanished folder is noticed in seconds, not in a minute",
        ),
        ("cpu: \"6\"", "cpu: 250m".into(), "the service's processors: a laptop has no six to spare"),
        ("memory: 24Gi", "memory: 64Mi".into(), "its memory: the generated weights are small"),
    ]
}

/// A documented object as it can be applied here.
pub fn object(image: &str, name: &str) -> Result<String> {
    let text = documented(name)?;
    Ok(substitutions(image).iter().fold(text, |text, (from, to, _)| text.replace(from, to)))
}

/// The ConfigMap with the documented section.
pub fn config_map(image: &str) -> Result<String> {
    let section = object(image, "inferenceservice-config.yaml")?.replace('\n', "\n  ");
    Ok(format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: inferenceservice-config\n  namespace: kserve\ndata:\n  {section}"
    ))
}

/// Gives a node the label by which the documented group finds it, and the GPUs that the documented service
/// asks for, as though it had them.
pub async fn label(node: &str) -> Result<()> {
    gpus(node, Some("8")).await?;
    kubectl(&["label", "node", node, "--overwrite", "nvidia.com/gpu-product=NVIDIA-A100-SXM4-80GB"])
        .await
        .map(drop)
}

/// Advertises so many GPUs on a node, as a device plugin does.
async fn gpus(node: &str, count: Option<&str>) -> Result<()> {
    let gpus = json!({"nvidia.com/gpu": count});
    let status = json!({"status": {"capacity": gpus, "allocatable": gpus}}).to_string();
    kubectl(&["patch", "node", node, "--subresource=status", "--type=merge", "-p", &status]).await.map(drop)
}

/// Applies the documented service in a namespace that enforces the pod security standard "restricted", and
/// waits until it is ready.
pub async fn serve(image: &str) -> Result<()> {
    apply(&namespace(SERVICES)).await?;
    let service = object(image, "inference-service.yaml")?;
    run_with("kubectl", &["apply", "-n", SERVICES, "-f", "-"], &service).await?;
    until_ready("inferenceservice", SERVICES, SERVICE).await
}

/// Deletes the documented service and waits until its pods have gone, as far as it is there.
pub async fn delete_service() -> Result<()> {
    let service =
        ["delete", "inferenceservice", SERVICE, "-n", SERVICES, "--ignore-not-found", "--timeout=180s"];
    kubectl(&service).await?;
    kubectl(&["wait", "--for=delete", "pods", "--all", "-n", SERVICES, "--timeout=180s"]).await.map(drop)
}

/// Takes everything of the walkthrough away but an empty namespace, as far as it is there.
pub async fn remove() -> Result<()> {
    delete_service().await?;
    kubectl(&["delete", "localmodelcache", CACHE, "--ignore-not-found", "--timeout=180s"]).await?;
    kubectl(&["wait", "--for=delete", "pvc", CACHE, "-n", JOBS, "--timeout=180s"]).await?;
    kubectl(&["wait", "--for=delete", "pv", &format!("{CACHE}-download"), "--timeout=180s"]).await?;
    kubectl(&["delete", "localmodelnodegroup", GROUP, "--ignore-not-found", "--timeout=180s"]).await?;
    kubectl(&["wait", "--for=delete", "pv", "workers-agent", "--timeout=180s"]).await?;
    for node in [NODE, "kind-worker2"] {
        gpus(node, None).await?;
        kubectl(&["label", "node", node, "nvidia.com/gpu-product-", &format!("localmodel.kserve.io/{KEY}-")])
            .await?;
        on_node(node, &format!("rm -rf /models/models/{KEY} /models/incoming/{KEY}")).await?;
    }
    Ok(())
}
