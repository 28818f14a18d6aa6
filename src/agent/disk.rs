//! The node's disk: its root is the area of cluster caches, `namespaces/NS` that of a namespace's. In each,
//! `models/K` holds complete copies only, `incoming/K` is what Jobs write, `serve/K` is what pods mount, and
//! `gate/K` tells pods with volumes of earlier versions how a copy fares. Nothing but folders named by a storage key is ever moved or erased, and no symbolic link is
//! followed.

mod gate;
mod known;
mod look;
mod origin;
mod room;
mod scrub;
mod serve;

pub(super) use look::Scan;
pub(super) use scrub::OpenCopy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::geteuid;

use super::adopt::{self, OtherNames};
use super::erase::erase;
use super::folders::{
    each_name, is_folder, is_folder_within, lend_good_files, link_files, link_good_files, own_folder, usable,
};
use crate::download::manifest::{Manifest, is_complete};
use crate::download::store::{Found, Store};
use crate::download::{ProgressReport, lent};
use crate::error::{Doing, Error};
use crate::plan::disk::{CopyKey, Folder, is_namespace};
use crate::plan::names::{GATE, INCOMING, MODELS, NAMESPACES, SERVE};
use crate::plan::pass::{DISK_FULL, DISK_NOT_WRITABLE, Problem};
use known::Known;

/// What every area has.
const PARTS: [&str; 4] = [MODELS, INCOMING, GATE, SERVE];
/// In a copy of the root: pods of namespace caches read it there, since KServe's time.
const KEPT: &str = ".localmodel/kept";

/// A disk by the folder where it is mounted.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// Where that is on the node, for people.
    on_node: String,
    /// Damage that could not be written down where it was found.
    unrecorded: Arc<Mutex<BTreeMap<CopyKey, BTreeSet<String>>>>,
    /// The copies whose manifest this agent has placed or written, for file systems that keep no seal.
    sealed: Arc<Mutex<BTreeSet<CopyKey>>>,
    /// What earlier looks found.
    known: Arc<Known>,
}

impl Disk {
    pub(super) fn new(root: impl Into<PathBuf>, on_node: Option<&str>) -> Self {
        let on_node = on_node.map(|path| format!(" {path}")).unwrap_or_default();
        Self {
            root: root.into(),
            on_node,
            unrecorded: Arc::default(),
            sealed: Arc::default(),
            known: Arc::default(),
        }
    }

