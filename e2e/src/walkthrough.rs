//! The documented walkthrough: its objects word for word, and what has to be substituted where there is
//! neither the real hub nor a registry.

use anyhow::Result;

use crate::command::{kubectl, on_node, root};

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

/// Gives a node the label by which the documented group finds it, as though it had that GPU.
pub async fn label(node: &str) -> Result<()> {
    kubectl(&["label", "node", node, "--overwrite", "nvidia.com/gpu-product=NVIDIA-A100-SXM4-80GB"])
        .await
        .map(drop)
}

/// Takes everything of the walkthrough away, as far as it is there.
pub async fn remove() -> Result<()> {
    kubectl(&["delete", "localmodelcache", CACHE, "--ignore-not-found", "--timeout=90s"]).await?;
    kubectl(&["wait", "--for=delete", "pvc", CACHE, "-n", JOBS, "--timeout=90s"]).await?;
    kubectl(&["wait", "--for=delete", "pv", &format!("{CACHE}-download"), "--timeout=90s"]).await?;
    kubectl(&["delete", "localmodelnodegroup", GROUP, "--ignore-not-found", "--timeout=90s"]).await?;
    kubectl(&["wait", "--for=delete", "pv", "workers-agent", "--timeout=90s"]).await?;
    for node in [NODE, "kind-worker2"] {
        kubectl(&["label", "node", node, "nvidia.com/gpu-product-", &format!("localmodel.kserve.io/{KEY}-")])
            .await?;
        on_node(node, &format!("rm -rf /models/models/{KEY} /models/incoming/{KEY}")).await?;
    }
    Ok(())
}
