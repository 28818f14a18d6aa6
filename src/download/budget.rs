//! The most that a download may bring: bytes, files, and the length and depth of their names.
//!
//! A source is trusted with none of these. A list is counted while it is read, so that one without end costs
//! neither memory nor disk, and an archive while it is unpacked, whatever its headers say.

use std::collections::HashSet;

use super::error::{Error, Result};
use super::manifest::{MOST_BYTES, Manifest};
use super::plan::PlannedFile;
use super::select::Selection;
use super::store::check_name;

/// The most files, unless somebody asks for another limit.
pub const MOST_FILES: usize = 20_000;
/// The most bytes of one name.
const LONGEST_PATH: usize = 1024;
/// The most bytes of what a source calls a version: an `ETag`.
const LONGEST_VERSION: usize = 1024;
/// Bytes that a manifest takes for a file beside its name and version: keys, size, SHA-256 and blanks.
const OF_A_FILE: u64 = 200;
/// How many names a list may hold for each file that may be chosen from it.
const ENTRIES_PER_FILE: usize = 10;
/// The most bytes of names and versions that are held until a list is complete.
const MOST_HELD: usize = 64 << 20;

/// What a download may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files.
    pub files: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { bytes: MOST_BYTES, files: MOST_FILES }
    }
}

/// What of the limits is used up.
#[derive(Clone, Debug)]
pub struct Budget {
    allowance: Allowance,
    /// The source, for messages.
    source: String,
    bytes: u64,
    files: usize,
    /// All that was named, wanted or not, folders included.
    entries: usize,
    /// Bytes that the manifest of these files has.
    manifest: u64,
}

impl Budget {
    /// Nothing is used up yet by this source, which is named without secrets.
    pub fn new(allowance: Allowance, source: &str) -> Self {
        Self { allowance, source: source.to_owned(), bytes: 0, files: 0, entries: 0, manifest: 0 }
    }

    /// The limits.
    pub fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Counts bytes.
    pub fn add_bytes(&mut self, bytes: u64) -> Result<()> {
        let most = self.allowance.bytes.min(MOST_BYTES);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > most {
            return Err(Error::TooLarge { source_uri: self.source.clone(), most });
        }
        Ok(())
    }

    /// Counts a file by its name, and what the source calls its version.
    pub fn add_file(&mut self, path: &str, version: Option<&str>) -> Result<()> {
        check_depth(path)?;
        let most = self.allowance.files.min(Manifest::MOST_FILES);
        self.files += 1;
        let version = version.unwrap_or_default();
        if version.len() > LONGEST_VERSION {
            let why = format!("the ETag of {path:?} has more than {LONGEST_VERSION} bytes");
            return Err(Error::BadAnswer { what: self.source.clone(), why });
        }
        self.manifest += OF_A_FILE + 2 * in_json(path) + in_json(version);
        if self.files > most || self.manifest > Manifest::LONGEST {
            let most = most.min(self.files - 1);
            return Err(Error::TooManyFiles { source_uri: self.source.clone(), most });
        }
        Ok(())
    }

    /// Counts a name of whatever it is, wanted or not.
    pub fn add_entry(&mut self) -> Result<()> {
        self.entries += 1;
        let most = self.allowance.files.saturating_mul(ENTRIES_PER_FILE);
        if self.entries > most {
            return Err(Error::TooManyFiles { source_uri: self.source.clone(), most });
        }
        Ok(())
    }
}

/// Refuses a name that is too long or too deep.
pub fn check_depth(path: &str) -> Result<()> {
    let deep = path.split('/').count();
    if path.len() <= LONGEST_PATH && deep <= Manifest::DEEPEST {
        return Ok(());
    }
    let name = path.chars().take(60).chain(['…']).collect();
    Err(Error::PathTooDeep { name, bytes: path.len(), deep })
}

/// Bytes of a text in JSON, at most.
fn in_json(text: &str) -> u64 {
    let escaped = text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    (text.len() + escaped) as u64
}

/// The files of a source, as they are listed: those that are wanted are kept.
#[derive(Debug)]
pub struct Listing {
    budget: Budget,
    selection: Selection,
    names: HashSet<String>,
    files: Vec<PlannedFile>,
    /// All files, wanted or not.
    count: usize,
    /// Names that are held for the list, those of them that are wanted, and their bytes.
    held: [usize; 3],
}

impl Listing {
    /// An empty list of this source, which is named without secrets.
    pub fn new(allowance: Allowance, selection: &Selection, source: &str) -> Self {
        let budget = Budget::new(allowance, source);
        let selection = selection.clone();
        Self { budget, selection, names: HashSet::new(), files: Vec::new(), count: 0, held: [0; 3] }
    }

    /// Counts a name that is no file: a folder, or what stands for one.
    pub fn add_folder(&mut self) -> Result<()> {
        self.budget.add_entry()
    }

