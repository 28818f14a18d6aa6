//! Files before they have their name: they grow below [`STATE_DIR`], flat and under the same name in each run.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use rustix::fs::{Advice, AtFlags, FallocateFlags, FileType, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{FILE_MODE, STATE_DIR, Store, is_unknown, sync_folder, synced};
use crate::download::engine::buffers::{ALIGNMENT, Buffer};
use crate::download::error::{Error, Result};
use crate::download::manifest::total;

const SUFFIX: &str = ".incomplete";
const JOURNAL_SUFFIX: &str = ".journal";
/// Bytes after which a file that is not written directly is put on the disk and out of the page cache.
const FLUSH: u64 = 32 << 20;

/// The most bytes of a journal that are read: some forty for each chunk.
const LONGEST_JOURNAL: u64 = 16 << 20;

/// The name below [`STATE_DIR`] under which the file of this path grows, without its suffix.
pub(super) fn stem(path: &str) -> String {
    hex::encode(&Sha256::digest(path.as_bytes())[..8])
}

/// Whether a name below [`STATE_DIR`] is an unfinished file, or the journal of one, of none of these paths.
pub(super) fn is_left_over<'a>(name: &str, mut paths: impl Iterator<Item = &'a str>) -> bool {
    let stem_of = name.strip_suffix(SUFFIX).or_else(|| name.strip_suffix(JOURNAL_SUFFIX));
    stem_of.is_some_and(|found| paths.all(|path| stem(path) != found))
}

/// A small file that is being written; it goes when it is dropped before its time.
#[derive(Debug)]
pub struct Unfinished<'a> {
    store: &'a Store,
    folder: OwnedFd,
    name: String,
    file: File,
    placed: bool,
}

/// A large file on its way: it takes bytes at any place, in any order, and outlives its process.
#[derive(Debug)]
pub struct Part {
    folder: OwnedFd,
    name: String,
    file: File,
    /// Where it is, for messages.
    path: PathBuf,
    /// Whether writes go around the page cache.
    direct: AtomicBool,
    /// Bytes written through the page cache since they were last put on the disk.
    cached: AtomicU64,
}

/// An open journal of a [`Part`].
#[derive(Debug)]
pub struct JournalFile {
    file: File,
    path: PathBuf,
}

