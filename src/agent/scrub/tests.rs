use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::download::manifest::Manifest;
use crate::plan::disk::Folder;
use crate::plan::scrub::{Done, UnderWay};

const KEY: &str = "c277d78a31bc6624";
const RECORD: &str = ".localmodel/scrub.json";

/// A disk with one copy, which was downloaded long ago.
struct Sample {
    disk: Disk,
    folder: tempfile::TempDir,
}

fn sample(files: &[(&str, &[u8])]) -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), None);
    assert_eq!(disk.problem(None), None);
    let sample = Sample { disk, folder };
    for (path, bytes) in files {
        fs::create_dir_all(sample.path(path).parent().unwrap()).unwrap();
        fs::write(sample.path(path), bytes).unwrap();
    }
    let file = |(path, bytes): &(&str, &[u8])| ManifestFile {
        path: (*path).into(),
        size: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(bytes)),
    };
    let files = files.iter().map(file).collect();
    Manifest { source: "hf://o/m".into(), files, ..Manifest::default() }.write(&sample.model()).unwrap();
    File::open(sample.path(Manifest::PATH)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    sample
}

impl Sample {
    fn model(&self) -> PathBuf {
        self.folder.path().join("models").join(KEY)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.model().join(path)
    }

    fn record(&self) -> Record {
        serde_json::from_slice(&fs::read(self.path(RECORD)).unwrap()).unwrap()
    }

    fn found(&self) -> (Folder, Option<String>) {
        let inventory = self.disk.scan(&BTreeSet::from([copy()])).unwrap().inventory;
        (inventory.models[&copy()], inventory.damage.get(&copy()).cloned())
    }

    fn scrub<S: Fn() -> Settings>(&self, settings: S) -> (Scrub<S>, watch::Sender<BTreeSet<CopyKey>>) {
        let (wanted, copies) = watch::channel(BTreeSet::from([copy()]));
        let metrics = Arc::new(AgentMetrics::new("n", "g"));
        (Scrub::new(self.disk.clone(), settings, copies, Arc::default(), metrics), wanted)
    }

    /// Lets the scrub work until it has something to tell, which takes seconds of the test's own clock.
    async fn read(&self) {
        let (scrub, _wanted) = self.scrub(weekly);
        let wake = scrub.wake.clone();
        tokio::select! {
            never = scrub.run() => match never {},
            () = wake.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY * 9 / 10) => panic!("the scrub has told nothing"),
        }
    }
}

fn copy() -> CopyKey {
    CopyKey::root(KEY)
}

