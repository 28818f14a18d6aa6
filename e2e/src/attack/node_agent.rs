//! The agent of a node as a process, under its own account, with a disk of its own.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use localmodel::download::manifest::Manifest;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::people::agent_token;
use super::{Platform, with_token};
use crate::sweep::objects::{GROUP, IMAGE, OPERATOR};
use crate::sweep::program;

/// A running agent; it ends with this value.
pub struct NodeAgent {
    folder: TempDir,
    _process: Child,
}

impl NodeAgent {
    /// Starts the agent of a node, whose disk has complete copies of these sources already.
    pub async fn start(platform: &Platform, node: &str, sources: &[&str]) -> Result<Self> {
        let folder = TempDir::with_prefix("localmodel-agent-")?;
        let token = agent_token(platform, node).await?;
        let kubeconfig = folder.path().join("kubeconfig");
        let config = with_token(&platform.plane.kubeconfig(), &token)?;
        fs::write(&kubeconfig, serde_json::to_string(&config)?)?;
        for source in sources {
            put_copy(&folder.path().join("disk"), source)?;
        }
        let output = OpenOptions::new().create(true).append(true).open(folder.path().join("agent.log"))?;
        let process = Command::new(program()?)
            .args(["agent", "--node-group", GROUP, "--node", node, "--namespace", OPERATOR, "--image", IMAGE])
            .args(["--health-port", "0", "--root"])
            .arg(folder.path().join("disk"))
            .env("KUBECONFIG", &kubeconfig)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("starting the agent")?;
        Ok(Self { folder, _process: process })
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default()
    }

    /// A folder of its disk.
    pub fn folder(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join("disk").join(path)
    }

    /// Where a copy of a source is on its disk.
    pub fn copy(&self, source: &str) -> PathBuf {
        copy(&self.folder("."), source)
    }
}

fn copy(disk: &Path, source: &str) -> PathBuf {
    disk.join("models").join(localmodel::api::source::storage_key(source))
}

/// Puts a complete copy of one file on a disk, as a Job would have.
fn put_copy(disk: &Path, source: &str) -> Result<()> {
    let copy = copy(disk, source);
    fs::create_dir_all(&copy)?;
    fs::write(copy.join("weights"), "12345")?;
    let sha256 = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5";
    let files = json!([{"path": "weights", "size": 5, "sha256": sha256}]);
    let manifest: Manifest = serde_json::from_value(json!({"source": source, "files": files}))?;
    manifest.write(&copy)?;
    Ok(())
}
