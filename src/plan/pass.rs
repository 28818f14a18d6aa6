//! What an agent does in one pass over its node's disk: which Jobs to make and delete, which folders to
//! place and erase, and what to say about each model (A2 to A4, A7, D2, D3).

mod action;
mod missing;
mod serve;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use action::Action;

use super::disk::{CopyKey, Folder, Inventory};
use super::gate::GateStatus;
use super::recipe::Recipe;
use super::takeover;
use crate::api::node::ModelDetail;
use crate::api::{ModelEntry, ModelStatus};
use crate::download::ProgressReport;
use missing::{is_over_budget, missing};

/// A disk, or a part of it, cannot be written (A2).
pub const DISK_NOT_WRITABLE: &str = "DiskNotWritable";
/// A disk has no room left, or not enough of it (F4).
pub const DISK_FULL: &str = "DiskFull";
/// A disk hangs: what is asked of it does not come back.
pub const DISK_NOT_RESPONDING: &str = "DiskNotResponding";
/// A complete copy has become a damaged one (A5).
pub const COPY_DAMAGED: &str = "CopyDamaged";
/// A complete copy is not there any more (A5).
pub const COPY_VANISHED: &str = "CopyVanished";
/// A complete copy could not be linked to where pods read it.
pub const COPY_NOT_SERVED: &str = "CopyNotServed";
/// The API server refused to make a Job: a quota of Jobs, or somebody's admission.
pub const JOB_REFUSED: &str = "JobRefused";
/// The API server refuses every pod of a Job: a quota, or admission.
pub const POD_REFUSED: &str = "PodRefused";
/// How long after a refusal the Job is asked for again.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(20);
/// How long a Job may be without a pod before its Events are looked at.
const POD_WITHIN: SignedDuration = SignedDuration::from_secs(5);
/// How often the progress of a download is looked at (A8).
pub const PROGRESS_EVERY: SignedDuration = SignedDuration::from_secs(5);

/// How often the credentials of a download that has failed, or that waits for them, are looked at: nothing
/// tells an agent when a secret changes, because the right to watch secrets is one to read them all.
pub const CREDENTIALS_EVERY: SignedDuration = SignedDuration::from_secs(20);

/// What an agent says of a model.
pub type Said = (ModelStatus, ModelDetail);

/// A download Job of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Its name.
    pub name: String,
    /// The copy that it makes.
    pub copy: CopyKey,
    /// Whether this agent made it. While another group's agent or KServe downloads the same model, this
    /// one waits: two groups may share one disk, and two Jobs must never write one folder (A7, D6).
    pub own: bool,
    /// Whether it is KServe's: it writes `models/K` of the root, whatever the copy's area.
    pub kserve: bool,
    /// How far it is.
    pub phase: JobPhase,
    /// Whether it is in deletion; it stays until its pods have ended.
    pub deleting: bool,
    /// What it was made from, where it says so.
    pub recipe: Option<Recipe>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// Since when it has been without a pod, while it has none: a quota or admission may refuse it, which
    /// Kubernetes tells in Events only.
    pub without_pod_since: Option<Timestamp>,
}

impl JobView {
    /// When its Events are to be read for why it has no pod, if ever.
    pub fn explained_at(&self) -> Option<Timestamp> {
        let is_waiting = self.own && !self.deleting && self.phase == JobPhase::Pending(None);
        self.without_pod_since.filter(|_| is_waiting).map(|since| since + POD_WITHIN)
    }

    /// Whether it writes the copy with this key in the root, behind the area of its own.
    pub(super) fn writes_root(&self, key: &str) -> bool {
        self.kserve && self.copy.key == key
    }
}

/// How far a Job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobPhase {
    /// No pod of it runs yet; the text says what it waits for, where the kubelet does.
    Pending(Option<Problem>),
    /// Its pod runs.
    Running,
    /// It ended well at this time.
    Succeeded(Timestamp),
    /// It failed for good at this time: Kubernetes tries no further pod (A3).
    Failed(Timestamp, Problem),
}

/// What went wrong, or what is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In one word.
    pub reason: String,
    /// For a person.
    pub message: String,
}

