//! A model without a complete copy: what its Job and its folder say of it, and when another try is made (A3,
//! A5, A6).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    ASK_AGAIN, Action, COPY_DAMAGED, COPY_VANISHED, CREDENTIALS_EVERY, JobPhase, JobView, Outcome,
    PROGRESS_EVERY, Problem, Said, View, is_active,
};
use crate::api::ModelStatus;
use crate::api::node::{Damage, ModelDetail};
use crate::download::ProgressReport;
use crate::download::error::OVER_BUDGET;
use crate::download::source::text_without_secrets;
use crate::plan::disk::{CopyKey, Folder};
use crate::plan::recipe::Recipe;
use crate::plan::{job_view, reasons};

/// The shortest wait before a failed download is tried again (A6); it doubles up to [`LONGEST_WAIT`].
const SHORTEST_WAIT: SignedDuration = SignedDuration::from_mins(1);
/// The longest wait before a failed download is tried again.
/// A Job has succeeded, and there is nothing of it.
const NOTHING_DOWNLOADED: &str = "NothingDownloaded";
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// A model without a complete copy. How often it failed so far is kept until it is complete.
pub(super) fn missing(
    view: &View,
    copy: &CopyKey,
    job: Option<&JobView>,
    before: Option<&Said>,
    outcome: &mut Outcome,
) -> Said {
    let damage = damage(view, copy, before);
    let base = ModelDetail {
        attempts: before.and_then(|(_, detail)| detail.attempts),
        started: job.and_then(|j| j.started).map(Time),
        last_damage: last_damage(view, damage.as_ref(), before),
        reason: damage.as_ref().map(|damage| damage.reason.clone()),
        message: damage.map(|damage| damage.message),
        ..ModelDetail::default()
    };
    if let Some(problem) = view.unwritable(copy) {
        return (ModelStatus::ModelDownloadError, with_problem(base, problem));
    }
    let incoming = view.disk.incoming.get(copy);
    if job.is_none_or(|job| !is_active(job)) && matches!(incoming, Some(Folder::Complete { .. })) {
        outcome.actions.push(Action::Place(copy.clone()));
        return (ModelStatus::ModelDownloading, base);
    }
    let Some(job) = job else { return without_job(view, copy, base, before, outcome) };
    if job.deleting {
        let problem = Problem::new("JobTerminating", format!("Job {} is being deleted", job.name));
        return match before {
            Some(before) if has_expired(view, before) => before.clone(),
            _ => (ModelStatus::ModelDownloadPending, with_problem(base, &problem)),
        };
    }
    match &job.phase {
        JobPhase::Pending(None) => {
            if let Some(at) = job.explained_at().filter(|at| *at > view.now) {
                wake(outcome, at);
            }
            (ModelStatus::ModelDownloadPending, base)
        }
        JobPhase::Pending(Some(problem)) => {
            // A secret that comes is the kubelet's to see; a container or credential that is now another, ours.
            if job.own && is_changed(view, copy, job.recipe.as_ref(), |recipe| recipe.pod.clone()) {
                outcome.actions.push(Action::DeleteJob(job.name.clone()));
            }
            let said = before.and_then(|(_, detail)| detail.reason.as_deref().zip(detail.message.as_deref()));
            (ModelStatus::ModelDownloadPending, with_problem(base, &job_view::lasting(problem, said)))
        }
        JobPhase::Running => {
            wake(outcome, view.now + PROGRESS_EVERY);
            (ModelStatus::ModelDownloading, with_progress(base, view.progress.get(copy)))
        }
        JobPhase::Succeeded(at) if let Some(problem) = view.unadoptable.get(copy) => {
            failed(view, job, *at, problem, base, before, outcome)
        }
        // Files that are only lent are nothing that the Job wrote.
        JobPhase::Succeeded(at) if incoming == Some(&Folder::Bare) && !view.disk.lent.contains(copy) => {
            outcome.actions.push(Action::Adopt(copy.clone()));
            (ModelStatus::ModelDownloading, ModelDetail { finished: Some(Time(*at)), ..base })
        }
        JobPhase::Succeeded(at) => vanished(view, job, *at, base, before, outcome),
        JobPhase::Failed(at, problem) => failed(view, job, *at, problem, base, before, outcome),
    }
}

