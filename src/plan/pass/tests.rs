use serde_json::json;

use super::world::{M, TTL, WHOLE, World, job, ns_entry, of_ns, root, world};
use super::*;
use crate::api::source::storage_key;
use crate::download::retry::Trouble;
use crate::plan::samples::{URI, at, entry, entry_of, from};

fn failed(name: &str, second: i64) -> JobView {
    job(name, JobPhase::Failed(at(second), Problem::new("Gated", "accept the licence")))
}

fn said(outcome: &Outcome) -> (ModelStatus, Option<&str>) {
    let (phase, detail) = &outcome.status[M];
    (*phase, detail.reason.as_deref())
}

fn download() -> Vec<Action> {
    vec![Action::Download(root())]
}

#[test]
fn a_model_without_copy_and_job_is_downloaded() {
    let outcome = world().pass();
    assert_eq!(outcome.actions, download());
    assert_eq!(said(&outcome), (ModelStatus::ModelDownloadPending, None));
    let damaged = world().model(Folder::Damaged).incoming(Folder::Bare).pass();
    assert_eq!(damaged.actions, download(), "what an earlier Job left is taken up again");
}

#[test]
fn a_complete_copy_needs_no_job_whoever_put_it_there() {
    let outcome = world().model(WHOLE).pass();
    assert_eq!(outcome.actions, []);
    assert_eq!(
        json!(outcome.status[M]),
        json!(["ModelDownloaded", {"bytesDone": 10, "bytesTotal": 10, "filesDone": 2, "filesTotal": 2}])
    );
}

#[test]
fn a_job_is_pending_then_under_way_and_nothing_is_done_meanwhile() {
    let problem = Problem::new("SecretNotFound", "secret \"hf-secret\" not found");
    for (phase, expected) in [
        (JobPhase::Pending(None), (ModelStatus::ModelDownloadPending, None)),
        (JobPhase::Pending(Some(problem)), (ModelStatus::ModelDownloadPending, Some("SecretNotFound"))),
        (JobPhase::Running, (ModelStatus::ModelDownloading, None)),
    ] {
        let outcome = world().incoming(Folder::Bare).job(job("j", phase)).pass();
        assert_eq!((outcome.actions.as_slice(), said(&outcome)), ([].as_slice(), expected));
    }
}

#[test]
fn a_finished_download_is_placed_once_its_job_has_ended() {
    let place = vec![Action::Place(root())];
    for jobs in [vec![], vec![job("j", JobPhase::Succeeded(at(9_500)))], vec![failed("j", 9_500)]] {
        let outcome = World { jobs, ..world() }.incoming(WHOLE).model(Folder::Damaged).pass();
        assert_eq!(outcome.actions, place);
        assert_eq!(said(&outcome), (ModelStatus::ModelDownloading, None));
    }
    assert_eq!(world().incoming(WHOLE).job(job("j", JobPhase::Running)).pass().actions, []);
    let disabled = World { enabled: false, ..world() }.incoming(WHOLE).pass();
    assert_eq!(disabled.actions, place, "it is no new download");
}

#[test]
fn another_initializers_files_are_adopted_once_its_job_has_succeeded() {
    let succeeded = || job("j", JobPhase::Succeeded(at(9_500)));
    let adopted = world().incoming(Folder::Bare).job(succeeded()).pass();
    assert_eq!(adopted.actions, [Action::Adopt(root())]);
    assert_eq!(adopted.status[M].1.finished, Some(Time(at(9_500))), "hashing it may take a while");
    assert_eq!(
        world().incoming(Folder::Bare).pass().actions,
        download(),
        "without a Job nobody vouches for them"
    );
    let times = json!({"bytesDone": 10, "bytesTotal": 10, "filesDone": 2, "filesTotal": 2, "started": at(9_000).to_string(),
        "finished": at(9_500).to_string()});
    let placed = world().model(WHOLE).job(succeeded()).pass();
    assert_eq!(json!(placed.status[M].1), times);
    let later = World { before: placed.status.clone(), ..world() }.model(WHOLE).pass();
    assert_eq!(later.status, placed.status, "the times outlive the Job");
}