impl Problem {
    /// A problem in a word and a sentence.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// What an agent sees.
#[derive(Debug)]
pub struct View<'a> {
    /// The entries of this agent's own group.
    pub entries: &'a [ModelEntry],
    /// All entries of this node, of whatever group: two groups may share one disk (A10).
    pub all: &'a [ModelEntry],
    /// The status keys that KServe's agent called downloaded (D6).
    pub vouched: &'a BTreeSet<String>,
    /// What is on the disk.
    pub disk: &'a Inventory,
    /// Why the root or a namespace's area cannot be written, where that is so.
    pub unwritable: &'a BTreeMap<Option<String>, Problem>,
    /// Why nothing can be added to the disk, where no room is left at all.
    pub full: Option<&'a Problem>,
    /// The download Jobs of this node, of whatever group.
    pub jobs: &'a [JobView],
    /// How far the downloads are that say so.
    pub progress: &'a BTreeMap<CopyKey, ProgressReport>,
    /// What was said of each model before.
    pub before: &'a BTreeMap<String, Said>,
    /// What the Job of each copy that lacks one would be made from, or why it cannot be made.
    pub recipes: &'a BTreeMap<CopyKey, Result<Recipe, Problem>>,
    /// Why what another initializer has downloaded for a copy cannot be taken for one.
    pub unadoptable: &'a BTreeMap<CopyKey, Problem>,
    /// Why the API server refused the last Job of a copy, and when, where it did.
    pub refused: &'a BTreeMap<CopyKey, (Problem, Timestamp)>,
    /// Why a complete copy could not be linked to where pods read it, where the last try failed.
    pub unserved: &'a BTreeMap<CopyKey, Problem>,
    /// What the last Job of a copy was made from, where that is gone.
    pub tried: &'a BTreeMap<CopyKey, Recipe>,
    /// Whether anything new is downloaded (C9).
    pub enabled: bool,
    /// How long a finished Job stays.
    pub job_ttl: SignedDuration,
    /// The time of this pass.
    pub now: Timestamp,
}

impl View<'_> {
    /// Why the copy's area cannot be written; where the root cannot, no area can.
    pub(super) fn unwritable(&self, copy: &CopyKey) -> Option<&Problem> {
        self.unwritable.get(&None).or_else(|| self.unwritable.get(&copy.namespace))
    }
}

/// What a pass comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// What to say of each model, by its status key.
    pub status: BTreeMap<String, Said>,
    /// What to tell the pods that wait for a copy in `models/`: those with volumes of earlier versions.
    pub gates: BTreeMap<CopyKey, GateStatus>,
    /// What to tell the pods that wait for a copy in `serve/`.
    pub served_gates: BTreeMap<CopyKey, GateStatus>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// One pass: Jobs that are not wanted go first, then each model, then folders that nobody needs.
pub fn pass(view: &View) -> Outcome {
    let mut outcome = Outcome::default();
    let wanted: BTreeSet<CopyKey> = view.all.iter().map(CopyKey::of).collect();
    let own: BTreeSet<CopyKey> = view.entries.iter().map(CopyKey::of).collect();
    let is_unwanted = |job: &&JobView| {
        !job.deleting && (!wanted.contains(&job.copy) || (job.own && !own.contains(&job.copy)))
    };
    let unwanted = view.jobs.iter().filter(is_unwanted);
    outcome.actions.extend(unwanted.map(|job| Action::DeleteJob(job.name.clone())));
    takeover::keep(view, &mut outcome);
    for copy in &own {
        let said = model(view, copy, &mut outcome);
        let said = serve::keep(view, copy, said, &mut outcome);
        takeover::dismiss(view, copy, &mut outcome);
        for entry in view.entries.iter().filter(|entry| CopyKey::of(entry) == *copy) {
            outcome.status.insert(entry.status_key(), said.clone());
        }
        if view.unwritable(copy).is_none() {
            outcome.gates.insert(copy.clone(), GateStatus::from(&said));
        }
    }
    takeover::gates(view, &mut outcome);
    if !view.unwritable.contains_key(&None) {
        erase(view, &wanted, &mut outcome);
    }
    outcome
}

/// What is said while nothing can be seen of the disk. A copy that was complete may be: whoever reads it sees.
pub fn unanswered(entries: &[ModelEntry], before: &BTreeMap<String, Said>, problem: &Problem) -> Outcome {
    let said = |entry: &ModelEntry| {
        let key = entry.status_key();
        let said = match before.get(&key) {
            Some(said) if said.0 == ModelStatus::ModelDownloaded => said.clone(),
            other => {
                let detail = other.map(|(_, detail)| detail.clone()).unwrap_or_default();
                (ModelStatus::ModelDownloadError, missing::with_problem(detail, problem))
            }
        };
        (key, said)
    };
    Outcome { status: entries.iter().map(said).collect(), ..Outcome::default() }
}