    /// Makes the folders of an area where they are missing; says why it cannot be used otherwise (A2).
    pub(super) fn problem(&self, namespace: Option<&str>) -> Option<Problem> {
        if let Some(namespace) = namespace.filter(|namespace| !is_namespace(namespace)) {
            return Some(Problem::new(
                "InvalidNamespace",
                format!("{namespace:?} is no name of a namespace"),
            ));
        }
        let area = area(namespace);
        let above = namespace.map(|_| [PathBuf::from(NAMESPACES), area.clone()]);
        let parts = PARTS.map(|part| area.join(part));
        above.into_iter().flatten().chain(parts).find_map(|folder| {
            let error = usable(&self.root.join(&folder)).err()?;
            let user = geteuid().as_raw();
            let folder = folder.display();
            let disk = format!("the node group's disk{}", self.on_node);
            Some(match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Problem::new(
                    DISK_FULL,
                    format!("{folder}/ cannot be made on {disk}: {error}; free some space or use a larger disk"),
                ),
                _ => Problem::new(
                    DISK_NOT_WRITABLE,
                    format!(
                        "{folder}/ on {disk} cannot be written by user id {user}: {error}; give that user's group write access, or mend the disk"
                    ),
                ),
            })
        })
    }

    /// The files of a copy that are damaged, which could not be written down.
    fn unrecorded(&self, copy: &CopyKey) -> BTreeSet<String> {
        let unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        unrecorded.get(copy).cloned().unwrap_or_default()
    }

    /// How far the download into `incoming/K` is, if it says so.
    pub(super) fn progress(&self, copy: &CopyKey) -> Option<ProgressReport> {
        let path = self.path(INCOMING, copy);
        self.is_folder(&path).then(|| ProgressReport::read(&path)).flatten()
    }

    /// Makes `incoming/K` for a Job. What is good in a damaged `models/K` is linked into it for our own downloader, so
    /// that it fetches only the rest; another initializer may write files in their place, and with them those of the
    /// copy that services read. Where there is no copy, those of another area's may be lent (K4).
    pub(super) fn prepare(&self, copy: &CopyKey, ours: bool, may_lend: bool) -> Result<(), Error> {
        let before = self.path(INCOMING, copy);
        let is_unproved = self.is_folder(&before) && lent::is_unproved(&before);
        if is_unproved || (ours && self.is_foreign(copy)) {
            self.erase_incoming(copy)?; // lent to an earlier Job, or written by another initializer
        }
        let incoming = self.own_incoming(copy)?;
        if !ours {
            return self.mark_foreign(copy);
        }
        let doing = || format!("linking into {}", incoming.display());
        let model = self.path(MODELS, copy);
        if !self.is_folder(&model) {
            return if may_lend { self.lend(copy, &incoming) } else { Ok(()) };
        }
        let unrecorded = self.unrecorded(copy);
        let manifest = match Manifest::read(&model) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(()), // nobody vouches for what is there
            // The files may be as good as ever: the Job compares each with what the source says.
            Err(_) => {
                let Ok(mut files) = adopt::files(&model, OtherNames::Allowed) else { return Ok(()) };
                files.retain(|file| !unrecorded.contains(file) && !file.starts_with(".cache/"));
                return link_files(&files, &model, &incoming).doing(doing);
            }
        };
        link_good_files(&manifest, &unrecorded, &model, &incoming).doing(doing)?;
        if manifest.adopted {
            return Ok(()); // it pins no commit: what comes may rightly differ
        }
        manifest.write(&incoming).map_err(io::Error::other).doing(doing)
    }

    /// Puts links to the files of somebody else's complete copy of the source into `incoming/K`, which no pod
    /// but the Job's sees. There is no manifest with them: until the Job has proved its own access they are no
    /// copy of anything.
    fn lend(&self, copy: &CopyKey, incoming: &Path) -> Result<(), Error> {
        let doing = || format!("lending files to {}", incoming.display());
        let mut areas = Vec::new();
        each_name(&self.root.join(NAMESPACES), |name| {
            if is_namespace(name) {
                areas.push(name.to_owned());
            }
        })?;
        let of_namespaces = areas.into_iter().map(Some);
        let others = [None].into_iter().chain(of_namespaces).filter(|area| *area != copy.namespace);
        for namespace in others {
            let theirs = CopyKey { namespace, key: copy.key.clone() };
            let other = self.path(MODELS, &theirs);
            if !self.is_folder(&other) || !matches!(self.look(&theirs, &other).0, Folder::Complete { .. }) {
                continue;
            }
            let Ok(Some(manifest)) = Manifest::read(&other) else { continue };
            let paths: Vec<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
            if !lent::record(incoming, &paths).map_err(io::Error::other).doing(doing)? {
                return Ok(());
            }
            return gone(lend_good_files(&manifest, &BTreeSet::new(), &other, incoming)).doing(doing);
        }
        Ok(())
    }

    /// Makes `incoming/K` of a namespace a copy of the complete `models/K` of the root.
    pub(super) fn link(&self, copy: &CopyKey) -> Result<(), Error> {
        let root = self.path(MODELS, &copy.in_root());
        self.erase_incoming(copy)?; // what an earlier try left half done
        let incoming = self.own_incoming(copy)?;
        let doing = || format!("linking {} into {}", root.display(), incoming.display());
        let is_whole = || matches!(self.look(&copy.in_root(), &root).0, Folder::Complete { .. });
        if !self.is_folder(&root) || !is_whole() {
            return Ok(()); // it changed meanwhile; the next look says how
        }
        let Some(manifest) = Manifest::read(&root).map_err(io::Error::other).doing(doing)? else {
            return Ok(());
        };
        link_good_files(&manifest, &BTreeSet::new(), &root, &incoming).doing(doing)?;
        manifest.write(&incoming).map_err(io::Error::other).doing(doing)
    }

    fn own_incoming(&self, copy: &CopyKey) -> Result<PathBuf, Error> {
        let incoming = self.path(INCOMING, copy);
        let doing = || format!("making {}", incoming.display());
        if !incoming.parent().is_some_and(|parent| self.is_folder(parent)) {
            let why = "the folder above it is not a folder of this disk";
            return Err(io::Error::new(io::ErrorKind::NotADirectory, why)).doing(doing);
        }
        own_folder(&incoming).doing(doing)?;
        Ok(incoming)
    }

    /// Marks `models/K` of the root as one that pods of namespace caches read.
    pub(super) fn keep(&self, key: &str) -> Result<(), Error> {
        let path = self.path(MODELS, &CopyKey::root(key));
        if !self.is_folder(&path) {
            return Ok(());
        }
        mark_kept(&path).doing(|| format!("marking {}", path.display()))
    }

    /// Moves `incoming/K` to `models/K` in one rename; a folder that is there already changes places with
    /// it, so that readers see the old one or the new one and nothing between. Doing it twice changes
    /// nothing: an agent of another group may share the disk.
    pub(super) fn place(&self, copy: &CopyKey) -> Result<(), Error> {
        let (from, to) = (self.path(INCOMING, copy), self.path(MODELS, copy));
        let doing = || format!("moving {} to {}", from.display(), to.display());
        if !self.is_folder(&from) || self.is_foreign(copy) || !is_complete(&from) {
            return Ok(());
        }
        if is_kept(&to) {
            mark_kept(&from).doing(doing)?;
        }
        scrub::carry_over(&to, &from);
        self.seal(copy, &from);
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).remove(copy);
        let flags = if is_folder(&to) { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &from, CWD, &to, flags).map_err(io::Error::from).doing(doing)?;
        for parent in [&from, &to].into_iter().filter_map(|path| path.parent()) {
            File::open(parent).and_then(|folder| folder.sync_all()).doing(doing)?;
        }
        Ok(())
    }

    /// When a copy was made, as far as its folder says.
    pub(super) fn made(&self, copy: &CopyKey) -> Option<Timestamp> {
        let path = self.path(MODELS, copy);
        let manifest = fs::symlink_metadata(path.join(Manifest::PATH));
        let found = manifest.or_else(|_| fs::symlink_metadata(&path)).ok()?;
        found.modified().ok().and_then(|time| Timestamp::try_from(time).ok())
    }

    pub(super) fn erase_model(&self, copy: &CopyKey) -> Result<(), Error> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).remove(copy);
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).remove(copy);
        self.erase(&self.path(MODELS, copy))
    }

    pub(super) fn erase_incoming(&self, copy: &CopyKey) -> Result<(), Error> {
        self.erase(&self.path(INCOMING, copy))?;
        self.remove_mark(copy)
    }

    /// Erases a folder, its manifest first: what is half erased must not look complete.
    fn erase(&self, path: &Path) -> Result<(), Error> {
        if !self.is_folder(path) {
            return Ok(());
        }
        let doing = || format!("erasing {}", path.display());
        // A link in place of the manifest's folder is erased with the rest, not followed.
        if let Some(store) = Store::open(path).doing(doing)?
            && matches!(store.stat(Manifest::PATH), Ok(Found::File(_)))
        {
            store.remove(Manifest::PATH).map_err(io::Error::other).doing(doing)?;
        }
        erase(path).doing(doing)
    }

    /// Removes the folders of a namespace, as far as they are empty.
    pub(super) fn remove_area(&self, namespace: &str) -> Result<(), Error> {
        let area = self.root.join(area(Some(namespace)));
        if !is_namespace(namespace) || !self.is_folder(&area) {
            return Ok(());
        }
        for folder in PARTS.map(|part| area.join(part)).into_iter().chain([area.clone()]) {
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
                other => gone(other).doing(|| format!("removing {}", folder.display()))?,
            }
        }
        Ok(())
    }

    fn path(&self, part: &str, copy: &CopyKey) -> PathBuf {
        self.root.join(area(copy.namespace.as_deref())).join(part).join(&copy.key)
    }

    fn is_folder(&self, path: &Path) -> bool {
        is_folder_within(&self.root, path)
    }
}

/// Where an area begins, from the root of the disk.
fn area(namespace: Option<&str>) -> PathBuf {
    namespace.map_or_else(PathBuf::new, |namespace| Path::new(NAMESPACES).join(namespace))
}

fn is_kept(model: &Path) -> bool {
    let store = is_folder(model).then(|| Store::open(model).ok().flatten()).flatten();
    store.is_some_and(|store| matches!(store.stat(KEPT), Ok(Found::File(_))))
}

fn mark_kept(model: &Path) -> io::Result<()> {
    let store = Store::create(model).map_err(io::Error::other)?;
    store.write(KEPT, b"").map_err(io::Error::other)
}

/// What is gone already is as good as removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