#[test]
fn a_job_that_wrote_nothing_has_failed() {
    for folder in [None, Some(Folder::Empty), Some(Folder::Damaged)] {
        let mut world = world().job(job("j", JobPhase::Succeeded(at(9_999))));
        world.disk.incoming.extend(folder.map(|folder| (root(), folder)));
        let outcome = world.pass();
        assert_eq!(outcome.actions, []);
        assert_eq!(said(&outcome), (ModelStatus::ModelDownloadError, Some("NothingDownloaded")));
        assert_eq!(outcome.status[M].1.attempts, Some(1));
    }
}

#[test]
fn failures_are_tried_again_after_one_minute_and_twice_as_long_each_time_up_to_an_hour() {
    for (failures, minutes) in [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (1_000_000, 60)] {
        let world = world()
            .said(ModelStatus::ModelDownloading, json!({"attempts": failures}))
            .job(failed("j", 10_000));
        let outcome = world.pass();
        let next = 10_000 + minutes * 60;
        assert_eq!(outcome.actions, []);
        assert_eq!(said(&outcome), (ModelStatus::ModelDownloadError, Some("Gated")));
        let detail = &outcome.status[M].1;
        assert_eq!((detail.attempts, detail.next_try.clone()), (Some(failures + 1), Some(Time(at(next)))));
        assert_eq!(outcome.wake, Some(at(next)));
        let again = World { before: outcome.status.clone(), now: next - 1, ..world.clone() }.pass();
        assert_eq!(again.status, outcome.status, "a failure counts once");
        let due = World { before: outcome.status.clone(), now: next, ..world }.pass();
        assert_eq!(due.actions, [Action::DeleteJob("j".into())]);
    }
}

#[test]
fn what_passed_its_limits_is_erased_and_not_soon_tried_again() {
    for (reason, erased, wait) in [
        ("TooLarge", true, 3600),
        ("TooManyFiles", true, 3600),
        ("PathTooDeep", true, 3600),
        ("SourceUnavailable", false, 60),
    ] {
        let failed = || job("j", JobPhase::Failed(at(10_000), Problem::new(reason, "words")));
        let outcome = world().incoming(Folder::Bare).job(failed()).pass();
        let erase = [Action::EraseIncoming(root())];
        assert_eq!(outcome.actions, erase[..usize::from(erased)], "{reason}");
        let next = outcome.status[M].1.next_try.clone();
        assert_eq!(next, Some(Time(at(10_000 + wait))), "{reason}");
        // The next Job is not made while the last one's files go.
        let running = world().incoming(Folder::Bare).job(failed()).job(job("k", JobPhase::Running));
        assert_eq!(running.pass().actions, [], "{reason}");
    }
}

#[test]
fn how_often_it_failed_is_kept_until_the_copy_is_complete() {
    let count = |world: World| world.pass().status[M].1.attempts;
    let tried = || world().said(ModelStatus::ModelDownloadError, json!({"attempts": 3, "reason": "Gated"}));
    let deleting = JobView { deleting: true, ..failed("j", 9_000) };
    assert_eq!(count(tried()), Some(3));
    assert_eq!(count(tried().job(deleting)), Some(3));
    assert_eq!(count(tried().job(job("j", JobPhase::Running))), Some(3));
    assert_eq!(count(tried().model(WHOLE)), None);
}

