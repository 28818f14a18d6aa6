//! How long `localmodel status` takes at 1,000 nodes with 100 caches on each, on a real API server, beside what one
//! would ask `kubectl` for the same facts.
//!
//!     just bench-status

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use localmodel::api::{LocalModelCache, LocalModelNode};
use localmodel_e2e::sweep::control_plane::ControlPlane;
use serde_json::{Value, json};

const CACHES: usize = 100;
const NODES: usize = 1000;
/// Looks of each kind.
const LOOKS: usize = 11;
/// Objects that are made at the same time.
const AT_ONCE: usize = 8;
const GIB: i64 = 1 << 30;

#[tokio::main]
async fn main() -> Result<()> {
    let binary = std::env::args().nth(1).context("the binary to measure is the first argument")?;
    let folder = tempfile::tempdir()?;
    let control_plane = ControlPlane::start(folder.path()).await?;
    fill(&control_plane.client).await?;
    let kubeconfig = folder.path().join("kubeconfig");
    println!("{:62} median     most", "what");
    let one = cache_name(0);
    measure(&kubeconfig, &[&binary, "status"])?;
    measure(&kubeconfig, &[&binary, "status", &one])?;
    measure(&kubeconfig, &["kubectl", "get", "localmodelcaches", "-o", "json"])?;
    measure(&kubeconfig, &["kubectl", "get", "localmodelcaches,localmodelnodes", "-o", "json"])
}

fn measure(kubeconfig: &Path, command: &[&str]) -> Result<()> {
    let mut times: Vec<Duration> = (0..LOOKS).map(|_| look(kubeconfig, command)).collect::<Result<_>>()?;
    times.sort();
    let name = command[0].rsplit('/').next().unwrap_or_default();
    let what = format!("{name} {}", command[1..].join(" "));
    println!("{what:60} {:6.2} s {:6.2} s", times[LOOKS / 2].as_secs_f64(), times[LOOKS - 1].as_secs_f64());
    Ok(())
}

fn look(kubeconfig: &Path, command: &[&str]) -> Result<Duration> {
    let mut process = Command::new(command[0]);
    process.args(&command[1..]).env("KUBECONFIG", kubeconfig).stdout(Stdio::piped());
    let begun = Instant::now();
    let output = process.output().with_context(|| format!("running {}", command[0]))?;
    // No operator runs here, which the command says by its exit code.
    ensure!(output.status.code().is_some() && !output.stdout.is_empty(), "{command:?} failed");
    Ok(begun.elapsed())
}

/// Caches in trouble of every kind, and the nodes' own words on them.
async fn fill(client: &Client) -> Result<()> {
    let caches: Api<LocalModelCache> = Api::all(client.clone());
    let nodes: Api<LocalModelNode> = Api::all(client.clone());
    let made = stream::iter(0..CACHES).map(|number| {
        let caches = caches.clone();
        async move {
            let name = cache_name(number);
            let source = format!("hf://acme/{name}");
            let spec = json!({"sourceModelUri": source, "modelSize": "8Gi", "nodeGroups": ["workers"]});
            let cache = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
            caches.create(&PostParams::default(), &cache).await?;
            let copies: serde_json::Map<String, Value> =
                (0..NODES).map(|node| (node_name(node), copy(number, node))).collect();
            let phases: serde_json::Map<String, Value> =
                copies.iter().map(|(node, copy)| (node.clone(), copy["phase"].clone())).collect();
            let status = json!({"status": {"nodes": copies, "nodeStatus": phases}});
            caches.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
            Ok::<_, anyhow::Error>(())
        }
    });
    made.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
    let made = stream::iter(0..NODES).map(|number| {
        let nodes = nodes.clone();
        async move {
            let name = node_name(number);
            let entries: Vec<Value> = (0..CACHES).map(entry).collect();
            let node = json!({"metadata": {"name": name}, "spec": {"localModels": entries}});
            nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
            let said: serde_json::Map<String, Value> =
                (0..CACHES).map(|cache| (cache_name(cache), detail(cache, number))).collect();
            let status = json!({"status": {"models": said}});
            nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
            Ok::<_, anyhow::Error>(())
        }
    });
    made.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await.map(drop)
}

fn cache_name(number: usize) -> String {
    format!("a-model-with-a-long-name-{number:03}")
}

fn node_name(number: usize) -> String {
    format!("node-{number:04}.example.internal")
}

fn entry(cache: usize) -> Value {
    let name = cache_name(cache);
    json!({"sourceModelUri": format!("hf://acme/{name}"), "modelName": name})
}

/// What a node says of a copy: three caches of ten are in trouble on some nodes.
fn detail(cache: usize, node: usize) -> Value {
    let times = json!({"started": "2026-01-02T03:00:00Z", "finished": "2026-01-02T03:10:00Z"});
    let (reason, message) = match (cache % 10 < 3, node) {
        (true, 0..100) => ("SourceUnavailable", "https://hub: answered 503 (tried 8 times)"),
        (true, 100..150) => ("Unschedulable", "0/1000 nodes are available: 1 Insufficient cpu"),
        (true, 150..200) => {
            return json!({"bytesDone": GIB, "bytesTotal": 8 * GIB, "started": times["started"]});
        }
        _ => {
            let mut whole =
                json!({"bytesDone": 8 * GIB, "bytesTotal": 8 * GIB, "filesDone": 12, "filesTotal": 12});
            whole["started"] = times["started"].clone();
            whole["finished"] = times["finished"].clone();
            return whole;
        }
    };
    json!({"reason": reason, "message": message, "attempts": 3, "nextTry": "2026-01-02T04:00:00Z"})
}

/// The same as the cache's status has it.
fn copy(cache: usize, node: usize) -> Value {
    let mut copy = detail(cache, node);
    copy["phase"] = json!(match (cache % 10 < 3, node) {
        (true, 0..100) => "NodeDownloadError",
        (true, 100..150) => "NodeDownloadPending",
        (true, 150..200) => "NodeDownloading",
        _ => "NodeDownloaded",
    });
    let of_node = ["attempts", "nextTry"];
    copy.as_object_mut().into_iter().for_each(|copy| copy.retain(|key, _| !of_node.contains(&key.as_str())));
    copy
}
