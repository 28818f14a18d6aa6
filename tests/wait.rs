//! `localmodel wait` as a process: what it exits with, says, and leaves for Kubernetes (S11).

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use localmodel::download::Failure;

/// The gate over a file in this folder, with this patience.
fn wait(dir: &Path, patience: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localmodel"));
    command.arg("wait").arg(dir.join("status.json")).args(["--patience", patience]);
    command.arg("--termination-log").arg(dir.join("termination-log"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What an agent says, in one rename.
fn say(dir: &Path, status: &str) {
    fs::write(dir.join("new"), status).unwrap();
    fs::rename(dir.join("new"), dir.join("status.json")).unwrap();
}

/// Reads lines until one has this text.
fn until_line(lines: &mut impl Iterator<Item = std::io::Result<String>>, text: &str) {
    assert!(lines.any(|line| line.unwrap().contains(text)), "it ended without a line with {text:?}");
}

#[test]
fn it_tells_what_it_waits_for_and_ends_when_the_copy_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    say(dir.path(), r#"{"phase":"ModelDown"#);
    let mut gate = wait(dir.path(), "10m");
    let mut lines = BufReader::new(gate.stderr.take().unwrap()).lines();
    until_line(&mut lines, "waiting until the copy on this node is complete");
    say(dir.path(), r#"{"phase":"ModelDownloading","bytesDone":5,"bytesTotal":10}"#);
    until_line(&mut lines, "the download is under way, 5 of 10 bytes (50 %)");
    fs::remove_file(dir.path().join("status.json")).unwrap();
    say(dir.path(), r#"{"phase":"ModelDownloadError","reason":"TokenMissing","message":"give a token"}"#);
    until_line(&mut lines, "the download has failed: TokenMissing: give a token");
    say(dir.path(), r#"{"phase":"ModelDownloaded","bytesDone":10,"bytesTotal":10}"#);
    until_line(&mut lines, "the copy is complete");
    assert!(gate.wait().unwrap().success());
}

#[test]
fn it_gives_up_with_the_agents_reason_in_the_termination_message() {
    for (said, reason, text) in [
        (None, "NoAgent", "no agent has said anything about this copy"),
        (
            Some(r#"{"phase":"ModelDownloadPending","reason":"SecretNotFound","message":"make hf-secret"}"#),
            "SecretNotFound",
            "make hf-secret",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("termination-log"), "").unwrap();
        if let Some(said) = said {
            say(dir.path(), said);
        }
        let output = wait(dir.path(), "1s").wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let written = fs::read_to_string(dir.path().join("termination-log")).unwrap();
        let failure: Failure = serde_json::from_str(&written).unwrap();
        assert_eq!(failure.reason, reason);
        assert!(failure.message.contains(text), "{}", failure.message);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(&format!("error: {}", failure.message)), "{stderr}");
    }
}

#[test]
fn a_pod_that_is_ended_does_not_wait_for_its_grace_period() {
    let dir = tempfile::tempdir().unwrap();
    say(dir.path(), r#"{"phase":"ModelDownloadPending"}"#);
    let mut gate = wait(dir.path(), "10m");
    let mut lines = BufReader::new(gate.stderr.take().unwrap()).lines();
    until_line(&mut lines, "the download has not begun");
    let pid = i32::try_from(gate.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(gate.wait().unwrap().code(), Some(1));
}
