use super::*;
use crate::download::digest::Digest;

fn file(path: &str, size: u64) -> PlannedFile {
    PlannedFile::new(path, size, Digest::Untold)
}

#[test]
fn the_time_left_follows_the_pace_so_far() {
    let elapsed = Duration::from_secs(10);
    assert_eq!(rate(1000, elapsed), 100);
    assert_eq!(time_left(950, 1000, elapsed), Some(10));
    assert_eq!(time_left(0, 1000, elapsed), Some(0));
    assert_eq!(time_left(1000, 0, elapsed), None);
    assert_eq!(rate(u64::MAX, Duration::ZERO), u64::MAX);
}

#[test]
fn what_was_there_before_counts_and_what_is_lost_does_not() {
    let progress = Progress::new(&[file("a", 100), file("b", 10)], (1000, 3));
    let meter = progress.begin(&file("a", 100), 40);
    progress.received(60, Some(&meter));
    let at = |progress: &Progress| (progress.snapshot(0).bytes_done, progress.snapshot(0).files_done);
    assert_eq!(at(&progress), (1100, 3));
    progress.lost(100, Some(&meter));
    assert_eq!(at(&progress), (1000, 3));
    progress.received(100, Some(&meter));
    progress.received(10, None);
    progress.file_done("a");
    progress.file_done("b");
    let end =
        Snapshot { bytes_done: 1110, bytes_total: 1110, files_done: 5, files_total: 5, bytes_per_second: 7 };
    assert_eq!(progress.snapshot(7), end);
    assert!(progress.under_way().is_empty());
}

#[test]
fn the_agent_reads_what_the_downloader_wrote() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Snapshot::read(dir.path()), None);
    let store = Store::create(dir.path()).unwrap();
    let snapshot = Progress::new(&[file("a", 100)], (5, 1)).snapshot(9);
    snapshot.write(&store).unwrap();
    assert_eq!(Snapshot::read(dir.path()), Some(snapshot));
    store.write(Snapshot::PATH, b"{\"bytesDone\":").unwrap();
    assert_eq!(Snapshot::read(dir.path()), None);
}
