//! The scrub: reads all bytes of complete copies, slowly and around the page cache, and writes down which
//! files are not what they should be; the next pass has them mended (A5). What comes next and how fast is
//! `plan::scrub`'s to say.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};

use super::disk::{Disk, OpenCopy};
use super::work::off_the_loop;
use crate::download::digest::{Digest, Hasher};
use crate::download::manifest::ManifestFile;
use crate::download::store::Scan;
use crate::error::Error;
use crate::plan::disk::CopyKey;
use crate::plan::scrub::{self, Record, Settings, Step};
use crate::telemetry::metrics::AgentMetrics;

/// The longest pause between two looks.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// After so many bytes it is written down how far it is: small files do not wear out the disk.
const SAVE_EVERY: u64 = 256 << 20;

/// What the operating system says of a medium that has lost bytes: `EIO`, and `EBADMSG` and `EUCLEAN`
/// from file systems that check their own.
const LOST: [i32; 3] = [5, 74, 117];

/// What reading a file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds the bytes that it should.
    Whole,
    /// It holds others, or cannot be read any more; the text says which.
    Damaged(String),
    /// It could not be told.
    Unknown,
}

pub(super) struct Scrub<S> {
    disk: Disk,
    /// The settings as they are now.
    settings: S,
    /// The copies that this agent keeps. It tells also when the settings are others, or a copy is complete.
    copies: watch::Receiver<BTreeSet<CopyKey>>,
    /// Wakes the agent's next pass.
    wake: Arc<Notify>,
    metrics: Arc<AgentMetrics>,
    /// What could not be written into its copy: a disk may be read-only.
    unwritten: BTreeMap<CopyKey, Record>,
}

impl<S: Fn() -> Settings> Scrub<S> {
    pub(super) fn new(
        disk: Disk,
        settings: S,
        copies: watch::Receiver<BTreeSet<CopyKey>>,
        wake: Arc<Notify>,
        metrics: Arc<AgentMetrics>,
    ) -> Self {
        Self { disk, settings, copies, wake, metrics, unwritten: BTreeMap::new() }
    }

