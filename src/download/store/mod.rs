//! A model's folder on disk: nothing is read or written outside it, files appear whole or not at all,
//! and what is done is done on the disk, not only in memory (F3, F5).
//!
//! Every path is walked from an open descriptor of the folder, one component at a time and without
//! following symlinks, so that neither a name from the hub nor something planted in the folder can lead
//! out of it. What exists already is never given another owner or mode.

mod lock;
mod scan;
mod unfinished;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub use lock::Lock;
pub use scan::Scan;
pub use unfinished::{JournalFile, Part, Unfinished};

use super::error::{Error, Result};

/// The folder inside a copy that is ours: manifest, lock and unfinished files.
pub const STATE_DIR: &str = ".localmodel";

/// Modes as a umask leaves them.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const DIR_MODE: Mode = Mode::from_raw_mode(0o777);
const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opening a FIFO to read it would wait for somebody who writes.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK);

/// Whether the kernel, and what filters its calls, knows openat2.
static RESOLVES: AtomicBool = AtomicBool::new(true);

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A regular file of this many bytes.
    File(u64),
    /// A folder, symlink or other thing, there or on the way.
    Other,
}

/// What the file system says of a file or a folder that no change leaves as it was. Users cannot set the time of
/// the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    device: u64,
    inode: u64,
    size: i64,
    changed: (i64, u64),
}

impl Mark {
    /// When it was changed last, in seconds and nanoseconds since 1970.
    pub fn changed(&self) -> (i64, u64) {
        self.changed
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        u64::try_from(self.size).unwrap_or_default()
    }
}

impl From<&Stat> for Mark {
    fn from(stat: &Stat) -> Self {
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        Self { device: stat.st_dev, inode: stat.st_ino, size: stat.st_size, changed }
    }
}

/// An open folder that holds, or will hold, a copy of a model.
#[derive(Debug)]
pub struct Store {
    root: OwnedFd,
    path: PathBuf,
    /// The lock of whoever writes: it ends with the last thread that may still be writing.
    held: OnceLock<Lock>,
}

/// Refuses a name that could lead out of the folder, or into [`STATE_DIR`] (F5).
pub fn check_name(name: &str) -> Result<()> {
    let refused = |why| Err(Error::UnsafeName { name: name.to_owned(), why });
    if name.is_empty() {
        return refused("it is empty");
    }
    if name.starts_with('/') {
        return refused("it is absolute");
    }
    if name.chars().any(char::is_control) {
        return refused("it holds a control character");
    }
    if name.len() > 4095 || name.split('/').any(|part| part.len() > 255) {
        return refused("it is longer than a file system allows");
    }
    if name.split('/').any(|part| part == "..") {
        return refused("it leads out of its folder");
    }
    if name.split('/').any(|part| part.is_empty() || part == ".") {
        return refused("it has an empty part");
    }
    if name.split('/').next().is_some_and(|first| first.eq_ignore_ascii_case(STATE_DIR)) {
        return refused("that folder is this program's own");
    }
    Ok(())
}