#[test]
fn a_failure_waits_for_its_next_try_when_its_job_has_gone_by_its_age() {
    let next = json!({"attempts": 7, "reason": "Gated", "finished": at(10_000).to_string(),
        "nextTry": at(15_000).to_string()});
    let failed = || world().said(ModelStatus::ModelDownloadError, next.clone());
    let aged = World { now: 10_000 + TTL, ..failed() };
    assert_eq!(aged.pass().actions, []);
    assert_eq!(aged.pass().status, aged.before);
    assert_eq!(aged.pass().wake, Some(at(15_000)));
    let going = aged.clone().job(JobView { deleting: true, ..self::failed("j", 10_000) }).pass();
    assert_eq!((going.actions, going.status), (vec![], aged.before.clone()));
    assert_eq!(World { now: 15_000, ..failed() }.pass().actions, download());
    let by_hand = World { now: 10_000 + TTL - 1, ..failed() }.pass();
    assert_eq!(by_hand.actions, download(), "a Job that goes before its time was deleted by hand");
}

/// What a Job is made from: this pod, with these secrets.
fn recipe(pod: &str, secrets: &str) -> Recipe {
    Recipe { pod: pod.into(), secrets: secrets.into() }
}

fn with_recipe(mut world: World, recipe: Result<Recipe, Problem>) -> World {
    world.recipes.insert(root(), recipe);
    world
}

#[test]
fn a_download_whose_credentials_are_missing_is_not_begun_says_why_and_begins_once_they_are_there() {
    let problem = Problem::new("SecretNotFound", "Secret s does not exist in namespace j");
    let tried = || world().said(ModelStatus::ModelDownloadError, json!({"attempts": 3}));
    let outcome = with_recipe(tried(), Err(problem)).pass();
    assert_eq!(outcome.actions, []);
    assert_eq!(said(&outcome), (ModelStatus::ModelDownloadError, Some("SecretNotFound")));
    assert_eq!(outcome.status[M].1.attempts, Some(3));
    assert_eq!(outcome.wake, Some(at(10_020)), "nothing else would tell");
    let there = World { before: outcome.status, ..with_recipe(world(), Ok(recipe("p", "s"))) };
    assert_eq!(there.pass().actions, download());
}

#[test]
fn a_failed_download_is_tried_again_at_once_when_its_credentials_or_its_container_change() {
    let made_from = |made: Recipe| JobView { recipe: Some(made), ..failed("j", 10_000) };
    let with =
        |now: Result<Recipe, Problem>| with_recipe(world().job(made_from(recipe("p", "s"))), now).pass();
    let same = with(Ok(recipe("p", "s")));
    assert_eq!((same.actions.as_slice(), same.wake), ([].as_slice(), Some(at(10_020))));
    for changed in [recipe("p", "s2"), recipe("p2", "s")] {
        assert_eq!(with(Ok(changed)).actions, [Action::DeleteJob("j".into())]);
    }
    assert_eq!(with(Err(Problem::new("SecretNotFound", "gone"))).actions, [], "it would fail again");
    let disabled = with_recipe(world().job(made_from(recipe("p", "s"))), Ok(recipe("p", "s2")));
    assert_eq!(World { enabled: false, ..disabled }.pass().actions, []);
}

#[test]
fn a_change_counts_also_when_the_failed_job_has_gone_by_its_age() {
    let next = json!({"attempts": 7, "reason": "Gated", "finished": at(10_000).to_string(),
        "nextTry": at(15_000).to_string()});
    let aged = || World { now: 10_000 + TTL, ..world().said(ModelStatus::ModelDownloadError, next.clone()) };
    let mut aged = with_recipe(aged(), Ok(recipe("p", "s")));
    assert_eq!(aged.pass().actions, [], "an agent that has just started knows of no change");
    aged.tried.insert(root(), recipe("p", "s"));
    assert_eq!(aged.pass().actions, []);
    aged.tried.insert(root(), recipe("p", "s1"));
    assert_eq!(aged.pass().actions, download());
}

#[test]
fn a_job_that_cannot_start_is_made_anew_from_another_container_but_not_for_a_secret_that_the_kubelet_sees() {
    let stuck = |own| {
        let waits = JobPhase::Pending(Some(Problem::new("SecretNotFound", "secret \"s\" not found")));
        JobView { recipe: Some(recipe("p", "s")), own, ..job("j", waits) }
    };
    let with = |own, now: Recipe| with_recipe(world().job(stuck(own)), Ok(now)).pass().actions;
    assert_eq!(with(true, recipe("p", "s2")), []);
    assert_eq!(with(true, recipe("p2", "s")), [Action::DeleteJob("j".into())]);
    assert_eq!(with(false, recipe("p2", "s")), [], "another group's agent makes it from something else");
}

