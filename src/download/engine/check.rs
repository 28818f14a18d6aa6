//! Which files are in the folder already, with the right bytes.

use std::sync::{Arc, Weak};

use super::Threads;
use crate::download::digest::Hasher;
use crate::download::error::{Error, Result};
use crate::download::manifest::ManifestFile;
use crate::download::plan::PlannedFile;
use crate::download::store::{Found, Store};
use futures::stream::{self, StreamExt, TryStreamExt};

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
            Some(sha256) => kept.push(file.known_as(sha256)),
            None => wanted.push(file),
        }
    }
    Ok((kept, wanted))
}

async fn check_file(store: &Arc<Store>, file: PlannedFile) -> Result<(PlannedFile, Option<String>)> {
    // The reading thread ends when this future is dropped, and with it the last strong count.
    let alive = Arc::new(());
    let (on, watched) = (Arc::clone(store), Arc::downgrade(&alive));
    let threads = Threads::new(store.path());
    let checked = threads.run(move || {
        let sha256 = existing(&on, &file, &watched)?;
        Ok((file, sha256))
    });
    checked.await
}

/// The SHA-256 of the file in the folder, if it has the planned bytes.
fn existing(store: &Store, file: &PlannedFile, alive: &Weak<()>) -> Result<Option<String>> {
    let path = store.path().join(&file.path);
    let found = store.stat(&file.path).map_err(|error| Error::disk("look at", &path, error))?;
    if found != Found::File(file.size) || file.one_stream || !file.can_be_told() {
        return Ok(None);
    }
    let mut hasher = Hasher::new(&file.digest, file.size);
    let whole = store.scan(&file.path, |bytes| {
        hasher.update(bytes);
        alive.strong_count() > 0
    })?;
    Ok(if whole { hasher.verify(&file.digest).ok() } else { None })
}
