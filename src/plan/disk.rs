//! What is on a node's disk. It has areas: the root for cluster caches, and one for the caches of each
//! namespace. A copy is known by its area and its storage key; copies of one source in two areas have
//! nothing to do with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::scrub::Scrubbed;
use crate::api::ModelEntry;
use crate::api::source::storage_key;

/// Which copy: cluster caches' copies sort before those of namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyKey {
    /// The namespace whose area it lies in; `None` for the root.
    pub namespace: Option<String>,
    /// The storage key of its source.
    pub key: String,
}

impl CopyKey {
    /// A copy in the root area.
    pub fn root(key: impl Into<String>) -> Self {
        Self { namespace: None, key: key.into() }
    }

    /// The copy that an entry asks for.
    pub fn of(entry: &ModelEntry) -> Self {
        Self { namespace: entry.namespace().map(Into::into), key: storage_key(&entry.source_model_uri) }
    }

    /// The copy of the same source in the root area.
    #[must_use]
    pub fn in_root(&self) -> Self {
        Self::root(self.key.clone())
    }
}

impl fmt::Display for CopyKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.namespace {
            None => f.write_str(&self.key),
            Some(namespace) => write!(f, "{namespace}/{}", self.key),
        }
    }
}

/// A folder below `models/` or `incoming/`, as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Its manifest is there and every file has the size it says; so many bytes in all.
    Complete {
        /// The sum of the files' sizes.
        bytes: u64,
        /// How many they are.
        files: u64,
    },
    /// Its manifest is there, but cannot be read; or files are missing, have another size, or were found
    /// to hold other bytes.
    Damaged,
    /// Files without a manifest: another initializer's, or a download under way.
    Bare,
    /// Nothing in it.
    Empty,
    /// Nobody wants it: what is in it was not looked at.
    Unread,
}

/// A folder below `serve/`, as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Its view is one of the copy as it is now.
    Current,
    /// It has no view, or one of an earlier copy.
    Outdated,
}

/// What is on the disk, in all its areas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The copies that services read.
    pub models: BTreeMap<CopyKey, Folder>,
    /// What is wrong with those that are damaged, for a person.
    pub damage: BTreeMap<CopyKey, String>,
    /// How those with a manifest were checked.
    pub scrubbed: BTreeMap<CopyKey, Scrubbed>,
    /// Those of them whose manifest an agent has placed or written, and nobody else.
    pub sealed: BTreeSet<CopyKey>,
    /// What Jobs write.
    pub incoming: BTreeMap<CopyKey, Folder>,
    /// Those among them with files that somebody else's copy has lent, and for which no Job has proved yet that
    /// it may have them (K4).
    pub lent: BTreeSet<CopyKey>,
    /// The folders that say how a copy fares.
    pub gates: BTreeSet<CopyKey>,
    /// The folders that pods mount.
    pub served: BTreeMap<CopyKey, Served>,
    /// The storage keys of copies in the root that services of namespace caches read since KServe's time.
    pub kept: BTreeSet<String>,
    /// The namespaces whose area has nothing in it.
    pub empty_areas: BTreeSet<String>,
}

/// Whether a folder's name can be a namespace's: what the API server accepts as one, and so nothing that
/// leads out of its parent.
pub fn is_namespace(name: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.len() <= 63
        && !name.is_empty()
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_api_server_accepts_is_a_namespace() {
        for name in ["a", "team-a", "0", &"n".repeat(63)] {
            assert!(is_namespace(name), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a.b", "..", ".", "a/b", "lost+found", &"n".repeat(64)] {
            assert!(!is_namespace(name), "{name}");
        }
    }

    #[test]
    fn a_copy_is_told_by_area_and_key() {
        let entry = |namespace: Option<&str>| ModelEntry {
            namespace: namespace.map(Into::into),
            source_model_uri: "hf://meta-llama/meta-llama-3-8b-instruct".into(),
            ..ModelEntry::default()
        };
        assert_eq!(CopyKey::of(&entry(Some("ns"))).to_string(), "ns/c277d78a31bc6624");
        assert_eq!(CopyKey::of(&entry(Some("ns"))).in_root(), CopyKey::of(&entry(None)));
        assert_eq!(CopyKey::of(&entry(Some(""))).to_string(), "c277d78a31bc6624", "KServe writes it so");
    }
}
