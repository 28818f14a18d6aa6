//! Small files: whole in memory, many at once, and put on the disk together at the end, so that two thousand
//! of them wait neither for two thousand round trips nor for two thousand syncs, one after the other.

use std::sync::Arc;

use super::buffers::Buffer;
use super::receive::Receiver;
use super::{Transfer, mismatch, twice};
use crate::download::digest::Hasher;
use crate::download::error::{Error, Result};
use crate::download::manifest::ManifestFile;
use crate::download::plan::PlannedFile;
use crate::download::source::Link;
use crate::download::store::Store;
use futures::stream::{self, StreamExt, TryStreamExt};

/// Files that are put on the disk at the same time: each waits for the disk, none for a processor.
const SYNCS: usize = 16;

/// Fetches all these files; the first that cannot be had ends it.
pub async fn fetch(transfer: &Transfer, files: Vec<PlannedFile>) -> Result<Vec<ManifestFile>> {
    let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    let fetched = stream::iter(files).map(|file| one(transfer, file));
    let fetched = fetched.buffer_unordered(transfer.settings.streams.max(1)).try_collect().await?;
    transfer.sync(paths).await?;
    Ok(fetched)
}

impl Transfer {
    /// Puts files and their names on the disk, many at a time: the disk takes them together.
    pub async fn sync(&self, paths: Vec<String>) -> Result<()> {
        let synced = stream::iter(paths).map(|path| {
            let store = Arc::clone(&self.store);
            self.threads.run(move || store.sync(&path))
        });
        synced.buffer_unordered(SYNCS).try_collect().await
    }
}

/// Fetches a file; one that came corrupt is fetched once more.
async fn one(transfer: &Transfer, file: PlannedFile) -> Result<ManifestFile> {
    let link = Arc::new(Link::default());
    let mut result = once(transfer, &file, &link).await;
    if let Err(error @ Error::ChecksumMismatch { .. }) = &result {
        tracing::warn!(path = file.path, %error, "a file came corrupt, trying once more");
        transfer.progress.lost(file.size, None);
        link.forget().await;
        result = once(transfer, &file, &link).await.map_err(twice);
    }
    let fetched = file.known_as(result?);
    transfer.placed(&fetched).await?;
    Ok(fetched)
}

async fn once(transfer: &Transfer, file: &PlannedFile, link: &Arc<Link>) -> Result<String> {
    let mut buffer = Buffer::of_its_own(usize::try_from(file.size).unwrap_or(usize::MAX));
    let receiver = Receiver { transfer, file, link, meter: None };
    receiver.fill(&mut buffer, 0..file.size, file.size, &mut None).await?;
    let (store, file, link) = (Arc::clone(&transfer.store), file.clone(), Arc::clone(link));
    transfer.threads.run(move || write(&store, &file, &link, &buffer)).await
}

/// Gives the file its name if its digest is right; gives its SHA-256.
fn write(store: &Store, file: &PlannedFile, link: &Link, buffer: &Buffer) -> Result<String> {
    let mut hasher = Hasher::new(&file.digest, file.size);
    hasher.update(buffer.filled());
    let sha256 = link.verify(hasher, &file.digest).map_err(|found| mismatch(file, &found))?;
    let mut unfinished = store.unfinished(&file.path)?;
    unfinished.write_all(buffer.filled())?;
    unfinished.place_before_it_is_durable(&file.path)?;
    Ok(sha256)
}
