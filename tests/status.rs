//! `localmodel status` as a person calls it, also as a plugin of kubectl.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_localmodel");

fn run(binary: &Path, arguments: &[&str], kubeconfig: &str) -> Output {
    let mut command = Command::new(binary);
    command.args(arguments).env_clear().env("KUBECONFIG", kubeconfig);
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_help_says_how_the_command_was_called() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-localmodel");
    symlink(BINARY, &plugin).unwrap();
    for (binary, name) in [(Path::new(BINARY), "localmodel"), (&plugin, "kubectl localmodel")] {
        let all = run(binary, &["--help"], "");
        assert!(text(&all.stdout).contains(&format!("Usage: {name} <COMMAND>")), "{}", text(&all.stdout));
        let status = text(&run(binary, &["status", "--help"], "").stdout);
        assert!(status.contains(&format!("Usage: {name} status [OPTIONS] [CACHE]")), "{status}");
    }
}

#[test]
fn a_context_that_there_is_not_is_told_with_those_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let context = |name: &str| format!("- name: {name}\n  context: {{cluster: c, user: u}}\n");
    let text = format!("apiVersion: v1\nkind: Config\ncontexts:\n{}{}", context("prod"), context("dev"));
    std::fs::write(&file, text).unwrap();
    let output = run(Path::new(BINARY), &["status", "--context", "nope"], file.to_str().unwrap());
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("has no context \"nope\": it has dev, prod"), "{said}");
}

fn text_of(output: &Output) -> String {
    text(&output.stderr)
}

#[test]
fn without_a_cluster_one_line_says_what_to_do() {
    let output = run(Path::new(BINARY), &["status"], "/nonexistent/kubeconfig");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("no cluster is configured") && said.contains("KUBECONFIG"), "{said}");
}