/// What became of a copy that was complete: said until it is again, so that nobody misses it (A5).
fn damage(view: &View, copy: &CopyKey, before: Option<&Said>) -> Option<Problem> {
    if let Some(damage) = view.disk.damage.get(copy) {
        let message = format!(
            "the copy on the disk is damaged ({damage}): what is good of it is kept, the rest is downloaded again"
        );
        return Some(Problem::new(COPY_DAMAGED, message));
    }
    let (phase, detail) = before?;
    let has_vanished = *phase == ModelStatus::ModelDownloaded
        || detail.reason.as_deref().is_some_and(|reason| [COPY_VANISHED, COPY_DAMAGED].contains(&reason));
    let message = "the copy was taken off the disk, or its manifest was: it is downloaded again";
    has_vanished.then(|| Problem::new(COPY_VANISHED, message))
}

/// The damage that is new, or the one before. It outlives the repair, which may be over before anybody looks.
fn last_damage(view: &View, damage: Option<&Problem>, before: Option<&Said>) -> Option<Damage> {
    let known = before.and_then(|(_, detail)| detail.last_damage.clone());
    let is_known = before.is_some_and(|(phase, _)| *phase != ModelStatus::ModelDownloaded) && known.is_some();
    let new = damage.filter(|_| !is_known).map(|damage| Damage {
        time: Time(view.now),
        reason: damage.reason.clone(),
        message: damage.message.clone(),
    });
    new.or(known)
}

