//! One node with the documented model, which tests of the pass and of the takeover vary.

use jiff::SignedDuration;

use super::*;
use crate::plan::disk::Served;
use crate::plan::samples::{KEY, URI, at, entry, entry_of, from};

/// How long finished Jobs stay.
pub(in crate::plan) const TTL: i64 = 3600;
/// The documented cache.
pub(in crate::plan) const M: &str = "meta-llama3-8b-instruct";

/// What a test varies of one node with the documented model; the time is second 10,000.
#[derive(Clone, Debug)]
pub(in crate::plan) struct World {
    pub(in crate::plan) entries: Vec<ModelEntry>,
    pub(in crate::plan) other_groups: Vec<ModelEntry>,
    pub(in crate::plan) vouched: BTreeSet<String>,
    pub(in crate::plan) disk: Inventory,
    pub(in crate::plan) unwritable: BTreeMap<Option<String>, Problem>,
    pub(in crate::plan) full: Option<Problem>,
    pub(in crate::plan) progress: BTreeMap<CopyKey, ProgressReport>,
    pub(in crate::plan) jobs: Vec<JobView>,
    pub(in crate::plan) before: BTreeMap<String, Said>,
    pub(in crate::plan) recipes: BTreeMap<CopyKey, Result<Recipe, Problem>>,
    pub(in crate::plan) unadoptable: BTreeMap<CopyKey, Problem>,
    pub(in crate::plan) refused: BTreeMap<CopyKey, (Problem, Timestamp)>,
    pub(in crate::plan) unserved: BTreeMap<CopyKey, Problem>,
    pub(in crate::plan) tried: BTreeMap<CopyKey, Recipe>,
    pub(in crate::plan) enabled: bool,
    pub(in crate::plan) now: i64,
}

pub(in crate::plan) fn world() -> World {
    World {
        entries: vec![entry()],
        other_groups: Vec::new(),
        vouched: BTreeSet::new(),
        disk: Inventory::default(),
        unwritable: BTreeMap::new(),
        full: None,
        progress: BTreeMap::new(),
        jobs: Vec::new(),
        before: BTreeMap::new(),
        recipes: BTreeMap::new(),
        unadoptable: BTreeMap::new(),
        refused: BTreeMap::new(),
        unserved: BTreeMap::new(),
        tried: BTreeMap::new(),
        enabled: true,
        now: 10_000,
    }
}

impl World {
    /// A pass, without what it does about the folders that pods mount.
    pub(in crate::plan) fn pass(&self) -> Outcome {
        let mut outcome = self.whole_pass();
        outcome.actions.retain(|action| !matches!(action, Action::Serve(_) | Action::EraseServed(_)));
        outcome
    }

    pub(in crate::plan) fn whole_pass(&self) -> Outcome {
        self.view(pass)
    }

    pub(in crate::plan) fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        let all: Vec<ModelEntry> = self.entries.iter().chain(&self.other_groups).cloned().collect();
        look(&View {
            entries: &self.entries,
            all: &all,
            vouched: &self.vouched,
            disk: &self.disk,
            unwritable: &self.unwritable,
            full: self.full.as_ref(),
            progress: &self.progress,
            jobs: &self.jobs,
            before: &self.before,
            recipes: &self.recipes,
            unadoptable: &self.unadoptable,
            refused: &self.refused,
            unserved: &self.unserved,
            tried: &self.tried,
            enabled: self.enabled,
            job_ttl: SignedDuration::from_secs(TTL),
            now: at(self.now),
        })
    }

    /// The copy, and a view of it where it is whole.
    pub(in crate::plan) fn model(mut self, folder: Folder) -> Self {
        if matches!(folder, Folder::Complete { .. }) {
            self.disk.sealed.insert(root());
        }
        self.place(root(), folder);
        self
    }

    pub(in crate::plan) fn place(&mut self, copy: CopyKey, folder: Folder) {
        if folder == WHOLE {
            self.disk.served.insert(copy.clone(), Served::Current);
        }
        self.disk.models.insert(copy, folder);
    }

    pub(in crate::plan) fn incoming(mut self, folder: Folder) -> Self {
        self.disk.incoming.insert(root(), folder);
        self
    }

    pub(in crate::plan) fn job(mut self, job: JobView) -> Self {
        self.jobs.push(job);
        self
    }

    pub(in crate::plan) fn said(mut self, phase: ModelStatus, detail: serde_json::Value) -> Self {
        self.before.insert(M.into(), (phase, from(detail)));
        self
    }
}

pub(in crate::plan) const WHOLE: Folder = Folder::Complete { bytes: 10, files: 2 };

/// The documented model's copy.
pub(in crate::plan) fn root() -> CopyKey {
    CopyKey::root(KEY)
}

/// The same source's copy in a namespace's area.
pub(in crate::plan) fn of_ns() -> CopyKey {
    CopyKey { namespace: Some("ns".into()), key: KEY.into() }
}

/// An entry of that copy.
pub(in crate::plan) fn ns_entry() -> ModelEntry {
    ModelEntry { namespace: Some("ns".into()), node_group: Some("workers".into()), ..entry_of("m", URI) }
}

pub(in crate::plan) fn job(name: &str, phase: JobPhase) -> JobView {
    JobView {
        name: name.into(),
        copy: root(),
        own: true,
        kserve: false,
        phase,
        deleting: false,
        recipe: None,
        started: Some(at(9_000)),
        without_pod_since: None,
    }
}
