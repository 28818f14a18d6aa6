//! What a run has to do: all of it decided from what lies in the folder, without a request.
//!
//! The plan of a first download is recorded in the folder before its first file, so that a run after a
//! kill goes on with the same commit, even when the branch has moved (F2). The manifest takes its place.

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::Result;
use super::manifest::{Damage, Manifest, ManifestFile, total};
use super::select::Selection;
use super::store::{self, Store};

/// The files of one commit, with all that is needed to fetch and to check them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The source URI, verbatim.
    pub source: String,
    /// The commit; empty where the source has no such thing.
    pub revision: String,
    /// As in the [`Manifest`].
    pub allow_patterns: Vec<String>,
    /// As in the [`Manifest`].
    pub ignore_patterns: Vec<String>,
    /// The files that the copy will hold.
    pub files: Vec<PlannedFile>,
    /// Files that an earlier plan or manifest of this folder had and this one has not.
    #[serde(default)]
    pub stale: Vec<String>,
}

/// One file of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFile {
    /// Its name, checked by [`store::check_name`].
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// What its bytes hash to.
    pub digest: Digest,
    /// Which version of it is wanted, where the source tells versions apart by themselves: an `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The name of the object that it is, where that is not the source's prefix with the file's name behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it has to come in one answer, since its size is not known (`size` is 0 then), or nothing tells its versions apart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_stream: bool,
}

impl PlannedFile {
    /// A file of which there is one version.
    pub fn new(path: impl Into<String>, size: u64, digest: Digest) -> Self {
        Self { path: path.into(), size, digest, version: None, key: None, one_stream: false }
    }

    /// The entry in the manifest, once it is known that it hashes to this.
    pub fn known_as(&self, sha256: String) -> ManifestFile {
        ManifestFile { path: self.path.clone(), size: self.size, sha256 }
    }

    /// Whether there is a way to see that bytes are this file's.
    pub fn can_be_told(&self) -> bool {
        self.digest != Digest::Untold
    }
}

/// Where a run begins.
#[derive(Debug, PartialEq, Eq)]
pub enum Start {
    /// The manifest is right but for these files.
    Repair(Plan, Vec<Damage>),
    /// A recorded plan was not finished; what is there already has to be checked.
    Resume(Plan),
    /// The source has to be asked: for this commit, or for what the URI's revision is now.
    Ask {
        /// The commit that the copy has to stay at.
        pin: Option<String>,
        /// Files that are in the folder because of an earlier plan or manifest.
        earlier: Vec<String>,
    },
}

impl Plan {
    pub(super) const PATH: &str = ".localmodel/plan.json";
    /// A plan names the files of a manifest and, at most, those of another one that they replace.
    const LONGEST: u64 = 4 * Manifest::LONGEST;

    /// The recorded plan, if there is one that can be believed.
    pub fn read(store: &Store) -> Result<Option<Self>> {
        let recorded = match store.read(Self::PATH, Self::LONGEST) {
            Err(super::error::Error::TooLong { .. }) => None,
            other => other?,
        };
        let plan = recorded.and_then(|json| serde_json::from_slice::<Self>(&json).ok());
        Ok(plan.filter(|plan| plan.names().all(|name| store::check_name(name).is_ok())))
    }

    /// Records the plan durably.
    pub fn record(&self, store: &Store) -> Result<()> {
        let json = serde_json::to_vec(self)
            .map_err(|error| super::error::Error::disk("write", &store.path().join(Self::PATH), error))?;
        store.write(Self::PATH, &json)
    }

    /// Removes the record.
    pub fn forget(store: &Store) -> Result<()> {
        store.remove(Self::PATH)
    }

    /// The sum of all sizes.
    pub fn bytes(&self) -> u64 {
        total(self.files.iter().map(|file| file.size))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.files.iter().map(|file| &file.path).chain(&self.stale)
    }

    fn is_for(&self, source: &str, selection: &Selection) -> bool {
        self.source == source
            && self.allow_patterns == selection.allow_patterns()
            && self.ignore_patterns == selection.ignore_patterns()
    }
}

impl From<&Manifest> for Plan {
    fn from(manifest: &Manifest) -> Self {
        let planned = |file: &ManifestFile| PlannedFile {
            version: manifest.versions.get(&file.path).cloned(),
            ..PlannedFile::new(&file.path, file.size, Digest::Sha256(file.sha256.clone()))
        };
        Self {
            source: manifest.source.clone(),
            revision: manifest.revision.clone().unwrap_or_default(),
            allow_patterns: manifest.allow_patterns.clone(),
            ignore_patterns: manifest.ignore_patterns.clone(),
            files: manifest.files.iter().map(planned).collect(),
            stale: Vec::new(),
        }
    }
}

