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

#[tokio::test]
async fn two_sources_for_one_folder_are_refused_before_a_request() {
    let world = World::llama().await;
    let dest = world.dest();
    let slash = format!("{}/", dest.display());
    for second in [dest.to_str().unwrap(), &slash] {
        let output =
            command(&world.hub).arg(SOURCE).arg(&dest).args(["hf://acme/other", second]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        assert!(
            text.contains(SOURCE) && text.contains("hf://acme/other") && text.contains("another folder"),
            "{text}"
        );
    }
    assert_eq!(world.hub.requests(), []);
    assert!(!dest.exists());
}

#[tokio::test]
async fn a_source_that_reaches_into_the_folder_of_another_is_refused_and_one_that_does_not_is_taken() {
    let world = World::llama().await;
    world.hub.add(Model::new("acme/base").file("lora/a.json", "base").file("b.txt", "b"));
    world.hub.add(Model::new("acme/lora").file("a.json", "lora"));
    let dest = world.dest();
    let both = |folder: &str| {
        let mut command = command(&world.hub);
        command.args(["hf://acme/base".as_ref(), dest.as_os_str(), "hf://acme/lora".as_ref()]);
        command.arg(dest.join(folder)).output().unwrap()
    };
    let output = both("lora");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("\"lora/a.json\" of hf://acme/base"), "{}", stderr(&output));
    assert!(!dest.join("lora/a.json").exists());
    assert!(both("adapter").status.success());
    assert_eq!(fs::read(dest.join("lora/a.json")).unwrap(), b"base");
    assert_eq!(fs::read(dest.join("adapter/a.json")).unwrap(), b"lora");
}

#[tokio::test]
async fn limits_are_given_by_flags_or_variables() {
    let world = World::llama().await;
    let log = world.dir.path().join("termination-log");
    for (name, value, reason) in
        [("LOCALMODEL_MAX_BYTES", "300000", "TooLarge"), ("LOCALMODEL_MAX_FILES", "2", "TooManyFiles")]
    {
        let flag = format!("--{}", name.trim_start_matches("LOCALMODEL_").to_lowercase().replace('_', "-"));
        for by_flag in [true, false] {
            fs::write(&log, "").unwrap();
            let mut command = command(&world.hub);
            command.arg("--termination-log").arg(&log).arg(SOURCE).arg(world.dest());
            if by_flag {
                command.args([flag.as_str(), value])
            } else {
                command.env(name, value)
            };
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            let failure: Failure = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
            assert_eq!(failure.reason, reason, "{}", failure.message);
            assert!(failure.message.contains(value), "{}", failure.message);
        }
    }
    assert!(world.hub.requests_of("/resolve/").is_empty());
}
