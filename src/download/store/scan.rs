//! Reading whole files without filling the page cache with them, which belongs to the pods that serve.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{READ as OPEN, Store, is_unknown};
use crate::download::engine::buffers::{ALIGNMENT, Buffer};
use crate::download::error::{Error, Result};

const READ: usize = 1 << 20;

/// A file that is read from its beginning to its end.
#[derive(Debug)]
pub struct Scan {
    file: File,
    path: PathBuf,
    /// Whether it is read around the page cache.
    direct: bool,
    buffer: Buffer,
    at: u64,
    ended: bool,
}

impl Store {
    /// Passes all bytes of a file to `take`, in order, until that returns false; gives whether it never did.
    pub fn scan(&self, path: &str, mut take: impl FnMut(&[u8]) -> bool) -> Result<bool> {
        let mut scan = self.begin_scan(path)?;
        let failed = |error| Error::disk("read", &self.path.join(path), error);
        while let Some(bytes) = scan.next_bytes().map_err(failed)? {
            if !take(bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens a file to be read piece by piece, around the page cache where its disk can do that.
    pub fn begin_scan(&self, path: &str) -> Result<Scan> {
        let direct = self.open_at(path, OPEN | OFlags::DIRECT);
        let is_direct = direct.is_ok();
        let file = direct.or_else(|_| self.open_at(path, OPEN));
        let file = file.map_err(|error| self.failure("open", path, error))?;
        let (path, buffer) = (self.path.join(path), Buffer::of_its_own(READ));
        Ok(Scan { file, path, direct: is_direct, buffer, at: 0, ended: false })
    }
}

impl Scan {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next bytes; none at the end.
    pub fn next_bytes(&mut self) -> io::Result<Option<&[u8]>> {
        if self.ended {
            return Ok(None);
        }
        let length = match self.read() {
            Err(error) if self.direct && Errno::from_io_error(&error).is_some_and(is_unknown) => {
                // Its disk has larger blocks than our alignment.
                let flags = rustix::fs::fcntl_getfl(&self.file)?;
                rustix::fs::fcntl_setfl(&self.file, flags.difference(OFlags::DIRECT))?;
                self.direct = false;
                self.read()
            }
            done => done,
        };
        let length = length?;
        self.at += length as u64;
        // A direct read ends short of a whole block only at the end of the file.
        self.ended = !length.is_multiple_of(ALIGNMENT) || length == 0;
        Ok((length > 0).then(|| self.buffer.filled()))
    }

    fn read(&mut self) -> io::Result<usize> {
        let (file, at) = (&self.file, self.at);
        self.buffer.fill_some(READ, |memory| file.read_at(memory, at))
    }
}
