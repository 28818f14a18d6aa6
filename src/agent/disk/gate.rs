//! `serve/K/gate/K/status.json`, and `gate/K/status.json` for volumes of earlier versions: what the agent tells
//! the pods on its node that wait for a copy.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{Disk, GATE, SERVE, erase, gone, own_folder};
use crate::download::store::Store;
use crate::error::{Doing, Error};
use crate::plan::disk::CopyKey;
use crate::plan::gate::{FILE, GateStatus};

/// Anybody may read it: the pods that wait run as whom they like.
const FILE_MODE: u32 = 0o644;

impl Disk {
    /// Says how a copy fares to pods with volumes of earlier versions.
    pub(in crate::agent) fn write_gate(&self, copy: &CopyKey, status: &GateStatus) -> Result<(), Error> {
        let folder = self.path(GATE, copy);
        if !folder.parent().is_some_and(|parent| self.is_folder(parent)) {
            return Ok(()); // the area is gone; the next pass makes it
        }
        write_status(&folder, status)
    }

    /// Says how a copy fares in the folder that pods mount, which is made where it is missing: a pod on a node
    /// that is still cold waits at its gate.
    pub(in crate::agent) fn write_served_gate(
        &self,
        copy: &CopyKey,
        status: &GateStatus,
    ) -> Result<(), Error> {
        let served = self.path(SERVE, copy);
        if !served.parent().is_some_and(|parent| self.is_folder(parent)) {
            return Ok(());
        }
        for folder in [served.clone(), served.join(GATE)] {
            own_folder(&folder).doing(|| format!("making {}", folder.display()))?;
        }
        write_status(&served.join(GATE).join(&copy.key), status)
    }

    pub(in crate::agent) fn erase_gate(&self, copy: &CopyKey) -> Result<(), Error> {
        let folder = self.path(GATE, copy);
        if !self.is_folder(&folder) {
            return Ok(());
        }
        erase(&folder).doing(|| format!("erasing {}", folder.display()))
    }
}

/// Writes a status in one rename, when that is not what stands there already.
fn write_status(folder: &Path, status: &GateStatus) -> Result<(), Error> {
    let doing = || format!("writing {}/{FILE}", folder.display());
    let said = serde_json::to_vec(status).map_err(io::Error::other).doing(doing)?;
    own_folder(folder).doing(doing)?;
    let file = folder.join(FILE);
    let store = Store::open(folder).doing(doing)?;
    let found = store.and_then(|store| store.read(FILE, said.len() as u64).ok()?);
    if found.is_some_and(|found| found == said) {
        return Ok(());
    }
    let unfinished = folder.join(format!(".{FILE}"));
    gone(fs::remove_file(&unfinished)).doing(doing)?;
    let write = || {
        let mut new = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&unfinished)?;
        // The process's mask may have taken the others' right to read.
        new.set_permissions(Permissions::from_mode(FILE_MODE))?;
        new.write_all(&said)?;
        fs::rename(&unfinished, &file)
    };
    write().doing(doing)
}
