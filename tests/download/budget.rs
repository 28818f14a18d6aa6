//! What a source may bring at most, for each kind of source.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use localmodel::download::budget::Allowance;
use localmodel::download::retry::Policy;
use localmodel::download::select::Selection;
use localmodel::download::variables::Variables;
use localmodel::download::{Reason, Settings, download, is_complete};
use localmodel_hub::{Fault, FaultKind, Model};

use crate::server::{Asked, Reply, Server};
use crate::{REPO, SOURCE, World, files_in, state_of};

fn allowed(world: &World, bytes: u64, files: usize) -> Settings {
    Settings { allowance: Allowance { bytes, files }, ..world.settings() }
}

#[tokio::test]
async fn a_repository_beyond_a_limit_is_refused_before_a_file_and_one_within_is_taken() {
    let deep = format!("{}a", "d/".repeat(70));
    let world = World::new(Model::new(REPO).file("a.bin", vec![1; 600]).file("b.bin", vec![2; 400])).await;
    world.hub.add(Model::new("acme/deep").file(&deep, "x"));
    for (source, bytes, files, reason) in [
        (SOURCE, 999, 2, Reason::TooLarge),
        (SOURCE, 1000, 1, Reason::TooManyFiles),
        ("hf://acme/deep", 1000, 1, Reason::PathTooDeep),
    ] {
        let error = download(&allowed(&world, bytes, files), source, &world.dest()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert_eq!(state_of(&world.dest()), ["lock"]);
    }
    assert!(world.hub.requests_of("/resolve/").is_empty());
    // What the patterns leave out does not count.
    let selection = Selection::new(vec!["a.*".into()], vec![]).unwrap();
    let some = Settings { selection, ..allowed(&world, 600, 1) };
    download(&some, SOURCE, &world.dest()).await.unwrap();
    assert!(is_complete(&world.dest()));
}

#[tokio::test]
async fn sizes_without_a_sum_end_in_words() {
    let world = World::llama().await;
    world.hub.fault(Fault::always("/tree/", FaultKind::WrongSizes(i64::MAX)));
    let error = world.run().await.unwrap_err();
    assert_eq!(error.reason(), Reason::TooLarge, "{error}");
}

#[tokio::test]
async fn a_run_that_is_allowed_less_than_the_one_before_erases_what_that_wrote() {
    let world = World::llama().await;
    world.hub.fault(Fault::always("model-00002", FaultKind::Status(400)));
    world.run().await.unwrap_err();
    assert!(files_in(&world.dest()).len() > 2, "some files are there");
    let error = download(&allowed(&world, 300_000, 100), SOURCE, &world.dest()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TooLarge, "{error}");
    assert_eq!(files_in(&world.dest()).into_keys().collect::<Vec<_>>(), [".localmodel/lock"]);
}

#[tokio::test]
async fn a_copy_that_is_whole_stays_when_less_is_allowed() {
    let world = World::llama().await;
    world.run().await.unwrap();
    let little = allowed(&world, 1000, 1);
    download(&little, SOURCE, &world.dest()).await.unwrap();
    fs::remove_file(world.dest().join("config.json")).unwrap();
    let before = files_in(&world.dest());
    let error = download(&little, SOURCE, &world.dest()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TooManyFiles, "{error}");
    assert!(files_in(&world.dest()) == before);
}

#[tokio::test]
async fn folders_of_this_machine_are_walked_within_limits() {
    let world = World::llama().await;
    let from = world.dir.path().join("from");
    let source = format!("file://{}", from.display());
    fs::create_dir_all(from.join("d/".repeat(70))).unwrap();
    symlink("..", from.join("d/up")).unwrap();
    let error = download(&world.settings(), &source, &world.dest()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::PathTooDeep, "{error}");

    fs::remove_dir_all(&from).unwrap();
    (0..60).for_each(|number| fs::create_dir_all(from.join(format!("d/{number}"))).unwrap());
    let error = download(&allowed(&world, 1000, 1), &source, &world.dest()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TooManyFiles, "{error}");
}

/// A page of a bucket's list that always has a next one.
fn endless(asked: &Asked) -> Reply {
    let page: usize = asked.query.get("continuation-token").map_or(0, |token| token.parse().unwrap());
    let object = |number: usize| {
        format!(
            "<Contents><Key>m/{page}-{number}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag><Size>1</Size></Contents>"
        )
    };
    let objects: String = (0..1000).map(object).collect();
    let list = format!(
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>{objects}</ListBucketResult>",
        page + 1
    );
    Reply::new(200, list).with("Content-Type", "application/xml")
}

#[tokio::test]
async fn a_list_of_a_bucket_without_end_is_read_up_to_the_limit() {
    let server = Server::start(endless).await;
    let variables = [
        ("AWS_ENDPOINT_URL", server.url.as_str()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let retry = Policy { first: Duration::from_millis(1), longest: Duration::from_millis(4), attempts: 3 };
    let settings = Settings { retry, ..Settings::from_env(Variables::try_from(variables).unwrap()).unwrap() };
    let dir = tempfile::tempdir().unwrap();
    let error = download(&settings, "s3://b/m", dir.path()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TooManyFiles, "{error}");
    assert!(server.asked().len() < 50, "{} pages of 1,000", server.asked().len());
    assert_eq!(state_of(dir.path()), ["lock"]);
}
