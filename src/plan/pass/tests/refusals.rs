//! Jobs and pods that the API server refuses: said, and asked for again (A2).

use super::*;

#[test]
fn a_job_that_the_api_server_refuses_is_told_and_asked_for_again() {
    let mut world = world();
    let words = "creating Job m-n: exceeded quota: jobs, requested: count/jobs.batch=1";
    world.refused.insert(root(), (Problem::new(JOB_REFUSED, words), at(9_990)));
    let outcome = world.pass();
    assert_eq!((outcome.actions, outcome.wake), (Vec::new(), Some(at(10_010))), "not at each look");
    world.now = 10_010;
    let outcome = world.pass();
    assert_eq!(outcome.actions, [Action::Download(root())]);
    let (phase, detail) = &outcome.status[M];
    assert_eq!((*phase, detail.reason.as_deref()), (ModelStatus::ModelDownloadError, Some(JOB_REFUSED)));
    assert_eq!(detail.message.as_deref(), Some(words));
    // What was refused once says nothing about a Job that is there.
    let (phase, detail) = &world.job(job("j", JobPhase::Running)).pass().status[M];
    assert_eq!((*phase, detail.reason.as_deref()), (ModelStatus::ModelDownloading, None));
}

#[test]
fn a_job_that_has_no_pod_for_five_seconds_is_to_be_explained_if_it_is_our_own() {
    let waiting = JobView { without_pod_since: Some(at(9_998)), ..job("j", JobPhase::Pending(None)) };
    assert_eq!(waiting.explained_at(), Some(at(10_003)));
    let outcome = world().job(waiting.clone()).pass();
    assert_eq!(outcome.wake, Some(at(10_003)), "nothing else tells when it is time");
    for other in [
        JobView { own: false, ..waiting.clone() },
        JobView { deleting: true, ..waiting.clone() },
        JobView { without_pod_since: None, ..waiting.clone() },
        JobView { phase: JobPhase::Running, ..waiting },
    ] {
        assert_eq!(other.explained_at(), None, "{other:?}");
    }
}
