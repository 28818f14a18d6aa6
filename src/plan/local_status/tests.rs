use serde_json::{Value, json};

use super::*;
use crate::api::ModelStatus;
use crate::api::node::ModelDetail;
use crate::plan::samples::{at, entry, entry_of, from};

const M: &str = "meta-llama3-8b-instruct";

fn said_of(model: &str, phase: ModelStatus) -> BTreeMap<String, Said> {
    BTreeMap::from([(model.to_owned(), (phase, ModelDetail::default()))])
}

fn room(free: u64) -> DiskStatus {
    disk(&DiskView { usage: Some(Usage { capacity: 1000, free }), ..DiskView::default() })
}

fn free(status: &LocalModelNodeStatus) -> &str {
    &status.disks["workers"].free.as_ref().unwrap().0
}

#[test]
fn the_status_of_the_documented_node_is_as_reviewed() {
    let detail: ModelDetail =
        from(json!({"bytesDone": 100, "bytesTotal": 100, "filesDone": 2, "filesTotal": 2,
        "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:04:21Z"}));
    let said = BTreeMap::from([(M.to_owned(), (ModelStatus::ModelDownloaded, detail))]);
    let usage = Usage { capacity: 1_700_000_000_000, free: 1_689_262_581_760 };
    let scrub = Summary { checked: Some(at(1_767_225_600)), bytes: 100, damaged: 0 };
    let disk = disk(&DiskView { usage: Some(usage), scrub, ..DiskView::default() });
    let status = status(&LocalModelNodeStatus::default(), &[entry()], "workers", &said, disk);
    insta::assert_yaml_snapshot!(status);
}

#[test]
fn the_keys_are_exactly_those_of_spec_also_where_another_writer_left_more() {
    let before: LocalModelNodeStatus = from(json!({
        "modelStatus": {"gone": "ModelDownloaded", M: "ModelDownloading"}, "models": {"gone": {}, "ghost": {}},
    }));
    let after = status(&before, &[entry()], "workers", &said_of(M, ModelStatus::ModelDownloaded), room(10));
    assert_eq!(json!(after.model_status), json!({M: "ModelDownloaded"}));
    assert_eq!(after.models.keys().collect::<Vec<_>>(), [M]);
}

#[test]
fn two_agents_of_one_node_leave_each_others_part_as_it_was() {
    let spec = [entry_of("one", "hf://o/one"), entry_of("two", "hf://o/two")];
    let none = LocalModelNodeStatus::default();
    let a = status(&none, &spec, "a", &said_of("one", ModelStatus::ModelDownloaded), room(10));
    let both = status(&a, &spec, "b", &said_of("two", ModelStatus::ModelDownloading), room(900));
    assert_eq!(json!(both.model_status), json!({"one": "ModelDownloaded", "two": "ModelDownloading"}));
    assert_eq!(both.disks.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(both.disks["a"], a.disks["a"]);
    assert_eq!(status(&both, &spec, "a", &said_of("one", ModelStatus::ModelDownloaded), room(10)), both);
}

#[test]
fn free_space_is_written_when_it_changed_by_a_twentieth_or_along_with_something_else() {
    let spec = [entry()];
    let downloaded = said_of(M, ModelStatus::ModelDownloaded);
    let before = status(&LocalModelNodeStatus::default(), &spec, "workers", &downloaded, room(1000));
    for (now, expected) in [(1000, "1000"), (951, "1000"), (1049, "1000"), (950, "950"), (1050, "1050")] {
        let after = status(&before, &spec, "workers", &downloaded, room(now));
        assert_eq!(free(&after), expected, "{now}");
        assert_eq!(after == before, expected == "1000");
    }
    let failed = said_of(M, ModelStatus::ModelDownloadError);
    assert_eq!(free(&status(&before, &spec, "workers", &failed, room(999))), "999");
}

#[test]
fn a_disk_that_cannot_be_used_says_why_and_then_no_more() {
    let problem = Problem::new("DiskNotWritable", "models/ cannot be written by user id 1000");
    let bad = disk(&DiskView { problem: Some(&problem), ..DiskView::default() });
    let bad = status(&LocalModelNodeStatus::default(), &[], "g", &BTreeMap::new(), bad);
    let expected = json!({"disks": {"g": {"reason": "DiskNotWritable",
        "message": "models/ cannot be written by user id 1000"}},
        "summary": {"models": "0/0", "disk": "DiskNotWritable"}});
    assert_eq!(json!(bad), expected);
    let good = status(&bad, &[], "g", &BTreeMap::new(), room(10));
    assert_eq!(
        json!(good),
        json!({"disks": {"g": {"capacity": "1000", "free": "10"}},
        "summary": {"models": "0/0", "disk": "Usable", "free": "10"}})
    );
}

#[test]
fn what_is_damaged_or_not_ours_stands_beside_the_room_and_not_without_end() {
    let not_ours: Vec<String> = (0..12).map(|number| format!("backup-{number:02}")).collect();
    let scrub = Summary { checked: None, bytes: 7, damaged: 1 };
    let told = json!(disk(&DiskView { scrub, not_ours: &not_ours, ..DiskView::default() }));
    assert_eq!((&told["scrubbedBytes"], &told["damagedFiles"]), (&json!(7), &json!(1)));
    assert_eq!(told["notOurs"], json!(not_ours[..10]));
    assert_eq!(json!(disk(&DiskView::default())), json!({}));
}

#[test]
fn what_was_said_is_read_back_from_the_status() {
    let status: Value = json!({"modelStatus": {"a": "ModelDownloadError", "b": ""},
        "models": {"a": {"attempts": 3}, "stray": {}}});
    let said = said(&from(status));
    assert_eq!(said["a"].1.attempts, Some(3));
    assert_eq!(
        (said["a"].0, said["b"].0, said.len()),
        (ModelStatus::ModelDownloadError, ModelStatus::Unknown, 2)
    );
}

#[test]
fn a_node_in_a_line_counts_its_models_and_tells_the_worst_of_its_disks() {
    let spec = [entry_of("one", "hf://o/one"), entry_of("two", "hf://o/two")];
    let scrubbed = |checked, free| {
        let (usage, scrub) =
            (Some(Usage { capacity: 1 << 40, free }), Summary { checked, ..Summary::default() });
        disk(&DiskView { usage, scrub, ..DiskView::default() })
    };
    let none = LocalModelNodeStatus::default();
    let downloaded = said_of("one", ModelStatus::ModelDownloaded);
    let first = status(&none, &spec, "a", &downloaded, scrubbed(Some(at(7)), (83 << 30) + 1));
    assert_eq!(
        json!(first.summary),
        json!({"models": "1/2", "free": "83Gi", "disk": "Usable", "lastScrub": "1970-01-01T00:00:07Z"})
    );
    let second = status(&first, &spec, "b", &BTreeMap::new(), scrubbed(Some(at(5)), 1 << 40));
    assert_eq!(
        json!(second.summary),
        json!({"models": "1/2", "free": "83Gi", "disk": "Usable", "lastScrub": "1970-01-01T00:00:05Z"})
    );
    let problem = Problem::new("DiskFull", "full");
    let full = disk(&DiskView { problem: Some(&problem), ..DiskView::default() });
    let third = status(&second, &spec, "b", &BTreeMap::new(), full);
    assert_eq!(json!(third.summary), json!({"models": "1/2", "free": "83Gi", "disk": "DiskFull"}));
    assert_eq!(third.without_ours().summary, None);
}
