//! A model's folder on disk: nothing is read or written outside it, files appear whole or not at all,
//! and what is done is done on the disk, not only in memory (F3, F5).
//!
//! Every path is walked from an open descriptor of the folder, one component at a time and without
//! following symlinks, so that neither a name from the hub nor something planted in the folder can lead
//! out of it. What exists already is never given another owner or mode.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::error::{Error, Result};

/// The folder inside a copy that is ours: manifest, lock and unfinished files.
pub const STATE_DIR: &str = ".localmodel";

const SUFFIX: &str = ".incomplete";
/// Modes as a umask leaves them.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const DIR_MODE: Mode = Mode::from_raw_mode(0o777);
const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

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

/// An open folder that holds, or will hold, a copy of a model.
#[derive(Debug)]
pub struct Store {
    root: OwnedFd,
    path: PathBuf,
}

/// The right to write a folder; it ends with this value, and so with its process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock is held by the open descriptor")] File);

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
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        }
        store.folder(&[STATE_DIR], true).map_err(|error| store.failure("create", STATE_DIR, error))?;
        Ok(store)
    }

    /// Opens the folder if there is one.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        // The folder itself is the caller's word: here alone a symlink is followed.
        match rustix::fs::open(path, OPEN_DIR.difference(OFlags::NOFOLLOW), Mode::empty()) {
            Ok(root) => Ok(Some(Self { root, path: path.to_owned() })),
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

    /// Takes the folder's lock, unless another process has it.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        const NAME: &str = ".localmodel/lock";
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = self.open_at(NAME, flags).map_err(|error| self.failure("open", NAME, error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(self.failure("lock", NAME, error)),
        }
    }

    /// What stands at `path`.
    pub fn stat(&self, path: &str) -> io::Result<Found> {
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

    /// Opens a file for reading.
    pub fn reader(&self, path: &str) -> Result<File> {
        self.open_at(path, OFlags::RDONLY).map_err(|error| self.failure("open", path, error))
    }

    /// The whole content of a small file, if there is one.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let mut file = match self.open_at(path, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failure("open", path, error)),
        };
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(|error| Error::disk("read", &self.path.join(path), error))?;
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
            rustix::fs::fsync(&folder)
        });
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failure("remove", path, error)),
        }
    }

    /// Removes the unfinished files that a killed process left behind; the caller holds the [`Lock`].
    pub fn remove_unfinished(&self) -> Result<()> {
        let failed = |error: Errno| self.failure("clean up", STATE_DIR, error);
        let folder = self.folder(&[STATE_DIR], false).map_err(failed)?;
        for entry in rustix::fs::Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_bytes().ends_with(SUFFIX.as_bytes()) {
                rustix::fs::unlinkat(&folder, entry.file_name(), AtFlags::empty()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Begins the file that will stand at `path`, empty and unseen until [`Unfinished::place`].
    pub fn unfinished(&self, path: &str) -> Result<Unfinished<'_>> {
        let name = unfinished_name(path);
        let failed = |error| self.failure("create", &format!("{STATE_DIR}/{name}"), error);
        let folder = self.folder(&[STATE_DIR], false).map_err(failed)?;
        match rustix::fs::unlinkat(&folder, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        // Exclusive, so that what is written here is no other file's second name.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&folder, &name, flags, FILE_MODE).map_err(failed)?;
        Ok(Unfinished { store: self, folder, name, file: File::from(fd), placed: false })
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
        let mut folder = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?;
        for part in parts {
            folder = match rustix::fs::openat(&folder, *part, OPEN_DIR, Mode::empty()) {
                Err(Errno::NOENT) if create => {
                    match rustix::fs::mkdirat(&folder, *part, DIR_MODE) {
                        Err(error) if error != Errno::EXIST => return Err(error),
                        _ => rustix::fs::fsync(&folder)?,
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

/// The name under which a file grows: flat, and the same in each run.
fn unfinished_name(path: &str) -> String {
    format!("{}{SUFFIX}", hex::encode(&Sha256::digest(path.as_bytes())[..8]))
}

/// A file that is being written under [`STATE_DIR`]; it goes when it is dropped before its time.
#[derive(Debug)]
pub struct Unfinished<'a> {
    store: &'a Store,
    folder: OwnedFd,
    name: String,
    file: File,
    placed: bool,
}

impl Unfinished<'_> {
    /// Takes the room for the whole file, so that a full disk shows before the transfer.
    pub fn reserve(&self, size: u64) -> Result<()> {
        if size == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, size) {
            // Some file systems cannot; there the write that fails will say so.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(self.failure("reserve room for", error)),
        }
    }

    /// Appends bytes.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.failure("write", error))
    }

    /// Makes the file durable and gives it its name, replacing what had it.
    pub fn place(mut self, path: &str) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failure("write", error))?;
        let placed = self.store.parent(path, true).and_then(|(folder, leaf)| {
            rustix::fs::renameat(&self.folder, &self.name, &folder, leaf)?;
            rustix::fs::fsync(&folder)
        });
        placed.map_err(|error| self.store.failure("place", path, error))?;
        self.placed = true;
        Ok(())
    }

    fn failure(&self, action: &'static str, error: impl Into<io::Error>) -> Error {
        Error::disk(action, &self.store.path.join(STATE_DIR).join(&self.name), error)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // If it cannot be removed, the next run tries again.
            let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::download::error::Reason;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(&dir.path().join("deep/down")).unwrap();
        (dir, store)
    }

    #[test]
    fn names_that_lead_out_of_the_folder_or_into_our_own_are_refused() {
        let too_long = "x".repeat(256);
        for name in [
            "",
            "/",
            "/abs",
            "../x",
            "a/../../b",
            "a/..",
            "..",
            ".",
            "./a",
            "a//b",
            "a/",
            "a\0b",
            "a\nb",
            &too_long,
            ".localmodel/manifest.json",
            ".localmodel",
            ".LocalModel/x",
        ] {
            assert!(matches!(check_name(name), Err(Error::UnsafeName { .. })), "{name:?}");
        }
        for name in ["a", "a/b.c", "..a", "a..", "...", ".gitattributes", "a/.localmodel", "ü/%20 ?#", "a\\b"]
        {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_file_is_seen_only_when_it_is_placed() {
        let (_dir, store) = store();
        let mut file = store.unfinished("a/b/c").unwrap();
        file.reserve(5).unwrap();
        file.write_all(b"hello").unwrap();
        assert_eq!(store.stat("a/b/c").unwrap(), Found::Nothing);
        file.place("a/b/c").unwrap();
        assert_eq!(store.stat("a/b/c").unwrap(), Found::File(5));
        assert_eq!(store.read("a/b/c").unwrap().unwrap(), b"hello");
        drop(store.unfinished("a/b/d").unwrap());
        let left = fs::read_dir(store.path().join(STATE_DIR)).unwrap().count();
        assert_eq!(left, 0, "a dropped file leaves nothing");
    }

    #[test]
    fn symlinks_are_never_followed_out_of_the_folder() {
        let (_dir, store) = store();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        symlink(outside.path(), store.path().join("away")).unwrap();
        symlink(outside.path().join("kept"), store.path().join("leaf")).unwrap();
        let error = store.write("away/kept", b"evil").unwrap_err();
        assert_eq!(error.reason(), Reason::UnsafeFileName);
        assert!(error.to_string().contains("away/kept"), "{error}");
        assert_eq!(store.read("leaf").unwrap_err().reason(), Reason::UnsafeFileName);
        // A link in place of the file itself is replaced, not written through.
        store.write("leaf", b"ours").unwrap();
        assert!(fs::symlink_metadata(store.path().join("leaf")).unwrap().is_file());
        assert!(store.remove("away/kept").is_err());
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"kept");
    }

    #[test]
    fn our_own_folder_may_not_be_a_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join(STATE_DIR)).unwrap();
        assert_eq!(Store::create(dir.path()).unwrap_err().reason(), Reason::UnsafeFileName);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_second_name_of_an_unfinished_file_is_not_written_through() {
        let (_dir, store) = store();
        fs::write(store.path().join("other"), "other").unwrap();
        let planted = store.path().join(STATE_DIR).join(unfinished_name("a"));
        fs::hard_link(store.path().join("other"), planted).unwrap();
        store.write("a", b"ours").unwrap();
        assert_eq!(fs::read(store.path().join("other")).unwrap(), b"other");
    }

    #[test]
    fn only_unfinished_files_are_cleaned_up() {
        let (_dir, store) = store();
        store.write(".localmodel/plan.json", b"{}").unwrap();
        fs::write(store.path().join(".localmodel/0123.incomplete"), "x").unwrap();
        store.remove_unfinished().unwrap();
        let left: Vec<_> =
            fs::read_dir(store.path().join(STATE_DIR)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["plan.json"]);
    }

    #[test]
    fn a_folder_that_exists_keeps_its_mode_and_gives_its_group_on() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2770)).unwrap();
        let store = Store::create(dir.path()).unwrap();
        store.write("sub/a", b"1").unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o7777, 0o2770);
        let sub = fs::metadata(dir.path().join("sub")).unwrap();
        assert_eq!(sub.mode() & 0o2000, 0o2000, "setgid is inherited");
    }

    #[test]
    fn the_lock_is_one_processs_until_it_is_released() {
        let (_dir, store) = store();
        let other = Store::open(store.path()).unwrap().unwrap();
        let lock = store.try_lock().unwrap();
        assert!(lock.is_some() && other.try_lock().unwrap().is_none());
        drop(lock);
        assert!(other.try_lock().unwrap().is_some());
    }
}