/// Decides where a run for `source` begins in a folder with this manifest, its damage, and this record;
/// nowhere, if the folder is a complete copy.
pub fn start(
    source: &str,
    selection: &Selection,
    manifest: Option<&Manifest>,
    damage: Vec<Damage>,
    record: Option<Plan>,
) -> Option<Start> {
    let ours = manifest.filter(|manifest| manifest.source == source);
    if let Some(manifest) = ours {
        let selected = Plan::from(manifest).is_for(source, selection);
        // What another program chose to download is not ours to question, as long as it is whole.
        if damage.is_empty() && (selected || manifest.adopted) {
            return None;
        }
        if selected && !manifest.adopted && !manifest.unpacked && manifest.revision.is_some() {
            return Some(Start::Repair(manifest.into(), damage));
        }
    }
    let earlier = earlier_files(manifest, record.as_ref());
    Some(match record {
        Some(plan) if plan.is_for(source, selection) => Start::Resume(plan),
        _ => Start::Ask { pin: ours.and_then(|manifest| manifest.revision.clone()), earlier },
    })
}

/// The files that earlier runs may have put into the folder.
pub fn earlier_files(manifest: Option<&Manifest>, record: Option<&Plan>) -> Vec<String> {
    let of_manifest = manifest.iter().flat_map(|manifest| &manifest.files).map(|file| &file.path);
    let mut files: Vec<_> = record.iter().flat_map(|plan| plan.names()).chain(of_manifest).cloned().collect();
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::super::manifest::DamageKind;
    use super::*;

    const SOURCE: &str = "hf://o/m";

    fn manifest() -> Manifest {
        let file = ManifestFile { path: "a".into(), size: 1, sha256: "aa".into() };
        Manifest {
            source: SOURCE.into(),
            revision: Some("c1".into()),
            files: vec![file],
            ..Manifest::default()
        }
    }

    fn damage() -> Vec<Damage> {
        vec![Damage { path: "a".into(), kind: DamageKind::Missing }]
    }

    fn record() -> Plan {
        Plan { revision: "c2".into(), stale: vec!["old".into()], ..Plan::from(&manifest()) }
    }

    fn ask(pin: Option<&str>, earlier: &[&str]) -> Start {
        let earlier = earlier.iter().map(|name| (*name).to_owned()).collect();
        Start::Ask { pin: pin.map(Into::into), earlier }
    }

    #[test]
    fn a_run_begins_where_the_folder_says() {
        let all = Selection::default();
        let some = Selection::new(vec!["a".into()], vec![]).unwrap();
        let adopted = Manifest { adopted: true, revision: None, ..manifest() };
        let other = Manifest { source: "hf://o/other".into(), ..manifest() };
        let ours = Some(manifest());
        for (case, selection, manifest, damage, record, expected) in [
            ("an empty folder", &all, None, vec![], None, Some(ask(None, &[]))),
            ("a whole copy", &all, ours.clone(), vec![], None, None),
            (
                "a damaged copy",
                &all,
                ours.clone(),
                damage(),
                None,
                Some(Start::Repair(Plan::from(&manifest()), damage())),
            ),
            ("another selection", &some, ours.clone(), vec![], None, Some(ask(Some("c1"), &["a"]))),
            ("a whole adopted copy", &some, Some(adopted.clone()), vec![], None, None),
            ("a damaged adopted copy", &all, Some(adopted), damage(), None, Some(ask(None, &["a"]))),
            ("a copy of something else", &all, Some(other.clone()), vec![], None, Some(ask(None, &["a"]))),
            (
                "a damaged copy out of an archive",
                &all,
                Some(Manifest { unpacked: true, ..manifest() }),
                damage(),
                None,
                Some(ask(Some("c1"), &["a"])),
            ),
            ("a killed run", &all, None, vec![], Some(record()), Some(Start::Resume(record()))),
            (
                "a killed run over something else",
                &all,
                Some(other),
                vec![],
                Some(record()),
                Some(Start::Resume(record())),
            ),
            (
                "a killed run of another selection",
                &some,
                None,
                vec![],
                Some(record()),
                Some(ask(None, &["a", "old"])),
            ),
        ] {
            assert_eq!(start(SOURCE, selection, manifest.as_ref(), damage, record), expected, "{case}");
        }
    }
}
