//! The command line: exit codes, the line on standard error, the termination log (F1).

use std::fs;
use std::process::{Command, Output};

use localmodel::download::{Failure, is_complete};
use localmodel_hub::{Access, Hub, Model, TOKEN};

use crate::{REPO, SOURCE, World};

fn command(hub: &Hub) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localmodel"));
    command.env_clear().env("HF_ENDPOINT", hub.endpoint()).arg("download");
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn pairs_are_downloaded_in_order_with_what_the_environment_says() {
    let world = World::new(Model::llama(REPO).size(9000).access(Access::Private)).await;
    world.hub.add(Model::new("acme/other").file("a.json", "{}").file("b.txt", "b"));
    let [first, second] = ["first", "second"].map(|name| world.dir.path().join(name));
    let output = command(&world.hub)
        .env("HF_TOKEN", TOKEN)
        .env("STORAGE_ALLOW_PATTERNS", "*.json")
        .args([SOURCE.as_ref(), first.as_os_str(), "hf://acme/other".as_ref(), second.as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(is_complete(&first) && is_complete(&second));
    assert!(second.join("a.json").exists() && !second.join("b.txt").exists());
    assert!(!stderr(&output).contains(TOKEN));
    let order: Vec<_> = world.hub.requests_of("/revision/").into_iter().map(|request| request.path).collect();
    assert!(order[0].contains(REPO) && order[1].contains("acme/other"), "{order:?}");
}

#[tokio::test]
async fn wrong_usage_is_told_with_exit_code_2() {
    let world = World::llama().await;
    for arguments in [&[] as &[&str], &[SOURCE], &[SOURCE, "/tmp/x", SOURCE], &["--wrong", SOURCE, "/tmp/x"]]
    {
        let output = command(&world.hub).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("Usage: localmodel download"), "{}", stderr(&output));
    }
    let arguments = [SOURCE, "/tmp/x", "https://host/file?sig=hunter2"];
    let output = command(&world.hub).args(arguments).output().unwrap();
    assert!(stderr(&output).contains("https://host/file") && !stderr(&output).contains("hunter2"));
    assert_eq!(world.hub.requests(), []);
}

#[tokio::test]
async fn a_failure_is_one_line_for_people_and_one_for_kubernetes() {
    let world = World::llama().await;
    let log = world.dir.path().join("termination-log");
    for (source, reason) in
        [("pvc://claim/model", "UnsupportedScheme"), ("hf://acme/tiny:v9", "RevisionNotFound")]
    {
        fs::write(&log, "what was here before, and longer than the failure is going to be".repeat(20))
            .unwrap();
        let run = || {
            let mut command = command(&world.hub);
            command.arg("--termination-log").arg(&log).arg(source).arg(world.dest());
            command.output().unwrap()
        };
        let output = run();
        assert_eq!(output.status.code(), Some(1));
        let written = fs::read_to_string(&log).unwrap();
        let failure: Failure = serde_json::from_str(&written).unwrap();
        assert_eq!((failure.reason.as_str(), written.lines().count()), (reason, 1));
        let told: Vec<_> =
            stderr(&output).lines().filter(|l| l.starts_with("error: ")).map(str::to_owned).collect();
        assert_eq!(told, [format!("error: {}", failure.message)]);
        fs::remove_file(&log).unwrap();
        run();
        assert!(!log.exists(), "the log is the kubelet's to make");
    }
}
