//! KServe's part of the ConfigMap that we share with it: everything but the section `localModel`, which
//! the walkthrough documents.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::readable;

/// KServe's ConfigMap, for plain Deployments without an ingress. Pods without a cache download with our
/// image, since nothing can be pulled.
pub(super) fn config_map(folder: &str, image: &str) -> Result<Vec<Value>> {
    let mut map: Value = serde_saphyr::from_str(&readable(&format!("{folder}/configmap.yaml"))?)?;
    let sections = map["data"].as_object_mut().context("the ConfigMap's data")?;
    sections.remove("_example");
    sections.remove("localModel");
    let changes = [
        ("deploy", json!({"defaultDeploymentMode": "Standard"})),
        ("ingress", json!({"disableIngressCreation": true})),
        ("storageInitializer", json!({"image": image, "cpuRequest": "10m", "memoryRequest": "32Mi"})),
        (
            "inferenceService",
            json!({"resource": {"cpuRequest": "10m", "memoryRequest": "16Mi", "cpuLimit": "1", "memoryLimit": "128Mi"}}),
        ),
    ];
    for (name, change) in changes {
        let section = sections.get_mut(name).with_context(|| format!("section {name}"))?;
        let text = section.as_str().with_context(|| format!("section {name}"))?;
        let mut value: Value = serde_json::from_str(text).with_context(|| format!("section {name}"))?;
        for (key, changed) in change.as_object().into_iter().flatten() {
            value[key] = changed.clone();
        }
        *section = value.to_string().into();
    }
    Ok(vec![map])
}
