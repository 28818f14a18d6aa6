//! What a run makes of a folder: whole copies, repairs, and copies that stay at their commit (F2, F3).

use std::fs;
use std::os::unix::fs::symlink;

use localmodel::download::select::Selection;
use localmodel::download::{Manifest, ManifestFile, Settings, download, is_complete};
use localmodel_hub::{Fault, FaultKind, Model, Origin};
use sha2::{Digest, Sha256};

use crate::{REPO, SHARD, SOURCE, World, eventually};

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A repository whose `main` has moved on: a shard and a small file changed, one left, one came.
fn two_commits() -> Model {
    Model::llama(REPO)
        .size(512 << 10)
        .lfs("old-00001.safetensors", "old weights")
        .commit()
        .lfs(SHARD, "new weights")
        .file("config.json", "{}")
        .without("old-00001.safetensors")
        .file("new.json", "{}")
}

/// A world whose folder is a complete copy of the first of two commits.
async fn copied_before_the_branch_moved() -> (World, String, String) {
    let world = World::new(two_commits()).await;
    let [old, new] = world.hub.commits(REPO).try_into().unwrap();
    world.hub.move_branch(REPO, "main", &old);
    world.run().await.unwrap();
    world.assert_copy_of(&old);
    world.hub.move_branch(REPO, "main", &new);
    world.hub.clear_requests();
    (world, old, new)
}

#[tokio::test]
async fn a_first_run_makes_a_whole_copy_with_one_resolve_a_file() {
    let odd_names = [("ü/%41 ?#&+.txt", "odd"), ("a/b/c/d", "deep"), ("empty", "")];
    let model =
        odd_names.iter().fold(Model::llama(REPO).size(512 << 10), |m, (path, text)| m.file(*path, *text));
    let world = World::new(model.lfs("empty.bin", "")).await;
    world.run().await.unwrap();
    world.assert_copy_of("main");

    let manifest = Manifest::read(&world.dest()).unwrap().unwrap();
    assert_eq!(manifest.source, SOURCE);
    assert_eq!(manifest.revision, world.hub.commits(REPO).pop());
    let files = world.hub.files(REPO, "main");
    let expected = files.iter().map(|(path, bytes)| ManifestFile {
        path: path.clone(),
        size: bytes.len() as u64,
        sha256: sha256(bytes),
    });
    assert_eq!(manifest.files, expected.collect::<Vec<_>>());

    let hub = world.asked(Origin::Hub);
    let not_empty = files.values().filter(|bytes| !bytes.is_empty()).count();
    assert_eq!(hub.iter().filter(|path| path.contains("/api/models/")).count(), 2, "{hub:?}");
    assert_eq!(hub.iter().filter(|path| path.contains("/resolve/")).count(), not_empty, "{hub:?}");
    assert_eq!(world.asked(Origin::Cdn).len(), 2, "one range of each shard");
    assert!(world.hub.requests().iter().all(|request| request.method == "GET"));
}

#[tokio::test]
async fn a_run_over_a_complete_copy_sends_no_request_though_the_branch_moved() {
    let (world, old, _) = copied_before_the_branch_moved().await;
    world.run().await.unwrap();
    assert_eq!(world.hub.requests(), []);
    world.assert_copy_of(&old);
}

#[tokio::test]
async fn only_what_is_missing_is_fetched_and_at_the_commit_of_the_copy() {
    for (case, path) in
        [("missing", SHARD), ("short", SHARD), ("a symlink", SHARD), ("missing", "config.json")]
    {
        let (world, old, _) = copied_before_the_branch_moved().await;
        let file = world.dest().join(path);
        match case {
            "short" => fs::File::options().write(true).open(&file).unwrap().set_len(7).unwrap(),
            _ => fs::remove_file(&file).unwrap(),
        }
        if case == "a symlink" {
            symlink("/etc/hostname", &file).unwrap();
        }
        assert!(!is_complete(&world.dest()), "{case}");
        world.run().await.unwrap();
        world.assert_copy_of(&old);
        let hub = world.asked(Origin::Hub);
        assert_eq!(hub[0], format!("/{REPO}/resolve/{old}/{path}"), "{case}");
        assert!(world.hub.requests().iter().all(|request| request.path.ends_with(path)), "{case}: {hub:?}");
    }
}

#[tokio::test]
async fn a_copy_whose_commit_is_gone_becomes_one_of_the_new_commit() {
    let (world, old, new) = copied_before_the_branch_moved().await;
    world.hub.move_branch(REPO, "main", &old);
    world.hub.force_push(REPO, "main", &new);
    fs::remove_file(world.dest().join(SHARD)).unwrap();
    world.run().await.unwrap();
    world.assert_copy_of(&new);
    assert_eq!(Manifest::read(&world.dest()).unwrap().unwrap().revision, Some(new));
    let resolved = world.hub.requests_of("model-00002").len();
    assert_eq!(resolved, 0, "what both commits have is not fetched again");
}

