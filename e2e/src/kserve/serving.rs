//! What serves: runtimes with the stub, for InferenceServices and for LLMInferenceServices.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use localmodel::plan::names::POD_MODEL;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::command::{kubectl, run_with};
use crate::setup::Setup;
use crate::world::World;

/// A service that no cache matches, for asking whether KServe's webhooks answer.
const PROBE: &str = "
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: probe, namespace: default}
spec: {predictor: {model: {modelFormat: {name: huggingface}, storageUri: 'hf://no/such'}}}
---
apiVersion: serving.kserve.io/v1alpha2
kind: LLMInferenceService
metadata: {name: probe, namespace: default}
spec: {model: {uri: 'hf://no/such'}}
";

/// Asks both controllers' webhooks; nothing is made.
pub(super) async fn probe() -> Result<()> {
    run_with("kubectl", &["create", "--dry-run=server", "-f", "-"], PROBE).await.map(drop)
}

/// The stub as a container that meets the pod security standard "restricted" by itself.
pub fn container(name: &str, image: &str, port: u16) -> Value {
    json!({
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "env": [{"name": "LISTEN", "value": format!("0.0.0.0:{port}")}],
        "ports": [{"containerPort": port, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"cpu": "1", "memory": "128Mi"},
        },
        "readinessProbe": {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1},
        "securityContext": restricted(),
    })
}

fn restricted() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": 1000,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The runtime that is found for the format `huggingface`, the preset of LLMInferenceServices, and what
/// downloads in the pods of a service that no cache matches.
pub(super) fn runtimes(setup: &Setup) -> Vec<Value> {
    let image = &setup.stub;
    let mut server = container("kserve-container", image, 8080);
    server["args"] = json!(["--model_name={{.Name}}"]);
    vec![
        json!({
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ClusterServingRuntime",
            "metadata": {"name": "localmodel-stub"},
            "spec": {
                "supportedModelFormats": [{"name": "huggingface", "version": "1", "autoSelect": true}],
                "protocolVersions": ["v1", "v2"],
                "containers": [server],
            },
        }),
        json!({
            "apiVersion": "serving.kserve.io/v1alpha2",
            "kind": "LLMInferenceServiceConfig",
            "metadata": {"name": "kserve-config-llm-template", "namespace": "kserve"},
            "spec": {"template": {"containers": [container("main", image, 8000)]}},
        }),
        json!({
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ClusterStorageContainer",
            "metadata": {"name": "hf-hub-in-the-pod"},
            "spec": {
                "workloadType": "initContainer",
                "supportedUriFormats": [{"prefix": "hf://"}],
                "container": {
                    "name": "storage-initializer",
                    "image": setup.image,
                    "env": [
                        {"name": "HF_ENDPOINT", "value": "http://hub:8080"},
                        {"name": "HF_TOKEN", "value": localmodel_hub::TOKEN},
                    ],
                    "securityContext": restricted(),
                },
            },
        }),
    ]
}

/// What a stub answers: the model as it read it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// The name under which it is served.
    pub model: String,
    /// The source that its manifest names.
    pub source: String,
    /// SHA-256 of each file, by its path.
    pub files: BTreeMap<String, String>,
}

/// Asks a service over HTTP, through the API server.
pub async fn ask(namespace: &str, service: &str, port: u16) -> Result<Answer> {
    let path = format!("/api/v1/namespaces/{namespace}/services/http:{service}:{port}/proxy/");
    let answer = kubectl(&["get", "--raw", &path]).await?;
    serde_json::from_str(&answer).with_context(|| format!("{service} answered {answer}"))
}

/// A Deployment named `plain` that serves a test's cache `m` with the stub, by our label alone.
pub fn plain_deployment(world: &World, namespace: &str, replicas: u32) -> String {
    let labels = json!({"app": "plain", POD_MODEL: world.name("m")});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "plain", "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "plain"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [container("server", &world.setup.stub, 8080)],
                },
            },
        },
    })
    .to_string()
}

/// An `InferenceService` that serves a source with the stub.
pub fn inference_service(namespace: &str, name: &str, source: &str) -> String {
    format!(
        "
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  predictor:
    terminationGracePeriodSeconds: 2
    model: {{modelFormat: {{name: huggingface}}, storageUri: '{source}'}}
"
    )
}

/// An `LLMInferenceService` that serves a source with the stub.
pub fn llm_inference_service(namespace: &str, name: &str, source: &str) -> String {
    format!(
        "
apiVersion: serving.kserve.io/v1alpha2
kind: LLMInferenceService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  model: {{uri: '{source}'}}
  template: {{terminationGracePeriodSeconds: 2}}
"
    )
}

/// Waits until a service of KServe's says that it is ready.
pub async fn until_ready(kind: &str, namespace: &str, name: &str) -> Result<()> {
    let object = format!("{kind}/{name}");
    kubectl(&["wait", "--for=condition=Ready", &object, "-n", namespace, "--timeout=180s"]).await.map(drop)
}