fn weekly() -> Settings {
    Settings { interval: SignedDuration::from_hours(7 * 24), bytes_per_second: 1 << 20 }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_due_is_read_and_stays_as_it_is() {
    let sample = sample(&[("config.json", b"{}"), ("sub/weights", &[7; 10_000])]);
    sample.read().await;
    let Record { last: Some(Done { at, bytes: 10_002, damaged: 0 }), under_way: None } = sample.record()
    else {
        panic!("{:?}", sample.record());
    };
    assert!(Timestamp::now().duration_since(at) < SignedDuration::from_mins(1));
    assert_eq!(sample.found(), (Folder::Complete { bytes: 10_002, files: 2 }, None));
    let (mut scrub, _wanted) = sample.scrub(weekly);
    assert_eq!(scrub.step().await.unwrap(), Some(LOOK_EVERY), "a week is left");
}

#[tokio::test(start_paused = true)]
async fn other_settings_count_at_once() {
    let sample = sample(&[("a", b"12345")]);
    let pace = AtomicU64::new(0);
    let (scrub, wanted) =
        sample.scrub(|| Settings { bytes_per_second: pace.load(Ordering::Relaxed), ..weekly() });
    let (wake, begun) = (scrub.wake.clone(), tokio::time::Instant::now());
    let news = async {
        tokio::time::sleep(Duration::from_secs(1)).await; // the scrub has found that it is off
        pace.store(1 << 20, Ordering::Relaxed);
        wanted.send_modify(|_| {});
        wake.notified().await;
    };
    tokio::select! {
        never = scrub.run() => match never {},
        () = news => {}
    }
    assert!(begun.elapsed() < LOOK_EVERY / 2, "{:?}", begun.elapsed());
    assert_eq!(sample.record().last.unwrap().bytes, 5);
}

#[tokio::test(start_paused = true)]
async fn bytes_come_at_the_pace_that_is_set() {
    let sample = sample(&[("a", &vec![0; 3 << 20]), ("b", &vec![0; 1 << 20])]);
    let begun = tokio::time::Instant::now();
    sample.read().await;
    let seconds = begun.elapsed().as_secs_f32();
    assert!((2.0..6.0).contains(&seconds), "4 MiB at 1 MiB a second in {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_makes_the_copy_damaged_and_a_repair_takes_all_but_that_file() {
    let sample = sample(&[("a", b"12345"), ("b", b"12345"), ("c", b"12345")]);
    fs::write(sample.path("b"), b"12x45").unwrap();
    assert_eq!(sample.found().0, Folder::Complete { bytes: 15, files: 3 }, "sizes tell nothing");
    sample.read().await;
    let damage = "b has other bytes than it should".to_owned();
    assert_eq!(sample.found(), (Folder::Damaged, Some(damage)));
    let under_way = UnderWay { after: "b".into(), bytes: 10, damaged: 1 };
    assert_eq!(sample.record(), Record { last: None, under_way: Some(under_way) });
    let (mut scrub, _wanted) = sample.scrub(weekly);
    assert_eq!(scrub.step().await.unwrap(), Some(LOOK_EVERY), "a damaged copy waits for its repair");

    sample.disk.prepare(&copy(), true, false).unwrap();
    let incoming = sample.folder.path().join("incoming").join(KEY);
    assert!(incoming.join("a").exists() && !incoming.join("b").exists() && incoming.join("c").exists());
    fs::write(incoming.join("b"), b"12345").unwrap();
    sample.disk.place(&copy()).unwrap();
    assert_eq!(sample.found().0, Folder::Complete { bytes: 15, files: 3 });
    sample.read().await;
    let last = sample.record().last.unwrap();
    assert_eq!((last.bytes, last.damaged), (15, 1), "it went on with c");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_it_goes_on_where_it_was() {
    let sample = sample(&[("a", b"12345"), ("b", b"12345"), ("c", b"12345")]);
    fs::write(sample.path("a"), b"12x45").unwrap();
    let under_way = Some(UnderWay { after: "a".into(), bytes: 5, damaged: 0 });
    let record = serde_json::to_vec(&Record { last: None, under_way }).unwrap();
    fs::write(sample.path(RECORD), record).unwrap();
    sample.read().await;
    let last = sample.record().last.unwrap();
    assert_eq!((last.bytes, last.damaged), (15, 0), "a was read before");
    fs::write(sample.path(RECORD), "{").unwrap();
    sample.read().await;
    assert_eq!(sample.found().0, Folder::Damaged, "without a record all is read");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_down_is_kept_in_mind() {
    let sample = sample(&[("a", b"12345")]);
    fs::create_dir(sample.path(RECORD)).unwrap();
    let (mut scrub, _wanted) = sample.scrub(weekly);
    assert_eq!(scrub.step().await.unwrap(), None);
    assert_eq!(scrub.unwritten[&copy()].last.unwrap().bytes, 5);
    assert_eq!(scrub.step().await.unwrap(), Some(LOOK_EVERY), "it is not read again at once");
}

#[tokio::test(start_paused = true)]
async fn damage_that_cannot_be_written_down_counts_until_the_copy_is_another() {
    let sample = sample(&[("a", b"12345"), ("b", b"12345")]);
    fs::write(sample.path("a"), b"12x45").unwrap();
    fs::create_dir(sample.path(".localmodel/corrupt.json")).unwrap();
    sample.read().await;
    let damage = "a has other bytes than it should".to_owned();
    assert_eq!(sample.found(), (Folder::Damaged, Some(damage)));
    let incoming = sample.folder.path().join("incoming").join(KEY);
    sample.disk.prepare(&copy(), true, false).unwrap();
    assert!(!incoming.join("a").exists() && incoming.join("b").exists());
    fs::write(incoming.join("a"), b"12345").unwrap();
    sample.disk.place(&copy()).unwrap();
    assert_eq!(sample.found().0, Folder::Complete { bytes: 10, files: 2 });
}

#[tokio::test(start_paused = true)]
async fn only_wanted_copies_are_read_and_only_while_it_is_on() {
    let sample = sample(&[("a", b"12345")]);
    fs::write(sample.path("a"), b"12x45").unwrap();
    let (mut off, _wanted) = sample.scrub(|| Settings { bytes_per_second: 0, ..weekly() });
    assert_eq!(off.step().await.unwrap(), Some(LOOK_EVERY));
    let (mut scrub, wanted) = sample.scrub(weekly);
    wanted.send(BTreeSet::new()).unwrap();
    assert_eq!(scrub.step().await.unwrap(), Some(LOOK_EVERY));
    assert_eq!(sample.found().0, Folder::Complete { bytes: 5, files: 1 });
}

#[test]
fn what_is_found_is_not_held_against_a_copy_that_has_taken_its_place() {
    let sample = sample(&[("a", b"12345")]);
    let open = sample.disk.open_copy(&copy()).unwrap().unwrap();
    let incoming = sample.folder.path().join("incoming").join(KEY);
    fs::rename(sample.model(), &incoming).unwrap();
    fs::create_dir(sample.model()).unwrap();
    fs::write(sample.path("a"), b"12345").unwrap();
    open.manifest.write(&sample.model()).unwrap();
    sample.disk.mark_corrupt(&copy(), &open, "a").unwrap();
    assert_eq!(sample.found().0, Folder::Complete { bytes: 5, files: 1 });
}

#[test]
fn a_medium_that_lost_bytes_is_damage_and_a_file_that_may_not_be_read_is_not() {
    let verdict = |code| unreadable(&ManifestFile::default(), &io::Error::from_raw_os_error(code));
    for code in LOST {
        assert!(matches!(verdict(code), Verdict::Damaged(_)), "{code}");
    }
    assert_eq!(verdict(13), Verdict::Unknown);
}
