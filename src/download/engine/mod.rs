//! The engine: many files at once, in parallel ranges, each hashed and written from the buffers that its bytes
//! came in, and named only when its digest is right (F3).
//!
//! [`schedule`] decides who fetches what, [`chunks`] how a file is parted, [`journal`] what survives a kill: all
//! without I/O. [`large`] runs the streams, [`growing`] a large file, [`small`] the many small ones,
//! [`receive`] is patient with servers, and [`buffers`] bounds the memory.

pub mod buffers;
pub mod check;
pub mod chunks;
mod growing;
pub mod journal;
mod large;
mod receive;
pub mod schedule;
mod small;
mod stream;
mod threads;

use std::cmp::Reverse;
use std::sync::Arc;

pub use threads::Threads;

use super::budget::Budget;
use super::digest::Digest;
use super::error::{Error, Result};
use super::learned::Learned;
use super::manifest::ManifestFile;
use super::plan::PlannedFile;
use super::progress::Progress;
use super::settings::Settings;
use super::source::Source;
use super::store::Store;

/// Files of one source on their way to one folder.
pub struct Transfer {
    /// Where they come from.
    pub source: Arc<Source>,
    /// The commit, where the source has such a thing.
    pub commit: Option<String>,
    /// Where they go.
    pub store: Arc<Store>,
    /// How patiently, and how many at once.
    pub settings: Settings,
    /// Counts the bytes.
    pub progress: Arc<Progress>,
    /// Keeps the digests that the source does not tell.
    pub learned: Arc<Learned>,
    /// Its threads.
    pub threads: Threads,
}

impl Transfer {
    /// Fetches all these files; the first that cannot be had ends it.
    pub async fn fetch(self: &Arc<Self>, files: Vec<PlannedFile>) -> Result<Vec<ManifestFile>> {
        let (streams, mut files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.one_stream);
        files.sort_by_key(|file| Reverse(file.size));
        let small = files.partition_point(|file| file.size > self.settings.small);
        let small = files.split_off(small);
        let mut budget = Budget::new(self.settings.allowance, &self.source.place());
        budget.add_bytes(files.iter().chain(&small).map(|file| file.size).fold(0, u64::saturating_add))?;
        let one_by_one = async move {
            let mut fetched = Vec::new();
            for file in streams {
                fetched.push(stream::fetch(self, file, &mut budget).await?);
            }
            Ok(fetched)
        };
        let fetched = tokio::try_join!(large::fetch(self, files), small::fetch(self, small), one_by_one);
        if fetched.is_err() {
            // Whoever tries again in this process must not meet a thread of this attempt.
            self.threads.quiet().await;
        }
        let (large, small, streamed) = fetched?;
        Ok([large, small, streamed].concat())
    }

    /// A file is in its place.
    async fn placed(&self, file: &ManifestFile) -> Result<()> {
        self.progress.file_done(&file.path);
        if self.learned.learn(file) {
            let learned = Arc::clone(&self.learned);
            self.threads.run(move || learned.record()).await?;
        }
        Ok(())
    }
}

/// A second corrupt copy is the end of it.
fn twice(error: Error) -> Error {
    match error {
        Error::ChecksumMismatch { .. } => Error::GaveUp { attempts: 2, last: Box::new(error) },
        other => other,
    }
}

fn mismatch(file: &PlannedFile, found: &Digest) -> Error {
    Error::ChecksumMismatch {
        path: file.path.clone(),
        expected: file.digest.to_string(),
        found: found.to_string(),
    }
}
