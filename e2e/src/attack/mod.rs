//! The attack suite's platform: an API server without nodes with everything of ours installed, our operator under its
//! own account, and clients with the tokens of attackers.
//!
//! [`attack`] runs a test on the platform that all tests of a process share; each test makes its own [`Tenant`]s and
//! gives its objects names of its own. A test that deletes what others need, or restarts the API server, starts a
//! platform for itself with [`alone`].

mod install;
mod node_agent;
mod operator;
mod people;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use http::Request;
use kube::Client;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::sweep::control_plane::{ControlPlane, create};
use crate::sweep::objects;
pub use install::{apply, shipped};
pub use node_agent::NodeAgent;
pub use operator::Operator;
pub use people::{Tenant, agent, agent_nowhere};

/// Outlives each test: what a test starts on its own runtime ends with it.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().unwrap_or_else(|error| panic!("a runtime for the tests: {error}")));
static SHARED: OnceCell<Platform> = OnceCell::const_new();

/// Removes a folder once standard input ends, which happens when this process ends in any way.
const JANITOR: &str = r#"cat >/dev/null; until rm -rf "$1" 2>/dev/null; do sleep 1; done"#;

/// An API server with our CRDs, everything of `deploy/base`, a node group with two nodes, and a running operator.
pub struct Platform {
    /// A client that may do everything.
    pub client: Client,
    /// The control plane.
    pub plane: ControlPlane,
    /// Our operator.
    pub operator: Operator,
    used: AtomicUsize,
    _janitor: Child,
}

/// Runs a test on the platform that all tests of this process share.
pub fn attack<F>(test: F)
where
    F: AsyncFnOnce(&Platform) -> Result<()>,
{
    RUNTIME.block_on(async {
        let platform = SHARED.get_or_try_init(|| Platform::start(false)).await;
        report(run(platform, test).await);
    });
}

/// Runs a test on a platform of its own.
pub fn alone<F>(test: F)
where
    F: AsyncFnOnce(&Platform) -> Result<()>,
{
    RUNTIME.block_on(async {
        let platform = Platform::start(false).await;
        report(run(platform.as_ref(), test).await);
    });
}

/// The same with webhooks that ask for the API server's certificate.
pub fn alone_with_certificates<F>(test: F)
where
    F: AsyncFnOnce(&Platform) -> Result<()>,
{
    RUNTIME.block_on(async {
        let platform = Platform::start(true).await;
        report(run(platform.as_ref(), test).await);
    });
}

async fn run<E, F>(platform: Result<&Platform, E>, test: F) -> Result<()>
where
    E: std::fmt::Display,
    F: AsyncFnOnce(&Platform) -> Result<()>,
{
    let platform = platform.map_err(|error| anyhow::anyhow!("starting the platform: {error:#}"))?;
    test(platform)
        .await
        .with_context(|| format!("the operator's log ends with\n{}\n", platform.operator.log()))
}

fn report(result: Result<()>) {
    if let Err(error) = result {
        panic!("{error:?}");
    }
}

impl Platform {
    async fn start(asks_for_certificates: bool) -> Result<Self> {
        let folder = TempDir::with_prefix("localmodel-attacks-")?.keep();
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .spawn()
            .context("starting the janitor")?;
        let plane = ControlPlane::start(&folder).await?;
        let client = plane.client.clone();
        for object in shipped()? {
            apply(&client, &object).await?;
        }
        for node in objects::NODES {
            create(&client, &objects::node(node)).await?;
        }
        create(&client, &objects::group()).await?;
        let operator = Operator::start(&plane, &folder, asks_for_certificates).await?;
        Ok(Self { client, plane, operator, used: AtomicUsize::new(0), _janitor: janitor })
    }

    /// A name that no other test of this process gets.
    pub fn unique(&self, name: &str) -> String {
        format!("{name}-{}", self.used.fetch_add(1, Ordering::Relaxed))
    }

    /// A tenant who may do everything in a namespace of its own, and nothing elsewhere.
    pub async fn tenant(&self, name: &str) -> Result<Tenant> {
        people::tenant(self, &self.unique(name)).await
    }
}

/// A client with this token in place of the administrator's.
fn with_token(kubeconfig: &Path, token: &str) -> Result<Kubeconfig> {
    let mut config = Kubeconfig::read_from(kubeconfig)?;
    for user in &mut config.auth_infos {
        user.auth_info = Some(AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() });
    }
    Ok(config)
}

async fn client_of(kubeconfig: Kubeconfig) -> Result<Client> {
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Creates an object as somebody; the API server's words if it refuses.
pub async fn try_create(client: &Client, object: &Value) -> Result<Result<Value, String>> {
    let request = Request::post(objects::collection(object)?).header("content-type", "application/json");
    refusal(client.request(request.body(serde_json::to_vec(object)?)?).await)
}

/// Changes the object at a path by a merge patch, as somebody; the API server's words if it refuses.
pub async fn try_patch(client: &Client, path: &str, change: &Value) -> Result<Result<Value, String>> {
    let request = Request::patch(path).header("content-type", "application/merge-patch+json");
    refusal(client.request(request.body(serde_json::to_vec(change)?)?).await)
}

/// Deletes the object at a path, as somebody; the API server's words if it refuses.
pub async fn try_delete(client: &Client, path: &str) -> Result<Result<Value, String>> {
    refusal(client.request(Request::delete(path).body(Vec::new())?).await)
}

/// Reads the object at a path, as somebody; the API server's words if it refuses.
pub async fn try_get(client: &Client, path: &str) -> Result<Result<Value, String>> {
    refusal(client.request(Request::get(path).body(Vec::new())?).await)
}

fn refusal(answer: kube::Result<Value>) -> Result<Result<Value, String>> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(kube::Error::Api(status)) => Ok(Err(status.message)),
        Err(error) => Err(error.into()),
    }
}

/// A pod of a namespace with these labels. No node runs it.
pub fn pod(namespace: &str, name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    })
}
