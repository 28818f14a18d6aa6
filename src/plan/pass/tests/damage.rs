//! Copies that were complete and are not any more (A5).

use super::*;

#[test]
fn a_copy_that_vanished_behind_our_back_is_fetched_again_at_once() {
    let warm = || world().said(ModelStatus::ModelDownloaded, json!({}));
    for folder in [None, Some(Folder::Damaged), Some(Folder::Bare)] {
        let mut gone = warm().job(job("j", JobPhase::Succeeded(at(9_999))));
        gone.disk.models.extend(folder.map(|folder| (root(), folder)));
        let outcome = gone.pass();
        assert_eq!(outcome.actions, [Action::DeleteJob("j".into())]);
        assert_eq!(said(&outcome), (ModelStatus::ModelDownloadPending, Some("CopyVanished")));
    }
    let said_before = world().said(ModelStatus::ModelDownloadPending, json!({"reason": "CopyVanished"}));
    let cut_off = said_before.job(job("j", JobPhase::Succeeded(at(9_999)))).model(Folder::Damaged).pass();
    assert_eq!(cut_off.actions, [Action::DeleteJob("j".into())], "also by an agent that ended in between");
    assert_eq!(said(&cut_off), (ModelStatus::ModelDownloadPending, Some("CopyVanished")));
    assert_eq!(warm().pass().actions, download(), "and where the Job has gone by its age, too");
}

#[test]
fn a_damaged_copy_says_what_is_wrong_until_it_is_mended() {
    let message = "the copy on the disk is damaged (a is missing): what is good of it is kept, the rest is downloaded again";
    let damaged = || {
        let mut world = world().said(ModelStatus::ModelDownloaded, json!({})).model(Folder::Damaged);
        world.disk.damage.insert(root(), "a is missing".into());
        world
    };
    let begun = damaged().pass();
    assert_eq!(begun.actions, download(), "no failed Job holds it up");
    for (world, phase) in [
        (damaged(), ModelStatus::ModelDownloadPending),
        (damaged().job(job("j", JobPhase::Pending(None))), ModelStatus::ModelDownloadPending),
        (damaged().job(job("j", JobPhase::Running)), ModelStatus::ModelDownloading),
        (damaged().incoming(WHOLE), ModelStatus::ModelDownloading),
    ] {
        let world = World { before: begun.status.clone(), ..world };
        let outcome = world.pass();
        assert_eq!(said(&outcome), (phase, Some("CopyDamaged")), "{:?}", world.jobs);
        assert_eq!(outcome.status[M].1.message.as_deref(), Some(message));
    }
    let first_job = damaged().job(job("j", JobPhase::Succeeded(at(9_000)))).pass();
    assert_eq!(first_job.actions, [Action::DeleteJob("j".into())]);
    assert_eq!(said(&first_job), (ModelStatus::ModelDownloadPending, Some("CopyDamaged")));
    let found = json!({"time": at(10_000), "reason": "CopyDamaged", "message": message});
    let last = |outcome: &Outcome| json!(outcome.status[M].1.last_damage);
    let mended = World { before: begun.status, now: 11_000, ..world() }.model(WHOLE).pass();
    assert_eq!(said(&mended), (ModelStatus::ModelDownloaded, None));
    assert_eq!(last(&mended), found, "a repair may be over before anybody looks");
    let again = World { before: mended.status.clone(), now: 12_000, ..damaged() }.pass();
    assert_eq!(last(&again)["time"], json!(at(12_000)));
    let same = World { before: again.status.clone(), now: 13_000, ..damaged() }.pass();
    assert_eq!(last(&same), last(&again), "one damage has one time");
    let first = world().model(Folder::Damaged).pass();
    assert_eq!(
        said(&first),
        (ModelStatus::ModelDownloadPending, None),
        "what was never complete is not damaged"
    );
}

#[test]
fn a_copy_that_vanished_says_so_until_it_is_there_again() {
    let gone = world().said(ModelStatus::ModelDownloaded, json!({})).pass();
    assert_eq!(said(&gone), (ModelStatus::ModelDownloadPending, Some("CopyVanished")));
    let later = World { before: gone.status, ..world() }.job(job("j", JobPhase::Running)).pass();
    assert_eq!(said(&later), (ModelStatus::ModelDownloading, Some("CopyVanished")));
}
