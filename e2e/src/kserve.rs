//! KServe itself beside us: its manager and its controller of LLMInferenceServices, with its definitions
//! and settings, and a runtime that serves with our stub. Its local-model controller and agent are left
//! out, because ours take their place; the tests of the takeover bring them ([`local_model`]).

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::{apply_as, kubectl, run};
use crate::setup::Setup;
use crate::wait::until;

mod certificate;
pub mod local_model;
mod manifests;
pub mod serving;
mod settings;

use certificate::Certificate;
use manifests::{part, with_image};

/// Who applies what is KServe's: another than who applies what is ours, so that neither takes the
/// other's fields away, in the ConfigMap that both share least of all.
const MANAGER: &str = "kserve";
/// Where what is installed is written down.
const MARKER: &str = "localmodel-e2e-kserve";
/// The part of the manifests and the command of each Deployment.
const DEPLOYMENTS: [(&str, &str, &str); 2] = [
    ("default", "manager", "kserve-controller-manager"),
    ("llmisvc", "llmisvc", "llmisvc-controller-manager"),
];

/// Brings KServe up, or leaves it as it is when it is what it should be.
pub(crate) async fn install(setup: &Setup) -> Result<()> {
    let folder = folder().await?;
    let rest = [settings::config_map(&folder, &setup.image)?, serving::runtimes(setup)].concat();
    let marker = marker(&folder, &rest);
    if installed().await.ok().as_deref() != Some(&marker) {
        install_anew(&folder, rest).await?;
        let written = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": MARKER, "namespace": "kserve"},
            "data": {"version": marker},
        });
        apply_as(MANAGER, &written.to_string()).await?;
    }
    for (_, _, deployment) in DEPLOYMENTS {
        let rollout = format!("deployment/{deployment}");
        kubectl(&["rollout", "status", "-n", "kserve", &rollout, "--timeout=180s"]).await?;
    }
    Ok(())
}

/// What is installed, as it was written down when it was complete.
async fn installed() -> Result<String> {
    kubectl(&["get", "configmap", MARKER, "-n", "kserve", "-o", "jsonpath={.data.version}"]).await
}

/// Changes with what would be installed: the folder's name has the digest of the module's version, and
/// this program that of everything that is done here.
fn marker(folder: &str, rest: &[Value]) -> String {
    let mut hash = DefaultHasher::new();
    for value in rest {
        value.to_string().hash(&mut hash);
    }
    for source in [
        include_str!("kserve.rs"),
        include_str!("kserve/certificate.rs"),
        include_str!("kserve/manifests.rs"),
    ] {
        source.hash(&mut hash);
    }
    format!("{}-{:016x}", folder.rsplit('/').next().unwrap_or_default(), hash.finish())
}

async fn install_anew(folder: &str, rest: Vec<Value>) -> Result<()> {
    let certificate = Certificate::in_cluster().await?;
    define_for(folder, &certificate).await?;
    let mut objects = certificate.secrets();
    let (settings, runtimes): (Vec<_>, Vec<_>) = rest.into_iter().partition(|o| o["kind"] == "ConfigMap");
    objects.extend(settings);
    for (name, command, _) in DEPLOYMENTS {
        let image = load(folder, command).await?;
        objects.extend(certificate.with_bundle(with_image(part(folder, name)?.objects, &image)?));
    }
    apply_as(MANAGER, &list(&objects)).await.context("KServe's controllers")?;
    // A controller that is Ready still refuses connections for a moment.
    until("KServe's webhooks", || async { apply_as(MANAGER, &list(&runtimes)).await.map(Some) }).await?;
    until("KServe's defaulting", || async { serving::probe().await.map(Some) }).await
}

/// Defines KServe's kinds, as far as they are not there.
pub async fn define() -> Result<()> {
    define_for(&folder().await?, &Certificate::in_cluster().await?).await
}

async fn define_for(folder: &str, certificate: &Certificate) -> Result<()> {
    let mut definitions = Vec::new();
    for (name, ..) in DEPLOYMENTS {
        // Ours stand in for KServe's where both have a kind.
        definitions.extend(part(folder, name)?.definitions.into_iter().filter(|d| !manifests::is_ours(d)));
    }
    apply_as(MANAGER, &definitions.join("\n---\n")).await.context("KServe's definitions")?;
    certificate.put_in_conversions().await
}

/// The folder of KServe's commands and manifests, which `hack/cluster up` made.
async fn folder() -> Result<String> {
    Ok(run("hack/cluster", &["kserve"]).await?.trim().to_owned())
}

/// The image of one of KServe's commands, on every node.
async fn load(folder: &str, command: &str) -> Result<String> {
    let binary = format!("{folder}/{command}");
    let image = run("hack/image", &[&format!("kserve-{command}"), &binary]).await?.trim().to_owned();
    run("hack/cluster", &["load", &image]).await?;
    Ok(image)
}

/// Several objects as one.
fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// A file of KServe's folder.
fn readable(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{path}: run `hack/cluster up`"))
}
