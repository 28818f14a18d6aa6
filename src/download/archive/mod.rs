//! Archives, as KServe unpacks them: a source that is one `.zip` or `.tar`, whose compression its bytes say, stands
//! for the files in it.
//!
//! Nothing leaves the folder: names are checked like a hub's, devices are refused, and a link becomes the file that
//! it leads to. What is counted are the bytes and names that come, never what a header promises.

mod kind;
mod links;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::rc::Rc;

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

pub use kind::{is_archive, kind_of, why_not};

use self::kind::Kind;
use self::links::{Links, refused};
use super::budget::Budget;
use super::digest::{Digest, Hasher};
use super::error::{Error, Result};
use super::manifest::ManifestFile;
use super::store::{Store, check_name};

const READ: usize = 256 << 10;
/// The most that may come out of an archive for each of its bytes, beyond the first [`SMALL`].
const RATIO: u64 = 200;
/// So much may come out of an archive of any size.
const SMALL: u64 = 64 << 20;
/// The most bytes of headers for one file of a tar: long names, and what else pax tells of it.
const HEADERS: u64 = 1 << 20;
/// Bytes of a zip's directory for each file that it may hold. All of it is read at once.
const DIRECTORY: u64 = 256;
/// Memory for a dictionary of xz, in KiB: its largest preset takes 65 MiB.
const XZ_MEMORY: u32 = 100 << 10;
/// The most bytes of a link's target.
const TARGET: u64 = 4096;

/// Unpacks the archive `name` of the folder into the folder, and removes it; gives its files, which are there but
/// not yet on the disk. When it fails, nothing that came out of the archive stays.
pub fn unpack(store: &Store, name: &str, budget: Budget) -> Result<Vec<ManifestFile>> {
    let file = store.reader(name)?;
    let packed =
        file.metadata().map_err(|error| Error::disk("look at", &store.path().join(name), error))?.len();
    let (files, links, buffer) = (BTreeMap::new(), Links::default(), vec![0; READ]);
    let mut archive = Archive { store, name, budget, packed, unpacked: 0, files, links, buffer };
    let done = match kind_of(name) {
        Some(Kind::Tar) => archive.tar(file),
        Some(Kind::Zip) => archive.zip(file),
        None => Err(archive.damaged(&"it has no name of an archive")),
    };
    if let Err(error) = done.and_then(|()| archive.follow_links()).and_then(|()| archive.has_files()) {
        for path in archive.files.keys().filter(|path| *path != name) {
            store.erase(path)?;
        }
        return Err(error);
    }
    if !archive.files.contains_key(name) {
        store.remove(name)?;
    }
    Ok(archive.files.into_values().collect())
}

struct Archive<'a> {
    store: &'a Store,
    name: &'a str,
    budget: Budget,
    /// Bytes of the archive.
    packed: u64,
    /// Bytes that came out of it so far.
    unpacked: u64,
    /// The files so far. Of a name that comes twice the last one is what is there.
    files: BTreeMap<String, ManifestFile>,
    links: Links,
    buffer: Vec<u8>,
}

