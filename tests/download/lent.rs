//! Files that somebody else's copy has lent to the folder (K4): they count once the run's own credentials have
//! been accepted, and not before.

use std::fs;

use localmodel::download::settings::Token;
use localmodel::download::{Error, Reason, Settings, download, lent};
use localmodel_hub::{Access, Model, Origin, STRANGER_TOKEN, TOKEN};

use crate::{REPO, SHARD, SOURCE, World};

/// A gated repository, and a folder that was lent all of its files, and one that it has no more.
async fn lent_a_gated_model() -> World {
    let world = World::new(Model::llama(REPO).size(512 << 10).access(Access::Gated)).await;
    let mut files = world.hub.files(REPO, "main");
    files.insert("withdrawn.bin".into(), b"of an earlier commit".to_vec());
    let paths: Vec<&str> = files.keys().map(String::as_str).collect();
    assert!(lent::record(&world.dest(), &paths).unwrap());
    for (path, bytes) in &files {
        let path = world.dest().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    world
}

async fn run_with(world: &World, token: &str) -> Result<(), Error> {
    let settings = Settings { token: Token::new(token), ..world.settings() };
    download(&settings, SOURCE, &world.dest()).await
}

#[tokio::test]
async fn a_gated_model_is_not_given_to_a_stranger_though_all_its_files_are_there() {
    let world = lent_a_gated_model().await;
    for token in ["", STRANGER_TOKEN, "hf_mistyped"] {
        let error = run_with(&world, token).await.unwrap_err();
        let refused = [Reason::RepositoryGated, Reason::TokenInvalid];
        assert!(refused.contains(&error.reason()), "{token}: {error}");
        assert!(lent::is_unproved(&world.dest()), "{token}");
        assert!(!localmodel::download::is_complete(&world.dest()));
    }
}

#[tokio::test]
async fn whoever_may_read_the_model_gets_the_copy_without_a_transfer_and_nothing_else_of_it() {
    let world = lent_a_gated_model().await;
    run_with(&world, TOKEN).await.unwrap();
    world.assert_copy_of("main");
    // Of the files for which the hub tells a SHA-256, one is asked for one byte: it is the door to all.
    let requests = world.hub.requests();
    let of_shards =
        requests.iter().filter(|request| request.path.contains("/resolve/") && is_large(&request.path));
    for request in of_shards {
        assert_eq!(request.range.as_deref(), Some("bytes=0-0"), "{}", request.path);
    }
}

/// Whether the hub keeps a file in its large storage, and so tells its SHA-256.
fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

#[tokio::test]
async fn a_lent_file_without_a_sha256_of_the_source_is_fetched() {
    let world = lent_a_gated_model().await;
    run_with(&world, TOKEN).await.unwrap();
    let asked = world.asked(Origin::Hub);
    assert!(asked.iter().any(|path| path.ends_with("/config.json")), "{asked:?}");
}

#[tokio::test]
async fn a_lent_file_with_other_bytes_is_fetched() {
    let world = lent_a_gated_model().await;
    let size = world.hub.files(REPO, "main")[SHARD].len();
    fs::write(world.dest().join(SHARD), vec![7; size]).unwrap();
    run_with(&world, TOKEN).await.unwrap();
    world.assert_copy_of("main");
}
