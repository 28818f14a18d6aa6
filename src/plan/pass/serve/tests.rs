use std::collections::BTreeSet;

use super::*;
use crate::plan::pass::Problem;
use crate::plan::pass::world::{M, WHOLE, World, of_ns, root, world};

/// A node with a complete copy from before there were views.
fn upgraded() -> World {
    let mut world = world().model(WHOLE);
    world.disk.served.clear();
    world.said(ModelStatus::ModelDownloaded, serde_json::json!({}))
}

fn phases(outcome: &Outcome) -> [ModelStatus; 3] {
    [outcome.status[M].0, outcome.gates[&root()].phase, outcome.served_gates[&root()].phase]
}

#[test]
fn a_copy_of_an_earlier_version_is_linked_for_pods_and_stays_downloaded_meanwhile() {
    use ModelStatus::{ModelDownloaded, ModelDownloading};
    let mut world = upgraded();
    for served in [None, Some(Served::Outdated)] {
        world.disk.served.extend(served.map(|served| (root(), served)));
        let outcome = world.whole_pass();
        assert_eq!(outcome.actions, [Action::Serve(root())], "nothing is downloaded again");
        assert_eq!(phases(&outcome), [ModelDownloaded, ModelDownloaded, ModelDownloading]);
    }
    world.disk.served.insert(root(), Served::Current);
    let outcome = world.whole_pass();
    assert_eq!((outcome.actions.as_slice(), phases(&outcome)), ([].as_slice(), [ModelDownloaded; 3]));
}

#[test]
fn a_copy_is_linked_for_pods_right_after_it_was_placed() {
    let outcome = world().incoming(WHOLE).whole_pass();
    assert_eq!(outcome.actions, [Action::Place(root()), Action::Serve(root())]);
    assert_eq!(outcome.served_gates[&root()].phase, ModelStatus::ModelDownloading);
}

#[test]
fn the_gate_is_there_and_shut_before_there_is_a_copy() {
    let outcome = world().whole_pass();
    assert_eq!(outcome.served_gates[&root()].phase, ModelStatus::ModelDownloadPending);
    let damaged = world().model(Folder::Damaged);
    assert_eq!(damaged.whole_pass().served_gates[&root()].phase, ModelStatus::ModelDownloadPending);
}

#[test]
fn a_copy_that_cannot_be_linked_for_pods_has_failed_and_is_tried_again() {
    let problem = Problem::new("CopyNotServed", "no space left on device");
    let mut world = upgraded();
    world.unserved.insert(root(), problem.clone());
    let outcome = world.whole_pass();
    assert_eq!(outcome.actions, [Action::Serve(root())]);
    assert_eq!(phases(&outcome), [ModelStatus::ModelDownloadError; 3]);
    assert_eq!(outcome.status[M].1.reason, Some(problem.reason));
    world.disk.served.insert(root(), Served::Current);
    assert_eq!(phases(&world.whole_pass()), [ModelStatus::ModelDownloaded; 3], "it has been mended");
}

#[test]
fn a_disk_that_cannot_be_written_is_the_reason_why_a_copy_is_not_served() {
    let mut world = upgraded();
    world.unwritable.insert(None, Problem::new("DiskNotWritable", "read-only"));
    let outcome = world.whole_pass();
    assert_eq!((outcome.actions.as_slice(), outcome.served_gates.len()), ([].as_slice(), 0));
    assert_eq!(outcome.status[M].1.reason.as_deref(), Some("DiskNotWritable"));
    world.disk.served.insert(root(), Served::Current);
    assert_eq!(world.whole_pass().status[M].0, ModelStatus::ModelDownloaded, "it can be read as before");
}

#[test]
fn what_pods_mount_goes_with_the_last_entry_of_any_group_and_before_the_copy() {
    let mut world = world().model(WHOLE);
    world.place(of_ns(), WHOLE);
    world.other_groups = std::mem::take(&mut world.entries);
    assert_eq!(world.whole_pass().actions, [Action::EraseServed(of_ns()), Action::EraseModel(of_ns())]);
    world.other_groups.clear();
    let actions: BTreeSet<Action> = world.whole_pass().actions.into_iter().collect();
    assert!(actions.contains(&Action::EraseServed(root())), "{actions:?}");
}
