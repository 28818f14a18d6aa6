//! A file that has to come in one answer, from its first byte to its last: its size is not known before, or its
//! servers do not agree on which version it is. It is hashed and written as it comes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Transfer;
use crate::download::budget::Budget;
use crate::download::digest::{Digest, Hasher};
use crate::download::error::{Error, Result};
use crate::download::manifest::ManifestFile;
use crate::download::plan::PlannedFile;
use crate::download::source::Source;
use crate::download::store::Store;

/// Pieces on their way to the disk.
const PIECES: usize = 16;

/// Fetches a file; a fault that may pass begins it again. What it brings counts together with the files before it.
pub async fn fetch(transfer: &Transfer, file: PlannedFile, budget: &mut Budget) -> Result<ManifestFile> {
    let mut attempts = transfer.settings.retry.begin(transfer.source.pause());
    loop {
        let mut used = budget.clone();
        match once(transfer, &file, &mut used).await {
            Ok(fetched) => {
                *budget = used;
                transfer.sync(vec![file.path.clone()]).await?;
                transfer.placed(&fetched).await?;
                return Ok(fetched);
            }
            Err(error) => attempts.again(error).await?,
        }
    }
}

async fn once(transfer: &Transfer, file: &PlannedFile, budget: &mut Budget) -> Result<ManifestFile> {
    let mut body = transfer.source.open_whole(file).await?;
    let (pieces, coming) = mpsc::channel(PIECES);
    let (store, path) = (Arc::clone(&transfer.store), file.path.clone());
    let written = transfer.threads.run(move || write(&store, path, coming));
    let received = async {
        while let Some(bytes) = body.chunk().await? {
            budget.add_bytes(bytes.len() as u64)?;
            transfer.progress.received(bytes.len() as u64, None);
            if pieces.send(Some(bytes)).await.is_err() {
                return Ok(()); // the disk refuses it, which the other half tells
            }
        }
        // Without it the file ends before its time, and does not stay.
        let _ = pieces.send(None).await;
        drop(pieces);
        Ok(())
    };
    let (written, received) = tokio::join!(written, received);
    received?;
    let changed = || Error::Changed { place: transfer.source.place() };
    let written = written?.ok_or_else(changed)?;
    // A bucket's object that comes unpacked is larger than its list says.
    if matches!(*transfer.source, Source::Web(_)) && file.size > 0 && written.size != file.size {
        transfer.store.erase(&file.path)?;
        return Err(changed());
    }
    Ok(written)
}

/// Writes the pieces; nothing, unless the last one is there.
fn write(
    store: &Store,
    path: String,
    mut coming: mpsc::Receiver<Option<Bytes>>,
) -> Result<Option<ManifestFile>> {
    let mut unfinished = store.unfinished(&path)?;
    let (mut hasher, mut size) = (Hasher::new(&Digest::Untold, 0), 0);
    loop {
        match coming.blocking_recv() {
            Some(Some(bytes)) => {
                hasher.update(&bytes);
                unfinished.write_all(&bytes)?;
                size += bytes.len() as u64;
            }
            Some(None) => break,
            None => return Ok(None),
        }
    }
    unfinished.place_before_it_is_durable(&path)?;
    let sha256 = hasher.verify(&Digest::Untold).unwrap_or_default();
    Ok(Some(ManifestFile { path, size, sha256 }))
}
