//! `localmodel verify`, and the download that mends what it found (F7).

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Command, Output};

use localmodel::download::{is_complete, verify};
use localmodel_hub::Origin;

use crate::{REPO, SHARD, World};

fn run(world: &World) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localmodel"));
    let Output { status, stdout, stderr } = command.arg("verify").arg(world.dest()).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn what_is_damaged_is_listed_and_the_next_download_mends_that_alone() {
    let world = World::llama().await;
    world.run().await.unwrap();
    assert_eq!(run(&world), (Some(0), format!("{} is whole\n", world.dest().display()), String::new()));

    let file = fs::File::options().write(true).open(world.dest().join(SHARD)).unwrap();
    file.write_all_at(b"!", 1000).unwrap();
    fs::remove_file(world.dest().join("config.json")).unwrap();
    let (code, listed, error) = run(&world);
    assert_eq!(code, Some(1));
    assert_eq!(listed, format!("config.json is missing\n{SHARD} has other bytes than it should\n"));
    assert!(
        error.starts_with("error: 2 files are damaged") && error.contains("localmodel download"),
        "{error}"
    );
    assert!(!is_complete(&world.dest()), "nobody takes it for complete now");

    world.hub.clear_requests();
    world.run().await.unwrap();
    world.assert_copy_of("main");
    assert!(verify(&world.dest()).await.unwrap().is_empty());
    let mut asked: Vec<_> =
        world.asked(Origin::Hub).into_iter().filter(|p| p.contains("/resolve/")).collect();
    asked.sort();
    let commit = world.hub.commits(REPO).remove(0);
    assert_eq!(asked, ["config.json", SHARD].map(|path| format!("/{REPO}/resolve/{commit}/{path}")));
    assert_eq!(world.asked(Origin::Cdn).len(), 1);
}

#[tokio::test]
async fn a_whole_copy_that_cannot_be_written_is_verified_without_a_warning() {
    let world = World::llama().await;
    world.run().await.unwrap();
    // A folder in the place of the record: whoever tried to write or remove it would fail, root included.
    let record = world.dest().join(".localmodel/corrupt.json");
    fs::create_dir(&record).unwrap();
    fs::write(record.join("x"), "").unwrap();
    assert_eq!(run(&world), (Some(0), format!("{} is whole\n", world.dest().display()), String::new()));
}

#[tokio::test]
async fn what_was_put_right_by_hand_is_whole_again() {
    let world = World::llama().await;
    world.run().await.unwrap();
    let path = world.dest().join("config.json");
    let good = fs::read(&path).unwrap();
    fs::write(&path, vec![b' '; good.len()]).unwrap();
    assert_eq!(verify(&world.dest()).await.unwrap().len(), 1);
    fs::write(&path, good).unwrap();
    assert!(verify(&world.dest()).await.unwrap().is_empty() && is_complete(&world.dest()));
}

#[tokio::test]
async fn a_folder_without_a_copy_is_named() {
    let world = World::llama().await;
    let (code, _, error) = run(&world);
    assert_eq!(code, Some(1));
    assert!(error.contains(&world.dest().display().to_string()) && error.contains("no manifest"), "{error}");
}
