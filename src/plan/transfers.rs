//! Which downloads have ended since the last pass, and what they brought, for the metrics.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::disk::{CopyKey, Folder};
use super::pass::{Action, JobPhase, JobView, Outcome, Said, View};
use super::reasons;
use crate::api::ModelStatus;

/// What is known of downloads that are under way.
#[derive(Clone, Debug, Default)]
pub struct Transfers(BTreeMap<CopyKey, Begun>);

/// Where a download began: a repair finds most of the bytes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begun {
    /// Bytes that were there.
    had: u64,
    /// When that was; `None` for the Job's start.
    since: Option<Timestamp>,
}

/// A download that has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// Its copy is complete.
    Done {
        /// How long its Job took.
        seconds: f64,
        /// What it brought; `None` where nobody saw how much was there before.
        fetched: Option<Fetched>,
    },
    /// It failed for good; it is tried again later.
    Failed {
        /// A listed word for why.
        reason: &'static str,
    },
}

/// Bytes that came in a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fetched {
    /// The bytes.
    pub bytes: u64,
    /// The time.
    pub seconds: f64,
}

impl Fetched {
    /// The mean rate.
    #[allow(clippy::cast_precision_loss)] // a rate needs no more than 52 bits
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

impl Transfers {
    /// What a pass shows to have ended. Several entries of one source are one download (A7).
    pub fn look(&mut self, view: &View, outcome: &Outcome) -> Vec<Ended> {
        let copies: BTreeMap<CopyKey, String> =
            view.entries.iter().map(|entry| (CopyKey::of(entry), entry.status_key())).collect();
        self.0.retain(|copy, _| copies.contains_key(copy));
        let ended = copies.iter().filter_map(|(copy, key)| {
            let job = view.jobs.iter().find(|job| job.own && !job.deleting && job.copy == *copy);
            self.follow(view, outcome, copy, job);
            let begun = self.0.get(copy).copied();
            let ended = ended(view.before.get(key)?, outcome.status.get(key)?, job, begun)?;
            self.0.remove(copy);
            Some(ended)
        });
        ended.collect()
    }