#[tokio::test]
async fn a_commit_that_is_named_is_never_exchanged_for_another() {
    let (world, old, new) = copied_before_the_branch_moved().await;
    let source = format!("{SOURCE}:{old}");
    world.hub.move_branch(REPO, "main", &old);
    world.hub.force_push(REPO, "main", &new);
    let error = download(&world.settings(), &source, &world.dest()).await.unwrap_err();
    assert!(error.to_string().contains(&old), "{error}");
    assert!(world.hub.requests_of("/revision/").is_empty());
}

#[tokio::test]
async fn a_run_cut_short_is_not_believed_and_the_next_goes_on_at_the_same_commit() {
    let world = World::new(two_commits()).await;
    let [old, new] = world.hub.commits(REPO).try_into().unwrap();
    world.hub.move_branch(REPO, "main", &old);
    world.hub.fault(Fault::always(SHARD, FaultKind::Stall { after: 100_000 }).at(Origin::Cdn));
    let others = world.hub.files(REPO, &old).into_keys().filter(|path| path != SHARD).collect::<Vec<_>>();
    let dest = world.dest();
    tokio::select! {
        done = world.run() => panic!("the stalled run ended: {done:?}"),
        () = eventually("the others are there", || others.iter().all(|path| dest.join(path).exists())) => {}
    }
    assert!(!is_complete(&dest) && !dest.join(SHARD).exists());

    world.hub.clear_faults();
    world.hub.clear_requests();
    world.hub.move_branch(REPO, "main", &new);
    world.run().await.unwrap();
    world.assert_copy_of(&old);
    assert_eq!(world.asked(Origin::Hub), [format!("/{REPO}/resolve/{old}/{SHARD}")]);
}

#[tokio::test]
async fn what_a_killed_process_left_is_cleaned_up_and_not_trusted() {
    let world = World::llama().await;
    let state = world.dest().join(".localmodel");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("0123456789abcdef.incomplete"), "half").unwrap();
    fs::write(state.join("plan.json"), r#"{"source": "hf://acm"#).unwrap();
    let shard = &world.hub.files(REPO, "main")[SHARD];
    fs::write(world.dest().join(SHARD), vec![0; shard.len()]).unwrap();
    world.run().await.unwrap();
    world.assert_copy_of("main");
}

#[tokio::test]
async fn a_branch_that_moves_between_requests_gives_no_mixed_copy() {
    let world = World::new(two_commits()).await;
    let [old, new] = world.hub.commits(REPO).try_into().unwrap();
    world.hub.move_branch(REPO, "main", &old);
    world.hub.set_page_size(2);
    let (repo, branch) = (REPO.to_owned(), "main".to_owned());
    let moved = FaultKind::MoveBranch { repo, branch, commit: new, forget: false };
    world.hub.fault(Fault::once("/tree/", moved));
    world.run().await.unwrap();
    world.assert_copy_of(&old);
    assert!(world.hub.requests_of("/tree/").len() > 3, "there were several pages");
}

#[tokio::test]
async fn a_commit_force_pushed_away_during_the_run_is_replaced_by_the_new_one() {
    let world = World::new(two_commits()).await;
    let [old, new] = world.hub.commits(REPO).try_into().unwrap();
    world.hub.move_branch(REPO, "main", &old);
    let (repo, branch) = (REPO.to_owned(), "main".to_owned());
    let moved = FaultKind::MoveBranch { repo, branch, commit: new.clone(), forget: true };
    world.hub.fault(Fault::once("/tree/", moved));
    world.run().await.unwrap();
    world.assert_copy_of(&new);
}

#[tokio::test]
async fn pages_of_the_hub_behind_a_mirror_are_asked_of_the_mirror() {
    let world = World::llama().await;
    world.hub.set_page_size(3);
    world.hub.fault(Fault::always("/tree/", FaultKind::ForeignLink));
    world.run().await.unwrap();
    world.assert_copy_of("main");
}

#[tokio::test]
async fn a_tag_is_looked_up_and_a_commit_is_not() {
    let model = Model::new(REPO).file("a", "1").branch("refs/pr/1").commit().file("a", "2");
    let world = World::new(model).await;
    let [old, _] = world.hub.commits(REPO).try_into().unwrap();
    for (revision, look_ups) in [("refs/pr/1", 1), (old.as_str(), 0)] {
        world.hub.clear_requests();
        let dest = tempfile::tempdir().unwrap();
        download(&world.settings(), &format!("{SOURCE}:{revision}"), dest.path()).await.unwrap();
        assert_eq!(fs::read(dest.path().join("a")).unwrap(), b"1");
        assert_eq!(world.hub.requests_of("/revision/").len(), look_ups, "{revision}");
    }
}

fn selecting(world: &World, allow: &[&str], ignore: &[&str]) -> Settings {
    let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Settings { selection: Selection::new(owned(allow), owned(ignore)).unwrap(), ..world.settings() }
}

