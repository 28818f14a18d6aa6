//! The download Job of one model on one node, and the container that it runs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};

use super::agent::security_context;
use super::credentials::Injection;
use super::job_limits;
use super::names::{self, CacheKey, JOB_MODEL, JOB_NAMESPACE, JOB_NODE, MANAGED_BY, MANAGER, MOUNT_PATH};
use super::recipe::{Recipe, Versions};
use crate::api::storage_container::SupportedUriFormat;
use crate::api::{ClusterStorageContainer, ModelEntry, source};
use crate::config::{CaBundle, Config};
use crate::download::settings::Egress;
use crate::download::shared;

/// The volume of the cluster's own certificate authorities, under KServe's name.
const CA_VOLUME: &str = "cabundle-cert";

/// The use that a `ClusterStorageContainer` must name to be chosen for a download Job.
const WORKLOAD: &str = "localModelDownloadJob";

/// Parameters of a cache's storage that are neither credentials nor an endpoint.
const PLAIN_PARAMETERS: [&str; 3] = ["type", "region", "bucket"];

/// What a Job is made from.
#[derive(Debug)]
pub struct Download<'a> {
    /// The model.
    pub entry: &'a ModelEntry,
    /// The node group whose claim leads to the disk.
    pub group: &'a str,
    /// Whether that is the cache's first group.
    pub first: bool,
    /// The node.
    pub node: &'a str,
    /// The node's `LocalModelNode`, which owns the Job.
    pub owner: OwnerReference,
    /// The settings.
    pub config: &'a Config,
    /// The containers to choose from.
    pub containers: &'a [&'a ClusterStorageContainer],
    /// Our own image.
    pub own_image: &'a str,
    /// Whether the job namespace enforces the "restricted" pod security standard.
    pub restricted: bool,
    /// The cache's own credentials.
    pub credentials: &'a Injection,
}

/// What the Job is made from, with these versions of the secrets that it refers to.
pub fn recipe(download: &Download, versions: &Versions) -> Recipe {
    let key = source::storage_key(&download.entry.source_model_uri);
    let deadline = job_limits::deadline(download.entry.model_size);
    Recipe::new(&json!({"pod": pod(download, &key), "deadline": deadline}), versions)
}

/// The secrets of the job namespace that the Job refers to: the cache's own, and those that the storage
/// container gives to all.
pub fn secrets(download: &Download) -> BTreeSet<String> {
    let container = container(download, &source::storage_key(&download.entry.source_model_uri));
    let from = |list: &str, path: &str| -> Vec<String> {
        let items = container[list].as_array().into_iter().flatten();
        items.filter_map(|item| item.pointer(path)?.as_str().map(Into::into)).collect()
    };
    let of_variables = [from("env", "/valueFrom/secretKeyRef/name"), from("envFrom", "/secretRef/name")];
    let of_files = download.credentials.volumes.values().map(|files| files.secret.clone());
    of_variables.into_iter().flatten().chain(of_files).collect()
}

/// Whether the Job runs our own downloader, which alone is believed what it writes down of a copy.
pub fn is_ours(download: &Download) -> bool {
    let container = container(download, &source::storage_key(&download.entry.source_model_uri));
    container["image"] == json!(download.own_image) && container["command"].is_null()
}

/// The credentials that a cache may bring to a hub without a say in which hub that is.
const ONLY_CREDENTIALS: [&str; 1] = ["HF_TOKEN"];

/// Whether files of another area's copy may be put before the Job, to become a copy once the source has shown the Job
/// that it may have them. That is worth no more than whoever answers for the source: it has to be a hub that the
/// platform chose, in the storage container or by default, and that tells SHA-256 digests. A cache that brings an
/// endpoint, a configuration or files of its own could answer itself.
pub fn may_borrow(download: &Download) -> bool {
    let brings_only_credentials =
        download.credentials.variables.keys().all(|name| ONLY_CREDENTIALS.contains(&name.as_str()));
    is_ours(download)
        && download.entry.source_model_uri.starts_with("hf://")
        && brings_only_credentials
        && download.credentials.volumes.is_empty()
}