#[test]
fn what_was_lent_to_a_job_that_was_refused_is_erased_and_never_taken_for_its_work() {
    let lent = |phase| {
        let mut world = world().incoming(Folder::Bare).job(job("j", phase));
        world.disk.lent.insert(root());
        world
    };
    let failed = JobPhase::Failed(at(10_000), Problem::new("RepositoryGated", "accept the licence"));
    assert_eq!(lent(failed.clone()).pass().actions, [Action::EraseIncoming(root())]);
    assert_eq!(lent(JobPhase::Succeeded(at(10_000))).pass().actions, [Action::EraseIncoming(root())]);
    for at_work in [JobPhase::Pending(None), JobPhase::Running] {
        assert_eq!(lent(at_work).pass().actions, [], "its Job may be about to prove its access");
    }
    let gone = World { jobs: vec![], ..lent(JobPhase::Running) };
    assert_eq!(gone.pass().actions, download(), "the next Job's folder is made anew");
    let blocked = with_recipe(gone, Err(Problem::new("SecretNotFound", "it is gone")));
    assert_eq!(blocked.pass().actions, [Action::EraseIncoming(root())]);
    let mut proved = lent(failed);
    proved.disk.lent.clear();
    assert_eq!(proved.pass().actions, [], "what is its own is taken up again");
}

#[test]
fn a_download_that_cannot_become_a_copy_fails_in_words_that_outlive_the_agent() {
    let refused = || world().job(job("j", JobPhase::Succeeded(at(9_990))));
    let mut told = refused();
    let problem = Problem::new("UnsafeFileName", "\"x\" in the download is a symbolic link");
    told.unadoptable.insert(root(), problem.clone());
    let outcome = told.pass();
    assert_eq!(said(&outcome), (ModelStatus::ModelDownloadError, Some("UnsafeFileName")));
    assert_eq!(outcome.actions, []);
    let restarted = World { before: outcome.status.clone(), ..refused() }.pass();
    assert_eq!(restarted.status, outcome.status);
    let nothing = refused().pass();
    assert_eq!(said(&nothing), (ModelStatus::ModelDownloadError, Some("NothingDownloaded")));
}

#[test]
fn while_a_disk_hangs_nothing_is_done_and_only_what_was_complete_is_said_to_be() {
    let problem = Problem::new(DISK_NOT_RESPONDING, "it has not answered for a minute");
    let entries = [entry(), entry_of("other", "hf://o/other"), entry_of("new", "hf://o/new")];
    let whole: Said = (ModelStatus::ModelDownloaded, from(json!({"bytesDone": 5})));
    let begun: Said = (ModelStatus::ModelDownloading, from(json!({"attempts": 2})));
    let before = BTreeMap::from([(M.to_owned(), whole.clone()), ("other".to_owned(), begun)]);
    let outcome = unanswered(&entries, &before, &problem);
    assert_eq!((outcome.actions, outcome.gates.len()), (vec![], 0));
    assert_eq!(outcome.status[M], whole);
    for (key, attempts) in [("other", Some(2)), ("new", None)] {
        let (phase, detail) = &outcome.status[key];
        assert_eq!((*phase, detail.attempts), (ModelStatus::ModelDownloadError, attempts));
        assert_eq!(detail.reason.as_deref(), Some(DISK_NOT_RESPONDING));
    }
}

