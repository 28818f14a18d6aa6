//! How far a download is, and the line that says so (F7).

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Counts what has arrived.
#[derive(Debug)]
pub struct Progress {
    bytes: u64,
    files: usize,
    bytes_done: AtomicU64,
    files_done: AtomicUsize,
}

impl Progress {
    /// For this many bytes in this many files.
    pub fn new(bytes: u64, files: usize) -> Self {
        Self { bytes, files, bytes_done: AtomicU64::new(0), files_done: AtomicUsize::new(0) }
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