/// The Job that fetches the model into `incoming/K` of the node's disk.
pub fn job(download: &Download, recipe: &Recipe, name: &str) -> Result<Job, serde_json::Error> {
    let entry = download.entry;
    let key = source::storage_key(&entry.source_model_uri);
    let labels = labels(download, &key);
    let full_names = names::full_names(&[
        (JOB_MODEL, &entry.model_name),
        (JOB_NODE, download.node),
        (names::NODE_GROUP, download.group),
    ]);
    let mut annotations = full_names.unwrap_or_default();
    annotations.insert(names::RECIPE.to_owned(), recipe.to_string());
    let policy = json!({"rules": [
        // A pod that is drained or preempted says nothing about the download: Kubernetes tries again.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]});
    serde_json::from_value(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": download.config.job_namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [download.owner],
        },
        "spec": {
            // The downloader retries what passes by itself, and the agent retries the rest with back-off.
            "backoffLimit": 0,
            "parallelism": 1,
            "completions": 1,
            "activeDeadlineSeconds": job_limits::deadline(entry.model_size),
            "podFailurePolicy": policy,
            "ttlSecondsAfterFinished": download.config.job_ttl_seconds,
            "template": {"metadata": {"labels": labels}, "spec": pod(download, &key)},
        },
    }))
}

fn labels(download: &Download, key: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (MANAGED_BY.to_owned(), MANAGER.to_owned()),
        (names::NODE_GROUP.to_owned(), names::label_value(download.group)),
        (names::STORAGE_KEY.to_owned(), key.to_owned()),
        (JOB_MODEL.to_owned(), names::label_value(&download.entry.model_name)),
        (JOB_NODE.to_owned(), names::label_value(download.node)),
    ]);
    if let Some(namespace) = download.entry.namespace() {
        labels.insert(JOB_NAMESPACE.to_owned(), namespace.to_owned());
    }
    labels
}

fn pod(download: &Download, key: &str) -> Value {
    let config = download.config;
    let container = container(download, key);
    let ours = container["image"] == json!(download.own_image);
    let mut security = security_context(config);
    if let Some(security) = security.as_object_mut().filter(|_| !ours) {
        // Another initializer's image says itself which user it needs.
        security.retain(|field, _| {
            field.starts_with("fsGroup")
                || field == "seccompProfile"
                || (field == "runAsNonRoot" && download.restricted)
        });
    }
    let model = json!({"name": names::MODEL_VOLUME, "persistentVolumeClaim": {"claimName": claim(download)}});
    // Where the ConfigMap is missing, downloads that need none of these authorities go on.
    let bundle = config
        .ca_bundle
        .as_ref()
        .map(|bundle| json!({"name": CA_VOLUME, "configMap": {"name": bundle.config_map, "optional": true}}));
    let volumes = [model].into_iter().chain(download.credentials.pod_volumes()).chain(bundle);
    let volumes: Vec<Value> = volumes.collect();
    let mut pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [download.node]}]},
        ]}}},
        "securityContext": security,
        "tolerations": config.pod.tolerations,
        "imagePullSecrets": config.pod.image_pull_secrets,
        "containers": [container],
        "volumes": volumes,
    });
    if let Some(class) = &config.pod.priority_class_name {
        pod["priorityClassName"] = json!(class);
    }
    pod
}

/// The claim through which the Job reaches the disk.
pub fn claim(download: &Download) -> String {
    names::download_claim(&CacheKey::of(download.entry), download.group, download.first)
}

