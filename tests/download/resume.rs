//! What a run finds of an earlier one, whatever ended that (F3).

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use localmodel::download::progress::ProgressReport;
use localmodel::download::retry::Policy;
use localmodel::download::store::Store;
use localmodel::download::{Settings, download, is_complete};
use localmodel_hub::{Fault, FaultKind, Model, Origin, Request};

use crate::{REPO, SOURCE, World, eventually, state_of};

const CHUNK: usize = 16 << 10;

/// A world with one file of 16 chunks and some small ones, and settings with chunks that small.
async fn world() -> (World, Settings) {
    let world = World::new(Model::llama(REPO).size(256 << 10).shards(1)).await;
    let settings = Settings { chunk: CHUNK, small: 4 << 10, streams: 1, ..world.settings() };
    (world, settings)
}

const BIG: &str = "model-00001-of-00001.safetensors";

fn state_file(world: &World, suffix: &str) -> PathBuf {
    let name = state_of(&world.dest()).into_iter().find(|name| name.ends_with(suffix));
    world.dest().join(".localmodel").join(name.unwrap())
}

/// Lines of the journal that begin with this key.
fn journalled(world: &World, key: &str) -> usize {
    let there = state_of(&world.dest()).iter().any(|name| name.ends_with(".journal"));
    let journal =
        if there { fs::read_to_string(state_file(world, ".journal")).unwrap() } else { String::new() };
    journal.lines().filter(|line| line.contains(&format!("{{\"{key}\""))).count()
}

/// Runs until at least 10 of the 16 chunks are recorded, and is dropped there.
async fn cut_short(world: &World, settings: &Settings) -> usize {
    world.hub.fault(Fault::once(BIG, FaultKind::Stall { after: 200_000 }).at(Origin::Cdn));
    world.hub.fault(Fault::always(BIG, FaultKind::Hold).at(Origin::Cdn));
    let dest = world.dest();
    tokio::select! {
        done = download(settings, SOURCE, &dest) => panic!("the stalled run ended: {done:?}"),
        () = eventually("chunks are written", || fs::exists(dest.join(".localmodel")).unwrap()
            && journalled(world, "written") >= 10) => {}
    }
    let store = Store::open(&dest).unwrap().unwrap();
    eventually("its last thread has ended", || store.try_lock().unwrap().is_some()).await;
    world.hub.clear_faults();
    let chunks = journalled(world, "written");
    world.hub.clear_requests();
    chunks
}

/// Bytes that were asked of the CDN for the file.
fn asked_bytes(requests: &[Request]) -> u64 {
    let length = |request: &Request| {
        let range = request.range.as_deref().unwrap().strip_prefix("bytes=").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        last.parse::<u64>().unwrap() + 1 - first.parse::<u64>().unwrap()
    };
    requests.iter().filter(|request| request.origin == Origin::Cdn).map(length).sum()
}

#[tokio::test]
async fn a_run_goes_on_at_the_chunk_where_the_last_one_stopped() {
    let (world, settings) = world().await;
    let there = cut_short(&world, &settings).await;
    assert!(!is_complete(&world.dest()) && !world.dest().join(BIG).exists());
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    world.assert_copy_of("main");
    let size = world.hub.files(REPO, "main")[BIG].len();
    assert_eq!(asked_bytes(&world.hub.requests_of(BIG)), (size - there * CHUNK) as u64);
    let asked: Vec<_> = world.asked(Origin::Hub).into_iter().filter(|path| path.contains(BIG)).collect();
    assert_eq!(asked, [format!("/{REPO}/resolve/{}/{BIG}", world.hub.commits(REPO)[0])]);
    assert!(world.hub.requests_of("/api/models/").is_empty(), "the plan is recorded");
}

#[tokio::test]
async fn a_torn_journal_costs_the_chunks_that_it_does_not_prove() {
    let (world, settings) = world().await;
    cut_short(&world, &settings).await;
    let path = state_file(&world, ".journal");
    let journal = fs::read(&path).unwrap();
    let torn = journal.len() - 7;
    fs::write(&path, [&journal[..torn], b"{\"synced\":null}"].concat()).unwrap();
    let there = journalled(&world, "written");
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    world.assert_copy_of("main");
    let size = world.hub.files(REPO, "main")[BIG].len();
    assert_eq!(asked_bytes(&world.hub.requests_of(BIG)), (size - there * CHUNK) as u64);
}

#[tokio::test]
async fn after_a_reboot_what_was_not_synced_is_fetched_again() {
    let (world, settings) = world().await;
    cut_short(&world, &settings).await;
    let path = state_file(&world, ".journal");
    let journal = fs::read_to_string(&path).unwrap();
    let boot = |line: &str| {
        let json = "{\"boot\":\"another\"}";
        if line.contains("boot") {
            format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
        } else {
            format!("{line}\n")
        }
    };
    fs::write(&path, journal.lines().map(boot).collect::<String>()).unwrap();
    // The power went before the disk had any of it.
    let part = fs::File::options().write(true).open(state_file(&world, ".incomplete")).unwrap();
    part.write_all_at(&vec![0; 10 * CHUNK], 0).unwrap();
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    world.assert_copy_of("main");
    let size = world.hub.files(REPO, "main")[BIG].len() as u64;
    assert_eq!(asked_bytes(&world.hub.requests_of(BIG)), size, "all of it, once");
}

