//! A control plane with our operator, the agents of two nodes, a hub, and what is done to them.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use kube::Client;
use localmodel_hub::{Access, Hub, Model};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::component::{Call, Component};
use super::control_plane::{ControlPlane, create};
use super::kubelet::{Kubelet, Record};
use super::objects::{self, IMAGE, NODES, OPERATOR, TEAM};
use super::proxy::{Plan, Proxy};
use crate::wait::until;
use crate::walkthrough::JOBS;

/// The bytes of a generated model: enough for two shards.
const MODEL: usize = 64 << 10;

/// One of the processes that are disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The operator.
    Operator,
    /// The agent of a node.
    Agent(&'static str),
}

/// Everything that runs.
pub struct Cluster {
    /// A client for everything.
    pub client: Client,
    operator: Component,
    agents: BTreeMap<String, Arc<Component>>,
    kubelet: Arc<Kubelet>,
    disks: PathBuf,
    _plane: ControlPlane,
    /// The hub, for more models.
    pub hub: Hub,
    folder: TempDir,
}

/// What is made in a run, in the order in which it is taken away: owners first.
static KINDS: [(&str, &[&str]); 15] = [
    ("/apis/serving.kserve.io/v1beta1", &["inferenceservices", TEAM]),
    ("/apis/serving.kserve.io/v1alpha1", &["localmodelcaches"]),
    ("/apis/serving.kserve.io/v1alpha1", &["localmodelnamespacecaches", TEAM]),
    ("/apis/serving.kserve.io/v1alpha1", &["localmodelnodegroups"]),
    ("/apis/serving.kserve.io/v1alpha1", &["localmodelnodes"]),
    ("/apis/apps/v1", &["daemonsets", OPERATOR]),
    ("/apis/batch/v1", &["jobs", JOBS]),
    ("/api/v1", &["pods", OPERATOR, JOBS]),
    ("/api/v1", &["persistentvolumeclaims", OPERATOR, JOBS, TEAM]),
    ("/api/v1", &["persistentvolumes"]),
    ("/api/v1", &["secrets", OPERATOR, JOBS, TEAM]),
    ("/api/v1", &["serviceaccounts", TEAM]),
    ("/apis/coordination.k8s.io/v1", &["leases", OPERATOR]),
    ("/api/v1", &["nodes"]),
    ("/apis/events.k8s.io/v1", &["events", "default", OPERATOR, JOBS, TEAM]),
];

impl Cluster {
    /// Starts the control plane and everything around it; the operator does not run yet.
    pub async fn start() -> Result<Self> {
        let folder = TempDir::with_prefix("localmodel-sweep-")?;
        let plane = ControlPlane::start(folder.path()).await?;
        let client = plane.client.clone();
        let gated = Model::llama("team/gated").size(MODEL).access(Access::Gated);
        let open = ["acme/one", "acme/two", "acme/three"].map(|name| Model::llama(name).size(MODEL));
        let hub = Hub::start(open.into_iter().chain([gated]).collect()).await;
        create(&client, &objects::storage_container(&hub.endpoint())).await?;
        let program = program()?;
        let new = async |name: &str| Component::new(name, folder.path(), &program, client.clone()).await;
        let operator = new("operator").await?;
        let mut agents = BTreeMap::new();
        for node in NODES {
            agents.insert(node.to_owned(), Arc::new(new(&format!("agent-{node}")).await?));
        }
        let disks = folder.path().join("disks");
        let kubelet = Kubelet {
            client: client.clone(),
            agents: agents.clone(),
            disks: disks.clone(),
            program: program.clone(),
            record: std::sync::Mutex::default(),
        };
        let kubelet = kubelet.start();
        Ok(Self { client, operator, agents, kubelet, disks, _plane: plane, hub, folder })
    }

    /// Starts the operator. It keeps its name over its lives, as the container of a pod that is started anew does,
    /// and with it the lease.
    pub fn start_operator(&self) -> Result<()> {
        let arguments =
            ["operator", "--namespace", OPERATOR, "--image", IMAGE, "--pod", "localmodel-operator-0"];
        let ports = ["--health-port", "0", "--webhook-port", "0"];
        let arguments = arguments.into_iter().chain(ports).map(Into::into).collect();
        self.operator.start(&Call { arguments, variables: Vec::new() })
    }

    /// Takes everything away that a run has made, so that the next one begins with nothing.
    pub async fn reset(&self) -> Result<()> {
        self.operator.stop().await;
        for proxy in self.proxies() {
            proxy.follow(Plan::default());
        }
        for path in kinds() {
            self.request(Request::delete(format!(
                "{path}?propagationPolicy=Background&gracePeriodSeconds=0"
            )))
            .await?;
        }
        until("the end of what the run before made", || async {
            let mut left = Vec::new();
            for path in kinds() {
                for object in self.list(&path).await? {
                    left.push(format!("{path} {}", object["metadata"]["name"]));
                    self.let_go(&path, &object).await?;
                }
            }
            ensure!(left.is_empty(), "there still is {left:?}");
            ensure!(self.agents.values().all(|agent| !agent.runs()), "an agent runs");
            Ok(Some(()))
        })
        .await?;
        if self.disks.exists() {
            fs::remove_dir_all(&self.disks)?;
        }
        self.kubelet.forget();
        self.operator.forget();
        self.agents.values().for_each(|agent| agent.forget());
        Ok(())
    }

