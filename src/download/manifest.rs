//! The manifest of a copy: what it is a copy of, and what must be there for it to be whole.
//!
//! *A copy is complete when its manifest is there and every file has the size it says.* The manifest is
//! written last, so a copy that was cut short has none.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bounded;
use super::error::{Error, Result};
use super::store::{self, Found, Store};

/// The most bytes that a file system gives a file, and that sizes may add up to.
pub const MOST_BYTES: u64 = i64::MAX as u64;

/// The sum of sizes that somebody else may have made up: it ends at the largest number, and never in a panic.
pub fn total(sizes: impl IntoIterator<Item = u64>) -> u64 {
    sizes.into_iter().fold(0, u64::saturating_add)
}

/// What a folder holds: `.localmodel/manifest.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The source URI, verbatim.
    pub source: String,
    /// The commit that the files are of; none where the source has no such thing, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The files, sorted by path.
    #[serde(deserialize_with = "bounded::list")]
    pub files: Vec<ManifestFile>,
    /// By path, which version of a file this is, where the source tells versions apart: an `ETag`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "bounded::map")]
    pub versions: BTreeMap<String, String>,
    /// Written for files that another program had downloaded: what was there counts as right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// The files came out of an archive: to mend one, all of it is fetched again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unpacked: bool,
    /// The patterns of which a file had to match one; none: all files.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded::list")]
    pub allow_patterns: Vec<String>,
    /// The patterns of which a file had to match none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded::list")]
    pub ignore_patterns: Vec<String>,
}

/// One file of a [`Manifest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name, relative to the folder, with `/` between parts.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes in hexadecimal digits.
    pub sha256: String,
}