    fn follow(&mut self, view: &View, outcome: &Outcome, copy: &CopyKey, job: Option<&JobView>) {
        if outcome.actions.contains(&Action::Download(copy.clone())) {
            let of = |folders: &BTreeMap<CopyKey, Folder>| folders.get(copy).copied();
            let found = [of(&view.disk.models), of(&view.disk.incoming)];
            self.0.remove(copy);
            if found.into_iter().flatten().all(|folder| folder == Folder::Empty) {
                self.0.insert(copy.clone(), Begun { had: 0, since: None });
            }
        }
        if job.is_some_and(|job| job.phase == JobPhase::Running)
            && let Some(progress) = view.progress.get(copy)
        {
            let now = Begun { had: progress.bytes_done, since: Some(view.now) };
            self.0.entry(copy.clone()).or_insert(now);
        }
    }
}

fn ended(before: &Said, after: &Said, job: Option<&JobView>, begun: Option<Begun>) -> Option<Ended> {
    let ((before, detail_before), (after, detail)) = (before, after);
    if *after == ModelStatus::ModelDownloadError {
        let is_new = detail.attempts.unwrap_or(0) > detail_before.attempts.unwrap_or(0);
        let reason = reasons::listed(detail.reason.as_deref().unwrap_or_default());
        return is_new.then_some(Ended::Failed { reason });
    }
    if *after != ModelStatus::ModelDownloaded || *before == ModelStatus::ModelDownloaded {
        return None;
    }
    let job = job?;
    let JobPhase::Succeeded(at) = job.phase else { return None };
    // The API server's clock counts whole seconds.
    let seconds = |since: Timestamp| at.duration_since(since).as_secs_f64().max(1.0);
    let started = job.started?;
    let total = detail.bytes_total.and_then(|bytes| u64::try_from(bytes).ok());
    let fetched = begun.zip(total).map(|(begun, total)| Fetched {
        bytes: total.saturating_sub(begun.had),
        seconds: seconds(begun.since.unwrap_or(started)),
    });
    Some(Ended::Done { seconds: seconds(started), fetched: fetched.filter(|fetched| fetched.bytes > 0) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::download::ProgressReport;
    use crate::plan::pass::world::{M, WHOLE, World, job, root, world};
    use crate::plan::pass::{Problem, pass};
    use crate::plan::samples::{URI, at, entry_of};

    fn look(transfers: &mut Transfers, world: &World) -> Vec<Ended> {
        world.view(|view| transfers.look(view, &pass(view)))
    }

    fn done(seconds: f64, bytes: u64, within: f64) -> Vec<Ended> {
        vec![Ended::Done { seconds, fetched: Some(Fetched { bytes, seconds: within }) }]
    }

    fn running(bytes_done: u64) -> World {
        let progress = ProgressReport { bytes_done, bytes_total: 10, ..ProgressReport::default() };
        let mut world = world().incoming(Folder::Bare).job(job("j", JobPhase::Running));
        world.progress.insert(root(), progress);
        world.said(ModelStatus::ModelDownloadPending, json!({}))
    }

    /// The Job ran from second 9,000 to 9,100.
    fn placed() -> World {
        let ended = world().model(WHOLE).job(job("j", JobPhase::Succeeded(at(9_100))));
        ended.said(ModelStatus::ModelDownloading, json!({}))
    }

    #[test]
    fn a_first_download_brings_all_bytes_of_its_copy() {
        let mut transfers = Transfers::default();
        assert_eq!(look(&mut transfers, &world()), [], "its Job is made");
        assert_eq!(look(&mut transfers, &running(4)), []);
        assert_eq!(look(&mut transfers, &placed()), done(100.0, 10, 100.0));
        let still_there = placed().said(ModelStatus::ModelDownloaded, json!({}));
        assert_eq!(look(&mut transfers, &still_there), [], "it is told once");
    }

    #[test]
    fn a_rate_is_bytes_by_seconds() {
        let rate = Fetched { bytes: 10, seconds: 4.0 }.bytes_per_second();
        assert!((rate - 2.5).abs() < f64::EPSILON, "{rate}");
    }

    #[test]
    fn a_repair_counts_from_what_its_first_report_found_there() {
        let mut transfers = Transfers::default();
        assert_eq!(look(&mut transfers, &world().model(Folder::Damaged)), [], "its Job is made");
        assert_eq!(look(&mut transfers, &World { now: 9_060, ..running(8) }), []);
        assert_eq!(look(&mut transfers, &World { now: 9_080, ..running(9) }), []);
        assert_eq!(look(&mut transfers, &placed()), done(100.0, 2, 40.0));
    }

    #[test]
    fn a_download_that_nobody_saw_begin_has_a_duration_and_no_rate() {
        let unseen = vec![Ended::Done { seconds: 100.0, fetched: None }];
        assert_eq!(look(&mut Transfers::default(), &placed()), unseen);
    }

    #[test]
    fn a_repair_that_brought_nothing_has_a_duration_and_no_rate() {
        let mut transfers = Transfers::default();
        assert_eq!(look(&mut transfers, &world().model(Folder::Damaged)), [], "its Job is made");
        assert_eq!(look(&mut transfers, &running(10)), []);
        assert_eq!(look(&mut transfers, &placed()), [Ended::Done { seconds: 100.0, fetched: None }]);
    }

    #[test]
    fn two_entries_of_one_source_are_one_download() {
        let mut world = placed();
        world.entries.push(entry_of("twin", URI));
        world.before.insert("twin".into(), world.before[M].clone());
        assert_eq!(look(&mut Transfers::default(), &world).len(), 1);
    }

    #[test]
    fn a_copy_that_needed_no_job_is_no_download() {
        let found = world().model(WHOLE);
        assert_eq!(look(&mut Transfers::default(), &found), [], "at the first look");
        let found = found.said(ModelStatus::ModelDownloadPending, json!({}));
        assert_eq!(look(&mut Transfers::default(), &found), [], "and later");
    }

    #[test]
    fn a_job_of_another_agent_or_copy_or_one_in_deletion_is_no_download_of_this_one() {
        let with = |change: fn(&mut JobView)| {
            let mut world = placed();
            change(&mut world.jobs[0]);
            look(&mut Transfers::default(), &world)
        };
        assert_eq!(with(|job| job.own = false), []);
        assert_eq!(with(|job| job.copy.key = "another".into()), []);
        assert_eq!(with(|job| job.deleting = true), []);
    }

    #[test]
    fn a_failure_counts_once_with_a_listed_word() {
        let failed = |reason: &str| {
            let phase = JobPhase::Failed(at(9_990), Problem::new(reason, "words"));
            world().job(job("j", phase)).said(ModelStatus::ModelDownloading, json!({}))
        };
        let mut transfers = Transfers::default();
        let first = failed("TokenMissing");
        assert_eq!(look(&mut transfers, &first), [Ended::Failed { reason: "TokenMissing" }]);
        assert_eq!(look(&mut transfers, &failed("anything")), [Ended::Failed { reason: "Other" }]);
        let again = World { before: first.pass().status, ..first };
        assert_eq!(look(&mut transfers, &again), [], "it was counted");
    }
}