impl Archive<'_> {
    fn tar(&mut self, file: File) -> Result<()> {
        let allowance = Rc::new(Cell::new(HEADERS));
        let packed = self.decompressed(file)?;
        let mut archive = tar::Archive::new(Bounded { inner: packed, allowance: Rc::clone(&allowance) });
        let mut entries = archive.entries().map_err(|error| self.damaged(&error))?;
        loop {
            // Between two files the library reads headers, long names among them, into memory.
            allowance.set(HEADERS);
            let Some(entry) = entries.next() else { break };
            allowance.set(u64::MAX);
            self.tar_entry(entry.map_err(|error| self.damaged(&error))?)?;
        }
        // What compressed it has a checksum at its end.
        allowance.set(u64::MAX);
        self.pass(&mut archive.into_inner(), |_| Ok(()))
    }

    fn tar_entry(&mut self, mut entry: tar::Entry<impl Read>) -> Result<()> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
        let name = text(&entry.path_bytes()).map_err(|error| self.damaged(&error))?;
        let target = entry.link_name_bytes().map(|target| text(&target)).transpose();
        let target = target.map_err(|error| self.damaged(&error))?.unwrap_or_default();
        let kind = entry.header().entry_type();
        match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse
                if !name.ends_with('/') =>
            {
                return self.file(&name, &mut entry);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                self.link(&name, &target, kind == tar::EntryType::Link)?;
            }
            tar::EntryType::Directory
            | tar::EntryType::XGlobalHeader
            | tar::EntryType::Regular
            | tar::EntryType::Continuous
            | tar::EntryType::GNUSparse => self.budget.add_entry()?,
            _ => return Err(refused(&name, "it is a device in an archive")),
        }
        // What stands behind such a header is nothing's content.
        self.pass(&mut entry, |_| Ok(()))
    }

    /// The bytes of a tar file, which say themselves how they are compressed.
    fn decompressed(&self, mut file: File) -> Result<Box<dyn Read>> {
        let mut magic = Vec::new();
        let read = file.by_ref().take(6).read_to_end(&mut magic).and_then(|_| file.rewind());
        read.map_err(|error| self.damaged(&error))?;
        let reader = BufReader::with_capacity(READ, file);
        Ok(match magic.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(reader)),
            [b'B', b'Z', b'h', ..] => Box::new(MultiBzDecoder::new(reader)),
            b"\xfd7zXZ\0" => Box::new(XzReader::new_mem_limit(reader, true, XZ_MEMORY)),
            _ => Box::new(reader),
        })
    }

    fn zip(&mut self, file: File) -> Result<()> {
        let files = u64::try_from(self.budget.allowance().files).unwrap_or(u64::MAX);
        let allowance = Rc::new(Cell::new(HEADERS.saturating_add(files.saturating_mul(DIRECTORY))));
        let reader = BufReader::new(Bounded { inner: file, allowance: Rc::clone(&allowance) });
        let mut archive = zip::ZipArchive::new(reader).map_err(|error| self.damaged(&error))?;
        allowance.set(u64::MAX);
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(|error| self.damaged(&error))?;
            let name = entry.name().to_owned();
            if entry.is_symlink() {
                let mut target = String::new();
                let read = entry.take(TARGET).read_to_string(&mut target);
                read.map_err(|error| self.damaged(&error))?;
                self.link(&name, &target, false)?;
            } else if entry.is_dir() {
                self.budget.add_entry()?;
            } else {
                self.file(&name, &mut entry)?;
            }
        }
        Ok(())
    }

    /// Counts a name, and gives it without what means nothing in it.
    fn named(&mut self, name: &str) -> Result<String> {
        self.budget.add_entry()?;
        let kept: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let kept = if name.starts_with('/') { name.to_owned() } else { kept.join("/") };
        check_name(&kept)?;
        self.budget.add_file(&kept, None)?;
        Ok(kept)
    }

    fn file(&mut self, name: &str, reader: &mut impl Read) -> Result<()> {
        let path = self.named(name)?;
        let store = self.store;
        let mut unfinished = store.unfinished(&path)?;
        let (mut hasher, mut size) = (Hasher::new(&Digest::Untold, 0), 0);
        let mut budget = self.budget.clone();
        self.pass(reader, |bytes| {
            budget.add_bytes(bytes.len() as u64)?;
            hasher.update(bytes);
            size += bytes.len() as u64;
            unfinished.write_all(bytes)
        })?;
        self.budget = budget;
        unfinished.place_before_it_is_durable(&path)?;
        let sha256 = hasher.verify(&Digest::Untold).unwrap_or_default();
        self.links.remove(&path);
        self.files.insert(path.clone(), ManifestFile { path, size, sha256 });
        Ok(())
    }

    /// Passes all bytes of an entry to `take`. However they are told of, they are not many times those of the archive.
    fn pass(&mut self, reader: &mut impl Read, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        loop {
            let length = reader.read(&mut self.buffer).map_err(|error| self.damaged(&error))?;
            if length == 0 {
                return Ok(());
            }
            self.unpacked += length as u64;
            if self.unpacked > SMALL && self.unpacked / RATIO > self.packed {
                return Err(Error::Bomb { name: self.name.to_owned(), ratio: RATIO });
            }
            take(&self.buffer[..length])?;
        }
    }

    fn link(&mut self, name: &str, target: &str, hard: bool) -> Result<()> {
        let path = self.named(name)?;
        if hard { self.links.add_hard_link(&path, target) } else { self.links.add_symlink(&path, target) }
    }

    /// Gives the files that links lead to their further names; all files below a folder that one leads to.
    fn follow_links(&mut self) -> Result<()> {
        let links = std::mem::take(&mut self.links);
        let files: BTreeMap<String, ManifestFile> = self.files.clone();
        for link in links.ends() {
            let (path, end) = link?;
            if let Some(file) = files.get(end) {
                self.second(file, path)?;
                continue;
            }
            let below = if end.is_empty() { String::new() } else { format!("{end}/") };
            let mut found = false;
            for (name, file) in files.range(below.clone()..) {
                let Some(rest) = name.strip_prefix(&below) else { break };
                let name = format!("{path}/{rest}");
                check_name(&name)?;
                self.budget.add_file(&name, None)?;
                self.second(file, &name)?;
                found = true;
            }
            if !found {
                return Err(refused(path, "it is a link to nothing that its archive holds"));
            }
        }
        Ok(())
    }

    /// A second name for a file, or a second file where the file system has no such names.
    fn second(&mut self, file: &ManifestFile, path: &str) -> Result<()> {
        let store = self.store;
        if !store.link(&file.path, path)? {
            let mut unfinished = store.unfinished(path)?;
            self.budget.add_bytes(file.size)?;
            self.pass(&mut store.reader(&file.path)?, |bytes| unfinished.write_all(bytes))?;
            unfinished.place_before_it_is_durable(path)?;
        }
        self.files.insert(path.to_owned(), ManifestFile { path: path.to_owned(), ..file.clone() });
        Ok(())
    }

    /// An archive that ends before its first file unpacks without an error, and is no model.
    fn has_files(&self) -> Result<()> {
        if self.files.is_empty() { Err(self.damaged(&"it holds no file")) } else { Ok(()) }
    }

    fn damaged(&self, error: &impl ToString) -> Error {
        Error::Archive { name: self.name.to_owned(), why: error.to_string() }
    }
}

/// A reader that gives no more than it is allowed to.
struct Bounded<R> {
    inner: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.allowance.get()).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other("its headers are larger than those of any model"));
        }
        let length = self.inner.read(&mut buffer[..most])?;
        self.allowance.set(self.allowance.get().saturating_sub(length as u64));
        Ok(length)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
mod tests;