#[test]
fn while_caching_is_disabled_nothing_new_is_downloaded_and_nobody_is_woken_for_it() {
    let disabled = || World { enabled: false, ..world() };
    let outcome = disabled().pass();
    assert_eq!(outcome.actions, []);
    assert_eq!(said(&outcome), (ModelStatus::ModelDownloadPending, Some("Disabled")));
    let long_ago = disabled().job(failed("j", 100)).pass();
    assert_eq!((long_ago.actions, long_ago.wake), (vec![], None));
    let running = disabled().job(job("j", JobPhase::Running)).pass();
    assert_eq!(said(&running).0, ModelStatus::ModelDownloading);
    let deletion = World { entries: vec![], ..disabled() }.model(WHOLE).pass();
    assert_eq!(deletion.actions, [Action::EraseModel(root())], "deletions go on");
}

#[test]
fn a_disk_that_cannot_be_written_is_left_alone_and_reported_for_each_missing_model() {
    let problem = Problem::new("DiskNotWritable", "models/ cannot be written by user id 1000");
    let world = World {
        unwritable: BTreeMap::from([(None, problem)]),
        entries: vec![entry(), entry_of("warm", "hf://o/warm")],
        ..world()
    };
    let mut world = world.incoming(WHOLE);
    world.place(CopyKey::root(storage_key("hf://o/warm")), WHOLE);
    world.place(CopyKey::root("0".repeat(16)), WHOLE);
    let outcome = world.pass();
    assert_eq!(outcome.actions, []);
    assert_eq!(said(&outcome), (ModelStatus::ModelDownloadError, Some("DiskNotWritable")));
    assert_eq!(outcome.status["warm"].0, ModelStatus::ModelDownloaded);
    let unwanted = JobView { copy: CopyKey::root("0".repeat(16)), ..job("stray", JobPhase::Running) };
    assert_eq!(world.job(unwanted).pass().actions, [Action::DeleteJob("stray".into())]);
}

#[test]
fn on_a_full_disk_nothing_begins_and_what_nobody_wants_is_erased() {
    let full = Problem::new("DiskFull", "no bytes are free");
    let mut world = World { full: Some(full), ..world() };
    world.place(CopyKey::root("0".repeat(16)), WHOLE);
    let outcome = world.pass();
    assert_eq!(outcome.actions, [Action::EraseModel(CopyKey::root("0".repeat(16)))]);
    assert_eq!(said(&outcome), (ModelStatus::ModelDownloadError, Some("DiskFull")));
    let healed = World { full: None, before: outcome.status, disk: Inventory::default(), ..world.clone() };
    assert_eq!(healed.pass().actions, download(), "at the first look after there is room");
    assert_eq!(world.clone().model(WHOLE).pass().status[M].0, ModelStatus::ModelDownloaded);
    let placed = world.incoming(WHOLE).pass();
    assert!(placed.actions.contains(&Action::Place(root())), "a rename needs no room");
}

#[test]
fn what_no_entry_wants_goes_job_first_and_folders_once_nobody_writes_them() {
    let unwanted = || World { entries: vec![], ..world() }.model(WHOLE).incoming(Folder::Bare);
    let running = || job("j", JobPhase::Running);
    assert_eq!(unwanted().job(running()).pass().actions, [Action::DeleteJob("j".into())]);
    let deleting = unwanted().job(JobView { deleting: true, ..running() });
    assert_eq!(deleting.pass().actions, [], "its pod may still write");
    let erase = [Action::EraseModel(root()), Action::EraseIncoming(root())];
    assert_eq!(unwanted().pass().actions, erase);
    assert_eq!(unwanted().pass().status, BTreeMap::new());
}

#[test]
fn what_a_finished_download_left_is_erased() {
    let world = || world().model(WHOLE).incoming(Folder::Damaged);
    assert_eq!(world().pass().actions, [Action::EraseIncoming(root())]);
    assert_eq!(world().job(job("j", JobPhase::Running)).pass().actions, []);
}

