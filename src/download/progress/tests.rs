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
    let at = |progress: &Progress| (progress.snapshot().bytes_done, progress.snapshot().files_done);
    assert_eq!(at(&progress), (1100, 3));
    progress.lost(100, Some(&meter));
    assert_eq!(at(&progress), (1000, 3));
    progress.received(100, Some(&meter));
    progress.received(10, None);
    progress.file_done("a");
    progress.file_done("b");
    let end =
        ProgressReport { bytes_done: 1110, bytes_total: 1110, files_done: 5, files_total: 5, trouble: None };
    assert_eq!(progress.snapshot(), end);
    assert!(progress.under_way().is_empty());
}

#[test]
fn the_agent_reads_what_the_downloader_wrote() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(ProgressReport::read(dir.path()), None);
    let store = Store::create(dir.path()).unwrap();
    let report = Progress::new(&[file("a", 100)], (5, 1)).snapshot();
    report.write(&store).unwrap();
    assert_eq!(ProgressReport::read(dir.path()), Some(report));
}

#[test]
fn a_report_that_cannot_be_ours_is_none_and_one_of_bytes_alone_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let long = format!("{{\"bytesDone\":1,\"bytesTotal\":2{}}}", " ".repeat(5000));
    for content in ["", "{\"bytesDone\":1", &long] {
        store.write(ProgressReport::PATH, content.as_bytes()).unwrap();
        assert_eq!(ProgressReport::read(dir.path()), None, "{content}");
    }
    store.write(ProgressReport::PATH, b"{\"bytesDone\":1,\"bytesTotal\":2}").unwrap();
    let bytes = ProgressReport { bytes_done: 1, bytes_total: 2, ..ProgressReport::default() };
    assert_eq!(ProgressReport::read(dir.path()), Some(bytes));
    assert_eq!(ProgressReport::read(&dir.path().join("absent")), None);
}

#[tokio::test(start_paused = true)]
async fn the_report_counts_what_was_there_before_and_follows_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let settings = Settings::new("http://hub").unwrap();
    let progress = Progress::new(&[file("a", 50), file("b", 10)], (40, 1));
    let pause = Pause::default();
    let bytes = || ProgressReport::read(dir.path()).map(|report| (report.bytes_done, report.bytes_total));
    assert_eq!(bytes(), None);
    let look = async {
        tokio::time::sleep(TICK / 2).await;
        assert_eq!(bytes(), Some((40, 100)));
        progress.received(25, None);
        tokio::time::sleep(TICK).await;
        assert_eq!(bytes(), Some((65, 100)));
        progress.received(1000, None);
        tokio::time::sleep(TICK).await;
        assert_eq!(bytes(), Some((100, 100)), "never more than there is");
    };
    tokio::select! {
        () = look => {}
        never = progress.report(&store, &settings, &pause) => match never {},
    }
}