fn container(download: &Download, key: &str) -> Value {
    let uri = &download.entry.source_model_uri;
    let template = choose(download.containers, uri).map(|chosen| chosen.spec.spec.container.clone());
    let mut container =
        json!(template.unwrap_or_else(|| default_container(download.config, download.own_image)));
    container["args"] = json!([names::literal(uri), MOUNT_PATH]);
    let model = json!({"name": names::MODEL_VOLUME, "mountPath": MOUNT_PATH, "subPath": format!("{}/{key}", names::INCOMING)});
    let bundle = download.config.ca_bundle.as_ref();
    let mount = bundle.map(|b| json!({"name": CA_VOLUME, "mountPath": b.folder, "readOnly": true}));
    let mounts = [model].into_iter().chain(download.credentials.mounts()).chain(mount);
    container["volumeMounts"] = mounts.collect();
    inject(download.credentials, &mut container);
    if let Some(bundle) = bundle {
        tell_of_authorities(bundle, &mut container);
    }
    if download.entry.namespace().is_some() {
        narrow(download, &mut container);
    }
    if let Some(size) = download.entry.model_size.filter(|_| container["image"] == json!(download.own_image))
    {
        control(&mut container, &[(job_limits::MOST_BYTES, job_limits::most_bytes(size).to_string())]);
    }
    if container["terminationMessagePolicy"].is_null() {
        container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    }
    job_limits::complete(&mut container, &download.config.job_resources);
    let security = &mut container["securityContext"];
    // The API server refuses a privileged container that may not escalate.
    if security["allowPrivilegeEscalation"].is_null() && security["privileged"] != json!(true) {
        security["allowPrivilegeEscalation"] = json!(false);
    }
    if security["capabilities"].is_null() {
        security["capabilities"] = json!({"drop": ["ALL"]});
    }
    container
}

/// A variable of the cache's own takes the place of the storage container's.
fn inject(credentials: &Injection, container: &mut Value) {
    if credentials.variables.is_empty() {
        return;
    }
    let is_replaced = |variable: &Value| {
        variable["name"].as_str().is_some_and(|name| credentials.variables.contains_key(name))
    };
    let theirs = container["env"].as_array().cloned().unwrap_or_default();
    let kept = theirs.into_iter().filter(|variable| !is_replaced(variable));
    container["env"] = kept.chain(credentials.env()).collect();
}

/// Keeps a download that a tenant has chosen to what is the tenant's or public. The downloader is told which variables
/// are the cache's, and what it may connect to; what the storage container says of that itself stays. A credential of
/// the container's that gives way to the cache's own is not there at all, whatever image downloads.
fn narrow(download: &Download, container: &mut Value) {
    let of_cache: Vec<&str> = download.credentials.variables.keys().map(String::as_str).collect();
    let parameters = download.entry.storage.as_ref().and_then(|storage| storage.parameters.as_ref());
    let is_manner =
        parameters.is_some_and(|all| all.keys().all(|key| PLAIN_PARAMETERS.contains(&key.as_str())));
    let brought = of_cache.iter().copied().filter(|name| !(is_manner && *name == "STORAGE_OVERRIDE_CONFIG"));
    let own = shared::stores_of(brought);
    let egress = &download.config.egress;
    let said = |allowed: bool| if allowed { "allow" } else { "refuse" }.to_owned();
    let mut variables = container["env"].as_array().cloned().unwrap_or_default();
    variables.retain(|variable| {
        let name = variable["name"].as_str().unwrap_or_default();
        let is_ours = [shared::CACHE_VARIABLES, shared::PLATFORM_ENDPOINTS].contains(&name);
        !is_ours && (of_cache.contains(&name) || !shared::gives_way(name, &own))
    });
    let is_said = |name: &str| variables.iter().any(|variable| variable["name"] == name);
    let settings =
        [(Egress::INTERNAL_ADDRESSES, egress.internal_addresses), (Egress::PLAIN_HTTP, egress.plain_http)];
    let settings = settings.into_iter().filter(|(name, _)| !is_said(name));
    let mut controls: Vec<(&str, String)> = settings.map(|(name, allowed)| (name, said(allowed))).collect();
    let endpoint = download.config.credentials.s3.endpoint_url();
    controls.extend(endpoint.map(|endpoint| (shared::PLATFORM_ENDPOINTS, endpoint)));
    controls.push((shared::CACHE_VARIABLES, of_cache.join(",")));
    container["env"] = json!(variables);
    control(container, &controls);
}