impl Store {
    /// Opens the folder, made with its parents where they are missing.
    pub fn create(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| Error::disk("create the folder", path, error);
        let existed = path.exists();
        std::fs::create_dir_all(path).map_err(failed)?;
        let store = Self::open(path)
            .map_err(failed)?
            .ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))?;
        if !existed && let Some(parent) = path.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let parent = File::open(parent).map_err(failed)?;
            sync_folder(&parent).map_err(|error| failed(error.into()))?;
        }
        store.folder(&[STATE_DIR], true).map_err(|error| store.failure("create", STATE_DIR, error))?;
        Ok(store)
    }

    /// Opens the folder if there is one.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        // The folder itself is the caller's word: here alone a symlink is followed.
        match rustix::fs::open(path, OPEN_DIR.difference(OFlags::NOFOLLOW), Mode::empty()) {
            Ok(root) => Ok(Some(Self { root, path: path.to_owned(), held: OnceLock::new() })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes that a process without privileges can still write.
    pub fn free_bytes(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.root)
            .map_err(|error| Error::disk("ask for the free space of", &self.path, error))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Keeps the lock as long as this value.
    pub fn keep(&self, lock: Lock) {
        // A second one would be the same right once more.
        let _ = self.held.set(lock);
    }

    /// What stands at `path`.
    pub fn stat(&self, path: &str) -> io::Result<Found> {
        #[cfg(test)]
        STATS.set(STATS.get() + 1);
        let found = self.parent(path, false).and_then(|(folder, leaf)| {
            let stat = rustix::fs::statat(&folder, leaf, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Found::File(u64::try_from(stat.st_size).unwrap_or_default()),
                _ => Found::Other,
            })
        });
        match found {
            Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(Found::Other),
            other => Ok(other?),
        }
    }

    /// What changes with what stands at `path`, or with the names in it where that is a folder; the empty path is
    /// the folder itself.
    pub fn mark(&self, path: &str) -> io::Result<Option<Mark>> {
        let stat = if path.is_empty() {
            rustix::fs::fstat(&self.root)
        } else {
            let parent = self.parent(path, false);
            parent.and_then(|(folder, leaf)| rustix::fs::statat(&folder, leaf, AtFlags::SYMLINK_NOFOLLOW))
        };
        match stat {
            Ok(stat) => Ok(Some(Mark::from(&stat))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file for reading.
    pub fn reader(&self, path: &str) -> Result<File> {
        self.open_at(path, READ).map_err(|error| self.failure("open", path, error))
    }

    /// The whole content of a regular file of at most `longest` bytes, if there is one.
    pub fn read(&self, path: &str, longest: u64) -> Result<Option<Vec<u8>>> {
        let file = match self.open_at(path, READ) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failure("open", path, error)),
        };
        let failed = |error: io::Error| Error::disk("read", &self.path.join(path), error);
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::InTheWay(self.path.join(path)));
        }
        let mut content = Vec::new();
        // The file may grow meanwhile: what is read is bounded, whatever its size was.
        file.take(longest.saturating_add(1)).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > longest {
            return Err(Error::TooLong { path: self.path.join(path), longest });
        }
        Ok(Some(content))
    }

    /// Puts `content` at `path` in one step: after a crash there is the old file or the new one.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let mut file = self.unfinished(path)?;
        file.write_all(content)?;
        file.place(path)
    }

    /// Removes the file at `path`, if there is one.
    pub fn remove(&self, path: &str) -> Result<()> {
        let removed = self.parent(path, false).and_then(|(folder, leaf)| {
            rustix::fs::unlinkat(&folder, leaf, AtFlags::empty())?;
            sync_folder(&folder)
        });
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failure("remove", path, error)),
        }
    }

    /// Removes the file at `path`, and the folders that held nothing else.
    pub fn erase(&self, path: &str) -> Result<()> {
        self.remove(path)?;
        let mut parts: Vec<&str> = path.split('/').collect();
        while parts.pop().is_some()
            && let Some((last, above)) = parts.split_last()
        {
            let removed = self
                .folder(above, false)
                .and_then(|folder| rustix::fs::unlinkat(&folder, *last, AtFlags::REMOVEDIR));
            if removed.is_err() {
                break; // it holds something else
            }
        }
        Ok(())
    }

    /// Removes the unfinished files of earlier runs that are of none of these paths; the caller holds the
    /// [`Lock`].
    pub fn remove_left_over(&self, paths: &[&str]) -> Result<()> {
        let failed = |error: Errno| self.failure("clean up", STATE_DIR, error);
        let folder = self.folder(&[STATE_DIR], false).map_err(failed)?;
        for entry in rustix::fs::Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy();
            if unfinished::is_left_over(&name, paths.iter().copied()) {
                rustix::fs::unlinkat(&folder, entry.file_name(), AtFlags::empty()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Puts a link to another file of the same content in the place of the file at `path`, in one step.
    pub fn replace_by_link(&self, path: &str, other: &Path) -> io::Result<()> {
        const LINK: &str = "link";
        let (folder, leaf) = self.parent(path, false)?;
        let aside = self.folder(&[STATE_DIR], true)?;
        match rustix::fs::unlinkat(&aside, LINK, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        rustix::fs::linkat(CWD, other, &aside, LINK, AtFlags::empty())?;
        rustix::fs::renameat(&aside, LINK, &folder, leaf)?;
        Ok(rustix::fs::fsync(&folder)?)
    }

    /// Puts a file and its name on the disk.
    pub fn sync(&self, path: &str) -> Result<()> {
        let synced = self.parent(path, false).and_then(|(folder, leaf)| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            synced(rustix::fs::fsync(rustix::fs::openat(&folder, leaf, flags, Mode::empty())?))?;
            sync_folder(&folder)
        });
        synced.map_err(|error| self.failure("write", path, error))
    }

    fn open_at(&self, path: &str, flags: OFlags) -> rustix::io::Result<File> {
        let (folder, leaf) = self.parent(path, false)?;
        let fd = rustix::fs::openat(&folder, leaf, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, FILE_MODE)?;
        Ok(File::from(fd))
    }

    /// The folder that holds `path`, and the last part of its name.
    fn parent<'a>(&self, path: &'a str, create: bool) -> rustix::io::Result<(OwnedFd, &'a str)> {
        let mut parts: Vec<&str> = path.split('/').collect();
        let leaf = parts.pop().unwrap_or_default();
        Ok((self.folder(&parts, create)?, leaf))
    }

    fn folder(&self, parts: &[&str], create: bool) -> rustix::io::Result<OwnedFd> {
        if !parts.is_empty() && RESOLVES.load(Relaxed) {
            // One call however deep the folder is, instead of one for each part.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match rustix::fs::openat2(&self.root, parts.join("/"), OPEN_DIR, Mode::empty(), resolve) {
                Err(Errno::NOENT) if create => {}
                Err(Errno::NOSYS | Errno::PERM) => RESOLVES.store(false, Relaxed),
                other => return other,
            }
        }
        self.walk(parts, create)
    }

    fn walk(&self, parts: &[&str], create: bool) -> rustix::io::Result<OwnedFd> {
        let mut folder = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?;
        for part in parts {
            folder = match rustix::fs::openat(&folder, *part, OPEN_DIR, Mode::empty()) {
                Err(Errno::NOENT) if create => {
                    match rustix::fs::mkdirat(&folder, *part, DIR_MODE) {
                        Err(error) if error != Errno::EXIST => return Err(error),
                        _ => sync_folder(&folder)?,
                    }
                    rustix::fs::openat(&folder, *part, OPEN_DIR, Mode::empty())?
                }
                other => other?,
            };
        }
        Ok(folder)
    }

    fn failure(&self, action: &'static str, path: &str, error: Errno) -> Error {
        let path = self.path.join(path);
        match error {
            Errno::LOOP | Errno::NOTDIR | Errno::ISDIR => Error::InTheWay(path),
            error => Error::disk(action, &path, error),
        }
    }
}

/// Puts the names in a folder on the disk.
fn sync_folder(folder: impl AsFd) -> rustix::io::Result<()> {
    synced(rustix::fs::fsync(folder))
}

/// What a file system that knows no such call answers is no failure: it keeps what it has by other means, or not.
fn synced(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(error) if is_unknown(error) => Ok(()),
        done => done,
    }
}

/// Whether an error means that a file system does not know a call, or a flag of it.
fn is_unknown(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOTTY)
}

#[cfg(test)]
thread_local! {
    /// How often this thread has asked what stands at a path.
    pub static STATS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests;