    /// Counts a name that is held until the list is complete, when it becomes that of a file or of nothing.
    pub fn hold(&mut self, name: &str, version: Option<&str>) -> Result<()> {
        let allowed = self.budget.allowance.files;
        let wanted = !name.ends_with('/') && self.selection.wants(name);
        let held = [1, usize::from(wanted), name.len() + version.map_or(0, str::len)];
        // Some of what is wanted may turn out to stand for folders.
        let most = [allowed.saturating_mul(ENTRIES_PER_FILE), allowed.saturating_mul(2), MOST_HELD];
        for ((sum, more), most) in self.held.iter_mut().zip(held).zip(most) {
            *sum += more;
            if *sum > most {
                return Err(Error::TooManyFiles { source_uri: self.budget.source.clone(), most: allowed });
            }
        }
        Ok(())
    }

    /// Adds a file, unless it is not wanted. Its name is checked.
    pub fn add(&mut self, file: PlannedFile) -> Result<()> {
        self.budget.add_entry()?;
        self.count += 1;
        check_name(&file.path)?;
        if !self.selection.wants(&file.path) {
            return Ok(());
        }
        if !self.names.insert(file.path.clone()) {
            let why = format!("the file {:?} is there twice", file.path);
            return Err(Error::BadAnswer { what: self.budget.source.clone(), why });
        }
        self.budget.add_file(&file.path, file.version.as_deref())?;
        self.budget.add_bytes(file.size)?;
        self.files.push(file);
        Ok(())
    }

    /// How many files there were, wanted or not.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The files that are wanted.
    pub fn into_files(self) -> Vec<PlannedFile> {
        self.files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::digest::Digest;
    use crate::download::error::Reason;

    fn file(path: &str, size: u64) -> PlannedFile {
        PlannedFile::new(path, size, Digest::Untold)
    }

    fn listed(allowance: Allowance, files: &[(&str, u64)]) -> Result<usize> {
        let mut listing = Listing::new(allowance, &Selection::default(), "s3://b/m");
        for (path, size) in files {
            listing.add(file(path, *size))?;
        }
        Ok(listing.into_files().len())
    }

    #[test]
    fn what_is_within_the_limits_is_kept_and_the_first_file_beyond_ends_the_list() {
        let allowance = Allowance { bytes: 10, files: 2 };
        assert_eq!(listed(allowance, &[("a", 4), ("b", 6)]).unwrap(), 2);
        for (files, reason) in [
            ([("a", 4), ("b", 7)].as_slice(), Reason::TooLarge),
            (&[("a", 1), ("b", 1), ("c", 0)], Reason::TooManyFiles),
            (&[("a", 1), ("a", 1)], Reason::SourceRefused),
            (&[("../a", 1)], Reason::UnsafeFileName),
        ] {
            assert_eq!(listed(allowance, files).unwrap_err().reason(), reason, "{files:?}");
        }
    }

    #[test]
    fn sizes_whose_sum_has_no_number_are_too_large() {
        for sizes in [[1_u64 << 63, 1 << 63], [u64::MAX, u64::MAX], [1 << 62, 1 << 62], [0, 1 << 63]] {
            let error = listed(Allowance::default(), &[("a", sizes[0]), ("b", sizes[1])]).unwrap_err();
            assert_eq!(error.reason(), Reason::TooLarge, "{sizes:?}");
        }
    }

    #[test]
    fn a_name_may_be_long_and_deep_up_to_a_limit() {
        let deep = |parts: usize| vec!["d"; parts].join("/");
        let long =
            |bytes: usize| format!("{}/{}", vec!["d".repeat(200); 5].join("/"), "n".repeat(bytes - 1005));
        for (path, fits) in [(deep(64), true), (deep(65), false), (long(1024), true), (long(1025), false)] {
            match listed(Allowance::default(), &[(&path, 0)]) {
                Ok(_) => assert!(fits, "{path}"),
                Err(error) => assert!(!fits && error.reason() == Reason::PathTooDeep, "{error}"),
            }
        }
    }

    #[test]
    fn names_that_no_manifest_can_hold_are_too_many() {
        let name = |number: usize| format!("{}/{number:05}", "\"".repeat(200));
        let names: Vec<String> = (0..20_000).map(name).collect();
        let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 0)).collect();
        let error = listed(Allowance::default(), &files).unwrap_err();
        assert_eq!(error.reason(), Reason::TooManyFiles, "{error}");
    }

    #[test]
    fn what_is_not_wanted_counts_for_the_end_of_the_list_alone() {
        let selection = Selection::new(vec!["*.json".into()], vec![]).unwrap();
        let mut listing = Listing::new(Allowance { bytes: 5, files: 2 }, &selection, "s3://b/m");
        for number in 0..18 {
            listing.add(file(&format!("{number}.bin"), u64::MAX)).unwrap();
        }
        listing.add(file("a.json", 5)).unwrap();
        listing.add_folder().unwrap();
        let error = listing.add_folder().unwrap_err();
        assert_eq!(error.reason(), Reason::TooManyFiles, "{error}");
        assert_eq!((listing.count(), listing.into_files().len()), (19, 1));
    }
}
