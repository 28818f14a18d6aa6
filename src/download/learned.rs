//! Digests that the source does not tell, put into the recorded plan when their files have come: without them
//! a run after a kill could not tell that a file in the folder is the right one, and would fetch it again (F3).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::digest::Digest;
use super::error::Result;
use super::manifest::{Manifest, ManifestFile};
use super::plan::{Plan, PlannedFile};
use super::store::Store;

/// The time between two records: so much of smaller files is fetched again after a kill.
const EVERY: Duration = Duration::from_secs(5);
/// A file of so many bytes is worth a record of its own.
const LARGE: u64 = 64 << 20;

/// The plan of a run, and what is learned meanwhile.
#[derive(Debug)]
pub struct Learned {
    store: Arc<Store>,
    state: Mutex<State>,
    /// Held while the plan is being written, which takes as long as the disk does.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    plan: Plan,
    /// Where in the plan the files are of which there is something to learn.
    indices: BTreeMap<String, usize>,
    recorded: Instant,
    /// Whether something is known that the record does not say.
    news: bool,
}

impl Learned {
    /// For the run of this plan.
    pub fn new(store: &Arc<Store>, plan: &Plan) -> Self {
        let unknown = plan.files.iter().enumerate().filter(|(_, file)| is_to_learn(file));
        let indices = unknown.map(|(index, file)| (file.path.clone(), index)).collect();
        let state = State { plan: plan.clone(), indices, recorded: Instant::now(), news: false };
        Self { store: Arc::clone(store), state: Mutex::new(state), writing: Mutex::default() }
    }

    /// A file is in its place; gives whether [`Self::record`] is due.
    pub fn learn(&self, file: &ManifestFile) -> bool {
        let mut state = self.state();
        let Some(index) = state.indices.remove(&file.path) else { return false };
        state.plan.files[index].digest = Digest::Sha256(file.sha256.clone());
        state.news = true;
        file.size >= LARGE || state.recorded.elapsed() >= EVERY
    }

    /// Records what is new.
    pub fn record(&self) -> Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = {
            let mut state = self.state();
            if !state.news {
                return Ok(());
            }
            (state.news, state.recorded) = (false, Instant::now());
            state.plan.clone()
        };
        plan.record(&self.store)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Digests by path and version, from an earlier copy of a source and from the record of a run for it.
#[derive(Debug, Default)]
pub struct Known<'a>(BTreeMap<(&'a str, &'a str, u64), &'a str>);

impl<'a> Known<'a> {
    /// What these know of `source`.
    pub fn new(source: &str, manifest: Option<&'a Manifest>, record: Option<&'a Plan>) -> Self {
        let mut known = BTreeMap::new();
        for manifest in manifest.into_iter().filter(|manifest| manifest.source == source) {
            for file in &manifest.files {
                if let Some(version) = manifest.versions.get(&file.path) {
                    known.insert((file.path.as_str(), version.as_str(), file.size), file.sha256.as_str());
                }
            }
        }
        for file in record.into_iter().filter(|record| record.source == source).flat_map(|plan| &plan.files) {
            if let (Some(version), Digest::Sha256(sha256)) = (&file.version, &file.digest) {
                known.insert((&file.path, version, file.size), sha256);
            }
        }
        Self(known)
    }

    /// The file, with its digest if this very version of it is known.
    pub fn told(&self, file: PlannedFile) -> PlannedFile {
        let version = file.version.as_deref();
        let sha256 = version.and_then(|version| self.0.get(&(file.path.as_str(), version, file.size)));
        match sha256 {
            Some(sha256) => PlannedFile { digest: Digest::Sha256((*sha256).to_owned()), ..file },
            None => file,
        }
    }
}

/// Whether the digest is none that is good for all its bytes, and the version says which bytes they are.
fn is_to_learn(file: &PlannedFile) -> bool {
    file.version.is_some() && matches!(file.digest, Digest::Untold | Digest::Md5(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64, digest: Digest) -> PlannedFile {
        PlannedFile { version: Some("v1".into()), ..PlannedFile::new(path, size, digest) }
    }

    #[test]
    fn a_digest_is_recorded_at_once_for_a_large_file_and_else_with_the_next_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(dir.path()).unwrap());
        let plan = Plan {
            source: "s3://b/m".into(),
            files: vec![
                file("large", LARGE, Digest::Untold),
                file("small", 5, Digest::Md5("00".into())),
                file("told", 5, Digest::GitBlob("00".into())),
                PlannedFile::new("of no version", 5, Digest::Untold),
            ],
            ..Plan::from(&Manifest::default())
        };
        let learned = Learned::new(&store, &plan);
        learned.record().unwrap();
        assert_eq!(Plan::read(&store).unwrap(), None, "there is nothing new");
        let placed = |index: usize| learned.learn(&plan.files[index].known_as(format!("sha {index}")));
        assert_eq!([1, 2, 3, 0].map(placed), [false, false, false, true]);
        learned.record().unwrap();
        let digests: Vec<_> =
            Plan::read(&store).unwrap().unwrap().files.into_iter().map(|file| file.digest).collect();
        let sha256 = |index: usize| Digest::Sha256(format!("sha {index}"));
        assert_eq!(digests, [sha256(0), sha256(1), Digest::GitBlob("00".into()), Digest::Untold]);
    }

    #[test]
    fn what_was_learned_of_another_source_version_or_size_is_not_known() {
        let sha256 = Digest::Sha256("aa".into());
        let record = Plan {
            source: "s3://b/m".into(),
            files: vec![file("a", 5, sha256.clone()), file("b", 5, Digest::Untold)],
            ..Plan::from(&Manifest::default())
        };
        let known = Known::new("s3://b/m", None, Some(&record));
        let untold = || file("a", 5, Digest::Untold);
        assert_eq!(known.told(untold()).digest, sha256);
        let other_version = PlannedFile { version: Some("v2".into()), ..untold() };
        for other in [other_version, file("a", 6, Digest::Untold), file("b", 5, Digest::Untold)] {
            assert_eq!(known.told(other.clone()), other);
        }
        assert_eq!(Known::new("s3://b/other", None, Some(&record)).told(untold()), untold());

        let manifest = Manifest {
            source: "s3://b/m".into(),
            files: vec![ManifestFile { path: "a".into(), size: 5, sha256: "aa".into() }],
            versions: BTreeMap::from([("a".to_owned(), "v1".to_owned())]),
            ..Manifest::default()
        };
        assert_eq!(Known::new("s3://b/m", Some(&manifest), None).told(untold()).digest, sha256);
    }
}
