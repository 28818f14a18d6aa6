//! How far a download is: for people in lines or bars (F7), for the agent in a file beside the unfinished ones (A8).

mod bars;

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use bars::Above;
use bars::Bars;

use super::error::{Error, Result};
use super::manifest::total;
use super::plan::PlannedFile;
use super::retry::{Pause, Trouble};
use super::settings::Settings;
use super::store::Store;

/// The time between two looks at the counters.
const TICK: Duration = Duration::from_secs(1);

/// The time between two drawings of the bars.
const DRAW: Duration = Duration::from_millis(200);

/// How far a download is: what `.localmodel/progress.json` says while there is one (A8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressReport {
    /// Bytes of the copy that are there.
    pub bytes_done: u64,
    /// Bytes of the whole copy.
    pub bytes_total: u64,
    /// Files that are in their place.
    #[serde(default)]
    pub files_done: u64,
    /// All files.
    #[serde(default)]
    pub files_total: u64,
    /// Why it does not go on just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

impl ProgressReport {
    /// Where a folder keeps it.
    pub const PATH: &str = ".localmodel/progress.json";
    /// Longer ones are not ours.
    const LONGEST: u64 = 4096;

    /// What the download into the folder `dir` said last; nothing if there is none, or it said nothing readable.
    pub fn read(dir: &Path) -> Option<Self> {
        let store = Store::open(dir).ok()??;
        serde_json::from_slice(&store.read(Self::PATH, Self::LONGEST).ok()??).ok()
    }

    fn write(&self, store: &Store) -> Result<()> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::disk("write", &store.path().join(Self::PATH), error))?;
        let mut file = store.unfinished(Self::PATH)?;
        file.write_all(&json)?;
        file.place_before_it_is_durable(Self::PATH)
    }
}

/// Counts what has arrived.
#[derive(Debug)]
pub struct Progress {
    /// Bytes and files that were there before this run.
    before: (u64, u64),
    bytes: u64,
    files: u64,
    /// Bytes that an earlier run had fetched of files that this one finishes.
    resumed: AtomicU64,
    done: AtomicU64,
    files_done: AtomicUsize,
    meters: Mutex<Vec<Arc<Meter>>>,
}

/// How far one large file is.
#[derive(Debug)]
pub struct Meter {
    /// Its path.
    pub path: String,
    /// Its size.
    pub size: u64,
    /// Bytes that are there.
    pub done: AtomicU64,
}

impl Progress {
    /// For these files, beside `before` files of so many bytes in all, which are there already.
    pub fn new(wanted: &[PlannedFile], before: (u64, u64)) -> Self {
        Self {
            before,
            bytes: total(wanted.iter().map(|file| file.size)),
            files: wanted.len() as u64,
            resumed: AtomicU64::new(0),
            done: AtomicU64::new(0),
            files_done: AtomicUsize::new(0),
            meters: Mutex::default(),
        }
    }

    /// A large file is begun, of which `resumed` bytes are there.
    pub fn begin(&self, file: &PlannedFile, resumed: u64) -> Arc<Meter> {
        self.resumed.fetch_add(resumed, Relaxed);
        let meter = Meter { path: file.path.clone(), size: file.size, done: AtomicU64::new(resumed) };
        let meter = Arc::new(meter);
        self.meters().push(Arc::clone(&meter));
        meter
    }

    /// Bytes have arrived, of a large file if there is a meter.
    pub fn received(&self, bytes: u64, meter: Option<&Meter>) {
        self.done.fetch_add(bytes, Relaxed);
        if let Some(meter) = meter {
            meter.done.fetch_add(bytes, Relaxed);
        }
    }

    /// All bytes of a file have to be fetched again.
    pub fn lost(&self, size: u64, meter: Option<&Meter>) {
        if let Some(meter) = meter {
            meter.done.store(0, Relaxed);
        }
        // What of it an earlier run had fetched is lost as well.
        let here = size.min(self.done.load(Relaxed));
        self.done.fetch_sub(here, Relaxed);
        self.resumed.fetch_sub((size - here).min(self.resumed.load(Relaxed)), Relaxed);
    }

