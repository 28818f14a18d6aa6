//! `serve/K`: the folder of one model, which the volumes of pods lead to. It holds `models/K`, a view of the
//! complete copy made of hard links, and `gate/K`; a pod that mounts all of it sees nothing else of the disk.
//!
//! A view is built in `serve/K.new`, out of every pod's sight, and takes its place in one rename. It is one of
//! the copy as it is now when its manifest and its folder have the time of the copy's manifest: a copy that is
//! placed or repaired has a new manifest, and a file that vanishes from the view changes its folder.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;

use super::look::in_words;
use super::{Disk, Folder, MODELS, SERVE, is_folder, own_folder};
use crate::agent::folders::own_folders_above;
use crate::download::manifest::Manifest;
use crate::download::store::Store;
use crate::error::{Doing, Error};
use crate::plan::disk::{CopyKey, Served};

/// What the folder of a view that is being built is called after its storage key.
const NEW: &str = ".new";
/// Whoever may read the model may read a file that had to be copied.
const FILE_MODE: u32 = 0o664;

/// The storage key of what has this name below `serve/`.
pub(super) fn copy_of(name: &str) -> &str {
    name.strip_suffix(NEW).unwrap_or(name)
}

impl Disk {
    /// Whether `serve/K` shows the copy as it is now, and nothing of an earlier try is left.
    pub(super) fn served(&self, copy: &CopyKey) -> Served {
        let view = self.path(SERVE, copy).join(MODELS).join(&copy.key);
        let is_left = fs::symlink_metadata(self.new_view(copy)).is_ok();
        let is_current = !is_left && is_view_of(&view, &self.path(MODELS, copy));
        if is_current { Served::Current } else { Served::Outdated }
    }

    /// Makes `serve/K` show the complete `models/K`. Readers see the old view or the new one.
    pub(in crate::agent) fn serve(&self, copy: &CopyKey) -> Result<(), Error> {
        let (model, folder) = (self.path(MODELS, copy), self.path(SERVE, copy));
        let (new, view) = (self.new_view(copy), folder.join(MODELS).join(&copy.key));
        let doing = || format!("linking {} into {}", model.display(), folder.display());
        let is_whole = || matches!(self.look(copy, &model).0, Folder::Complete { .. });
        self.erase(&new)?; // what an earlier try left
        if !self.is_folder(&model) || !is_whole() || self.served(copy) == Served::Current {
            return Ok(()); // it changed meanwhile; the next look says how
        }
        if !folder.parent().is_some_and(|parent| self.is_folder(parent)) {
            let why = "the folder above it is not a folder of this disk";
            return Err(io::Error::new(io::ErrorKind::NotADirectory, why)).doing(doing);
        }
        for folder in [&folder, &folder.join(MODELS), &new] {
            own_folder(folder).doing(doing)?;
        }
        let built = fill(&model, &new).and_then(|manifest| {
            let flags = if is_folder(&view) { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
            renameat_with(CWD, &new, CWD, &view, flags)?;
            File::open(&view)?.set_modified(manifest.modified()?)?;
            File::open(folder.join(MODELS))?.sync_all()
        });
        // The view before, or what could not be finished and would only take space.
        let erased = self.erase(&new);
        built.doing(doing)?;
        erased
    }

    /// Erases what pods mount of a copy that nobody needs; its gate first, so that none passes meanwhile.
    pub(in crate::agent) fn erase_served(&self, copy: &CopyKey) -> Result<(), Error> {
        let folder = self.path(SERVE, copy);
        self.erase(&folder.join(super::GATE))?;
        self.erase(&self.new_view(copy))?;
        self.erase(&folder)
    }

    fn new_view(&self, copy: &CopyKey) -> std::path::PathBuf {
        let mut name = self.path(SERVE, copy).into_os_string();
        name.push(NEW);
        name.into()
    }
}

fn is_view_of(view: &Path, model: &Path) -> bool {
    let stat = |path: &Path| fs::symlink_metadata(path).ok();
    let manifest = |folder: &Path| stat(&folder.join(Manifest::PATH)).filter(Metadata::is_file);
    let (Some(of), Some(shown), Some(folder)) = (manifest(model), manifest(view), stat(view)) else {
        return false;
    };
    let time = |meta: &Metadata| meta.modified().ok();
    folder.is_dir() && of.len() == shown.len() && [&shown, &folder].iter().all(|meta| time(meta) == time(&of))
}

/// Links the files that the manifest lists into a new folder, and the manifest after them; returns what the
/// manifest's file is. No symlink is followed or linked.
fn fill(model: &Path, view: &Path) -> io::Result<Metadata> {
    let vanished = || io::Error::new(io::ErrorKind::NotFound, "the copy is gone");
    let store = Store::open(model)?.ok_or_else(vanished)?;
    let manifest = Manifest::read_in(&store).map_err(io::Error::other)?.ok_or_else(vanished)?;
    let files = manifest.files.iter().map(|file| file.path.as_str());
    for path in files.chain([Manifest::PATH]) {
        if !own_folders_above(view, path)? {
            return Err(io::Error::other(format!("{path} is a file and a folder in one manifest")));
        }
        link(&store, path, &view.join(path))?;
    }
    let damages = manifest.damaged(view)?;
    if !damages.is_empty() {
        return Err(io::Error::other(in_words(&damages)));
    }
    fs::symlink_metadata(view.join(Manifest::PATH))
}

/// A second name for a file of a copy. Where the system allows none, because another user owns the file or a
/// quota ends between the two folders, a copy of it.
fn link(store: &Store, path: &str, to: &Path) -> io::Result<()> {
    let file = store.reader(path).map_err(io::Error::other)?;
    // By its descriptor: what the path leads to may change.
    let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(CWD, by_descriptor, CWD, to, AtFlags::SYMLINK_FOLLOW) {
        Err(Errno::PERM | Errno::XDEV | Errno::MLINK | Errno::ACCESS | Errno::OPNOTSUPP) => {
            copy(&file, to)?;
            // The bytes need not be there twice, where the copy's own folder can be changed.
            if let Err(error) = store.replace_by_link(path, to) {
                tracing::warn!(file = %to.display(), %error, "a file that cannot be linked is stored twice");
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

fn copy(mut file: &File, to: &Path) -> io::Result<()> {
    let mut new = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(to)?;
    io::copy(&mut file, &mut new)?; // shares the blocks, where the file system can
    new.set_modified(file.metadata()?.modified()?)?;
    new.sync_all()
}

#[cfg(test)]
mod tests;