impl Store {
    /// Begins the file that will stand at `path`, empty and unseen until [`Unfinished::place`].
    pub fn unfinished(&self, path: &str) -> Result<Unfinished<'_>> {
        let name = stem(path) + SUFFIX;
        let (folder, file) = self.anew(&name, OFlags::WRONLY)?;
        Ok(Unfinished { store: self, folder, name, file, placed: false })
    }

    /// The part of `path` that an earlier run left, or a new one; and whether it is new.
    pub fn part(&self, path: &str) -> Result<(Part, bool)> {
        let name = stem(path) + SUFFIX;
        let flags = OFlags::RDWR | OFlags::DIRECT;
        let path = self.path.join(STATE_DIR).join(&name);
        let part = |(folder, file), direct, name| Part {
            folder,
            name,
            file,
            path,
            direct: AtomicBool::new(direct),
            cached: AtomicU64::new(0),
        };
        if let Ok(Some(found)) = self.left(&name, flags).or_else(|_| self.left(&name, OFlags::RDWR)) {
            let direct = rustix::fs::fcntl_getfl(&found.1).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
            return Ok((part(found, direct, name), false));
        }
        match self.anew(&name, flags) {
            Ok(made) => Ok((part(made, true, name), true)),
            // The file system knows no direct writes.
            Err(Error::Disk { source, .. }) if Errno::from_io_error(&source).is_some_and(is_unknown) => {
                Ok((part(self.anew(&name, OFlags::RDWR)?, false, name), true))
            }
            Err(error) => Err(error),
        }
    }

    /// The journal of the part of `path`, and what is in it.
    pub fn journal(&self, path: &str) -> Result<(JournalFile, Vec<u8>)> {
        let name = stem(path) + JOURNAL_SUFFIX;
        let (_, file) = match self.left(&name, OFlags::RDWR) {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => self.anew(&name, OFlags::RDWR)?,
        };
        let path = self.path.join(STATE_DIR).join(&name);
        let mut content = Vec::new();
        // What is cut off here counts as not written.
        let bounded = (&file).take(LONGEST_JOURNAL).read_to_end(&mut content);
        bounded.map_err(|error| Error::disk("read", &path, error))?;
        Ok((JournalFile { file, path }, content))
    }

    /// Gives a finished part its name, durably, and removes its journal.
    pub fn place(&self, part: &Part, path: &str) -> Result<()> {
        self.rename(&part.folder, &part.name, path, true)?;
        self.discard(&(stem(path) + JOURNAL_SUFFIX))
    }

    /// Gives the file at `from` a second name, in place of what had it; false where the file system has no hard
    /// links.
    pub fn link(&self, from: &str, path: &str) -> Result<bool> {
        let failed = |error| self.failure("link", path, error);
        let name = stem(path) + SUFFIX;
        self.discard(&name)?;
        let folder = self.folder(&[STATE_DIR], false).map_err(failed)?;
        let (of, leaf) = self.parent(from, false).map_err(failed)?;
        match rustix::fs::linkat(&of, leaf, &folder, &name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::XDEV) => {
                return Ok(false);
            }
            Err(error) => return Err(failed(error)),
        }
        self.rename(&folder, &name, path, false)?;
        // Where both names were the file's already, nothing was renamed.
        self.discard(&name)?;
        Ok(true)
    }

    /// Removes the part of `path` and its journal.
    pub fn abandon(&self, path: &str) -> Result<()> {
        self.discard(&(stem(path) + JOURNAL_SUFFIX))?;
        self.discard(&(stem(path) + SUFFIX))
    }

    /// The bytes that parts of these paths take on the disk already.
    pub fn taken<'a>(&self, paths: impl Iterator<Item = &'a str>) -> u64 {
        let Ok(folder) = self.folder(&[STATE_DIR], false) else { return 0 };
        let stat = |path: &str| rustix::fs::statat(&folder, stem(path) + SUFFIX, AtFlags::SYMLINK_NOFOLLOW);
        let blocks = paths.filter_map(|path| u64::try_from(stat(path).ok()?.st_blocks).ok());
        total(blocks.map(|blocks| blocks.saturating_mul(512)))
    }

    /// Makes a file below [`STATE_DIR`], in place of any of that name: exclusively, so that what is written
    /// there is no other file's second name.
    fn anew(&self, name: &str, flags: OFlags) -> Result<(OwnedFd, File)> {
        let failed = |error| self.failure("create", &format!("{STATE_DIR}/{name}"), error);
        let folder = self.folder(&[STATE_DIR], false).map_err(failed)?;
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&folder, name, flags, FILE_MODE).map_err(failed)?;
        Ok((folder, File::from(fd)))
    }

    /// Opens a file below [`STATE_DIR`] that an earlier run left; not one with a second name.
    fn left(&self, name: &str, flags: OFlags) -> rustix::io::Result<Option<(OwnedFd, File)>> {
        let folder = self.folder(&[STATE_DIR], false)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&folder, name, flags, FILE_MODE)?;
        let stat = rustix::fs::fstat(&fd)?;
        let ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
        Ok(ours.then(|| (folder, File::from(fd))))
    }

    /// Removes a file below [`STATE_DIR`], if there is one.
    fn discard(&self, name: &str) -> Result<()> {
        let removed = self.folder(&[STATE_DIR], false);
        match removed.and_then(|folder| rustix::fs::unlinkat(&folder, name, AtFlags::empty())) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failure("remove", &format!("{STATE_DIR}/{name}"), error)),
        }
    }

    fn rename(&self, folder: &OwnedFd, name: &str, path: &str, durably: bool) -> Result<()> {
        let placed = self.parent(path, true).and_then(|(to, leaf)| {
            rustix::fs::renameat(folder, name, &to, leaf)?;
            if durably { sync_folder(&to) } else { Ok(()) }
        });
        placed.map_err(|error| self.failure("place", path, error))
    }
}

