use serde_json::{Value, json};

use super::*;
use crate::plan::pass::Problem;
use crate::plan::pass::world::{M, WHOLE, World, job, ns_entry, of_ns, root, world};
use crate::plan::samples::{at, entry, entry_of, from};

/// A node that KServe's agent left with this entry said to be downloaded.
fn taken_over(entries: Vec<crate::api::ModelEntry>) -> World {
    let mut world = World { entries, ..world() };
    for entry in &world.entries {
        world.vouched.insert(entry.status_key());
        let said = (ModelStatus::ModelDownloaded, ModelDetail::default());
        world.before.insert(entry.status_key(), said);
    }
    world
}

fn theirs(copy: CopyKey, phase: JobPhase) -> JobView {
    JobView { copy, own: false, kserve: true, ..job("theirs", phase) }
}

fn succeeded() -> JobPhase {
    JobPhase::Succeeded(at(9_500))
}

fn local(managed: &Value) -> LocalModelNode {
    from(json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode",
        "metadata": {"name": "n", "managedFields": managed},
        "spec": {"localModels": []},
        "status": {"modelStatus": {"m": "ModelDownloaded", "ns/m": "ModelDownloaded", "p": "ModelDownloading"}},
    }))
}

fn fields(manager: &str, keys: &[&str]) -> Value {
    let keys: serde_json::Map<_, _> = keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect();
    json!({"manager": manager, "operation": "Update", "subresource": "status", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {"f:modelStatus": keys}}})
}

#[test]
fn kserve_vouches_for_what_it_called_downloaded_and_our_agents_have_not_spoken_of_since() {
    let vouched = |managed: Value| vouched(&local(&managed)).into_iter().collect::<Vec<_>>();
    assert_eq!(vouched(json!([fields("manager", &["m", "ns/m", "p"])])), ["m", "ns/m"]);
    assert_eq!(vouched(json!([fields("manager", &["ns/m"]), fields(MANAGER, &["m", "p"])])), ["ns/m"]);
    assert_eq!(vouched(json!([fields(MANAGER, &["m", "ns/m"])])), Vec::<String>::new());
    assert_eq!(vouched(json!([])), Vec::<String>::new(), "who wrote it is not known");
}

#[test]
fn a_copy_without_manifest_is_adopted_where_kserve_put_it_and_stays_downloaded_meanwhile() {
    let bare = taken_over(world().entries).model(Folder::Bare);
    let outcome = bare.pass();
    assert_eq!(outcome.actions, [Action::AdoptModel(root())]);
    assert_eq!(outcome.status, bare.before);
    let whole = bare.model(WHOLE).pass();
    assert_eq!((whole.actions, whole.status[M].0), (vec![], ModelStatus::ModelDownloaded));
    for empty in [Folder::Empty, Folder::Damaged] {
        let actions = taken_over(world().entries).model(empty).pass().actions;
        assert_eq!(actions, [Action::Download(root())], "{empty:?}");
    }
    assert_eq!(
        world().model(Folder::Bare).pass().actions,
        [Action::Download(root())],
        "nobody vouches for it"
    );
}

#[test]
fn a_manifest_that_came_with_kserves_download_makes_no_copy_complete() {
    let mut planted = taken_over(world().entries).model(WHOLE);
    planted.disk.sealed.clear();
    let outcome = planted.pass();
    assert_eq!(outcome.actions, [Action::AdoptModel(root())]);
    assert_eq!(outcome.status, planted.before);
    planted.unadoptable.insert(root(), Problem::new("UnsafeFileName", "it holds a link"));
    planted.disk.models.insert(root(), Folder::Bare);
    assert_eq!(planted.pass().actions, [Action::Download(root())], "a copy of its own takes its place");
}

#[test]
fn a_job_of_kserves_is_waited_for_and_what_it_wrote_counts_when_it_has_succeeded() {
    let running = world().model(Folder::Bare).job(theirs(root(), JobPhase::Running)).pass();
    assert_eq!((running.actions, running.status[M].0), (vec![], ModelStatus::ModelDownloading));
    let done = world().model(Folder::Bare).job(theirs(root(), succeeded())).pass();
    assert_eq!(
        (done.actions, done.status[M].0),
        (vec![Action::AdoptModel(root())], ModelStatus::ModelDownloading)
    );
    let nothing = world().job(theirs(root(), succeeded())).pass();
    assert_eq!(nothing.actions, [Action::Download(root())], "it wrote nothing here");
    let failed = JobPhase::Failed(at(9_500), Problem::new("Gated", "accept the licence"));
    let failed = world().model(Folder::Bare).job(theirs(root(), failed)).pass();
    assert_eq!(failed.actions, [Action::Download(root())]);
}

