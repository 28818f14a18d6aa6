//! What a cluster holds, without what differs from run to run: objects, files on the disks, downloads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use localmodel::plan::names::{APPLIED, RECIPE, WEBHOOK_SECRET};
use serde_json::{Map, Value, json};

use super::cluster::Cluster;
use super::objects::NODES;

/// Each object by its kind, namespace and name; each disk and its downloads by its node.
pub type State = BTreeMap<String, Value>;

/// The kinds that count, and where they are.
const KINDS: [(&str, &str); 12] = [
    ("DaemonSet", "/apis/apps/v1/daemonsets"),
    ("Job", "/apis/batch/v1/jobs"),
    ("LocalModelCache", "/apis/serving.kserve.io/v1alpha1/localmodelcaches"),
    ("LocalModelNamespaceCache", "/apis/serving.kserve.io/v1alpha1/localmodelnamespacecaches"),
    ("LocalModelNode", "/apis/serving.kserve.io/v1alpha1/localmodelnodes"),
    ("LocalModelNodeGroup", "/apis/serving.kserve.io/v1alpha1/localmodelnodegroups"),
    ("Node", "/api/v1/nodes"),
    ("PersistentVolume", "/api/v1/persistentvolumes"),
    ("PersistentVolumeClaim", "/api/v1/persistentvolumeclaims"),
    ("Pod", "/api/v1/pods"),
    ("Secret", "/api/v1/secrets"),
    ("InferenceService", "/apis/serving.kserve.io/v1beta1/inferenceservices"),
];

/// Fields that count writes, and annotations that are digests of uids.
const COUNTERS: [&str; 7] = [
    "resourceVersion",
    "generation",
    "observedGeneration",
    "managedFields",
    "deprecated.daemonset.template.generation",
    APPLIED,
    RECIPE,
];

/// Looks at everything.
pub async fn look(cluster: &Cluster) -> Result<State> {
    let mut state = State::new();
    for (kind, path) in KINDS {
        for mut object in cluster.list(path).await? {
            shorten(kind, &mut object);
            let name = match kind {
                "Pod" => pod_name(&object),
                _ => full_name(&object),
            };
            let mut key = format!("{kind} {name}");
            while state.contains_key(&key) {
                key += ", another";
            }
            state.insert(key, timeless(object));
        }
    }
    let downloads = cluster.record().downloads;
    for node in NODES {
        let mut files = Vec::new();
        list(&cluster.disk(node), "", &mut files)?;
        files.sort();
        state.insert(format!("Disk {node}"), json!(files));
        let mut sources = downloads.get(node).cloned().unwrap_or_default();
        sources.sort();
        state.insert(format!("Downloads {node}"), json!(sources));
    }
    Ok(state)
}

fn full_name(object: &Value) -> String {
    let part = |name: &str| object["metadata"][name].as_str().map(str::to_owned);
    part("namespace").into_iter().chain(part("name")).collect::<Vec<_>>().join("/")
}

/// A pod's own name is made up: its owner and its node say which it is.
fn pod_name(pod: &Value) -> String {
    let owner = &pod["metadata"]["ownerReferences"][0];
    let parts = [&owner["kind"], &owner["name"], &pod["spec"]["nodeName"]];
    let [kind, name, node] = parts.map(|part| part.as_str().unwrap_or("nothing"));
    format!("of {kind} {name} on {node}")
}

/// Leaves of an object what we have a say in.
fn shorten(kind: &str, object: &mut Value) {
    match kind {
        "Node" => {
            *object = json!({"metadata": {
                "name": object["metadata"]["name"], "labels": object["metadata"]["labels"],
            }});
        }
        "Pod" => {
            *object = json!({
                "metadata": {
                    "ownerReferences": object["metadata"]["ownerReferences"],
                    "deletionTimestamp": object["metadata"]["deletionTimestamp"],
                },
                "spec": {"nodeName": object["spec"]["nodeName"]},
                "status": {"phase": object["status"]["phase"]},
            });
        }
        "LocalModelNode" => {
            // The room on the machine that the test runs on.
            let disks = object["status"]["disks"].as_object_mut();
            for disk in disks.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
                disk.retain(|field, _| !matches!(field.as_str(), "capacity" | "free"));
            }
            if let Some(summary) = object["status"]["summary"].as_object_mut() {
                summary.remove("free");
            }
        }
        "Secret" if object["metadata"]["name"] == WEBHOOK_SECRET => {
            let data = object["data"].as_object_mut();
            data.into_iter().flat_map(Map::values_mut).for_each(|value| *value = json!("made anew"));
        }
        _ => {}
    }
}

/// A value without counters, and with one time and one uid for all.
fn timeless(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .into_iter()
                .filter(|(name, value)| !COUNTERS.contains(&name.as_str()) && !value.is_null());
            kept.map(|(name, value)| (name, timeless(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(timeless).collect(),
        Value::String(text) if text.parse::<Timestamp>().is_ok() => json!("<time>"),
        Value::String(text) if is_uid(&text) => json!("<uid>"),
        other => other,
    }
}

fn is_uid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

/// The files of a disk with their sizes; of what the downloader and the agent note, the names alone.
fn list(folder: &Path, below: &str, files: &mut Vec<String>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{below}/{}", entry.file_name().to_string_lossy());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            list(&entry.path(), &name, files)?;
        } else if name.contains("/.localmodel/") || name.starts_with("/gate/") || name.contains("/gate/") {
            files.push(name);
        } else {
            files.push(format!("{name} {}", meta.len()));
        }
    }
    Ok(())
}

/// What is in one state and not in the other, line by line; empty when they are equal.
pub fn difference(wanted: &State, found: &State) -> String {
    let mut text = String::new();
    let keys: std::collections::BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    for key in keys {
        let (wanted, found) = (wanted.get(key), found.get(key));
        if wanted == found {
            continue;
        }
        let lines = |value: Option<&Value>| -> Vec<String> {
            let text = value.map(|value| format!("{value:#}")).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        };
        let (wanted, found) = (lines(wanted), lines(found));
        let _ = writeln!(text, "{key}");
        let missing = wanted.iter().filter(|line| !found.contains(line)).map(|line| ("missing", line));
        let more = found.iter().filter(|line| !wanted.contains(line)).map(|line| ("too much", line));
        for (what, line) in missing.chain(more).take(40) {
            let _ = writeln!(text, "    {what}: {}", line.trim());
        }
    }
    text
}
