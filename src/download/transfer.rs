//! The engine: many files at once, biggest first, each hashed while it is written and named only when its
//! digest is right (F3); what passes is tried again at the byte where it stopped (F4).
//!
//! Memory is flat: per stream there is what the connection has read and a short queue to the thread that
//! hashes and writes.

use std::cmp::Reverse;
use std::io::Read;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::digest::{Digest, Hasher};
use super::error::{Error, Fault, Result};
use super::manifest::ManifestFile;
use super::plan::PlannedFile;
use super::progress::Progress;
use super::settings::Settings;
use super::source::Source;
use super::store::{Found, Store};

/// Chunks that wait for the disk, per stream; a chunk is what one read of the connection gave.
const QUEUE: usize = 4;
const READ_BUFFER: usize = 1 << 20;

/// The files of one commit on their way to one folder.
pub struct Transfer<'a> {
    /// Where they come from.
    pub source: &'a Source,
    /// The commit.
    pub commit: &'a str,
    /// Where they go.
    pub store: &'a Arc<Store>,
    /// How patiently, and how many at once.
    pub settings: &'a Settings,
    /// Counts the bytes.
    pub progress: &'a Progress,
}

impl Transfer<'_> {
    /// Fetches all these files; the first that cannot be had ends it.
    pub async fn fetch(&self, mut files: Vec<PlannedFile>) -> Result<Vec<ManifestFile>> {
        files.sort_by_key(|file| Reverse(file.size));
        let fetched = stream::iter(files).map(|file| self.file(file));
        fetched.buffer_unordered(self.settings.streams.max(1)).try_collect().await
    }

    /// Fetches a file; one that came corrupt is fetched once more, from its first byte.
    async fn file(&self, file: PlannedFile) -> Result<ManifestFile> {
        let mut result = self.file_once(&file).await;
        if let Err(error @ Error::ChecksumMismatch { .. }) = &result {
            tracing::warn!(path = file.path, "{error}; trying once more");
            self.progress.lost(file.size);
            result = self.file_once(&file).await.map_err(twice);
        }
        let sha256 = result?;
        tracing::debug!(path = file.path, size = file.size, "file is there");
        self.progress.file_done();
        Ok(ManifestFile { path: file.path, size: file.size, sha256 })
    }

    async fn file_once(&self, file: &PlannedFile) -> Result<String> {
        let (queue, chunks) = mpsc::channel(QUEUE);
        let writer = spawn_blocking({
            let (store, file) = (Arc::clone(self.store), file.clone());
            move || write(&store, &file, chunks)
        });
        let received = self.receive(file, &queue).await;
        drop(queue);
        // Awaited in any case, so that nothing of this attempt is left when the next one begins.
        let path = self.store.path().join(&file.path);
        let written =
            writer.await.map_err(|error| Error::disk("write", &path, std::io::Error::other(error)))?;
        received.and(written)
    }

    /// Passes all bytes of the file on to the queue. If that is closed, its other end says why.
    async fn receive(&self, file: &PlannedFile, queue: &mpsc::Sender<Bytes>) -> Result<()> {
        let mut attempts = self.settings.retry.begin(self.source.pause());
        let (mut at, mut link) = (0, None);
        while at < file.size && !queue.is_closed() {
            let before = at;
            let Err(error) = self.segment(file, &mut at, &mut link, queue).await else { continue };
            if at > before {
                attempts.progressed();
            }
            // Whatever went wrong, another address may do better; an expired one certainly does.
            link = None;
            attempts.again(error).await?;
        }
        Ok(())
    }

    /// Receives the next segment of the file and moves `at` over what has arrived.
    async fn segment(
        &self,
        file: &PlannedFile,
        at: &mut u64,
        link: &mut Option<reqwest::Url>,
        queue: &mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let asked = *at..file.size.min(at.saturating_add(self.settings.segment.max(1)));
        let mut body = self.source.open(self.commit, file, &asked, link).await?;
        // A server that ignores ranges sends the file from its first byte: what is there already is dropped.
        let mut behind = body.range.start;
        while *at < body.range.end {
            let Some(mut chunk) = body.chunk().await? else { return Err(body.truncated(*at)) };
            let known = chunk.len().min(usize::try_from(*at - behind).unwrap_or(usize::MAX));
            behind += chunk.len() as u64;
            let _ = chunk.split_to(known);
            // Bytes beyond the end are not the file's.
            chunk.truncate(usize::try_from(body.range.end - *at).unwrap_or(usize::MAX));
            let length = chunk.len() as u64;
            if length > 0 && queue.send(chunk).await.is_err() {
                return Ok(());
            }
            *at += length;
            self.progress.received(length);
        }
        Ok(())
    }
}

