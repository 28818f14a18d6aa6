//! What a status says of a download, and when it is looked at again.

use super::*;

#[test]
fn a_running_download_says_when_its_job_began() {
    let outcome = world().job(job("j", JobPhase::Running)).pass();
    assert_eq!(outcome.status[M].1.started, Some(Time(at(9_000))));
}

#[test]
fn the_end_of_an_earlier_job_is_told_unless_a_failure_still_counts() {
    let leaving = || JobView { deleting: true, ..job("j", JobPhase::Running) };
    for (phase, detail) in [
        (ModelStatus::ModelDownloading, json!({"bytesDone": 4})),
        (ModelStatus::ModelDownloadError, json!({"reason": "Gated"})),
    ] {
        let outcome = world().said(phase, detail).job(leaving()).pass();
        assert_eq!(said(&outcome), (ModelStatus::ModelDownloadPending, Some("JobTerminating")));
    }
}

#[test]
fn a_job_is_due_for_a_copy_that_is_not_whole_and_that_no_job_works_on() {
    let due = |world: World| is_due(&root(), &world.disk, &world.jobs);
    assert!(due(world()) && due(world().model(Folder::Damaged)));
    assert!(!due(world().model(WHOLE)));
    assert!(!due(world().job(job("j", JobPhase::Running))));
    assert!(!due(world().job(job("j", JobPhase::Pending(None)))));
    assert!(!due(world().job(JobView { deleting: true, ..failed("j", 9_000) })));
    let stuck = Problem::new("SecretNotFound", "secret \"hf-secret\" not found");
    assert!(due(world().job(job("j", JobPhase::Pending(Some(stuck))))), "another container may start");
    assert!(due(world().job(failed("j", 9_000))));
    assert!(due(world().job(JobView { copy: of_ns(), ..job("j", JobPhase::Running) })));
}

#[test]
fn a_job_whose_events_are_read_already_wakes_nobody() {
    let since = at(9_995);
    let waiting = JobView { without_pod_since: Some(since), ..job("j", JobPhase::Pending(None)) };
    assert_eq!(waiting.explained_at(), Some(at(10_000)));
    assert_eq!(world().job(waiting).pass().wake, None);
}

#[test]
fn while_caching_is_disabled_a_failure_whose_time_has_come_wakes_nobody() {
    let mut disabled = world().said(ModelStatus::ModelDownloading, json!({})).job(failed("j", 9_940));
    disabled.enabled = false;
    let outcome = disabled.pass();
    assert_eq!(outcome.status[M].1.next_try, Some(Time(at(10_000))));
    assert_eq!((outcome.actions, outcome.wake), (vec![], None));
}

#[test]
fn nothing_is_said_of_files_before_the_source_has_told_how_many_there_are() {
    let mut world = world().job(job("j", JobPhase::Running));
    world
        .progress
        .insert(root(), ProgressReport { bytes_done: 1, bytes_total: 2, ..ProgressReport::default() });
    let detail = &world.pass().status[M].1;
    assert_eq!((detail.bytes_done, detail.bytes_total), (Some(1), Some(2)));
    assert_eq!((detail.files_done, detail.files_total), (None, None));
}

#[test]
fn each_end_of_a_job_counts_as_a_failure_of_its_own() {
    let attempts = |phase, finished: i64| {
        let before = json!({"attempts": 3, "finished": at(finished).to_string()});
        world().said(phase, before).job(failed("j", 10_000)).pass().status[M].1.attempts
    };
    assert_eq!(attempts(ModelStatus::ModelDownloadError, 10_000), Some(3), "it is the one that was counted");
    assert_eq!(attempts(ModelStatus::ModelDownloadError, 9_000), Some(4), "that was an earlier Job");
    assert_eq!(attempts(ModelStatus::ModelDownloading, 10_000), Some(4), "that was a download in one second");
}
