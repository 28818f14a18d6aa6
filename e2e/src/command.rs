//! Commands of the machine: kubectl, docker and the project's own scripts.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The longest that a command may take.
const LIMIT: Duration = Duration::from_mins(5);

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Runs a command and returns what it printed; an error carries what it said.
pub async fn run(program: &str, arguments: &[&str]) -> Result<String> {
    run_with(program, arguments, "").await
}

/// The same with this text on its standard input.
pub async fn run_with(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let words = format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {words}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.with_context(|| format!("writing to {words}"))?;
    }
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let output =
        ended.with_context(|| format!("{words}: not done in time"))?.with_context(|| words.clone())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{words}: {}\n{}{}", output.status, said, String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

/// `kubectl` with these arguments.
pub async fn kubectl(arguments: &[&str]) -> Result<String> {
    run("kubectl", arguments).await
}

/// Applies manifests on the server, as one who owns the fields in them.
pub async fn apply_as(manager: &str, manifests: &str) -> Result<String> {
    let manager = format!("--field-manager={manager}");
    run_with("kubectl", &["apply", "--server-side", "--force-conflicts", &manager, "-f", "-"], manifests)
        .await
}

/// A shell command on a node of the cluster.
pub async fn on_node(node: &str, script: &str) -> Result<String> {
    run("docker", &["exec", node, "sh", "-c", script]).await
}