#[tokio::test]
async fn bytes_that_changed_on_the_disk_are_found_and_fetched_again() {
    let (world, settings) = world().await;
    cut_short(&world, &settings).await;
    let part = fs::File::options().write(true).open(state_file(&world, ".incomplete")).unwrap();
    part.write_all_at(b"damage", 3 * CHUNK as u64).unwrap();
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    world.assert_copy_of("main");
}

#[tokio::test]
async fn a_part_without_its_journal_and_a_journal_without_its_part_are_worth_nothing() {
    for lost in [".journal", ".incomplete"] {
        let (world, settings) = world().await;
        cut_short(&world, &settings).await;
        fs::remove_file(state_file(&world, lost)).unwrap();
        download(&settings, SOURCE, &world.dest()).await.unwrap();
        world.assert_copy_of("main");
        let size = world.hub.files(REPO, "main")[BIG].len() as u64;
        assert_eq!(asked_bytes(&world.hub.requests_of(BIG)), size, "{lost}");
    }
}

#[tokio::test]
async fn the_progress_lies_where_the_agent_reads_it_and_goes_with_the_download() {
    let (world, settings) = world().await;
    assert_eq!(ProgressReport::read(&world.dest()), None);
    cut_short(&world, &settings).await;
    let begun = ProgressReport::read(&world.dest()).unwrap();
    let files = world.hub.files(REPO, "main");
    let bytes: usize = files.values().map(Vec::len).sum();
    assert_eq!((begun.bytes_total, begun.files_total), (bytes as u64, files.len() as u64));
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    assert_eq!(ProgressReport::read(&world.dest()), None);
}

#[tokio::test]
async fn a_download_that_tries_again_says_why_where_the_agent_reads_it() {
    let (world, settings) = world().await;
    cut_short(&world, &settings).await;
    let begun = ProgressReport::read(&world.dest()).unwrap();
    world.hub.fault(Fault::always("", FaultKind::Status(503)));
    let retry =
        Policy { first: Duration::from_millis(100), longest: Duration::from_millis(100), attempts: 100 };
    let settings = Settings { retry, ..settings };
    let dest = world.dest();
    let report = || ProgressReport::read(&dest).unwrap_or_default();
    tokio::select! {
        () = eventually("trouble is told", || report().trouble.is_some()) => {}
        ended = download(&settings, SOURCE, &dest) => panic!("{ended:?} before anything was told"),
    }
    let trouble = report().trouble.unwrap();
    assert_eq!(trouble.reason, "SourceUnavailable");
    assert!(trouble.message.contains("503") && trouble.message.contains("so far"), "{}", trouble.message);
    assert_eq!(report().bytes_total, begun.bytes_total, "what is known is not forgotten");
}

/// A process that downloads from this world's hub with 3 MiB of buffers.
fn process(world: &World) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localmodel"));
    command.env_clear().env("HF_ENDPOINT", world.hub.endpoint()).stderr(Stdio::null());
    command.args(["download", "--memory-mib", "3", SOURCE]).arg(world.dest()).spawn().unwrap()
}

/// 15 kills in the usual run of the tests; `KILLS=200` makes it 200.
#[tokio::test]
async fn no_kill_at_any_moment_costs_more_than_what_was_on_its_way() {
    const STREAMS: u64 = 8;
    let kills = std::env::var("KILLS").map_or(15, |kills| kills.parse().unwrap());
    let model = 64_u64 << 20;
    let world = World::new(Model::llama(REPO).size(64 << 20).shards(3)).await;
    // Slow enough that bytes do not pile up in sockets, which are no part of the memory that is counted.
    world.hub.fault(Fault::always("", FaultKind::Throttle { bytes_per_second: 8 << 20 }).at(Origin::Cdn));
    let mut random = 7_u64;
    for _ in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let until = world.hub.sent() + (random >> 33) % (3 * model / kills / 2);
        let mut child = process(&world);
        eventually("some bytes are sent", || world.hub.sent() > until || is_complete(&world.dest())).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    world.hub.clear_faults();
    let mut last = process(&world);
    assert!(tokio::task::spawn_blocking(move || last.wait().unwrap()).await.unwrap().success());
    world.assert_copy_of("main");
    let on_its_way = (3 << 20) + STREAMS * (64 << 10);
    let sent = world.hub.sent();
    println!("{kills} kills: {sent} bytes for a model of {model}");
    assert!(sent <= model + (1 << 20) + kills * on_its_way, "{sent} bytes were sent");
}
