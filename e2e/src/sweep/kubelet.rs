//! A kubelet for all nodes, as far as our pods need one: it binds a pod to the node that its affinity names, waits
//! for its claim, runs its process on the folder that stands for the node's disk, and says how it fares.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use localmodel::plan::agent::AGENT_PODS;
use localmodel::watch::{Change, Watch, watch};
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::component::{Call, Component};
use super::node_work::{self, Container};

/// When it looks again although nothing changed: a claim may have been bound.
const TICK: Duration = Duration::from_millis(200);

/// What the kubelet works with.
pub struct Kubelet {
    /// A client for everything.
    pub client: Client,
    /// The agent of each node.
    pub agents: BTreeMap<String, Arc<Component>>,
    /// Each node's disk is a folder in this one.
    pub disks: PathBuf,
    /// Our own command, which Jobs run.
    pub program: PathBuf,
    /// What Jobs have downloaded, by node, in order; and what could not be done.
    pub record: Mutex<Record>,
}

/// What the kubelet did.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The sources that Jobs were started for, by node.
    pub downloads: BTreeMap<String, Vec<String>>,
    /// What went wrong, for a failed run.
    pub troubles: Vec<String>,
}

/// What runs for a pod.
enum Work {
    Agent(String),
    Download { stop: oneshot::Sender<()>, task: JoinHandle<()> },
}

impl Kubelet {
    /// Looks after all pods for as long as the test runs.
    pub fn start(self) -> Arc<Self> {
        let kubelet = Arc::new(self);
        let wake = Arc::new(Notify::new());
        let waking = wake.clone();
        let pods =
            watch(Api::all(kubelet.client.clone()), watcher::Config::default(), move |_: Change<Pod>| {
                waking.notify_one();
            });
        tokio::spawn(kubelet.clone().run(pods, wake));
        kubelet
    }

    /// What it did so far.
    pub fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what it did.
    pub fn forget(&self) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Record::default();
    }

    fn trouble(&self, what: String) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).troubles.push(what);
    }

    async fn run(self: Arc<Self>, pods: Watch<Pod>, wake: Arc<Notify>) {
        let mut works = BTreeMap::new();
        let mut deleted = BTreeSet::new();
        loop {
            // Out of time means the same as news.
            let _ = tokio::time::timeout(TICK, wake.notified()).await;
            let pods = pods.store.state();
            let there: BTreeSet<String> = pods.iter().filter_map(|pod| pod.uid()).collect();
            let gone: Vec<String> = works.keys().filter(|uid| !there.contains(*uid)).cloned().collect();
            for uid in gone {
                self.end(works.remove(&uid)).await;
            }
            deleted.retain(|uid| there.contains(uid));
            for pod in pods {
                if let Err(error) = self.look(&pod, &mut works, &mut deleted).await {
                    self.trouble(format!("pod {}: {error:#}", pod.name_any()));
                }
            }
        }
    }

    async fn look(
        self: &Arc<Self>,
        pod: &Pod,
        works: &mut BTreeMap<String, Work>,
        deleted: &mut BTreeSet<String>,
    ) -> Result<()> {
        let (uid, name) = (pod.uid().context("a uid")?, pod.name_any());
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
            return self.bind(pod).await;
        };
        let pods = self.pods(pod);
        if pod.metadata.deletion_timestamp.is_some() {
            self.end(works.remove(&uid)).await;
            if deleted.insert(uid) {
                let at_once = DeleteParams::default().grace_period(0);
                pods.delete(&name, &at_once).await?;
            }
            return Ok(());
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if works.contains_key(&uid) || phase != Some("Pending") {
            return Ok(());
        }
        let container = match node_work::container(&self.client, &self.disks, pod, &node).await? {
            Ok(Some(container)) => container,
            Ok(None) => return Ok(()), // its claim is not bound yet
            Err(message) => {
                let waiting =
                    json!({"waiting": {"reason": "CreateContainerConfigError", "message": message}});
                return self.say(pod, "Pending", &waiting).await;
            }
        };
        if works.values().any(|work| matches!(work, Work::Agent(other) if *other == node)) && is_agent(pod) {
            return Ok(()); // the one before has not ended yet
        }
        self.say(pod, "Running", &json!({"running": {}})).await?;
        let work = if is_agent(pod) {
            self.start_agent(&node, container)?;
            Work::Agent(node)
        } else {
            self.start_download(pod.clone(), node, container)
        };
        works.insert(uid, work);
        Ok(())
    }

    /// The scheduler's part: both the agents' and the Jobs' pods name their node.
    async fn bind(&self, pod: &Pod) -> Result<()> {
        let Some(node) = node_work::named_node(pod) else { return Ok(()) };
        if Api::<Node>::all(self.client.clone()).get_opt(&node).await?.is_none() {
            return Ok(());
        }
        let name = pod.name_any();
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let bound =
            self.pods(pod).create_subresource("binding", &name, &PostParams::default(), &binding).await;
        let _: Value = bound?;
        Ok(())
    }

    fn start_agent(&self, node: &str, container: Container) -> Result<()> {
        let agent = self.agents.get(node).with_context(|| format!("node {node} is none of ours"))?;
        let mut arguments = container.arguments;
        let root = container.folder.display().to_string();
        std::fs::create_dir_all(&container.folder)?;
        arguments.extend(["--root".into(), root, "--health-port".into(), "0".into()]);
        agent.start(&Call { arguments, variables: container.variables })
    }

    fn start_download(self: &Arc<Self>, pod: Pod, node: String, container: Container) -> Work {
        let source = container.arguments.first().cloned().unwrap_or_default();
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.downloads.entry(node).or_default().push(source);
        drop(record);
        let (stop, stopped) = oneshot::channel();
        let kubelet = self.clone();
        let task = tokio::spawn(async move {
            let ended = match node_work::download(&kubelet.program, &container, stopped).await {
                Ok(Some(ended)) => ended,
                Ok(None) => return, // it was killed: whoever did so deletes the pod
                Err(error) => return kubelet.trouble(format!("download of {}: {error:#}", pod.name_any())),
            };
            let phase = if ended["exitCode"] == 0 { "Succeeded" } else { "Failed" };
            if let Err(error) = kubelet.say(&pod, phase, &json!({"terminated": ended})).await {
                kubelet.trouble(format!("status of pod {}: {error:#}", pod.name_any()));
            }
        });
        Work::Download { stop, task }
    }

    async fn end(&self, work: Option<Work>) {
        match work {
            None => {}
            Some(Work::Agent(node)) => {
                if let Some(agent) = self.agents.get(&node) {
                    agent.stop().await;
                }
            }
            Some(Work::Download { stop, task }) => {
                // An error means that it has ended already.
                let _ = stop.send(());
                let _ = task.await;
            }
        }
    }

    async fn say(&self, pod: &Pod, phase: &str, state: &Value) -> Result<()> {
        let ready = if phase == "Running" { "True" } else { "False" };
        let containers = pod.spec.as_ref().map(|spec| &spec.containers);
        let container = containers.and_then(|containers| containers.first()).context("a container")?;
        let status = json!({
            "phase": phase,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{
                "name": container.name,
                "image": container.image,
                "imageID": "",
                "ready": phase == "Running",
                "restartCount": 0,
                "state": state,
            }],
        });
        let patch = Patch::Merge(json!({"status": status}));
        self.pods(pod).patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}

fn is_agent(pod: &Pod) -> bool {
    pod.labels().get("app.kubernetes.io/name").is_some_and(|name| name == AGENT_PODS)
}
