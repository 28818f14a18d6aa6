//! The node's disk: `models/K` holds complete copies only, `incoming/K` is what Jobs write. Nothing but
//! folders named by a storage key is ever moved or erased, and no symbolic link is followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, CWD, RenameFlags, access, renameat_with, statvfs};
use rustix::process::geteuid;

use super::adopt;
use crate::api::source::is_storage_key;
use crate::download::manifest::{Manifest, is_complete};
use crate::download::store::{Found, Store};
use crate::error::{Doing, Error};
use crate::plan::local_status::Usage;
use crate::plan::names::{INCOMING, MODELS, NAMESPACES};
use crate::plan::pass::{Folder, Inventory, Problem};

/// The group may write too: Jobs may run under another user of the same group.
const FOLDER_MODE: u32 = 0o2775;

/// A disk by the folder where it is mounted.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    root: PathBuf,
}

/// What a look at the disk found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scan {
    pub(super) inventory: Inventory,
    /// What is not ours: left alone and reported (A10).
    pub(super) strangers: BTreeSet<String>,
}

impl Disk {
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes the two folders where they are missing; says why the disk cannot be used otherwise (A2).
    pub(super) fn problem(&self) -> Option<Problem> {
        [MODELS, INCOMING].iter().find_map(|name| {
            let path = self.root.join(name);
            let error = usable(&path).err()?;
            let user = geteuid().as_raw();
            Some(Problem::new(
                "DiskNotWritable",
                format!(
                    "{name}/ on the node group's disk cannot be written by user id {user}: {error}; give that user's group write access, or mend the disk"
                ),
            ))
        })
    }

    /// Looks at every folder. Files are told by their sizes; their bytes are not read.
    pub(super) fn scan(&self) -> Result<Scan, Error> {
        let mut scan = Scan::default();
        scan.inventory.models = self.folders(MODELS, &mut scan.strangers)?;
        scan.inventory.incoming = self.folders(INCOMING, &mut scan.strangers)?;
        for name in names(&self.root)? {
            if ![MODELS, INCOMING, NAMESPACES, "lost+found"].contains(&name.as_str()) {
                scan.strangers.insert(name);
            }
        }
        Ok(scan)
    }

    fn folders(
        &self,
        area: &str,
        strangers: &mut BTreeSet<String>,
    ) -> Result<BTreeMap<String, Folder>, Error> {
        let parent = self.root.join(area);
        let mut found = BTreeMap::new();
        if !is_folder(&parent) {
            return Ok(found); // not there yet, or a symlink out of this disk: then it cannot be used
        }
        for name in names(&parent)? {
            let path = parent.join(&name);
            if is_storage_key(&name) && is_folder(&path) {
                found.insert(name, folder(&path));
            } else {
                strangers.insert(format!("{area}/{name}"));
            }
        }
        Ok(found)
    }

    /// Makes `incoming/K` for a Job. What is good in a damaged `models/K` is linked into it, so that the
    /// Job fetches only the rest.
    pub(super) fn prepare(&self, key: &str) -> Result<(), Error> {
        let incoming = self.path(INCOMING, key);
        own_folder(&incoming).doing(|| format!("making {}", incoming.display()))?;
        let model = self.path(MODELS, key);
        if !is_folder(&model) {
            return Ok(());
        }
        let Some(manifest) = Manifest::read(&model).ok().flatten() else { return Ok(()) };
        link_good_files(&manifest, &model, &incoming).doing(|| format!("linking into {}", incoming.display()))
    }

    /// Moves `incoming/K` to `models/K` in one rename; a folder that is there already changes places with
    /// it, so that readers see the old one or the new one and nothing between. Doing it twice changes
    /// nothing: an agent of another group may share the disk.
    pub(super) fn place(&self, key: &str) -> Result<(), Error> {
        let (from, to) = (self.path(INCOMING, key), self.path(MODELS, key));
        let doing = || format!("moving {} to {}", from.display(), to.display());
        if !is_folder(&from) || !is_complete(&from) {
            return Ok(());
        }
        let flags = if is_folder(&to) { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &from, CWD, &to, flags).map_err(io::Error::from).doing(doing)?;
        for area in [MODELS, INCOMING] {
            let parent = self.root.join(area);
            File::open(&parent).and_then(|folder| folder.sync_all()).doing(|| format!("syncing {area}/"))?;
        }
        Ok(())
    }

