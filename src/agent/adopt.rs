//! A manifest for files that another initializer downloaded: what is there counts as right, so that later damage
//! shows. What it wrote into our own folder does not count, and a tree with more in it than files is refused.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::download::digest::sha256_of;
use crate::download::manifest::{Manifest, ManifestFile};
use crate::download::store::{Store, check_name};
use crate::plan::pass::Problem;

/// Folders of downloaders' own book-keeping, which are no part of the model.
const NOT_THE_MODEL: [&str; 2] = [".cache", ".localmodel"];
/// The downloader's words for the same.
const UNSAFE: &str = "UnsafeFileName";
const TOO_MANY: &str = "TooManyFiles";
const TOO_DEEP: &str = "PathTooDeep";
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why no manifest can be written.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The tree is none that may be served.
    Refused(Problem),
    /// The disk has an error.
    Failed(io::Error),
}

/// Whether files may have names outside of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherNames {
    /// They lead to a file that is somebody else's, too.
    Refused,
    /// Copies of namespaces share them since KServe's time.
    Allowed,
}

/// Hashes every file of the model below `folder`.
pub(super) fn manifest(folder: &Path, source: &str, others: OtherNames) -> Result<Manifest, Unfit> {
    let Some(store) = Store::open(folder)? else {
        return Err(io::Error::from(io::ErrorKind::NotFound).into());
    };
    let hashed = |path: String| {
        let mut file = store.reader(&path).map_err(io::Error::other)?;
        Ok(ManifestFile { size: file.metadata()?.len(), sha256: sha256_of(&mut file)?, path })
    };
    let files: io::Result<Vec<ManifestFile>> =
        files(folder, others)?.into_iter().filter(|path| !path.starts_with(".cache/")).map(hashed).collect();
    Ok(Manifest { source: source.to_owned(), files: files?, adopted: true, ..Manifest::default() })
}

/// The paths of all files of a model below `folder`, sorted. The kubelet and whatever reads the model follow links, so
/// that one is enough to refuse all of it; and so are devices, sockets and FIFOs.
pub(super) fn files(folder: &Path, others: OtherNames) -> Result<Vec<String>, Unfit> {
    let mut tree = Tree { others, entries: 0, files: Vec::new(), names: BTreeMap::new() };
    let root = rustix::fs::open(folder, OPEN, Mode::empty()).map_err(io::Error::from)?;
    tree.collect(&root, "", 0)?;
    if let Some((path, ..)) = tree.names.values().find(|(_, names, found)| names > found) {
        return Err(unsafe_name(path, "has another name outside of the model's folder"));
    }
    tree.files.sort();
    Ok(tree.files)
}

/// Whether what has this name in a copy's folder is no part of the model.
pub(super) fn is_aside(name: &str) -> bool {
    NOT_THE_MODEL.contains(&name)
}

struct Tree {
    others: OtherNames,
    entries: usize,
    files: Vec<String>,
    /// Files with several names, by inode: one of them, how many there are, and how many were found.
    names: BTreeMap<u64, (String, u64, u64)>,
}

impl Tree {
    fn collect(&mut self, folder: &OwnedFd, above: &str, depth: usize) -> Result<(), Unfit> {
        if depth >= Manifest::DEEPEST {
            let message = format!("{above:?} has more than {} parts", Manifest::DEEPEST);
            return Err(Unfit::Refused(Problem::new(TOO_DEEP, message)));
        }
        for entry in Dir::read_from(folder).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            if [c".", c".."].contains(&entry.file_name()) {
                continue;
            }
            self.entries += 1;
            if self.entries > Manifest::MOST_FILES {
                let message = format!("it has more than {} files and folders", Manifest::MOST_FILES);
                return Err(Unfit::Refused(Problem::new(TOO_MANY, message)));
            }
            let name = entry.file_name().to_string_lossy();
            let path = if above.is_empty() { name.to_string() } else { format!("{above}/{name}") };
            if depth == 0 && name == crate::download::store::STATE_DIR {
                continue; // ours, from the time of KServe
            }
            if entry.file_name().to_str().is_err() {
                return Err(unsafe_name(&path, "is no text"));
            }
            check_name(&path).map_err(|error| Unfit::Refused(Problem::new(UNSAFE, error.to_string())))?;
            self.entry(folder, entry.file_name(), path, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &OwnedFd,
        name: &std::ffi::CStr,
        path: String,
        depth: usize,
    ) -> Result<(), Unfit> {
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                match rustix::fs::openat(folder, name, OPEN, Mode::empty()) {
                    // A downloader's own books are no part of what is served.
                    Err(Errno::ACCESS) if path.split('/').next().is_some_and(is_aside) => Ok(()),
                    below => self.collect(&below.map_err(io::Error::from)?, &path, depth + 1),
                }
            }
            FileType::RegularFile => {
                let names = stat.st_nlink;
                if names > 1 && self.others == OtherNames::Refused {
                    self.names.entry(stat.st_ino).or_insert_with(|| (path.clone(), names, 0)).2 += 1;
                }
                self.files.push(path);
                Ok(())
            }
            FileType::Symlink => Err(unsafe_name(&path, "is a symbolic link")),
            _ => Err(unsafe_name(&path, "is neither a file nor a folder")),
        }
    }
}

fn unsafe_name(path: &str, why: &str) -> Unfit {
    let message = format!("{path:?} in the download {why}: such a model is not served");
    Unfit::Refused(Problem::new(UNSAFE, message))
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}