    /// A file is in its place.
    pub fn file_done(&self, path: &str) {
        self.files_done.fetch_add(1, Relaxed);
        self.meters().retain(|meter| meter.path != path);
    }

    /// The large files that are on their way.
    pub fn under_way(&self) -> Vec<Arc<Meter>> {
        self.meters().clone()
    }

    /// How far it is.
    pub fn snapshot(&self) -> ProgressReport {
        let (bytes, files) = self.before;
        let here = self.done.load(Relaxed) + self.resumed.load(Relaxed);
        ProgressReport {
            bytes_done: bytes.saturating_add(here.min(self.bytes)),
            bytes_total: bytes.saturating_add(self.bytes),
            files_done: files + self.files_done.load(Relaxed) as u64,
            files_total: files + self.files,
            trouble: None,
        }
    }

    /// Tells how far it is, for ever: the agent each second, people in bars or a line now and then.
    pub async fn report(&self, store: &Store, settings: &Settings, pause: &Pause) -> Infallible {
        let every = settings.progress_every;
        let mut bars = settings.bars.clone().map(Bars::new);
        let start = Instant::now();
        let (mut told, mut before) = (Instant::now(), 0);
        let (mut file, mut written) = (ReportFile::new(store), None);
        loop {
            let done = self.done.load(Relaxed);
            let report = ProgressReport { trouble: pause.trouble(), ..self.snapshot() };
            let due = written.is_none_or(|written: Instant| written.elapsed() >= TICK.min(every));
            if due && file.tell(&report) {
                written = Some(Instant::now());
            }
            if let Some(bars) = &mut bars {
                bars.show(self, &report);
            } else if told.elapsed() >= every {
                self.log(&report, rate(done.saturating_sub(before), told.elapsed()), start.elapsed());
                (told, before) = (Instant::now(), done);
            }
            tokio::time::sleep(if bars.is_some() { DRAW } else { TICK.min(every) }).await;
        }
    }

    fn log(&self, report: &ProgressReport, bytes_per_second: u64, elapsed: Duration) {
        let left = report.bytes_total - report.bytes_done;
        tracing::info!(
            bytes_done = report.bytes_done,
            bytes_total = report.bytes_total,
            files_done = report.files_done,
            files_total = report.files_total,
            bytes_per_second,
            seconds_left = time_left(left, self.done.load(Relaxed), elapsed),
            "downloading"
        );
    }

    fn meters(&self) -> MutexGuard<'_, Vec<Arc<Meter>>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent's file, written when there is something new to say.
struct ReportFile<'a> {
    store: &'a Store,
    said: Option<ProgressReport>,
    failed: bool,
}

impl<'a> ReportFile<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, said: None, failed: false }
    }

    /// Whether this was new. What cannot be written only leaves people without news.
    fn tell(&mut self, report: &ProgressReport) -> bool {
        if self.said.as_ref() == Some(report) {
            return false;
        }
        if let Err(error) = report.write(self.store)
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!(%error, "the progress cannot be written");
        }
        self.said = Some(report.clone());
        true
    }
}

/// Tells why a download does not begin, for ever, beside what an earlier run said of its bytes.
pub async fn report_beginning(store: &Store, pause: &Pause) -> Infallible {
    let earlier = ProgressReport::read(store.path());
    let mut file = ReportFile { said: earlier.clone(), ..ReportFile::new(store) };
    loop {
        let trouble = pause.trouble();
        // Where there is nothing to say there need not be a file.
        if trouble.is_some() || file.said.is_some() {
            file.tell(&ProgressReport { trouble, ..earlier.clone().unwrap_or_default() });
        }
        tokio::time::sleep(TICK).await;
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
mod tests;
