//! What an agent does in one pass over its node's disk: which Jobs to make and delete, which folders to
//! place and erase, and what to say about each model (A2 to A4, A7, D2, D3).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::node::ModelDetail;
use crate::api::source::storage_key;
use crate::api::{ModelEntry, ModelStatus};

/// The shortest wait before a failed download is tried again (A6); it doubles up to [`LONGEST_WAIT`].
const SHORTEST_WAIT: SignedDuration = SignedDuration::from_mins(1);
/// The longest wait before a failed download is tried again.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// What an agent says of a model.
pub type Said = (ModelStatus, ModelDetail);

/// A folder below `models/` or `incoming/`, as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Its manifest is there and every file has the size it says; so many bytes in all.
    Complete {
        /// The sum of the files' sizes.
        bytes: u64,
    },
    /// Its manifest is there, but files are missing or have another size.
    Damaged,
    /// Files without a manifest: another initializer's, or a download under way.
    Bare,
    /// Nothing in it.
    Empty,
}

/// What is on the disk, by storage key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The copies that services read.
    pub models: BTreeMap<String, Folder>,
    /// What Jobs write.
    pub incoming: BTreeMap<String, Folder>,
}

/// A download Job of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Its name.
    pub name: String,
    /// The storage key of what it downloads.
    pub key: String,
    /// Whether this agent made it. While another group's agent or KServe downloads the same model, this
    /// one waits: two groups may share one disk, and two Jobs must never write one folder (A7, D6).
    pub own: bool,
    /// How far it is.
    pub phase: JobPhase,
    /// Whether it is in deletion; it stays until its pods have ended.
    pub deleting: bool,
    /// When it began.
    pub started: Option<Timestamp>,
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
    /// The storage keys that any entry of this node has, of whatever group: two groups may share one
    /// disk (A10).
    pub wanted: &'a BTreeSet<String>,
    /// What is on the disk.
    pub disk: &'a Inventory,
    /// Why the disk cannot be written, if so.
    pub unwritable: Option<&'a Problem>,
    /// The download Jobs of this node, of whatever group.
    pub jobs: &'a [JobView],
    /// What was said of each model before.
    pub before: &'a BTreeMap<String, Said>,
    /// Whether anything new is downloaded (C9).
    pub enabled: bool,
    /// How long a finished Job stays.
    pub job_ttl: SignedDuration,
    /// The time of this pass.
    pub now: Timestamp,
}

/// One thing to do. Each is safe to do twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Delete a Job with its pods.
    DeleteJob(String),
    /// Make `incoming/K`, with links to what is good in a damaged `models/K`, then the Job.
    Download(String),
    /// Write the manifest that another initializer does not.
    Adopt(String),
    /// Move `incoming/K` to `models/K` in one rename, or exchange the two.
    Place(String),
    /// Erase `incoming/K`.
    EraseIncoming(String),
    /// Erase `models/K`.
    EraseModel(String),
}

/// What a pass comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// What to say of each model, by its status key.
    pub status: BTreeMap<String, Said>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// One pass: Jobs that are not wanted go first, then each model, then folders that nobody needs.
pub fn pass(view: &View) -> Outcome {
    let mut outcome = Outcome::default();
    let own: BTreeSet<String> = view.entries.iter().map(|e| storage_key(&e.source_model_uri)).collect();
    let is_unwanted = |job: &&JobView| {
        !job.deleting && (!view.wanted.contains(&job.key) || (job.own && !own.contains(&job.key)))
    };
    let unwanted = view.jobs.iter().filter(is_unwanted);
    outcome.actions.extend(unwanted.map(|job| Action::DeleteJob(job.name.clone())));
    for key in &own {
        model(view, key, &mut outcome);
    }
    if view.unwritable.is_none() {
        erase(view, &mut outcome);
    }
    outcome
}