    /// Writes the manifest of what another initializer left in `incoming/K`.
    pub(super) fn adopt(&self, key: &str, source: &str) -> Result<(), Error> {
        let path = self.path(INCOMING, key);
        let doing = || format!("writing the manifest of {}", path.display());
        if is_complete(&path) {
            return Ok(()); // the downloader's own came meanwhile, and says more
        }
        let manifest = adopt::manifest(&path, source).doing(doing)?;
        manifest.write(&path).map_err(io::Error::other).doing(doing)
    }

    pub(super) fn erase_model(&self, key: &str) -> Result<(), Error> {
        self.erase(MODELS, key)
    }

    pub(super) fn erase_incoming(&self, key: &str) -> Result<(), Error> {
        self.erase(INCOMING, key)
    }

    /// Erases a folder, its manifest first: what is half erased must not look complete.
    fn erase(&self, area: &str, key: &str) -> Result<(), Error> {
        let path = self.path(area, key);
        if !is_folder(&path) {
            return Ok(());
        }
        let doing = || format!("erasing {}", path.display());
        // A link in place of the manifest's folder is erased with the rest, not followed.
        if let Some(store) = Store::open(&path).doing(doing)?
            && matches!(store.stat(Manifest::PATH), Ok(Found::File(_)))
        {
            store.remove(Manifest::PATH).map_err(io::Error::other).doing(doing)?;
        }
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.doing(doing),
        }
    }

    /// Size and free room.
    pub(super) fn usage(&self) -> Option<Usage> {
        let stat = statvfs(&self.root).ok()?;
        Some(Usage { capacity: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
    }

    fn path(&self, area: &str, key: &str) -> PathBuf {
        self.root.join(area).join(key)
    }
}

fn folder(path: &Path) -> Folder {
    match Manifest::read(path) {
        Ok(Some(manifest)) if is_complete(path) => {
            Folder::Complete { bytes: manifest.files.iter().map(|file| file.size).sum() }
        }
        Ok(None) if names(path).is_ok_and(|names| names.iter().all(|name| adopt::is_aside(name))) => {
            Folder::Empty
        }
        Ok(None) => Folder::Bare,
        Ok(Some(_)) | Err(_) => Folder::Damaged,
    }
}

fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let read =
        || fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
    let result: io::Result<Vec<String>> = read();
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.doing(|| format!("reading {}", folder.display())),
    }
}

fn usable(path: &Path) -> io::Result<()> {
    own_folder(path)?;
    Ok(access(path, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Whether a folder is there, and not a link to one.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Makes the folder where it is missing; anything else of its name is an error.
fn own_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE & 0o777).create(path) {
        // The process's mask may have taken the group's right to write.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_folder(path) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder of this disk: remove it"))
        }
        Err(error) => Err(error),
    }
}

fn link_good_files(manifest: &Manifest, model: &Path, incoming: &Path) -> io::Result<()> {
    let bad: BTreeSet<String> = manifest.damaged(model)?.into_iter().map(|damage| damage.path).collect();
    for file in manifest.files.iter().filter(|file| !bad.contains(&file.path)) {
        if !own_folders_above(incoming, &file.path)? {
            continue; // the Job says what it thinks of that
        }
        match fs::hard_link(model.join(&file.path), incoming.join(&file.path)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    if manifest.adopted {
        return Ok(()); // it pins no commit: what comes may rightly differ
    }
    manifest.write(incoming).map_err(io::Error::other)
}

/// Makes the folders in `root` that lead to `file`; false when something else stands in the way. What a
/// Job left in `root` is not to be trusted: no link in it is followed.
fn own_folders_above(root: &Path, file: &str) -> io::Result<bool> {
    let mut path = root.to_owned();
    let parts: Vec<&str> = file.split('/').collect();
    for part in &parts[..parts.len() - 1] {
        path.push(part);
        match own_folder(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
            other => other?,
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