#[test]
fn several_entries_of_one_model_share_one_job_and_have_a_status_each() {
    let world = World { entries: vec![entry(), entry_of("other", URI)], ..world() };
    let outcome = world.pass();
    assert_eq!(outcome.actions, download());
    assert_eq!(outcome.status.keys().collect::<Vec<_>>(), [M, "other"]);
    let last = World { entries: vec![entry_of("other", URI)], ..world }.model(WHOLE);
    assert_eq!(last.pass().actions, [], "the folder stays until the last one goes");
}

#[test]
fn a_namespace_has_a_copy_of_its_own_beside_the_one_in_the_root() {
    let both = World { entries: vec![entry(), ns_entry()], ..world() };
    let outcome = both.pass();
    assert_eq!(outcome.actions, [Action::Download(root()), Action::Download(of_ns())]);
    assert_eq!(outcome.status.keys().collect::<Vec<_>>(), [M, "ns/m"]);
    let one = both.model(WHOLE);
    assert_eq!(one.pass().actions, [Action::Download(of_ns())], "the other's copy does not count");
    let busy = JobView { copy: of_ns(), ..job("j", JobPhase::Running) };
    assert_eq!(one.clone().job(busy.clone()).pass().actions, []);
    let alone = World { entries: vec![ns_entry()], ..one };
    let writes_its_area = alone.clone().job(busy).pass();
    assert_eq!(writes_its_area.actions, [Action::EraseModel(root())], "its Job writes nothing in the root");
    assert_eq!(
        alone.pass().actions,
        [Action::Download(of_ns()), Action::EraseModel(root())],
        "without a cluster cache the root is nobody's"
    );
}

#[test]
fn an_area_goes_when_it_is_empty_and_no_entry_is_of_its_namespace() {
    let mut world = World { entries: vec![], ..world() };
    world.disk.gates.extend([of_ns(), root()]);
    world.disk.incoming.insert(of_ns(), Folder::Empty);
    let erase = [Action::EraseGate(root()), Action::EraseGate(of_ns()), Action::EraseIncoming(of_ns())];
    assert_eq!(world.pass().actions, erase);
    world.disk = Inventory { empty_areas: BTreeSet::from(["ns".into()]), ..Inventory::default() };
    assert_eq!(world.pass().actions, [Action::RemoveArea("ns".into())]);
    world.other_groups = vec![ns_entry()];
    assert_eq!(world.pass().actions, []);
}

#[test]
fn an_area_that_cannot_be_written_fails_its_own_models_only() {
    let problem = Problem::new("DiskNotWritable", "namespaces/ns/models/ cannot be written");
    let mut world = World { entries: vec![entry(), ns_entry()], ..world() };
    world.unwritable.insert(Some("ns".into()), problem.clone());
    let outcome = world.pass();
    assert_eq!(outcome.actions, download());
    assert_eq!(outcome.status["ns/m"].1.reason, Some(problem.reason));
    assert_eq!(outcome.gates.keys().collect::<Vec<_>>(), [&root()]);
}

#[test]
fn the_gate_says_what_the_status_says_and_how_far_a_download_is() {
    let mut world = world().job(job("j", JobPhase::Running));
    let progress =
        ProgressReport { bytes_done: 4, bytes_total: 10, files_done: 0, files_total: 2, trouble: None };
    world.progress.insert(root(), progress);
    let outcome = world.pass();
    let gate = json!({"phase": "ModelDownloading", "bytesDone": 4, "bytesTotal": 10});
    assert_eq!(json!(outcome.gates[&root()]), gate);
    let detail = &outcome.status[M].1;
    assert_eq!((detail.bytes_done, detail.bytes_total), (Some(4), Some(10)));
    assert_eq!((detail.files_done, detail.files_total), (Some(0), Some(2)));
    assert_eq!(outcome.wake, Some(at(10_005)), "progress tells nobody that it moves");
    let failed = self::world().job(failed("j", 10_000)).pass();
    let gate = json!({"phase": "ModelDownloadError", "reason": "Gated", "message": "accept the licence"});
    assert_eq!(json!(failed.gates[&root()]), gate);
    let planned = self::world().pass();
    assert_eq!(json!(planned.gates[&root()]), json!({"phase": "ModelDownloadPending"}), "before any Job");
}