/// Folders without an entry, and what a finished download left; never one that a Job still writes.
fn erase(view: &View, outcome: &mut Outcome) {
    let busy: BTreeSet<&str> = view.jobs.iter().filter(|j| is_active(j)).map(|j| j.key.as_str()).collect();
    let idle = |key: &&String| !busy.contains(key.as_str());
    let is_warm = |key: &String| matches!(view.disk.models.get(key), Some(Folder::Complete { .. }));
    for key in view.disk.models.keys().filter(idle).filter(|key| !view.wanted.contains(*key)) {
        outcome.actions.push(Action::EraseModel(key.clone()));
    }
    for key in
        view.disk.incoming.keys().filter(idle).filter(|key| !view.wanted.contains(*key) || is_warm(key))
    {
        outcome.actions.push(Action::EraseIncoming(key.clone()));
    }
}

/// A Job whose pod may still write.
pub fn is_active(job: &JobView) -> bool {
    job.deleting || matches!(job.phase, JobPhase::Pending(_) | JobPhase::Running)
}

/// One model, which several entries may share: one folder, one Job, a status for each (A7).
fn model(view: &View, key: &str, outcome: &mut Outcome) {
    let entries = || view.entries.iter().filter(|e| storage_key(&e.source_model_uri) == key);
    let before = entries().find_map(|e| view.before.get(&e.status_key()));
    // Own Jobs can only be two when an answer was lost.
    let jobs = || view.jobs.iter().filter(|j| j.key == key);
    let job = jobs().filter(|j| j.own).min_by_key(|j| (rank(j), j.name.as_str()));
    let job = job.or_else(|| jobs().find(|j| is_active(j)));
    let (status, detail) = match view.disk.models.get(key) {
        Some(Folder::Complete { bytes }) => (ModelStatus::ModelDownloaded, complete(*bytes, before, job)),
        _ => missing(view, key, job, before, outcome),
    };
    for entry in entries() {
        outcome.status.insert(entry.status_key(), (status, detail.clone()));
    }
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

fn complete(bytes: u64, before: Option<&Said>, job: Option<&JobView>) -> ModelDetail {
    let bytes = i64::try_from(bytes).ok();
    let finished = job.and_then(|job| match job.phase {
        JobPhase::Succeeded(at) => Some((job.started, at)),
        _ => None,
    });
    let (started, finished) = match finished {
        Some((started, at)) => (started.map(Time), Some(Time(at))),
        None => before.map(|(_, d)| (d.started.clone(), d.finished.clone())).unwrap_or_default(),
    };
    ModelDetail { bytes_done: bytes, bytes_total: bytes, started, finished, ..ModelDetail::default() }
}

/// A model without a complete copy. How often it failed so far is kept until it is complete.
fn missing(
    view: &View,
    key: &str,
    job: Option<&JobView>,
    before: Option<&Said>,
    outcome: &mut Outcome,
) -> Said {
    let base = ModelDetail {
        attempts: before.and_then(|(_, detail)| detail.attempts),
        started: job.and_then(|j| j.started).map(Time),
        ..ModelDetail::default()
    };
    if let Some(problem) = view.unwritable {
        return (ModelStatus::ModelDownloadError, with_problem(base, problem));
    }
    let incoming = view.disk.incoming.get(key);
    if job.is_none_or(|job| !is_active(job)) && matches!(incoming, Some(Folder::Complete { .. })) {
        outcome.actions.push(Action::Place(key.into()));
        return (ModelStatus::ModelDownloading, base);
    }
    let Some(job) = job else { return without_job(view, key, base, before, outcome) };
    if job.deleting {
        let problem = Problem::new("JobTerminating", format!("Job {} is being deleted", job.name));
        return match before {
            Some(before) if has_expired(view, before) => before.clone(),
            _ => (ModelStatus::ModelDownloadPending, with_problem(base, &problem)),
        };
    }
    match &job.phase {
        JobPhase::Pending(None) => (ModelStatus::ModelDownloadPending, base),
        JobPhase::Pending(Some(problem)) => (ModelStatus::ModelDownloadPending, with_problem(base, problem)),
        JobPhase::Running => (ModelStatus::ModelDownloading, base),
        JobPhase::Succeeded(at) if incoming == Some(&Folder::Bare) => {
            outcome.actions.push(Action::Adopt(key.into()));
            (ModelStatus::ModelDownloading, ModelDetail { finished: Some(Time(*at)), ..base })
        }
        JobPhase::Succeeded(at) => vanished(view, job, *at, base, before, outcome),
        JobPhase::Failed(at, problem) => failed(view, job, *at, problem, base, before, outcome),
    }
}

/// A Job succeeded, but nothing is there. Where a copy was there before, it was taken away behind our
/// back and is fetched again at once; else the initializer wrote nothing, and that is a failure.
fn vanished(
    view: &View,
    job: &JobView,
    at: Timestamp,
    base: ModelDetail,
    before: Option<&Said>,
    outcome: &mut Outcome,
) -> Said {
    if before.is_some_and(|(status, _)| *status == ModelStatus::ModelDownloaded) {
        outcome.actions.push(Action::DeleteJob(job.name.clone()));
        let message = "the copy on the disk vanished or was damaged; it is fetched again";
        let problem = Problem::new("CopyVanished", message);
        return (ModelStatus::ModelDownloadPending, with_problem(base, &problem));
    }
    let message = format!("Job {} succeeded, but wrote no complete model", job.name);
    failed(view, job, at, &Problem::new("NothingDownloaded", message), base, before, outcome)
}

fn failed(
    view: &View,
    job: &JobView,
    at: Timestamp,
    problem: &Problem,
    base: ModelDetail,
    before: Option<&Said>,
    outcome: &mut Outcome,
) -> Said {
    let counted = before.is_some_and(|(status, detail)| {
        *status == ModelStatus::ModelDownloadError && detail.finished == Some(Time(at))
    });
    let attempts = base.attempts.unwrap_or(0).saturating_add(i32::from(!counted));
    let next = at + back_off(attempts);
    if view.enabled && next <= view.now {
        outcome.actions.push(Action::DeleteJob(job.name.clone()));
    } else if next > view.now {
        wake(outcome, next);
    }
    let detail = ModelDetail {
        attempts: Some(attempts),
        next_try: Some(Time(next)),
        finished: Some(Time(at)),
        ..base
    };
    (ModelStatus::ModelDownloadError, with_problem(detail, problem))
}

/// One minute after the first failure, twice as long after each further one, an hour at most.
fn back_off(attempts: i32) -> SignedDuration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(6);
    (SHORTEST_WAIT * (1 << doublings)).min(LONGEST_WAIT)
}