    /// Deletes what is left of a kind, finalizers or not: nobody is there any more who would take them away.
    async fn let_go(&self, path: &str, object: &Value) -> Result<()> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let one = format!("{path}/{name}");
        if object["metadata"]["finalizers"].is_array() {
            let body = json!({"metadata": {"finalizers": null}});
            let request = Request::patch(&one).header("content-type", "application/merge-patch+json");
            // An error means that it has gone.
            let _: kube::Result<Value> = self.client.request(request.body(body.to_string().into())?).await;
        }
        let _: kube::Result<Value> = self
            .client
            .request(Request::delete(format!("{one}?gracePeriodSeconds=0")).body(Vec::new())?)
            .await;
        Ok(())
    }

    /// All objects at a path.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut list = self.request(Request::get(path)).await?;
        Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    /// A request without a body.
    pub async fn request(&self, request: http::request::Builder) -> Result<Value> {
        Ok(self.client.request(request.body(Vec::new())?).await?)
    }

    /// Makes an object; its path, or why it was refused.
    pub async fn make(&self, object: &Value) -> Result<std::result::Result<String, String>> {
        let collection = objects::collection(object)?;
        let request = Request::post(&collection).header("content-type", "application/json");
        match self.client.request::<Value>(request.body(serde_json::to_vec(object)?)?).await {
            Ok(made) => Ok(Ok(objects::path(&made)?)),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(Err(status.message)),
            Err(error) => Err(error).with_context(|| format!("making {object:#}")),
        }
    }

    /// Whether there is an object at a path.
    pub async fn is_there(&self, path: &str) -> Result<bool> {
        match self.request(Request::get(path)).await {
            Ok(_) => Ok(true),
            Err(error) => match error.downcast_ref::<kube::Error>() {
                Some(kube::Error::Api(status)) if status.code == 404 => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Changes an object by a merge patch.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<()> {
        let request = Request::patch(path).header("content-type", "application/merge-patch+json");
        let patched = self.client.request::<Value>(request.body(body.to_string().into())?).await;
        patched.map(drop).with_context(|| format!("patching {path}"))
    }

    /// A component's proxy.
    pub fn proxy(&self, role: Role) -> &Proxy {
        match role {
            Role::Operator => &self.operator.proxy,
            Role::Agent(node) => self.agents.get(node).map_or(&self.operator.proxy, |agent| &agent.proxy),
        }
    }

    /// All of them.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        [&self.operator.proxy].into_iter().chain(self.agents.values().map(|agent| &agent.proxy))
    }

    /// How long no component wrote anything, or began a new life.
    pub fn quiet(&self) -> Duration {
        self.proxies().map(Proxy::quiet).min().unwrap_or_default()
    }

    /// What the kubelet did.
    pub fn record(&self) -> Record {
        self.kubelet.record()
    }

    /// The folder of a node's disk.
    pub fn disk(&self, node: &str) -> PathBuf {
        self.disks.join(node)
    }

    /// What a process did that none may do.
    pub fn faults(&self) -> Vec<String> {
        let agents = self.agents.iter().map(|(node, agent)| (node.as_str(), &**agent));
        let all = [("operator", &self.operator)].into_iter().chain(agents);
        all.flat_map(|(name, one)| one.faults().into_iter().map(move |fault| format!("{name}: {fault}")))
            .collect()
    }

    /// The ends of all logs, for a failed run.
    pub fn logs(&self) -> String {
        let agents = self.agents.iter().map(|(node, agent)| (node.as_str(), &**agent));
        let all = [("operator", &self.operator)].into_iter().chain(agents);
        let part = |(name, one): (&str, &Component)| {
            let log = one.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            format!(
                "----- log of {name}\n{tail}\n----- writes of {name}\n{}\n",
                one.proxy.writes().join("\n")
            )
        };
        all.map(part).collect()
    }

    /// Where data and logs are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The path of each kind that a run makes objects of, by namespace.
fn kinds() -> impl Iterator<Item = String> {
    KINDS.iter().flat_map(|(root, names)| {
        let (plural, namespaces) = names.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        let in_each =
            namespaces.iter().map(move |namespace| format!("{root}/namespaces/{namespace}/{plural}"));
        let of_cluster = namespaces.is_empty().then(|| format!("{root}/{plural}"));
        in_each.chain(of_cluster)
    })
}

/// Our command, built along with this test, which runs in the same folder or in `deps/` below it.
pub fn program() -> Result<PathBuf> {
    let this = env::current_exe()?;
    let mut above = this.ancestors().skip(1).map(|folder| folder.join("localmodel"));
    above.find(|program| program.is_file()).context("build the workspace first: cargo build --workspace")
}