impl Unfinished<'_> {
    /// Appends bytes.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.failure("write", error))
    }

    /// Makes the file durable and gives it its name, replacing what had it.
    pub fn place(self, path: &str) -> Result<()> {
        synced(rustix::fs::fsync(&self.file)).map_err(|error| self.failure("write", error))?;
        self.named(path, true)
    }

    /// Gives the file its name, replacing what had it; after a crash it may be empty all the same.
    pub fn place_before_it_is_durable(self, path: &str) -> Result<()> {
        self.named(path, false)
    }

    fn named(mut self, path: &str, durably: bool) -> Result<()> {
        self.store.rename(&self.folder, &self.name, path, durably)?;
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

impl Part {
    /// Takes the room for a file of `size` bytes, so that a full disk shows before the transfer.
    pub fn reserve(&self, size: u64) -> Result<()> {
        // Whole blocks, and already the file's length: direct writes inside it need not wait for each other.
        let size = size.next_multiple_of(ALIGNMENT as u64);
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            // Some file systems cannot; there the write that fails will say so.
            Err(error) if is_unknown(error) => {
                self.file.set_len(size).map_err(|error| Error::disk("reserve room for", &self.path, error))
            }
            Err(error) => Err(Error::disk("reserve room for", &self.path, error)),
        }
    }

    /// The length so far, with whole blocks.
    pub fn length(&self) -> Result<u64> {
        let metadata = self.file.metadata().map_err(|error| Error::disk("look at", &self.path, error))?;
        Ok(metadata.len())
    }

    /// Writes what is in the buffer, which is padded, at `offset`, a whole number of blocks.
    pub fn write(&self, buffer: &Buffer, offset: u64) -> Result<()> {
        let failed = |error| Error::disk("write", &self.path, error);
        if self.direct.load(Relaxed) {
            match self.file.write_all_at(buffer.padded(), offset) {
                Err(error) if Errno::from_io_error(&error).is_some_and(is_unknown) => {
                    self.go_through_the_cache()?;
                }
                done => return done.map_err(failed),
            }
        }
        self.file.write_all_at(buffer.padded(), offset).map_err(failed)?;
        let length = buffer.padded().len() as u64;
        if self.cached.fetch_add(length, Relaxed) + length >= FLUSH {
            self.sync()?;
        }
        Ok(())
    }

    /// Reads into the empty buffer the `length` bytes at `offset`, a whole number of blocks.
    pub fn read(&self, buffer: &mut Buffer, offset: u64, length: usize) -> Result<()> {
        let read = buffer.fill(length, |memory| self.file.read_exact_at(memory, offset));
        read.map_err(|error| Error::disk("read", &self.path, error))
    }

    /// Puts on the disk all that was written.
    pub fn sync(&self) -> Result<()> {
        let done = synced(rustix::fs::fdatasync(&self.file)).and_then(|()| {
            if self.cached.swap(0, Relaxed) > 0 {
                // What is on the disk need not stay in memory, where it would count as the container's. It is advice.
                let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
            }
            sync_folder(&self.folder)
        });
        done.map_err(|error| Error::disk("write", &self.path, error))
    }

    /// Gives the file its true length, and puts it on the disk.
    pub fn finish(&self, size: u64) -> Result<()> {
        self.file.set_len(size).map_err(|error| Error::disk("write", &self.path, error))?;
        self.sync()
    }

    /// For a disk whose blocks are larger than our alignment.
    fn go_through_the_cache(&self) -> Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.file)
            .and_then(|flags| rustix::fs::fcntl_setfl(&self.file, flags.difference(OFlags::DIRECT)));
        flags.map_err(|error| Error::disk("write", &self.path, error))?;
        self.direct.store(false, Relaxed);
        Ok(())
    }
}

impl JournalFile {
    /// Cuts off what is behind `length` bytes; further lines come there.
    pub fn cut(&mut self, length: usize) -> Result<()> {
        let cut = self.file.set_len(length as u64).and_then(|()| self.file.seek(io::SeekFrom::End(0)));
        cut.map(drop).map_err(|error| Error::disk("write", &self.path, error))
    }

    /// Appends lines.
    pub fn append(&mut self, lines: &[u8]) -> Result<()> {
        self.file.write_all(lines).map_err(|error| Error::disk("write", &self.path, error))
    }
}