/// A file that is not what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} {kind}")]
pub struct Damage {
    /// The file's path in the manifest.
    pub path: String,
    /// What is wrong with it.
    pub kind: DamageKind,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageKind {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It is shorter or longer than it should be.
    #[error("has {found} bytes instead of {expected}")]
    WrongSize {
        /// Bytes that the manifest says.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// Its bytes were read and found to be others.
    #[error("has other bytes than it should")]
    Corrupt,
    /// A symlink, folder or other thing stands there, or on the way.
    #[error("is not a regular file")]
    NotAFile,
}

impl Manifest {
    /// Where a copy keeps its manifest.
    pub const PATH: &str = ".localmodel/manifest.json";
    /// The most bytes of one.
    pub const LONGEST: u64 = 8 << 20;
    /// The most files of one.
    pub const MOST_FILES: usize = 1 << 16;
    /// The most parts of a file's path.
    pub const DEEPEST: usize = 64;

    /// The manifest in the folder `dir`, if both are there; one that cannot be read is an error.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let opened = Store::open(dir).map_err(|error| Error::disk("open", dir, error))?;
        opened.map_or(Ok(None), |store| Self::read_in(&store))
    }

    pub(crate) fn read_in(store: &Store) -> Result<Option<Self>> {
        let Some(json) = store.read(Self::PATH, Self::LONGEST)? else { return Ok(None) };
        let damaged = |why| Error::ManifestDamaged { path: store.path().join(Self::PATH), why };
        let manifest: Self = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        manifest.check().map_err(damaged)?;
        Ok(Some(manifest))
    }

    /// Whether it is one that anybody has to believe; the same is asked of one that is written.
    fn check(&self) -> std::result::Result<(), String> {
        if self.files.len().max(self.versions.len()) > Self::MOST_FILES {
            return Err(format!("it has more than {} files", Self::MOST_FILES));
        }
        for file in &self.files {
            store::check_name(&file.path).map_err(|error| error.to_string())?;
            if file.path.split('/').count() > Self::DEEPEST {
                return Err(format!("{:?} has more than {} parts", file.path, Self::DEEPEST));
            }
        }
        let sizes = self.files.iter().map(|file| file.size);
        if total(sizes) > MOST_BYTES {
            return Err("its sizes add up to more bytes than a file system holds".into());
        }
        Ok(())
    }

    /// The sum of its files' sizes.
    pub fn bytes(&self) -> u64 {
        total(self.files.iter().map(|file| file.size))
    }

    /// The files in `dir` that are not there, have another size, or were found corrupt when somebody read them
    /// last; what they hold is not read now.
    pub fn damaged(&self, dir: &Path) -> io::Result<Vec<Damage>> {
        let Some(store) = Store::open(dir)? else {
            let missing = |file: &ManifestFile| Damage { path: file.path.clone(), kind: DamageKind::Missing };
            return Ok(self.files.iter().map(missing).collect());
        };
        self.damaged_in(&store)
    }

    pub(crate) fn damaged_in(&self, store: &Store) -> io::Result<Vec<Damage>> {
        let mut damages = Vec::new();
        let corrupt = recorded_corrupt(store);
        for file in &self.files {
            let kind = match store.stat(&file.path)? {
                Found::File(size) if size == file.size && corrupt.contains(&file.path) => DamageKind::Corrupt,
                Found::File(size) if size == file.size => continue,
                Found::File(found) => DamageKind::WrongSize { expected: file.size, found },
                Found::Nothing => DamageKind::Missing,
                Found::Other => DamageKind::NotAFile,
            };
            damages.push(Damage { path: file.path.clone(), kind });
        }
        Ok(damages)
    }

    /// Records which files were read and found corrupt, or that none were.
    pub(crate) fn record_corrupt(store: &Store, paths: &[String]) -> Result<()> {
        if paths.is_empty() {
            return store.remove(CORRUPT);
        }
        let json = serde_json::to_vec(paths)
            .map_err(|error| Error::disk("write", &store.path().join(CORRUPT), error))?;
        store.write(CORRUPT, &json)
    }

    /// Whether files are recorded as corrupt.
    pub(crate) fn has_record(store: &Store) -> bool {
        !recorded_corrupt(store).is_empty()
    }

    /// Records that a file was read and found corrupt, beside what is recorded already.
    pub(crate) fn add_corrupt(store: &Store, path: &str) -> Result<()> {
        let mut paths = recorded_corrupt(store);
        paths.insert(path.to_owned());
        Self::record_corrupt(store, &paths.into_iter().collect::<Vec<_>>())
    }

    /// Writes the manifest into the folder `dir`, in one step and durably.
    pub fn write(&self, dir: &Path) -> Result<()> {
        self.write_in(&Store::create(dir)?)
    }

    pub(crate) fn write_in(&self, store: &Store) -> Result<()> {
        let path = || store.path().join(Self::PATH);
        self.check().map_err(|why| Error::ManifestDamaged { path: path(), why })?;
        let json = serde_json::to_vec_pretty(self).map_err(|error| Error::disk("write", &path(), error))?;
        if json.len() as u64 > Self::LONGEST {
            return Err(Error::TooLong { path: path(), longest: Self::LONGEST });
        }
        store.write(Self::PATH, &json)
    }
}

/// The files of a copy that were found corrupt: names, as JSON. The next download mends them.
pub(crate) const CORRUPT: &str = ".localmodel/corrupt.json";

fn recorded_corrupt(store: &Store) -> BTreeSet<String> {
    let recorded = store.read(CORRUPT, Manifest::LONGEST).ok().flatten();
    let read = |json: Vec<u8>| bounded::list(&mut serde_json::Deserializer::from_slice(&json)).ok();
    recorded.and_then(read).map(|paths: Vec<String>| paths.into_iter().collect()).unwrap_or_default()
}

/// Whether `dir` holds a whole copy: its manifest is there and every file has the size it says, and
/// none was found corrupt.
pub fn is_complete(dir: &Path) -> bool {
    matches!(Manifest::read(dir), Ok(Some(manifest))
        if manifest.damaged(dir).is_ok_and(|damages| damages.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn manifest(paths: &[(&str, u64)]) -> Manifest {
        let file = |(path, size): &(&str, u64)| ManifestFile {
            path: (*path).to_owned(),
            size: *size,
            sha256: "00".repeat(32),
        };
        Manifest { source: "hf://o/m".into(), files: paths.iter().map(file).collect(), ..Manifest::default() }
    }

    #[test]
    fn a_copy_is_complete_when_every_file_has_the_size_the_manifest_says() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(!is_complete(dir) && !is_complete(&dir.join("absent")));
        let manifest = manifest(&[("a", 2), ("sub/b", 3)]);
        manifest.write(dir).unwrap();
        assert_eq!(Manifest::read(dir).unwrap().as_ref(), Some(&manifest));
        assert!(!is_complete(dir), "its files are missing");
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("a"), "12").unwrap();
        fs::write(dir.join("sub/b"), "123").unwrap();
        assert!(is_complete(dir));
        fs::write(dir.join("a"), "1").unwrap();
        assert!(!is_complete(dir));
    }

    #[test]
    fn damage_says_what_is_wrong_with_each_file() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("x"), "12").unwrap();
        let dir = dir.path();
        fs::write(dir.join("short"), "1").unwrap();
        fs::create_dir(dir.join("folder")).unwrap();
        symlink(outside.path().join("x"), dir.join("link")).unwrap();
        symlink(outside.path(), dir.join("away")).unwrap();
        let files = [("away/x", 2), ("folder", 2), ("gone", 2), ("link", 2), ("short", 2), ("short/x", 2)];
        let damages = manifest(&files).damaged(dir).unwrap();
        let kinds: Vec<_> = damages.iter().map(ToString::to_string).collect();
        assert_eq!(
            kinds,
            [
                "away/x is not a regular file",
                "folder is not a regular file",
                "gone is missing",
                "link is not a regular file",
                "short has 1 bytes instead of 2",
                "short/x is not a regular file",
            ]
        );
    }

    #[test]
    fn a_manifest_that_cannot_be_believed_is_an_error() {
        for content in ["{", "{}", r#"{"source":"hf://o/m","files":[{"path":"../x","size":1,"sha256":""}]}"#]
        {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join(".localmodel")).unwrap();
            fs::write(dir.path().join(Manifest::PATH), content).unwrap();
            let error = Manifest::read(dir.path()).unwrap_err();
            assert!(matches!(error, Error::ManifestDamaged { .. }), "{content}: {error}");
            assert!(!is_complete(dir.path()));
        }
    }

    /// A file of `longest` bytes and one is not parsed, whatever is in it; neither is what is no file.
    #[test]
    fn a_manifest_is_read_no_further_than_8_mib_and_from_a_regular_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        manifest(&[]).write(dir.path()).unwrap();
        let path = dir.path().join(Manifest::PATH);
        let mut json = fs::read(&path).unwrap();
        json.resize(usize::try_from(Manifest::LONGEST).unwrap(), b' ');
        fs::write(&path, &json).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), Some(manifest(&[])));
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(Manifest::read(dir.path()), Err(Error::TooLong { .. })));
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
        assert!(matches!(Manifest::read(dir.path()), Err(Error::InTheWay(_))));
    }

    #[test]
    fn a_manifest_with_sizes_files_or_paths_past_the_bounds_is_neither_believed_nor_written() {
        let deep = vec!["a"; Manifest::DEEPEST + 1].join("/");
        let many: Vec<String> = (0..=Manifest::MOST_FILES).map(|number| number.to_string()).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|name| (name.as_str(), 0)).collect();
        let hostile: [&[(&str, u64)]; 5] = [
            &[("a", 1 << 63), ("b", 1 << 63)],
            &[("a", u64::MAX)],
            &[("a", MOST_BYTES), ("b", 1)],
            &[(&deep, 1)],
            &many,
        ];
        for files in hostile {
            let dir = tempfile::tempdir().unwrap();
            let hostile = manifest(files);
            assert!(hostile.write(dir.path()).is_err());
            fs::write(dir.path().join(Manifest::PATH), serde_json::to_vec(&hostile).unwrap()).unwrap();
            assert!(matches!(Manifest::read(dir.path()), Err(Error::ManifestDamaged { .. })));
        }
        assert_eq!(total([1 << 63, 1 << 63]), u64::MAX);
    }

    #[test]
    fn optional_fields_are_left_out_when_they_say_nothing() {
        let json = serde_json::to_value(manifest(&[])).unwrap();
        assert_eq!(json, serde_json::json!({"source": "hf://o/m", "files": []}));
    }
}
