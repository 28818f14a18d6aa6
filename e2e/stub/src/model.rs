//! Reading a model whole, and believing nothing about it.
//!
//! The manifest is read with types of its own, so that a mistake of the downloader is not shared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a served model consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The source that its manifest names.
    pub source: String,
    /// SHA-256 of every file that was read, by its path.
    pub files: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Manifest {
    source: String,
    files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    size: u64,
    sha256: String,
}

impl Model {
    /// Reads every byte of every file below `folder`. It is an error when the folder is empty or has no
    /// manifest, and when the manifest's files and those of the folder are not the same, byte for byte.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut found = BTreeMap::new();
        read_below(folder, folder, &mut found).with_context(|| folder.display().to_string())?;
        ensure!(!found.is_empty(), "{} is empty", folder.display());
        let path = folder.join(".localmodel/manifest.json");
        let json = fs::read(&path).with_context(|| format!("no manifest at {}", path.display()))?;
        let manifest: Manifest =
            serde_json::from_slice(&json).with_context(|| format!("the manifest at {}", path.display()))?;
        ensure!(!manifest.files.is_empty(), "the manifest names no file");
        let mut files = BTreeMap::new();
        for entry in manifest.files {
            let (size, sha256) =
                found.remove(&entry.path).with_context(|| format!("{} is missing", entry.path))?;
            ensure!(size == entry.size, "{} has {size} bytes, not {}", entry.path, entry.size);
            ensure!(sha256 == entry.sha256, "{} has other bytes than its manifest says", entry.path);
            files.insert(entry.path, sha256);
        }
        let others: Vec<_> = found.into_keys().filter(|path| !path.starts_with(".localmodel/")).collect();
        ensure!(others.is_empty(), "not in the manifest: {}", others.join(", "));
        Ok(Self { source: manifest.source, files })
    }
}

/// Size and digest of each file below a folder, by its path from `root`.
fn read_below(root: &Path, folder: &Path, found: &mut BTreeMap<String, (u64, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_below(root, &path, found)?;
            continue;
        }
        let name = path.strip_prefix(root).map_err(io::Error::other)?.to_string_lossy().into_owned();
        found.insert(name, size_and_digest(File::open(&path)?)?);
    }
    Ok(())
}

fn size_and_digest(mut file: impl Read) -> io::Result<(u64, String)> {
    let (mut size, mut digest, mut buffer) = (0, Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, hex::encode(digest.finalize()))),
            read => {
                size += read as u64;
                digest.update(&buffer[..read]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
