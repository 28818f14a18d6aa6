//! The scrub: all bytes of complete copies are read again and again, slowly, and compared with their
//! digests (A5). This says which copy and which file comes next, when, and how fast.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::disk::CopyKey;
use crate::download::manifest::ManifestFile;

/// How often and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The time from one check of a copy to the next.
    pub interval: SignedDuration,
    /// The most that is read in a second; 0 turns the scrub off.
    pub bytes_per_second: u64,
}

/// What a copy keeps of its scrub, so that a restart of the agent begins nothing anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// How the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Done>,
    /// How far the one is that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<UnderWay>,
}

/// A scrub of a copy that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// When it ended.
    pub at: Timestamp,
    /// Bytes that it read.
    pub bytes: u64,
    /// Files that it found damaged.
    pub damaged: u64,
}

/// A scrub of a copy that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnderWay {
    /// The file that was read last; they are read in the order of their names.
    pub after: String,
    /// Bytes that were read so far.
    pub bytes: u64,
    /// Files that were found damaged so far.
    pub damaged: u64,
}

impl Record {
    /// A file has been read.
    pub fn passed(&mut self, path: &str, bytes: u64, damaged: bool) {
        let so_far = self.under_way.get_or_insert_default();
        path.clone_into(&mut so_far.after);
        so_far.bytes += bytes;
        so_far.damaged += u64::from(damaged);
    }

    /// No file is left to be read.
    pub fn finish(&mut self, now: Timestamp) {
        let UnderWay { bytes, damaged, .. } = self.under_way.take().unwrap_or_default();
        self.last = Some(Done { at: now, bytes, damaged });
    }
}

/// A copy, as far as the scrub is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// When its manifest was written: what it says had been checked by then.
    pub verified: Option<Timestamp>,
    /// What it keeps of its scrub.
    pub record: Record,
}

impl Scrubbed {
    /// When all its bytes were last known to be right. A time that is yet to come is not believed.
    pub fn checked(&self, now: Timestamp) -> Option<Timestamp> {
        let last = self.record.last.map(|done| done.at);
        self.verified.into_iter().chain(last).filter(|at| *at <= now).max()
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read this copy, from the file on that its record says.
    Read(CopyKey),
    /// Nothing is due before this time, if ever.
    Wait(Option<Timestamp>),
}

/// The next step: what has begun is ended first, then comes what was checked longest ago.
pub fn next(copies: &BTreeMap<CopyKey, Scrubbed>, settings: &Settings, now: Timestamp) -> Step {
    if settings.bytes_per_second == 0 {
        return Step::Wait(None);
    }
    if let Some((copy, _)) = copies.iter().find(|(_, copy)| copy.record.under_way.is_some()) {
        return Step::Read(copy.clone());
    }
    let due = |copy: &Scrubbed| copy.checked(now).map_or(Timestamp::MIN, |at| at + settings.interval);
    match copies.iter().map(|(key, copy)| (due(copy), key)).min() {
        None => Step::Wait(None),
        Some((due, copy)) if due <= now => Step::Read(copy.clone()),
        Some((due, _)) => Step::Wait(Some(due)),
    }
}

/// The file that is read next; none when all have been.
pub fn next_file<'a>(files: &'a [ManifestFile], record: &Record) -> Option<&'a ManifestFile> {
    let is_left =
        |file: &&ManifestFile| record.under_way.as_ref().is_none_or(|under_way| file.path > under_way.after);
    files.iter().filter(is_left).min_by_key(|file| &file.path)
}

/// How long to rest after `bytes` that took some time to read, so that they come evenly. What a slow disk
/// or a busy machine held up is not made good for.
pub fn rest(bytes: usize, took: Duration, bytes_per_second: u64) -> Duration {
    let share = Duration::from_secs(1).saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
    let whole = share.as_nanos() / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(whole).unwrap_or(u64::MAX)).saturating_sub(took)
}

/// What is told of a disk's scrub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Since when all bytes are known to have been right: the longest time ago that a copy was checked.
    pub checked: Option<Timestamp>,
    /// Bytes that the last scrub of each copy read.
    pub bytes: u64,
    /// Files that it found damaged.
    pub damaged: u64,
}

/// The last result of the scrub, over these copies.
pub fn summary<'a>(copies: impl IntoIterator<Item = &'a Scrubbed>, now: Timestamp) -> Summary {
    let mut summary = Summary::default();
    let mut unknown = false;
    for copy in copies {
        let last = copy.record.last;
        summary.bytes += last.map_or(0, |last| last.bytes);
        // What one under way has found is told at once.
        let begun = copy.record.under_way.as_ref().map_or(0, |under_way| under_way.damaged);
        summary.damaged += begun.max(last.map_or(0, |last| last.damaged));
        match copy.checked(now) {
            None => unknown = true,
            Some(at) => summary.checked = Some(summary.checked.map_or(at, |other| other.min(at))),
        }
    }
    // To the second, as times are written.
    let checked = summary.checked.filter(|_| !unknown);
    Summary { checked: checked.and_then(|at| Timestamp::from_second(at.as_second()).ok()), ..summary }
}

#[cfg(test)]
mod tests;