/// Splits the files into those that are in the folder already, with the right bytes, and the others;
/// reads `streams` of them at the same time.
pub async fn check(
    store: &Arc<Store>,
    streams: usize,
    files: Vec<PlannedFile>,
) -> Result<(Vec<ManifestFile>, Vec<PlannedFile>)> {
    let checked = stream::iter(files).map(|file| check_file(store, file)).buffer_unordered(streams.max(1));
    let (mut kept, mut wanted) = (Vec::new(), Vec::new());
    for (file, sha256) in checked.try_collect::<Vec<_>>().await? {
        match sha256 {
            Some(sha256) => kept.push(ManifestFile { path: file.path, size: file.size, sha256 }),
            None => wanted.push(file),
        }
    }
    Ok((kept, wanted))
}

async fn check_file(store: &Arc<Store>, file: PlannedFile) -> Result<(PlannedFile, Option<String>)> {
    // The reading thread ends when this future is dropped, and with it the last strong count.
    let alive = Arc::new(());
    let (store, watched) = (Arc::clone(store), Arc::downgrade(&alive));
    let path = store.path().join(&file.path);
    let checked = spawn_blocking(move || {
        let sha256 = existing(&store, &file, &watched)?;
        Ok((file, sha256))
    });
    checked.await.map_err(|error| Error::disk("read", &path, std::io::Error::other(error)))?
}

/// Hashes and writes the file, and gives it its name if its digest is right; gives its SHA-256.
fn write(store: &Store, file: &PlannedFile, mut chunks: mpsc::Receiver<Bytes>) -> Result<String> {
    let mut unfinished = store.unfinished(&file.path)?;
    unfinished.reserve(file.size)?;
    let mut hasher = Hasher::new(&file.digest, file.size);
    let mut written = 0;
    while let Some(chunk) = chunks.blocking_recv() {
        hasher.update(&chunk);
        unfinished.write_all(&chunk)?;
        written += chunk.len() as u64;
    }
    if written != file.size {
        let fault = Fault::Truncated { got: written, want: file.size };
        return Err(Error::Passing { what: file.path.clone(), fault });
    }
    let sha256 = hasher.verify(&file.digest).map_err(|found| mismatch(file, &found))?;
    unfinished.place(&file.path)?;
    Ok(sha256)
}

/// The SHA-256 of the file in the folder, if it has the planned bytes.
fn existing(store: &Store, file: &PlannedFile, alive: &Weak<()>) -> Result<Option<String>> {
    let path = store.path().join(&file.path);
    let found = store.stat(&file.path).map_err(|error| Error::disk("look at", &path, error))?;
    if found != Found::File(file.size) {
        return Ok(None);
    }
    let mut reader = store.reader(&file.path)?;
    let mut hasher = Hasher::new(&file.digest, file.size);
    let mut buffer = vec![0; READ_BUFFER];
    while alive.strong_count() > 0 {
        match reader.read(&mut buffer).map_err(|error| Error::disk("read", &path, error))? {
            0 => return Ok(hasher.verify(&file.digest).ok()),
            length => hasher.update(&buffer[..length]),
        }
    }
    Ok(None)
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
