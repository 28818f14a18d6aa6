//! Sources that are no hub and no object store: a web server's file, and files of this machine (F6).

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use localmodel::download::select::Selection;
use localmodel::download::{Manifest, Reason, Settings, download, is_complete};
use localmodel_hub::{Fault, FaultKind, Origin};

use crate::{REPO, SHARD, World, files_in, starts};

/// The address of a file that a web server has: the mock's CDN, with a signature in the query.
async fn address(world: &World) -> String {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = format!("{}/{REPO}/resolve/main/{SHARD}", world.hub.endpoint());
    let answer = client.get(url).send().await.unwrap();
    answer.headers()["location"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_web_servers_file_comes_with_the_same_patience_and_manifest() {
    let world = World::llama().await;
    let url = address(&world).await;
    world.hub.fault(Fault::once(SHARD, FaultKind::Status(503)).at(Origin::Cdn));
    world.hub.fault(Fault::once(SHARD, FaultKind::Cut { after: 100_000 }).at(Origin::Cdn));
    world.hub.clear_requests();
    download(&world.settings(), &url, &world.dest()).await.unwrap();
    assert!(is_complete(&world.dest()));
    assert!(fs::read(world.dest().join(SHARD)).unwrap() == world.hub.files(REPO, "main")[SHARD]);
    let starts = starts(&world.hub.requests_of(SHARD));
    assert!(starts.len() == 4 && starts[..3] == [0, 0, 0] && starts[3] > 0, "{starts:?}");

    world.hub.clear_requests();
    download(&world.settings(), &url, &world.dest()).await.unwrap();
    assert_eq!(world.hub.requests(), []);
}

#[tokio::test]
async fn a_web_server_that_refuses_is_named_without_the_signature() {
    let world = World::llama().await;
    let url = address(&world).await;
    for (status, reason) in
        [(403, Reason::AccessDenied), (404, Reason::NotFound), (400, Reason::SourceRefused)]
    {
        world.hub.clear_faults();
        world.hub.fault(Fault::always(SHARD, FaultKind::Status(status)).at(Origin::Cdn));
        let error = download(&world.settings(), &url, &world.dest()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        let text = error.to_string();
        assert!(text.contains(SHARD) && !text.contains("Signature"), "{text}");
    }
}

#[tokio::test]
async fn a_folder_of_this_machine_is_copied_with_what_its_links_lead_to() {
    let world = World::llama().await;
    let from = world.dir.path().join("from");
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/a.bin"), vec![3; 300_000]).unwrap();
    fs::write(from.join("empty"), "").unwrap();
    symlink("sub/a.bin", from.join("link.bin")).unwrap();
    let settings = Settings { chunk: 64 << 10, ..world.settings() };
    let source = format!("file://{}", from.display());
    download(&settings, &source, &world.dest()).await.unwrap();
    let manifest = Manifest::read(&world.dest()).unwrap().unwrap();
    let listed: Vec<_> = manifest.files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    assert_eq!(listed, [("empty", 0), ("link.bin", 300_000), ("sub/a.bin", 300_000)]);
    assert_eq!(fs::read(world.dest().join("link.bin")).unwrap(), vec![3; 300_000]);
    assert!(fs::symlink_metadata(world.dest().join("link.bin")).unwrap().is_file());

    // What has changed at the source is not mixed with what was copied before.
    fs::remove_file(world.dest().join("link.bin")).unwrap();
    fs::write(from.join("sub/a.bin"), vec![4; 300_000]).unwrap();
    download(&settings, &source, &world.dest()).await.unwrap();
    let files = files_in(&world.dest());
    assert!(files["link.bin"] == vec![4; 300_000] && files["sub/a.bin"] == vec![4; 300_000]);
}

/// Whose digest nobody tells: what came is known by what was learned when it came.
#[tokio::test]
async fn a_file_that_is_in_its_place_is_not_fetched_again_though_its_source_tells_no_digest() {
    let world = World::llama().await;
    let from = world.dir.path().join("from");
    fs::create_dir_all(&from).unwrap();
    fs::write(from.join("a.bin"), vec![1; 400_000]).unwrap();
    fs::write(from.join("b.bin"), vec![2; 300_000]).unwrap();
    let settings = Settings { chunk: 64 << 10, streams: 1, ..world.settings() };
    let (source, dest) = (format!("file://{}", from.display()), world.dest());
    // It ends each run, some before the first file is in its place.
    let in_the_way = dest.join("b.bin/x");
    fs::create_dir_all(&in_the_way).unwrap();
    let record = dest.join(".localmodel/plan.json");
    let is_learned = || fs::read_to_string(&record).is_ok_and(|plan| plan.contains("sha256"));
    for _ in 0..20 {
        if !is_learned() {
            let error = download(&settings, &source, &dest).await.unwrap_err();
            assert_eq!(error.reason(), Reason::UnsafeFileName, "{error}");
        }
    }
    let inode = || fs::metadata(dest.join("a.bin")).unwrap().ino();
    let before = inode();
    fs::remove_dir_all(dest.join("b.bin")).unwrap();
    // With another selection the source is asked anew, and what was learned counts all the same.
    let selection = Selection::new(vec!["*.bin".into()], vec![]).unwrap();
    download(&Settings { selection, ..settings }, &source, &dest).await.unwrap();
    assert!(is_complete(&dest) && inode() == before, "the first file came a second time");
    assert!(fs::read(dest.join("b.bin")).unwrap() == vec![2; 300_000]);
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let world = World::llama().await;
    let source = format!("file://{}/absent", world.dir.path().display());
    let error = download(&world.settings(), &source, &world.dest()).await.unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
}
