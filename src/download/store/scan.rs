//! Reading whole files without filling the page cache with them, which belongs to the pods that serve.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use super::Store;
use crate::download::engine::buffers::{ALIGNMENT, Buffer};
use crate::download::error::{Error, Result};

const READ: usize = 1 << 20;

impl Store {
    /// Passes all bytes of a file to `take`, in order, until that returns false; gives whether it never did.
    pub fn scan(&self, path: &str, mut take: impl FnMut(&[u8]) -> bool) -> Result<bool> {
        let direct = self.open_at(path, OFlags::RDONLY | OFlags::DIRECT);
        let file = direct.or_else(|_| self.open_at(path, OFlags::RDONLY));
        let mut file = file.map_err(|error| self.failure("open", path, error))?;
        let mut buffer = Buffer::of_its_own(READ);
        let mut at = 0;
        loop {
            let length = match read(&file, &mut buffer, at) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    // Its disk has larger blocks than our alignment.
                    file = self.open_at(path, OFlags::RDONLY).map_err(|e| self.failure("open", path, e))?;
                    read(&file, &mut buffer, at)
                }
                done => done,
            };
            let length = length.map_err(|error| Error::disk("read", &self.path.join(path), error))?;
            if length == 0 {
                return Ok(true);
            }
            if !take(buffer.filled()) {
                return Ok(false);
            }
            at += length as u64;
            // A direct read ends short of a whole block only at the end of the file.
            if !length.is_multiple_of(ALIGNMENT) {
                return Ok(true);
            }
        }
    }
}

fn read(file: &File, buffer: &mut Buffer, at: u64) -> io::Result<usize> {
    buffer.fill_some(READ, |memory| file.read_at(memory, at))
}