#[tokio::test]
async fn a_changed_selection_makes_the_copy_incomplete_and_fetches_only_what_is_new() {
    let (world, old, _) = copied_before_the_branch_moved().await;
    let dest = world.dest();
    let weights = selecting(&world, &["*.safetensors"], &["old*"]);
    download(&weights, SOURCE, &dest).await.unwrap();
    assert_eq!(world.asked(Origin::Cdn).len(), 0, "all of it was there");
    assert!(!dest.join("config.json").exists() && !dest.join("old-00001.safetensors").exists());
    let manifest = Manifest::read(&dest).unwrap().unwrap();
    assert_eq!((manifest.revision, manifest.files.len()), (Some(old.clone()), 2));
    assert_eq!(
        (manifest.allow_patterns, manifest.ignore_patterns),
        (vec!["*.safetensors".into()], vec!["old*".into()])
    );

    world.hub.clear_requests();
    download(&weights, SOURCE, &dest).await.unwrap();
    assert_eq!(world.hub.requests(), []);

    world.run().await.unwrap();
    world.assert_copy_of(&old);
    assert_eq!(world.asked(Origin::Cdn).len(), 1, "the shard that was left out");
}

#[tokio::test]
async fn patterns_that_leave_nothing_are_an_error() {
    let world = World::llama().await;
    let error = download(&selecting(&world, &["*.gguf"], &[]), SOURCE, &world.dest()).await.unwrap_err();
    assert_eq!(format!("{:?}", error.reason()), "NothingSelected");
    assert!(!is_complete(&world.dest()));
}

#[tokio::test]
async fn a_large_file_is_asked_for_in_ranges_behind_one_link() {
    let world = World::llama().await;
    let settings = Settings { segment: 100_000, ..world.settings() };
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    world.assert_copy_of("main");
    let requests = world.hub.requests_of(SHARD);
    let (cdn, hub): (Vec<_>, Vec<_>) = requests.into_iter().partition(|r| r.origin == Origin::Cdn);
    assert_eq!(crate::starts(&cdn), [0, 100_000, 200_000]);
    assert_eq!(hub.len(), 1);
}

#[tokio::test]
async fn a_second_process_waits_for_the_first_and_then_has_nothing_to_do() {
    let world = World::llama().await;
    world.hub.fault(Fault::always(SHARD, FaultKind::Stall { after: 10 }).at(Origin::Cdn));
    let second = async {
        eventually("the first is at work", || !world.hub.requests_of(SHARD).is_empty()).await;
        let mut second = std::pin::pin!(world.run());
        // It has looked at the lock once its first poll returns.
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(world.hub.requests_of("/revision/").len(), 1);
        world.hub.clear_faults();
        second.await
    };
    let (first, second) = tokio::join!(world.run(), second);
    first.unwrap();
    second.unwrap();
    world.assert_copy_of("main");
    assert_eq!(world.hub.requests_of("/api/models/").len(), 2, "one of them asked");
}

#[tokio::test]
async fn files_of_another_program_are_kept_where_they_are_right() {
    let world = World::llama().await;
    let files = world.hub.files(REPO, "main");
    fs::create_dir_all(world.dest()).unwrap();
    fs::write(world.dest().join(SHARD), &files[SHARD]).unwrap();
    fs::write(world.dest().join("config.json"), "not this").unwrap();
    world.run().await.unwrap();
    world.assert_copy_of("main");
    assert!(world.hub.requests_of(SHARD).is_empty());
}

#[tokio::test]
async fn an_adopted_copy_is_complete_as_it_is_and_is_mended_from_the_hub() {
    let world = World::llama().await;
    let dest = world.dest();
    fs::create_dir_all(&dest).unwrap();
    let mut adopted = Manifest { source: SOURCE.into(), adopted: true, ..Manifest::default() };
    for (path, bytes) in world.hub.files(REPO, "main").into_iter().chain([("stale".to_owned(), vec![1])]) {
        fs::write(dest.join(&path), &bytes).unwrap();
        adopted.files.push(ManifestFile { path, size: bytes.len() as u64, sha256: sha256(&bytes) });
    }
    adopted.write(&dest).unwrap();
    world.run().await.unwrap();
    assert_eq!(world.hub.requests(), []);

    fs::remove_file(dest.join(SHARD)).unwrap();
    world.run().await.unwrap();
    world.assert_copy_of("main");
    assert_eq!(world.asked(Origin::Cdn).len(), 1);
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_costs_no_bytes() {
    let world = World::llama().await;
    world.run().await.unwrap();
    fs::write(world.dest().join(Manifest::PATH), "{").unwrap();
    world.hub.clear_requests();
    world.run().await.unwrap();
    world.assert_copy_of("main");
    assert_eq!(world.asked(Origin::Cdn).len(), 0);
}

#[tokio::test]
async fn another_source_replaces_what_was_in_the_folder() {
    let world = World::llama().await;
    world.hub.add(Model::new("acme/other").file("config.json", "other").file("only-here", "x"));
    download(&world.settings(), "hf://acme/other", &world.dest()).await.unwrap();
    world.run().await.unwrap();
    world.assert_copy_of("main");
}
