//! How far a download is, and the line that says so (F7).

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::store::{Found, Store};

/// How often [`ProgressReport`] is written.
const WRITTEN_EVERY: Duration = Duration::from_secs(2);

/// How far a download is: what `.localmodel/progress.json` says while there are unfinished files (A8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressReport {
    /// Bytes of the copy that are there.
    pub bytes_done: u64,
    /// Bytes of the whole copy.
    pub bytes_total: u64,
}

impl ProgressReport {
    /// Where a folder keeps it.
    pub const PATH: &str = ".localmodel/progress.json";
    /// Longer ones are not ours.
    const LONGEST: u64 = 1024;

    /// The report in the folder `dir`, if there is one that can be read.
    pub fn read(dir: &Path) -> Option<Self> {
        let store = Store::open(dir).ok()??;
        match store.stat(Self::PATH) {
            Ok(Found::File(size)) if size <= Self::LONGEST => {
                serde_json::from_slice(&store.read(Self::PATH).ok()??).ok()
            }
            _ => None,
        }
    }
}

/// Counts what has arrived.
#[derive(Debug)]
pub struct Progress {
    bytes: u64,
    files: usize,
    whole: u64,
    bytes_done: AtomicU64,
    files_done: AtomicUsize,
}

impl Progress {
    /// For this many bytes in this many files, which make a copy of `whole` bytes together with what is
    /// there already.
    pub fn new(bytes: u64, files: usize, whole: u64) -> Self {
        Self { bytes, files, whole, bytes_done: AtomicU64::new(0), files_done: AtomicUsize::new(0) }
    }

    /// Bytes have arrived.
    pub fn received(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Relaxed);
    }

    /// Bytes have to be fetched again.
    pub fn lost(&self, bytes: u64) {
        self.bytes_done.fetch_sub(bytes, Relaxed);
    }

    /// A file is in its place.
    pub fn file_done(&self) {
        self.files_done.fetch_add(1, Relaxed);
    }

    /// Writes a [`ProgressReport`] now and then, for ever. One that cannot be written only leaves people
    /// without news.
    pub async fn write(&self, store: &Store) -> Infallible {
        let mut failed = false;
        loop {
            let done = self.bytes_done.load(Relaxed).min(self.bytes);
            let report = ProgressReport {
                bytes_done: self.whole.saturating_sub(self.bytes - done),
                bytes_total: self.whole,
            };
            let written = match serde_json::to_vec(&report) {
                Ok(json) => store.write(ProgressReport::PATH, &json).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = written
                && !failed
            {
                tracing::warn!("the progress cannot be written: {error}");
                failed = true;
            }
            tokio::time::sleep(WRITTEN_EVERY).await;
        }
    }

    /// Logs a line now and then, for ever.
    pub async fn report(&self, every: Duration) -> Infallible {
        let start = Instant::now();
        let mut before = 0;
        loop {
            tokio::time::sleep(every).await;
            let done = self.bytes_done.load(Relaxed);
            let rate = rate(done.saturating_sub(before), every);
            let left = time_left(self.bytes.saturating_sub(done), done, start.elapsed());
            tracing::info!(
                bytes_done = done,
                bytes_total = self.bytes,
                files_done = self.files_done.load(Relaxed),
                files_total = self.files,
                bytes_per_second = rate,
                seconds_left = left,
                "downloading"
            );
            before = done;
        }
    }
}

/// Bytes in a second.
pub fn rate(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// Seconds that `left` bytes take at the pace of the `done` ones; `None` before there is a pace.
fn time_left(left: u64, done: u64, elapsed: Duration) -> Option<u64> {
    match rate(done, elapsed) {
        0 => None,
        pace => Some(left.div_ceil(pace)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_report_counts_what_was_there_before_and_follows_the_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path()).unwrap();
        let progress = Progress::new(60, 2, 100);
        let report = |bytes_done| Some(ProgressReport { bytes_done, bytes_total: 100 });
        assert_eq!(ProgressReport::read(dir.path()), None);
        let look = async {
            tokio::time::sleep(WRITTEN_EVERY / 2).await;
            assert_eq!(ProgressReport::read(dir.path()), report(40));
            progress.received(25);
            tokio::time::sleep(WRITTEN_EVERY).await;
            assert_eq!(ProgressReport::read(dir.path()), report(65));
            progress.received(1000);
            tokio::time::sleep(WRITTEN_EVERY).await;
            assert_eq!(ProgressReport::read(dir.path()), report(100), "never more than there is");
        };
        tokio::select! {
            () = look => {}
            never = progress.write(&store) => match never {},
        }
    }

    #[test]
    fn a_report_that_cannot_be_ours_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".localmodel")).unwrap();
        let path = dir.path().join(ProgressReport::PATH);
        for content in
            ["", "{\"bytesDone\":1", &format!("{{\"bytesDone\":1,\"bytesTotal\":2{}}}", " ".repeat(2000))]
        {
            std::fs::write(&path, content).unwrap();
            assert_eq!(ProgressReport::read(dir.path()), None, "{content}");
        }
        assert_eq!(ProgressReport::read(&dir.path().join("absent")), None);
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
}