/// Folders without an entry, and what a finished download left; never one that a Job still writes.
fn erase(view: &View, wanted: &BTreeSet<CopyKey>, outcome: &mut Outcome) {
    let is_written = |copy: &CopyKey| {
        let writes =
            |job: &JobView| job.copy == *copy || (copy.namespace.is_none() && job.writes_root(&copy.key));
        view.jobs.iter().any(|job| is_active(job) && writes(job))
    };
    let is_warm = |copy: &CopyKey| matches!(view.disk.models.get(copy), Some(Folder::Complete { .. }));
    // First, so that nobody passes whose model goes in the same moment.
    let is_told = |copy: &CopyKey| wanted.contains(copy) || outcome.gates.contains_key(copy);
    let gates: Vec<_> = view.disk.gates.iter().filter(|copy| !is_told(copy)).cloned().collect();
    outcome.actions.extend(gates.into_iter().map(Action::EraseGate));
    let served = view.disk.served.keys().filter(|copy| !wanted.contains(copy));
    outcome.actions.extend(served.cloned().map(Action::EraseServed));
    for copy in view.disk.models.keys() {
        if !wanted.contains(copy) && !is_written(copy) && !takeover::is_kept(view, copy) {
            outcome.actions.push(Action::EraseModel(copy.clone()));
        }
    }
    // What was lent to a Job that is gone, or was refused, is nobody's who has not proved his access.
    let is_about_to = |copy: &CopyKey| outcome.actions.contains(&Action::Download(copy.clone()));
    let is_own = |copy: &CopyKey| view.entries.iter().any(|entry| CopyKey::of(entry) == *copy);
    let lent = view.disk.lent.iter().filter(|copy| is_own(copy) && !is_about_to(copy));
    let lent: BTreeSet<CopyKey> = lent.cloned().collect();
    let has_passed_limits = |copy: &CopyKey| {
        view.jobs
            .iter()
            .filter(|job| job.copy == *copy)
            .any(|job| matches!(&job.phase, JobPhase::Failed(_, problem) if is_over_budget(&problem.reason)))
    };
    for copy in view.disk.incoming.keys() {
        let is_left =
            !wanted.contains(copy) || is_warm(copy) || lent.contains(copy) || has_passed_limits(copy);
        if is_left && !is_written(copy) {
            outcome.actions.push(Action::EraseIncoming(copy.clone()));
        }
    }
    let is_wanted = |area: &String| wanted.iter().any(|copy| copy.namespace.as_ref() == Some(area));
    let areas = view.disk.empty_areas.iter().filter(|area| !is_wanted(area));
    outcome.actions.extend(areas.cloned().map(Action::RemoveArea));
}

/// A Job whose pod may still write.
pub fn is_active(job: &JobView) -> bool {
    job.deleting || matches!(job.phase, JobPhase::Pending(_) | JobPhase::Running)
}

/// Whether a Job may have to be made, or made anew: then it is known from what it would be made.
pub fn is_due(copy: &CopyKey, disk: &Inventory, jobs: &[JobView]) -> bool {
    let is_whole = matches!(disk.models.get(copy), Some(Folder::Complete { .. }));
    let is_at_work = |job: &JobView| {
        job.copy == *copy && is_active(job) && !matches!(job.phase, JobPhase::Pending(Some(_)))
    };
    !is_whole && !jobs.iter().any(is_at_work)
}

/// One model, which several entries may share: one folder, one Job, a status for each (A7).
fn model(view: &View, copy: &CopyKey, outcome: &mut Outcome) -> Said {
    let mut entries = view.entries.iter().filter(|entry| CopyKey::of(entry) == *copy);
    let before = entries.find_map(|entry| view.before.get(&entry.status_key()));
    // Own Jobs can only be two when an answer was lost.
    let jobs = || view.jobs.iter().filter(|job| job.copy == *copy);
    let job = jobs().filter(|j| j.own).min_by_key(|j| (rank(j), j.name.as_str()));
    let job = job.or_else(|| jobs().find(|j| is_active(j)));
    if let Some(Folder::Complete { bytes, files }) = view.disk.models.get(copy)
        && !takeover::is_planted(view, copy)
    {
        return (ModelStatus::ModelDownloaded, complete((*bytes, *files), before, job));
    }
    takeover::take(view, copy, before, outcome).unwrap_or_else(|| missing(view, copy, job, before, outcome))
}

/// Which of several Jobs counts: the one that works, then the one that ended well.
fn rank(job: &JobView) -> u8 {
    match job.phase {
        _ if job.deleting => 1,
        JobPhase::Pending(_) | JobPhase::Running => 0,
        JobPhase::Succeeded(_) => 2,
        JobPhase::Failed(..) => 3,
    }
}

fn complete((bytes, files): (u64, u64), before: Option<&Said>, job: Option<&JobView>) -> ModelDetail {
    let (bytes, files) = (i64::try_from(bytes).ok(), i64::try_from(files).ok());
    let finished = job.and_then(|job| match job.phase {
        JobPhase::Succeeded(at) => Some((job.started, at)),
        _ => None,
    });
    let (started, finished) = match finished {
        Some((started, at)) => (started.map(Time), Some(Time(at))),
        None => before.map(|(_, d)| (d.started.clone(), d.finished.clone())).unwrap_or_default(),
    };
    ModelDetail {
        bytes_done: bytes,
        bytes_total: bytes,
        files_done: files,
        files_total: files,
        started,
        finished,
        last_damage: before.and_then(|(_, detail)| detail.last_damage.clone()),
        ..ModelDetail::default()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod world;
