//! What the container of a pod is run with: its folder on the disk, its arguments and variables; and the run of a
//! download.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{EnvVarSource, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::oneshot;

use super::objects::DISK;

/// A container that can start.
pub struct Container {
    /// The folder that it has mounted.
    pub folder: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its variables.
    pub variables: Vec<(String, String)>,
}

/// The node that a pod's affinity names.
pub fn named_node(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == "metadata.name").flat_map(|field| field.values.iter());
    names.next()?.first().cloned()
}

/// What the first container of a pod is run with: nothing while its claim is not bound, or what it waits for in the
/// kubelet's words.
pub async fn container(
    client: &Client,
    disks: &Path,
    pod: &Pod,
    node: &str,
) -> Result<Result<Option<Container>, String>> {
    let Some(volume) = volume(client, pod).await? else { return Ok(Ok(None)) };
    let spec = pod.spec.as_ref().context("a spec")?;
    let container = spec.containers.first().context("a container")?;
    let mount = container.volume_mounts.iter().flatten().next().context("a mount")?;
    let below = volume.strip_prefix(DISK).with_context(|| format!("{volume} is not on the disk"))?;
    let mut folder = disks.join(node).join(below.trim_start_matches('/'));
    folder.push(mount.sub_path.as_deref().unwrap_or_default());
    let mut variables = Vec::new();
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => value.clone(),
            (None, Some(source)) => match reference(client, pod, node, source).await? {
                Ok(value) => value,
                Err(message) => return Ok(Err(message)),
            },
            (None, None) => continue,
        };
        variables.push((variable.name.clone(), value));
    }
    Ok(Ok(Some(Container { folder, arguments: container.args.clone().unwrap_or_default(), variables })))
}

/// The path of the volume behind the pod's claim, once it is bound.
async fn volume(client: &Client, pod: &Pod) -> Result<Option<String>> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut claims =
        volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone()));
    let name = claims.next().context("a claim")?;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let Some(claim) = claims.get_opt(&name).await? else { return Ok(None) };
    let is_bound = claim.status.is_some_and(|status| status.phase.as_deref() == Some("Bound"));
    let Some(volume) = claim.spec.and_then(|spec| spec.volume_name).filter(|_| is_bound) else {
        return Ok(None);
    };
    let volume = Api::<PersistentVolume>::all(client.clone()).get_opt(&volume).await?;
    Ok(volume.and_then(|volume| Some(volume.spec?.local?.path)))
}

/// What a variable refers to, or why its container cannot start.
async fn reference(
    client: &Client,
    pod: &Pod,
    node: &str,
    source: &EnvVarSource,
) -> Result<Result<String, String>> {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return Ok(Ok(match field.field_path.as_str() {
            "spec.nodeName" => node.to_owned(),
            _ => namespace,
        }));
    }
    let wanted = source.secret_key_ref.as_ref().context("a variable refers to a field or a secret")?;
    let secret = Api::<Secret>::namespaced(client.clone(), &namespace).get_opt(&wanted.name).await?;
    let Some(secret) = secret else { return Ok(Err(format!("secret \"{}\" not found", wanted.name))) };
    let value = secret.data.and_then(|mut data| data.remove(&wanted.key));
    Ok(match value {
        Some(value) => Ok(String::from_utf8(value.0)?),
        None => Err(format!("couldn't find key {} in Secret {namespace}/{}", wanted.key, wanted.name)),
    })
}

/// Runs our own downloader; returns how it ended as a container's status has it, or nothing when it was killed.
pub async fn download(
    program: &Path,
    container: &Container,
    stopped: oneshot::Receiver<()>,
) -> Result<Option<Value>> {
    let source = container.arguments.first().context("a source")?;
    std::fs::create_dir_all(&container.folder)?;
    let message = tempfile::NamedTempFile::new()?;
    let mut child = Command::new(program)
        .args(["download", source])
        .arg(&container.folder)
        .envs(container.variables.iter().cloned())
        .env("TERMINATION_LOG", message.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let status = tokio::select! {
        status = child.wait() => status?,
        _ = stopped => {
            child.kill().await?;
            return Ok(None);
        }
    };
    let code = status.code().unwrap_or(137);
    let reason = if code == 0 { "Completed" } else { "Error" };
    Ok(Some(json!({
        "exitCode": code,
        "reason": reason,
        "message": std::fs::read_to_string(message.path())?,
    })))
}
