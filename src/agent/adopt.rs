//! A manifest for files that another initializer downloaded: what is there counts as right, so that
//! later damage shows.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::download::digest::sha256_of;
use crate::download::manifest::{Manifest, ManifestFile};

/// Folders of downloaders' own book-keeping, which are no part of the model.
const NOT_THE_MODEL: [&str; 2] = [".cache", ".localmodel"];

/// Hashes every regular file below `folder`; symbolic links are neither followed nor listed.
pub(super) fn manifest(folder: &Path, source: &str) -> io::Result<Manifest> {
    let hashed = |path: String| {
        let mut file = File::open(folder.join(&path))?;
        Ok(ManifestFile { size: file.metadata()?.len(), sha256: sha256_of(&mut file)?, path })
    };
    let files: io::Result<Vec<ManifestFile>> = files(folder)?.into_iter().map(hashed).collect();
    Ok(Manifest { source: source.to_owned(), files: files?, adopted: true, ..Manifest::default() })
}

/// The paths of all regular files of a model below `folder`, sorted.
pub(super) fn files(folder: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    collect(folder, folder, &mut files)?;
    files.sort();
    Ok(files)
}

/// Whether what has this name in a copy's folder is no part of the model.
pub(super) fn is_aside(name: &str) -> bool {
    NOT_THE_MODEL.contains(&name)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        let is_aside = folder == root && entry.file_name().to_str().is_some_and(is_aside);
        if kind.is_dir() && !is_aside {
            collect(root, &path, files)?;
        } else if kind.is_file() {
            let name = path.strip_prefix(root).map_err(io::Error::other)?.to_str();
            let name = name.ok_or_else(|| io::Error::other(format!("{} is no text", path.display())))?;
            files.push(name.to_owned());
        }
    }
    Ok(())
}