/// Sets variables of our own downloader, last and in place of all others of their names: nothing that a cache, its
/// credentials or a storage container brings overrides them.
fn control(container: &mut Value, controls: &[(&str, String)]) {
    let is_control = |variable: &Value| controls.iter().any(|(name, _)| variable["name"] == *name);
    let mut variables = container["env"].as_array().cloned().unwrap_or_default();
    variables.retain(|variable| !is_control(variable));
    variables.extend(controls.iter().map(|(name, value)| json!({"name": name, "value": value})));
    container["env"] = json!(variables);
}

/// Says where the cluster's own certificate authorities are, in the variables that KServe's initializer reads;
/// what the storage container says itself stays.
fn tell_of_authorities(bundle: &CaBundle, container: &mut Value) {
    let mut variables = container["env"].as_array().cloned().unwrap_or_default();
    for (name, value) in
        [("CA_BUNDLE_CONFIGMAP_NAME", &bundle.config_map), ("CA_BUNDLE_VOLUME_MOUNT_POINT", &bundle.folder)]
    {
        if variables.iter().all(|variable| variable["name"] != name) {
            variables.push(json!({"name": name, "value": value}));
        }
    }
    container["env"] = json!(variables);
}

fn default_container(config: &Config, own_image: &str) -> Container {
    let configured = config.default_job_image.as_deref().filter(|image| !image.is_empty());
    let image = configured.or(config.storage_initializer_image.as_deref()).unwrap_or(own_image);
    Container { name: names::JOB_CONTAINER.into(), image: Some(image.into()), ..Container::default() }
}

/// The container for a URI: enabled, for download Jobs, supporting the URI; the first by name (K1).
pub fn choose<'a>(
    containers: &[&'a ClusterStorageContainer],
    uri: &str,
) -> Option<&'a ClusterStorageContainer> {
    containers
        .iter()
        .filter(|c| c.spec.disabled != Some(true) && c.spec.spec.workload_type.as_deref() == Some(WORKLOAD))
        .filter(|c| c.spec.spec.supported_uri_formats.iter().any(|format| supports(format, uri)))
        .min_by_key(|c| c.name_any())
        .copied()
}

/// An invalid expression supports nothing: it must not take other containers down with it.
fn supports(format: &SupportedUriFormat, uri: &str) -> bool {
    match (format.prefix.as_deref(), format.regex.as_deref()) {
        (Some(prefix), _) if !prefix.is_empty() => uri.starts_with(prefix),
        (_, Some(regex)) if !regex.is_empty() => compiled(regex).is_ok_and(|regex| regex.is_match(uri)),
        _ => false,
    }
}

/// The most bytes that a compiled expression may take. What takes more is slow to compile, too, and the thread does
/// nothing else meanwhile.
const EXPRESSION: usize = 4 << 20;
/// The most expressions that are kept compiled.
const KEPT: usize = 64;

thread_local! {
    /// What was compiled before: each look at a cache asks for the same few expressions, once for every cache, and
    /// one that takes a tenth of a second held up everything when it was compiled each time.
    static COMPILED: RefCell<HashMap<String, Result<Regex, String>>> = RefCell::default();
}

/// An expression, or what is wrong with it.
fn compiled(expression: &str) -> Result<Regex, String> {
    COMPILED.with_borrow_mut(|kept| {
        if let Some(found) = kept.get(expression) {
            return found.clone();
        }
        let made =
            RegexBuilder::new(expression).size_limit(EXPRESSION).build().map_err(|why| why.to_string());
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(expression.to_owned(), made.clone());
        made
    })
}

/// What is wrong with a container's expressions, each of which counts as if it were not there (K1).
pub fn invalid_formats(container: &ClusterStorageContainer) -> Vec<String> {
    let formats = container.spec.spec.supported_uri_formats.iter();
    let expressions = formats
        .filter(|format| format.prefix.as_deref().is_none_or(str::is_empty))
        .filter_map(|format| format.regex.as_deref());
    let told = |expression: &str| {
        let why = compiled(expression).err()?;
        let why = why.lines().last().unwrap_or_default();
        Some(format!("the expression {expression:?} in supportedUriFormats is left out: {why}"))
    };
    expressions.filter_map(told).collect()
}

#[cfg(test)]
mod tests;
