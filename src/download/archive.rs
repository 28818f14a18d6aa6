//! Archives, as KServe unpacks them: a source that is one `.tar`, `.tar.gz`, `.tgz` or `.zip` stands for the
//! files in it.
//!
//! Nothing leaves the folder: names are checked like a hub's, links and devices are refused.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::digest::{Digest, Hasher};
use super::error::{Error, Result};
use super::manifest::ManifestFile;
use super::store::{Store, check_name};

const READ: usize = 256 << 10;

/// Whether a file of this name is an archive.
pub fn is_archive(name: &str) -> bool {
    kind_of(name).is_some()
}

#[derive(Clone, Copy)]
enum Kind {
    Tar,
    TarGz,
    Zip,
}

fn kind_of(name: &str) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends(&[".tar.gz", ".tgz"]) {
        Some(Kind::TarGz)
    } else if ends(&[".tar"]) {
        Some(Kind::Tar)
    } else {
        ends(&[".zip"]).then_some(Kind::Zip)
    }
}

/// Unpacks the archive `name` of the folder into the folder, and removes it; gives its files, which are there but
/// not yet on the disk.
pub fn unpack(store: &Store, name: &str) -> Result<Vec<ManifestFile>> {
    let archive = Archive { store, name };
    let file = store.reader(name)?;
    let mut files = match kind_of(name) {
        Some(Kind::Tar) => archive.tar(BufReader::with_capacity(READ, file))?,
        Some(Kind::TarGz) => archive.tar(MultiGzDecoder::new(BufReader::with_capacity(READ, file)))?,
        Some(Kind::Zip) => archive.zip(file)?,
        None => Vec::new(),
    };
    // Of a name that comes twice the last one is what is there.
    files.reverse();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files.dedup_by(|one, other| one.path == other.path);
    if files.iter().all(|file| file.path != name) {
        store.remove(name)?;
    }
    Ok(files)
}

struct Archive<'a> {
    store: &'a Store,
    name: &'a str,
}

impl Archive<'_> {
    fn tar(&self, reader: impl Read) -> Result<Vec<ManifestFile>> {
        let mut archive = tar::Archive::new(reader);
        let mut files = Vec::new();
        for entry in archive.entries().map_err(|error| self.damaged(&error))? {
            let mut entry = entry.map_err(|error| self.damaged(&error))?;
            let name = String::from_utf8(entry.path_bytes().into_owned());
            let name = name.map_err(|error| self.damaged(&error))?;
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                    files.push(self.file(&name, &mut entry)?);
                }
                tar::EntryType::Directory | tar::EntryType::XGlobalHeader => {}
                _ => return Err(Error::UnsafeName { name, why: "it is a link or a device in an archive" }),
            }
        }
        Ok(files)
    }

    fn zip(&self, file: File) -> Result<Vec<ManifestFile>> {
        let mut archive = zip::ZipArchive::new(file).map_err(|error| self.damaged(&error))?;
        let mut files = Vec::new();
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(|error| self.damaged(&error))?;
            let name = entry.name().to_owned();
            if entry.is_symlink() {
                return Err(Error::UnsafeName { name, why: "it is a link or a device in an archive" });
            }
            if !entry.is_dir() {
                files.push(self.file(&name, &mut entry)?);
            }
        }
        Ok(files)
    }

    fn file(&self, name: &str, reader: &mut impl Read) -> Result<ManifestFile> {
        let name = name.trim_start_matches("./");
        check_name(name)?;
        let mut unfinished = self.store.unfinished(name)?;
        let (mut hasher, mut size) = (Hasher::new(&Digest::Untold, 0), 0);
        let mut buffer = vec![0; READ];
        loop {
            let length = reader.read(&mut buffer).map_err(|error| self.damaged(&error))?;
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
            unfinished.write_all(&buffer[..length])?;
            size += length as u64;
        }
        unfinished.place_before_it_is_durable(name)?;
        let sha256 = hasher.verify(&Digest::Untold).unwrap_or_default();
        Ok(ManifestFile { path: name.to_owned(), size, sha256 })
    }

    fn damaged(&self, error: &impl ToString) -> Error {
        let path = Path::new(self.name);
        Error::Disk {
            action: "unpack",
            path: self.store.path().join(path),
            source: io::Error::other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::download::error::Reason;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(&dir.path().join("model")).unwrap();
        (dir, store)
    }

    fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_old();
            // By hand: the library would refuse to write such names.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, content) in entries {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn an_archive_stands_for_the_files_in_it() {
        let regular = tar::EntryType::Regular;
        let entries: [(&str, _, &[u8]); 3] = [
            ("./model/", tar::EntryType::Directory, b""),
            ("./model/a.bin", regular, b"aa"),
            ("b", regular, b""),
        ];
        for (name, bytes) in [
            ("m.tar", tar(&entries)),
            ("m.tar.gz", gzip(&tar(&entries))),
            ("m.tgz", gzip(&tar(&entries))),
            ("m.zip", zip(&[("model/a.bin", b"aa"), ("b", b"")])),
        ] {
            let (_dir, store) = store();
            assert!(is_archive(name));
            store.write(name, &bytes).unwrap();
            let files = unpack(&store, name).unwrap();
            let names: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
            assert_eq!(names, [("b", 0), ("model/a.bin", 2)], "{name}");
            assert_eq!(store.read("model/a.bin", 99).unwrap().unwrap(), b"aa");
            assert_eq!(store.read(name, 9999).unwrap(), None, "the archive itself is gone");
        }
        assert!(!is_archive("model.safetensors") && !is_archive("tar"));
    }

    #[test]
    fn nothing_in_an_archive_leads_out_of_the_folder() {
        let regular = tar::EntryType::Regular;
        for (name, bytes) in [
            ("m.tar", tar(&[("../evil", regular, b"x")])),
            ("m.tar", tar(&[("/evil", regular, b"x")])),
            ("m.tar", tar(&[("a/../../evil", regular, b"x")])),
            ("m.tar", tar(&[(".localmodel/manifest.json", regular, b"x")])),
            ("m.tar", tar(&[("link", tar::EntryType::Symlink, b"")])),
            ("m.tar", tar(&[("link", tar::EntryType::Link, b"")])),
            ("m.tar", tar(&[("null", tar::EntryType::Char, b"")])),
            ("m.zip", zip(&[("../evil", b"x")])),
        ] {
            let (dir, store) = store();
            store.write(name, &bytes).unwrap();
            let error = unpack(&store, name).unwrap_err();
            assert_eq!(error.reason(), Reason::UnsafeFileName, "{error}");
            assert!(!dir.path().join("evil").exists());
        }
    }

    #[test]
    fn an_archive_that_is_none_is_named() {
        for (name, bytes) in
            [("m.tar", vec![7; 2000]), ("m.tgz", b"not gzip".to_vec()), ("m.zip", vec![0; 100])]
        {
            let (_dir, store) = store();
            store.write(name, &bytes).unwrap();
            let text = unpack(&store, name).unwrap_err().to_string();
            assert!(text.contains("unpack") && text.contains(name), "{text}");
        }
    }
}
