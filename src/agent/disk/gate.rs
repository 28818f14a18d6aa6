//! `gate/K/status.json`: what the agent tells the pods on its node that wait for a copy (S11).

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use super::{Disk, GATE, erase, gone, own_folder};
use crate::error::{Doing, Error};
use crate::plan::disk::CopyKey;
use crate::plan::gate::{FILE, GateStatus};

/// Anybody may read it: the pods that wait run as whom they like.
const FILE_MODE: u32 = 0o644;

impl Disk {
    /// Says how a copy fares, in one rename, when that is not what stands there already.
    pub(in crate::agent) fn write_gate(&self, copy: &CopyKey, status: &GateStatus) -> Result<(), Error> {
        let folder = self.path(GATE, copy);
        let doing = || format!("writing {}/{FILE}", folder.display());
        let said = serde_json::to_vec(status).map_err(io::Error::other).doing(doing)?;
        if !folder.parent().is_some_and(|parent| self.is_folder(parent)) {
            return Ok(()); // the area is gone; the next pass makes it
        }
        own_folder(&folder).doing(doing)?;
        let file = folder.join(FILE);
        let is_file = fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file());
        if is_file && fs::read(&file).is_ok_and(|found| found == said) {
            return Ok(());
        }
        let unfinished = folder.join(format!(".{FILE}"));
        gone(fs::remove_file(&unfinished)).doing(doing)?;
        let write = || {
            let mut new =
                OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&unfinished)?;
            // The process's mask may have taken the others' right to read.
            new.set_permissions(Permissions::from_mode(FILE_MODE))?;
            new.write_all(&said)?;
            fs::rename(&unfinished, &file)
        };
        write().doing(doing)
    }

    pub(in crate::agent) fn erase_gate(&self, copy: &CopyKey) -> Result<(), Error> {
        let folder = self.path(GATE, copy);
        if !self.is_folder(&folder) {
            return Ok(());
        }
        erase(&folder).doing(|| format!("erasing {}", folder.display()))
    }
}
