//! Our operator as a process, under its own account, with webhooks that the API server reaches.

use std::fs::{self, OpenOptions};
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::install::apply;
use super::people::token;
use super::with_token;
use crate::sweep::control_plane::{ControlPlane, free_port};
use crate::sweep::objects::{IMAGE, OPERATOR};
use crate::sweep::program;
use crate::wait::until;

/// An address of documentation: no packet is sent to find out from where one would be.
const ELSEWHERE: &str = "198.51.100.1:9";

/// The running operator.
pub struct Operator {
    /// Where its webhooks are served.
    pub webhooks: (IpAddr, u16),
    health: u16,
    log: PathBuf,
    process: Mutex<Child>,
}

impl Operator {
    /// Starts it, and waits until it is ready and the API server knows where its webhooks are.
    pub(super) async fn start(
        plane: &ControlPlane,
        folder: &Path,
        asks_for_certificates: bool,
    ) -> Result<Self> {
        let account = token(&plane.client, OPERATOR, localmodel::plan::names::OPERATOR, None).await?;
        let kubeconfig = folder.join("operator.kubeconfig");
        fs::write(&kubeconfig, serde_json::to_string(&with_token(&plane.kubeconfig(), &account)?)?)?;
        let [health, webhooks] = [free_port()?, free_port()?];
        let address = own_address()?;
        apply(&plane.client, &endpoints(address, webhooks)).await?;
        let log = folder.join("operator.log");
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        let process = Command::new(program()?)
            .args(["operator", "--namespace", OPERATOR, "--image", IMAGE, "--pod", "localmodel-operator-0"])
            .args(["--health-port", &health.to_string(), "--webhook-port", &webhooks.to_string()])
            .env("KUBECONFIG", &kubeconfig)
            .envs(asks_for_certificates.then(|| ("WEBHOOK_CLIENT_CA", plane.webhook_client_ca())))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("starting the operator")?;
        let this = Self { webhooks: (address, webhooks), health, log, process: Mutex::new(process) };
        this.ready().await.with_context(|| this.log())?;
        Ok(this)
    }

    /// Waits until it is ready.
    pub async fn ready(&self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.health);
        until("the operator to be ready", || async {
            let answer = reqwest::get(&url).await?;
            let status = answer.status();
            ensure!(status.is_success(), "it answers {status}: {}", answer.text().await?);
            Ok(Some(()))
        })
        .await
    }

    /// Ends it for good.
    pub async fn stop(&self) -> Result<()> {
        Ok(self.process.lock().await.kill().await?)
    }

    /// Its resident memory in bytes.
    pub async fn memory(&self) -> Result<u64> {
        let id = self.process.lock().await.id().context("the operator has ended")?;
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// Where the Service of the webhooks leads: nothing here selects pods.
fn endpoints(address: IpAddr, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "localmodel-webhook",
            "namespace": OPERATOR,
            "labels": {"kubernetes.io/service-name": "localmodel-webhook"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
    })
}

/// An address of this machine that is not loopback, which no endpoint may be.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(ELSEWHERE).context("this machine has no network interface but loopback")?;
    Ok(socket.local_addr()?.ip())
}