fn with_progress(detail: ModelDetail, progress: Option<&ProgressReport>) -> ModelDetail {
    let Some(progress) = progress else { return detail };
    let count = |of: u64| i64::try_from(of).ok();
    // The totals are unknown before the source has told its files.
    let (bytes, files) = (progress.bytes_total > 0, progress.files_total > 0);
    // What became of a copy is told first. Any initializer may have written the words.
    let trouble = progress.trouble.as_ref().filter(|_| detail.reason.is_none());
    let trouble = trouble.map(|said| Problem::new(&said.reason, text_without_secrets(&said.message)));
    ModelDetail {
        bytes_done: count(progress.bytes_done).filter(|_| bytes),
        bytes_total: count(progress.bytes_total).filter(|_| bytes),
        files_done: count(progress.files_done).filter(|_| files),
        files_total: count(progress.files_total).filter(|_| files),
        reason: trouble.as_ref().map(|trouble| trouble.reason.clone()).or(detail.reason),
        message: trouble.map(|trouble| trouble.message).or(detail.message),
        ..detail
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
    // Said already means that the Job was not deleted then: the agent ended in between.
    let was_there = |(status, detail): &Said| {
        *status == ModelStatus::ModelDownloaded
            || detail.reason.as_deref().is_some_and(|reason| [COPY_VANISHED, COPY_DAMAGED].contains(&reason))
    };
    if before.is_some_and(was_there) {
        outcome.actions.push(Action::DeleteJob(job.name.clone()));
        // What was lost is told once, and kept for as long as it is fetched.
        let vanished = Problem::new(COPY_VANISHED, "the copy on the disk vanished; it is fetched again");
        let said = if base.reason.is_some() { base } else { with_problem(base, &vanished) };
        return (ModelStatus::ModelDownloadPending, said);
    }
    let message = format!("Job {} succeeded, but wrote no complete model", job.name);
    failed(view, job, at, &Problem::new(NOTHING_DOWNLOADED, message), base, before, outcome)
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
    // What was found of it is known only to the agent that has erased it since.
    let known = before.filter(|_| counted && problem.reason == NOTHING_DOWNLOADED);
    let known =
        known.and_then(|(_, detail)| Some(Problem::new(detail.reason.as_ref()?, detail.message.as_ref()?)));
    let problem = known.as_ref().unwrap_or(problem);
    let next = at + if is_over_budget(&problem.reason) { LONGEST_WAIT } else { back_off(attempts) };
    look_again(view, &job.copy, outcome);
    let changed = is_changed(view, &job.copy, job.recipe.as_ref(), Clone::clone);
    if view.enabled && (next <= view.now || changed) {
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

/// Whether a download has passed one of its limits: the next one does so too, until its source or its cache changes,
/// and what it wrote is of no use.
pub(super) fn is_over_budget(reason: &str) -> bool {
    OVER_BUDGET.iter().any(|limit| format!("{limit:?}") == reason)
}

/// One minute after the first failure, twice as long after each further one, an hour at most.
fn back_off(attempts: i32) -> SignedDuration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(6);
    (SHORTEST_WAIT * (1 << doublings)).min(LONGEST_WAIT)
}

fn without_job(
    view: &View,
    copy: &CopyKey,
    base: ModelDetail,
    before: Option<&Said>,
    outcome: &mut Outcome,
) -> Said {
    if !view.enabled {
        let message = "caching is disabled: set localModel.enabled in ConfigMap inferenceservice-config";
        return (ModelStatus::ModelDownloadPending, with_problem(base, &Problem::new("Disabled", message)));
    }
    look_again(view, copy, outcome);
    if let Some(Err(problem)) = view.recipes.get(copy) {
        let is_passing = reasons::passes(&problem.reason);
        let phase =
            if is_passing { ModelStatus::ModelDownloadPending } else { ModelStatus::ModelDownloadError };
        return (phase, with_problem(base, problem));
    }
    let changed = is_changed(view, copy, view.tried.get(copy), Clone::clone);
    if let Some(before) = before.filter(|before| !changed && has_expired(view, before)) {
        wake(outcome, before.1.next_try.as_ref().map_or(view.now, |at| at.0));
        return before.clone();
    }
    if let Some(full) = view.full {
        return (ModelStatus::ModelDownloadError, with_problem(base, full));
    }
    let Some((problem, at)) = view.refused.get(copy) else {
        outcome.actions.push(Action::Download(copy.clone()));
        return (ModelStatus::ModelDownloadPending, base);
    };
    let again = *at + ASK_AGAIN;
    if again <= view.now {
        outcome.actions.push(Action::Download(copy.clone()));
    } else {
        wake(outcome, again);
    }
    (ModelStatus::ModelDownloadError, with_problem(base, problem))
}

/// Whether a failure still waits for its next try although its Job has gone by its age. A failed Job
/// that goes before its time was deleted by hand, which asks for another try at once (A6).
fn has_expired(view: &View, (status, detail): &Said) -> bool {
    let at = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    *status == ModelStatus::ModelDownloadError
        && at(&detail.finished).is_some_and(|finished| finished + view.job_ttl <= view.now)
        && at(&detail.next_try).is_some_and(|next| next > view.now)
}

/// Whether a Job would be made from something else now, in this part of it. Where it cannot be made, it is
/// worth no other try.
fn is_changed<T: PartialEq>(
    view: &View,
    copy: &CopyKey,
    tried: Option<&Recipe>,
    part: impl Fn(&Recipe) -> T,
) -> bool {
    let now = view.recipes.get(copy).and_then(|recipe| recipe.as_ref().ok());
    now.zip(tried).is_some_and(|(now, tried)| part(now) != part(tried))
}

/// Looks at the credentials again before long.
fn look_again(view: &View, copy: &CopyKey, outcome: &mut Outcome) {
    if view.recipes.contains_key(copy) {
        wake(outcome, view.now + CREDENTIALS_EVERY);
    }
}

fn wake(outcome: &mut Outcome, at: Timestamp) {
    outcome.wake = Some(outcome.wake.map_or(at, |earlier| earlier.min(at)));
}

pub(super) fn with_problem(detail: ModelDetail, problem: &Problem) -> ModelDetail {
    ModelDetail { reason: Some(problem.reason.clone()), message: Some(problem.message.clone()), ..detail }
}