    pub(super) async fn run(mut self) -> Infallible {
        loop {
            let pause = match self.step().await {
                Ok(None) => continue,
                Ok(Some(pause)) => pause,
                Err(error) => {
                    tracing::warn!(%error, "the scrub is held up");
                    LOOK_EVERY
                }
            };
            tokio::select! {
                // An error says that the agent is about to end.
                Ok(()) = self.copies.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reads one copy, or says how long there is nothing to do.
    async fn step(&mut self) -> Result<Option<Duration>, Error> {
        let (disk, wanted) = (self.disk.clone(), self.copies.borrow_and_update().clone());
        self.unwritten.retain(|copy, _| wanted.contains(copy));
        let mut copies = off_the_loop(move || Ok(disk.scrubbed(&wanted))).await?;
        for (copy, record) in &self.unwritten {
            copies.entry(copy.clone()).and_modify(|copy| copy.record = record.clone());
        }
        let now = Timestamp::now();
        match scrub::next(&copies, &(self.settings)(), now) {
            Step::Read(copy) => self.read_copy(&copy).await,
            Step::Wait(until) => {
                let wait = until.map_or(SignedDuration::MAX, |until| until.duration_since(now));
                Ok(Some(Duration::try_from(wait).unwrap_or_default().min(LOOK_EVERY)))
            }
        }
    }

    /// Reads a copy from where its record says, until all of it is read or one of its files is damaged.
    async fn read_copy(&mut self, copy: &CopyKey) -> Result<Option<Duration>, Error> {
        let (disk, key) = (self.disk.clone(), copy.clone());
        let Some(open) = off_the_loop(move || disk.open_copy(&key)).await? else { return Ok(None) };
        let open = Arc::new(open);
        let mut record = self.unwritten.get(copy).cloned().unwrap_or_else(|| open.record());
        let mut unsaved = 0;
        while let Some(file) = scrub::next_file(&open.manifest.files, &record) {
            if !self.copies.borrow().contains(copy) {
                return Ok(None);
            }
            let Some((verdict, bytes)) = self.read_file(&open, file).await? else {
                return Ok(Some(LOOK_EVERY)); // it was turned off
            };
            self.metrics.scrub_checked(bytes);
            record.passed(&file.path, bytes, matches!(verdict, Verdict::Damaged(_)));
            unsaved += bytes;
            let is_damaged = self.checked(copy, &open, file, verdict).await;
            if is_damaged || unsaved >= SAVE_EVERY {
                self.keep(copy, &open, &record).await;
                unsaved = 0;
            }
            if is_damaged {
                self.wake.notify_one();
                return Ok(None); // what is left is read when it is mended
            }
        }
        record.finish(Timestamp::now());
        self.keep(copy, &open, &record).await;
        let (bytes, damaged) = record.last.map_or((0, 0), |done| (done.bytes, done.damaged));
        tracing::info!(%copy, bytes, damaged_files = damaged, "scrubbed");
        self.wake.notify_one(); // the result stands in the status
        Ok(None)
    }

    /// What became of a file: the one place where that is known. True when its copy is damaged.
    async fn checked(
        &self,
        copy: &CopyKey,
        open: &Arc<OpenCopy>,
        file: &ManifestFile,
        verdict: Verdict,
    ) -> bool {
        let Verdict::Damaged(why) = verdict else {
            if verdict == Verdict::Unknown {
                self.disk.forget(copy); // it is not there, or has another size: the next look sees each file
            }
            return false;
        };
        self.metrics.scrub_damaged(1);
        tracing::warn!(%copy, file = file.path, why, "a file is damaged: it is downloaded again");
        let (disk, copy, open, path) = (self.disk.clone(), copy.clone(), open.clone(), file.path.clone());
        if let Err(error) = off_the_loop(move || disk.mark_corrupt(&copy, &open, &path)).await {
            tracing::error!(%error, "damage is kept in mind until this agent ends");
        }
        true
    }

    /// Writes down how far it is; where that fails it is kept in memory.
    async fn keep(&mut self, copy: &CopyKey, open: &Arc<OpenCopy>, record: &Record) {
        let (open, to_write) = (open.clone(), record.clone());
        match off_the_loop(move || open.write_record(&to_write)).await {
            Ok(()) => drop(self.unwritten.remove(copy)),
            Err(error) => {
                if self.unwritten.insert(copy.clone(), record.clone()).is_none() {
                    tracing::warn!(%copy, %error, "how far the scrub is cannot be written down");
                }
            }
        }
    }

    /// Reads a file at the pace that the settings allow; nothing when they turn the scrub off meanwhile.
    async fn read_file(
        &self,
        open: &Arc<OpenCopy>,
        file: &ManifestFile,
    ) -> Result<Option<(Verdict, u64)>, Error> {
        let (on, wanted) = (open.clone(), file.clone());
        let Some(mut scan) = off_the_loop(move || Ok(on.begin(&wanted.path, wanted.size))).await? else {
            return Ok(Some((Verdict::Unknown, 0)));
        };
        let digest = Digest::Sha256(file.sha256.clone());
        let mut hasher = Hasher::new(&digest, file.size);
        let mut bytes = 0;
        loop {
            let pace = (self.settings)().bytes_per_second;
            if pace == 0 {
                return Ok(None);
            }
            let begun = Instant::now();
            let read = off_the_loop(move || Ok(hash_some(scan, hasher))).await?;
            let length = match read {
                Ok((length, rest, so_far)) => {
                    (scan, hasher) = (rest, so_far);
                    length
                }
                Err(error) => return Ok(Some((unreadable(file, &error), bytes))),
            };
            if length == 0 {
                break;
            }
            bytes += length as u64;
            tokio::time::sleep(scrub::rest(length, begun.elapsed(), pace)).await;
        }
        let verdict = match hasher.verify(&digest) {
            Ok(_) => Verdict::Whole,
            Err(found) => Verdict::Damaged(format!("its bytes have {found}, the manifest says {digest}")),
        };
        Ok(Some((verdict, bytes)))
    }
}

/// Reads on and hashes what it reads; gives how many bytes that were.
fn hash_some(mut scan: Scan, mut hasher: Hasher) -> io::Result<(usize, Scan, Hasher)> {
    let length = match scan.next_bytes()? {
        None => 0,
        Some(bytes) => {
            hasher.update(bytes);
            bytes.len()
        }
    };
    Ok((length, scan, hasher))
}

/// What a failure to read says of the file.
fn unreadable(file: &ManifestFile, error: &io::Error) -> Verdict {
    if error.raw_os_error().is_some_and(|code| LOST.contains(&code)) {
        return Verdict::Damaged(format!("it cannot be read: {error}"));
    }
    tracing::warn!(file = file.path, %error, "a file cannot be checked");
    Verdict::Unknown
}

#[cfg(test)]
mod tests;