#[test]
fn no_step_is_taken_while_a_job_may_write_the_copy_and_jobs_of_other_copies_hold_up_nothing() {
    let begun = || taken_over(vec![ns_entry()]).model(Folder::Bare);
    let ours = JobView { copy: of_ns(), ..job("ours", JobPhase::Running) };
    assert_eq!(begun().job(ours).pass().actions, [Action::Keep(root().key)]);
    let mut another = begun();
    another.entries.push(entry_of("another", "hf://o/another"));
    let copy = CopyKey::of(&another.entries[1]);
    another = another.job(theirs(copy, JobPhase::Running));
    let steps = [Action::Keep(root().key), Action::AdoptModel(root())];
    assert_eq!(another.pass().actions, steps);
}

#[test]
fn only_what_serves_is_said_to_be_downloaded_while_its_books_are_put_right() {
    let lost = taken_over(world().entries).incoming(WHOLE).pass();
    assert_eq!(lost.actions, [Action::Place(root())]);
    assert_eq!(lost.status[M].0, ModelStatus::ModelDownloading, "its folder is gone");
    let trouble = json!({"reason": "Gated", "message": "accept the licence"});
    let told = world().said(ModelStatus::ModelDownloadError, trouble).model(Folder::Bare);
    let adopted = told.job(theirs(root(), succeeded())).pass();
    assert_eq!(adopted.actions, [Action::AdoptModel(root())]);
    assert_eq!(adopted.status[M], (ModelStatus::ModelDownloading, ModelDetail::default()));
}

#[test]
fn a_namespaces_copy_is_linked_from_the_root_step_by_step_and_nothing_is_downloaded() {
    let mut world = taken_over(vec![ns_entry()]).model(Folder::Bare);
    assert_eq!(world.pass().actions, [Action::Keep(root().key), Action::AdoptModel(root())]);
    world.disk.kept.insert(root().key);
    world = world.model(WHOLE);
    assert_eq!(world.pass().actions, [Action::Link(of_ns())]);
    world.disk.incoming.insert(of_ns(), Folder::Damaged);
    assert_eq!(world.pass().actions, [Action::Link(of_ns())], "an earlier try was cut short");
    world.disk.incoming.insert(of_ns(), WHOLE);
    assert_eq!(world.pass().actions, [Action::Place(of_ns())]);
    assert_eq!(world.pass().status, world.before, "its status never changes");
    world.disk.incoming.clear();
    world.disk.models.insert(of_ns(), WHOLE);
    assert_eq!(world.pass().actions, []);
}

#[test]
fn a_namespaces_job_of_kserves_counts_for_that_namespace_and_leaves_when_its_result_is_taken() {
    let with =
        |phase| World { entries: vec![ns_entry()], ..world() }.model(WHOLE).job(theirs(of_ns(), phase));
    assert_eq!(with(JobPhase::Running).pass().actions, [], "the root is what it writes");
    let mut elsewhere = with(JobPhase::Running);
    elsewhere.jobs[0].copy.key = "another".into();
    let actions = elsewhere.pass().actions;
    let goes = Action::DeleteJob("theirs".into());
    let begins = [goes, Action::Download(of_ns()), Action::EraseModel(root())];
    assert_eq!(actions, begins, "a Job for another source writes another folder");
    let mut done = with(succeeded());
    assert_eq!(done.pass().actions, [Action::Keep(root().key), Action::Link(of_ns())]);
    done.disk.kept.insert(root().key);
    done.disk.models.insert(of_ns(), WHOLE);
    assert_eq!(done.pass().actions, [Action::DeleteJob("theirs".into())]);
    let mut nothing = with(succeeded());
    nothing.disk.models.clear();
    let actions = nothing.pass().actions;
    assert_eq!(actions, [Action::Download(of_ns()), Action::DeleteJob("theirs".into())]);
}

#[test]
fn a_job_of_kserves_stays_until_its_result_is_taken_and_no_other_job_goes_with_it() {
    let with = |job: JobView| {
        let mut world = World { entries: vec![entry(), ns_entry()], ..world() }.model(WHOLE).job(job);
        world.disk.models.insert(of_ns(), WHOLE);
        world
    };
    let taken = with(theirs(of_ns(), succeeded()));
    let goes = Action::DeleteJob("theirs".into());
    assert_eq!(taken.pass().actions, [Action::Keep(root().key), goes.clone()]);
    for other in [
        theirs(root(), succeeded()),
        theirs(of_ns(), JobPhase::Running),
        JobView { deleting: true, ..theirs(of_ns(), succeeded()) },
        JobView { copy: of_ns(), ..job("ours", succeeded()) },
    ] {
        assert_eq!(with(other.clone()).pass().actions, [], "{other:?}");
    }

    let mut bare = with(theirs(of_ns(), succeeded())).model(Folder::Bare);
    bare.entries.remove(0);
    bare.disk.models.remove(&of_ns());
    let adopts = Action::AdoptModel(root());
    assert_eq!(bare.pass().actions, [Action::Keep(root().key), adopts], "its result is yet to be taken");

    let mut another = taken;
    another.entries.push(entry_of("another", "hf://o/another"));
    another.vouched.insert("another".into());
    let copy = CopyKey::of(&another.entries[2]);
    another.disk.models.insert(copy.clone(), Folder::Bare);
    let actions = another.pass().actions;
    assert!(actions.contains(&goes) && actions.contains(&Action::AdoptModel(copy)), "{actions:?}");
}