fn without_job(
    view: &View,
    key: &str,
    base: ModelDetail,
    before: Option<&Said>,
    outcome: &mut Outcome,
) -> Said {
    if !view.enabled {
        let message = "caching is disabled: set localModel.enabled in ConfigMap inferenceservice-config";
        return (ModelStatus::ModelDownloadPending, with_problem(base, &Problem::new("Disabled", message)));
    }
    if let Some(before) = before.filter(|before| has_expired(view, before)) {
        wake(outcome, before.1.next_try.as_ref().map_or(view.now, |at| at.0));
        return before.clone();
    }
    outcome.actions.push(Action::Download(key.into()));
    (ModelStatus::ModelDownloadPending, base)
}

/// Whether a failure still waits for its next try although its Job has gone by its age. A failed Job
/// that goes before its time was deleted by hand, which asks for another try at once (A6).
fn has_expired(view: &View, (status, detail): &Said) -> bool {
    let at = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    *status == ModelStatus::ModelDownloadError
        && at(&detail.finished).is_some_and(|finished| finished + view.job_ttl <= view.now)
        && at(&detail.next_try).is_some_and(|next| next > view.now)
}

fn wake(outcome: &mut Outcome, at: Timestamp) {
    outcome.wake = Some(outcome.wake.map_or(at, |earlier| earlier.min(at)));
}

fn with_problem(detail: ModelDetail, problem: &Problem) -> ModelDetail {
    ModelDetail { reason: Some(problem.reason.clone()), message: Some(problem.message.clone()), ..detail }
}

#[cfg(test)]
mod tests;