#[test]
fn a_download_that_tries_again_says_why_and_one_that_mends_a_copy_says_what_it_mends() {
    let trouble = Trouble {
        reason: "RateLimited".into(),
        message: "https://me:hf_abcdefghij@hub/api asks to wait".into(),
    };
    let report = ProgressReport { trouble: Some(trouble), ..ProgressReport::default() };
    let running = || {
        let mut world = world().job(job("j", JobPhase::Running));
        world.progress.insert(root(), report.clone());
        world
    };
    let outcome = running().pass();
    assert_eq!(said(&outcome), (ModelStatus::ModelDownloading, Some("RateLimited")));
    let detail = &outcome.status[M].1;
    assert!(!detail.message.as_deref().unwrap().contains("hf_abcdefghij"), "{detail:?}");
    assert_eq!((detail.bytes_done, detail.bytes_total), (None, None), "nothing is known of its bytes yet");
    let mending = running().said(ModelStatus::ModelDownloading, json!({"reason": "CopyVanished"})).pass();
    assert_eq!(said(&mending), (ModelStatus::ModelDownloading, Some("CopyVanished")));
}

#[test]
fn of_two_jobs_the_one_that_works_counts_then_the_one_that_ended_well() {
    let working = world().job(failed("a", 9_000)).job(job("b", JobPhase::Running)).pass();
    assert_eq!(said(&working).0, ModelStatus::ModelDownloading);
    let leaving = JobView { deleting: true, ..job("a", JobPhase::Running) };
    let beside = world().job(leaving).job(job("b", JobPhase::Running)).pass();
    assert_eq!(said(&beside), (ModelStatus::ModelDownloading, None));
    let ended =
        world().incoming(Folder::Bare).job(failed("a", 9_000)).job(job("b", JobPhase::Succeeded(at(9_500))));
    assert_eq!(ended.pass().actions, [Action::Adopt(root())]);
}

#[test]
fn while_somebody_else_downloads_the_same_model_no_second_job_is_made() {
    let theirs = |phase| JobView { own: false, ..job("theirs", phase) };
    let running = world().job(theirs(JobPhase::Running)).pass();
    assert_eq!(
        (running.actions.as_slice(), said(&running).0),
        ([].as_slice(), ModelStatus::ModelDownloading)
    );
    let ended = world().job(theirs(JobPhase::Succeeded(at(9_000)))).pass();
    assert_eq!(ended.actions, download(), "it wrote another disk, or nothing");
    let busy = world().model(WHOLE).incoming(Folder::Bare).job(theirs(JobPhase::Running)).pass();
    assert_eq!(busy.actions, [], "its folder is not erased under it");
}

#[test]
fn a_model_that_only_another_group_wants_stays_with_its_job() {
    let other =
        World { entries: vec![], other_groups: vec![entry()], ..world() }.model(WHOLE).incoming(Folder::Bare);
    let theirs = JobView { own: false, ..job("theirs", JobPhase::Running) };
    assert_eq!(other.clone().job(theirs.clone()).pass().actions, []);
    assert_eq!(
        other.clone().job(job("own", JobPhase::Running)).pass().actions,
        [Action::DeleteJob("own".into())]
    );
    let unwanted = World { entries: vec![], ..world() }.job(theirs);
    assert_eq!(unwanted.pass().actions, [Action::DeleteJob("theirs".into())]);
}

#[test]
fn one_models_failure_never_stops_the_next() {
    let world =
        World { entries: vec![entry(), entry_of("next", "hf://o/next")], ..world() }.job(failed("j", 9_999));
    let outcome = world.pass();
    assert_eq!(outcome.actions, [Action::Download(CopyKey::root(storage_key("hf://o/next")))]);
    assert_eq!(outcome.status.len(), 2);
}

mod convergence;
mod damage;
mod refusals;
mod told;