#[test]
fn a_copy_of_the_root_is_never_given_to_a_namespace_that_kserve_had_not_given_it_to() {
    let other = CopyKey { namespace: Some("other".into()), ..of_ns() };
    let mut entry = ns_entry();
    entry.namespace = Some("other".into());
    let mut world = taken_over(vec![ns_entry()]).model(WHOLE);
    world.entries.push(entry);
    world.disk.kept.insert(root().key);
    assert_eq!(world.pass().actions, [Action::Link(of_ns()), Action::Download(other)]);
}

#[test]
fn the_root_keeps_what_pods_of_namespace_caches_read_there_until_no_cache_has_its_source() {
    let mut world = World { entries: vec![ns_entry()], ..world() }.model(WHOLE);
    world.disk.models.insert(of_ns(), WHOLE);
    assert_eq!(world.pass().actions, [Action::EraseModel(root())], "a cluster cache's that is gone");
    world.disk.kept.insert(root().key);
    assert_eq!(world.pass().actions, []);
    let others = World { entries: vec![], other_groups: vec![ns_entry()], ..world.clone() };
    assert_eq!(others.pass().actions, [], "another group's namespace cache counts, too");
    let last = World { entries: vec![], ..world }.pass();
    assert_eq!(last.actions, [Action::EraseModel(root()), Action::EraseModel(of_ns())]);
}

#[test]
fn what_was_vouched_for_stays_so_while_the_disk_cannot_be_written() {
    let mut world = taken_over(vec![ns_entry()]).model(Folder::Bare);
    world.unwritable.insert(None, Problem::new("DiskNotWritable", "models/ cannot be written"));
    let outcome = world.pass();
    assert_eq!((outcome.actions, outcome.status), (vec![], world.before));
}

#[test]
fn a_claim_of_kserves_is_replaced_once_its_jobs_have_failed_or_are_gone() {
    let job = |name: &str, labels: Value, status: Value| -> Job {
        from(json!({"metadata": {"name": name, "labels": labels}, "status": status}))
    };
    let ended = |kind: &str| json!({"conditions": [{"type": kind, "status": "True"}]});
    let waits = |labels: Value, status: Value| replacing_waits_for(&[job("j", labels, status)]);
    let kserves = || json!({"model": "m"});
    assert_eq!(waits(kserves(), json!({})).as_deref(), Some("j"));
    assert_eq!(
        waits(kserves(), ended("Complete")).as_deref(),
        Some("j"),
        "an agent has yet to take its result"
    );
    assert_eq!(waits(kserves(), ended("Failed")), None);
    assert_eq!(waits(json!({"app.kubernetes.io/managed-by": MANAGER}), json!({})), None);
    assert_eq!(replacing_waits_for(&[]), None);
}

#[test]
fn pods_that_read_a_kept_copy_in_the_root_find_their_gate_there() {
    let mut world = taken_over(vec![ns_entry()]).model(WHOLE);
    world.disk.models.insert(of_ns(), WHOLE);
    world.disk.gates.insert(root());
    assert_eq!(world.pass().gates.keys().collect::<Vec<_>>(), [&of_ns()], "nobody keeps it there");
    world.disk.kept.insert(root().key);
    let kept = world.pass();
    assert_eq!(kept.gates[&root()].phase, ModelStatus::ModelDownloaded);
    assert_eq!(kept.actions, [], "its gate is not erased");

    let damaged = world.clone().model(Folder::Damaged).pass();
    let told = &damaged.gates[&root()];
    assert_eq!(told.reason.as_deref(), Some("KServesCopyDamaged"));
    assert!(told.message.as_ref().unwrap().contains(&format!("models/{}", root().key)), "{told:?}");
    assert_eq!(damaged.gates[&of_ns()].phase, ModelStatus::ModelDownloaded);

    // A cluster cache of the same source speaks for the root itself, also where it is another group's.
    world.other_groups = crate::plan::pass::world::world().entries;
    assert_eq!(world.pass().gates.keys().collect::<Vec<_>>(), [&of_ns()]);
}
