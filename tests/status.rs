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
fn without_a_cluster_one_line_says_what_to_do() {
    let output = run(Path::new(BINARY), &["status"], "/nonexistent/kubeconfig");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("no cluster is configured") && said.contains("KUBECONFIG"), "{said}");
}
