//! Who wrote what is in `incoming/K`. Our own downloader is believed what it writes down there: its manifest, above all.
//! Any other initializer is not, since it writes whatever its source holds. `incoming/K.foreign` stands beside the
//! folder of one, where no Job can reach it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rustix::fs::{OFlags, XattrFlags};

use super::{Disk, INCOMING, MODELS, erase, gone, is_kept, mark_kept};
use crate::agent::adopt::{self, OtherNames, Unfit};
use crate::api::source::is_storage_key;
use crate::download::manifest::Manifest;
use crate::download::store::{STATE_DIR, Store};
use crate::error::{Doing, Error};
use crate::plan::disk::CopyKey;
use crate::plan::pass::Problem;

/// What is put behind a key.
const FOREIGN: &str = ".foreign";
/// Says that an agent has placed or written a manifest. No source can bring that: it is no part of a file.
const SEAL: &str = "user.localmodel.kserve.io";

/// The storage key of a mark's name.
pub(super) fn marked(name: &str) -> Option<&str> {
    name.strip_suffix(FOREIGN).filter(|key| is_storage_key(key))
}

impl Disk {
    /// Whether another initializer than ours writes `incoming/K`.
    pub(super) fn is_foreign(&self, copy: &CopyKey) -> bool {
        fs::symlink_metadata(self.mark_of(copy)).is_ok()
    }

    /// Writes down, before its Job is made, that another initializer will write the folder; what an earlier run left of
    /// our own in it does not count any more.
    pub(super) fn mark_foreign(&self, copy: &CopyKey) -> Result<(), Error> {
        let mark = self.mark_of(copy);
        let doing = || format!("writing {}", mark.display());
        if !self.is_foreign(copy) {
            let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
            let new = OpenOptions::new()
                .write(true)
                .create_new(true)
                .custom_flags(flags)
                .open(&mark)
                .doing(doing)?;
            new.sync_all().doing(doing)?;
        }
        erase(&self.path(INCOMING, copy).join(STATE_DIR)).doing(doing)
    }

    pub(super) fn remove_mark(&self, copy: &CopyKey) -> Result<(), Error> {
        let mark = self.mark_of(copy);
        gone(fs::remove_file(&mark)).doing(|| format!("removing {}", mark.display()))
    }

    fn mark_of(&self, copy: &CopyKey) -> PathBuf {
        let mut name = self.path(INCOMING, copy).into_os_string();
        name.push(FOREIGN);
        name.into()
    }

    /// Writes the manifest of what another initializer left in `incoming/K`; says why there can be none.
    pub(in crate::agent) fn adopt(&self, copy: &CopyKey, source: &str) -> Result<Option<Problem>, Error> {
        let path = self.path(INCOMING, copy);
        let doing = || format!("writing the manifest of {}", path.display());
        if !self.is_folder(&path) {
            return Ok(None);
        }
        erase(&path.join(STATE_DIR)).doing(doing)?;
        let refused = match adopt::manifest(&path, source, OtherNames::Refused) {
            Ok(manifest) => {
                manifest.write(&path).map_err(io::Error::other).doing(doing)?;
                self.remove_mark(copy)?;
                return Ok(None);
            }
            Err(Unfit::Refused(problem)) => problem,
            Err(Unfit::Failed(error)) => return Err(error).doing(doing),
        };
        self.erase_incoming(copy)?;
        Ok(Some(refused))
    }

    /// The same for what KServe's Job left in `models/K`, which stays where services may read it.
    pub(in crate::agent) fn adopt_model(
        &self,
        copy: &CopyKey,
        source: &str,
    ) -> Result<Option<Problem>, Error> {
        let path = self.path(MODELS, copy);
        let doing = || format!("writing the manifest of {}", path.display());
        if !self.is_folder(&path) {
            return Ok(None);
        }
        let kept = is_kept(&path);
        erase(&path.join(STATE_DIR)).doing(doing)?;
        if kept {
            mark_kept(&path).doing(doing)?;
        }
        match adopt::manifest(&path, source, OtherNames::Allowed) {
            Ok(manifest) => {
                manifest.write(&path).map_err(io::Error::other).doing(doing)?;
                self.seal(copy, &path);
                Ok(None)
            }
            Err(Unfit::Refused(problem)) => Ok(Some(problem)),
            Err(Unfit::Failed(error)) => Err(error).doing(doing),
        }
    }
}

impl Disk {
    /// Marks the manifest of the copy in a folder as one that an agent vouches for.
    pub(super) fn seal(&self, copy: &CopyKey, folder: &Path) {
        let sealed = Store::open(folder).and_then(|store| {
            let manifest = store.and_then(|store| store.reader(Manifest::PATH).ok());
            manifest.map_or(Ok(()), |file| Ok(rustix::fs::fsetxattr(file, SEAL, b"1", XattrFlags::empty())?))
        });
        if let Err(error) = sealed {
            tracing::debug!(%copy, %error, "the file system keeps no seal");
        }
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).insert(copy.clone());
    }

    /// Whether an agent vouches for the manifest of a copy.
    pub(super) fn is_sealed(&self, copy: &CopyKey) -> bool {
        let manifest = || Store::open(&self.path(MODELS, copy)).ok()??.reader(Manifest::PATH).ok();
        let is_marked =
            |file| rustix::fs::fgetxattr(file, SEAL, &mut [0_u8; 1][..]).is_ok_and(|length| length == 1);
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).contains(copy)
            || manifest().is_some_and(is_marked)
    }
}
