//! What a copy keeps of its scrub, in `.localmodel/scrub.json`: it goes where the copy goes, and so a
//! restart of the agent begins nothing anew (A5).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use jiff::Timestamp;

use super::{Disk, Folder, MODELS, is_folder};
use crate::download::manifest::Manifest;
use crate::download::store::{Found, Scan, Store};
use crate::error::{Doing, Error};
use crate::plan::disk::CopyKey;
use crate::plan::scrub::{Record, Scrubbed};

const RECORD: &str = ".localmodel/scrub.json";
/// Longer ones are not ours.
const LONGEST: u64 = 64 << 10;

/// A copy whose files are being read. It is held by its folder, wherever that is moved meanwhile: what is
/// found is never written into a copy that has taken its place.
#[derive(Debug)]
pub(in crate::agent) struct OpenCopy {
    store: Store,
    pub(in crate::agent) manifest: Manifest,
}

impl OpenCopy {
    /// What it keeps; one that cannot be read counts as none.
    pub(in crate::agent) fn record(&self) -> Record {
        record(&self.store).unwrap_or_default()
    }

    pub(in crate::agent) fn write_record(&self, record: &Record) -> Result<(), Error> {
        let doing = || format!("writing {}/{RECORD}", self.store.path().display());
        let json = serde_json::to_vec(record).map_err(io::Error::other).doing(doing)?;
        self.store.write(RECORD, &json).map_err(io::Error::other).doing(doing)
    }

    /// Opens a file of it, if that has the size that it should.
    pub(in crate::agent) fn begin(&self, path: &str, size: u64) -> Option<Scan> {
        let is_there = self.store.stat(path).is_ok_and(|found| found == Found::File(size));
        let scan = is_there.then(|| self.store.begin_scan(path))?;
        scan.inspect_err(|error| tracing::warn!(%error, "a file cannot be checked")).ok()
    }
}

impl Disk {
    /// Those of some copies that are complete, and how they were checked.
    pub(in crate::agent) fn scrubbed(&self, wanted: &BTreeSet<CopyKey>) -> BTreeMap<CopyKey, Scrubbed> {
        let complete = |copy: &&CopyKey| {
            let path = self.path(MODELS, copy);
            self.is_folder(&path) && matches!(self.look(copy, &path).0, Folder::Complete { .. })
        };
        let of = |copy: &CopyKey| Some((copy.clone(), scrubbed(&self.path(MODELS, copy))?));
        wanted.iter().filter(complete).filter_map(of).collect()
    }

    /// Writes down that a file of a copy holds other bytes than it should: from now on the copy is not
    /// complete. Where that cannot be written, as on a disk that has become read-only, it is kept in mind.
    pub(in crate::agent) fn mark_corrupt(
        &self,
        copy: &CopyKey,
        open: &OpenCopy,
        path: &str,
    ) -> Result<(), Error> {
        let doing = || format!("writing down that {path} in {} is damaged", open.store.path().display());
        let marked = Manifest::add_corrupt(&open.store, path);
        if marked.is_err() {
            let mut unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
            unrecorded.entry(copy.clone()).or_default().insert(path.to_owned());
        }
        marked.map_err(io::Error::other).doing(doing)
    }

    /// Has the next look see each file of a copy.
    pub(in crate::agent) fn forget(&self, copy: &CopyKey) {
        self.known.forget(&self.path(MODELS, copy));
    }

    /// Opens a complete copy to read it; none where there is none.
    pub(in crate::agent) fn open_copy(&self, copy: &CopyKey) -> Result<Option<OpenCopy>, Error> {
        let path = self.path(MODELS, copy);
        let doing = || format!("opening {}", path.display());
        if !self.is_folder(&path) || !matches!(self.look(copy, &path).0, Folder::Complete { .. }) {
            return Ok(None);
        }
        let Some(store) = Store::open(&path).doing(doing)? else { return Ok(None) };
        let manifest = Manifest::read_in(&store).map_err(io::Error::other).doing(doing)?;
        Ok(manifest.map(|manifest| OpenCopy { store, manifest }))
    }
}

/// How a copy with a manifest was checked.
pub(super) fn scrubbed(model: &Path) -> Option<Scrubbed> {
    let manifest = fs::symlink_metadata(model.join(Manifest::PATH)).ok().filter(fs::Metadata::is_file)?;
    let verified = manifest.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    let store = Store::open(model).ok()??;
    Some(Scrubbed { verified, record: record(&store).unwrap_or_default() })
}

/// Gives a copy the record of the one whose place it takes: a repair is no reason to read all again.
pub(super) fn carry_over(from: &Path, to: &Path) {
    let read = || record(&Store::open(from).ok()??);
    let Some(record) = is_folder(from).then(read).flatten() else { return };
    let Ok(Some(store)) = Store::open(to) else { return };
    let written = serde_json::to_vec(&record).map(|json| store.write(RECORD, &json));
    if !matches!(written, Ok(Ok(()))) {
        tracing::warn!(copy = %to.display(), "the record of its scrub is lost: it will be read anew");
    }
}

fn record(store: &Store) -> Option<Record> {
    serde_json::from_slice(&store.read(RECORD, LONGEST).ok()??).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_longer_than_ours_ever_are_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        let mut written = Record::default();
        written.passed("a", 1, false);
        let mut json = serde_json::to_vec(&written).unwrap();
        json.resize(usize::try_from(LONGEST).unwrap(), b' ');
        store.write(RECORD, &json).unwrap();
        assert_eq!(record(&store), Some(written));
        json.push(b' ');
        store.write(RECORD, &json).unwrap();
        assert_eq!(record(&store), None);
    }
}
