use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::*;
use crate::plan::conditions::READY;
use crate::plan::samples::{at, cache_sized, from, group_limited};

fn local(name: &str, entries: &serde_json::Value) -> LocalModelNode {
    from(json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode",
        "metadata": {"name": name}, "spec": {"localModels": entries},
    }))
}

fn entry(name: &str, group: Option<&str>) -> serde_json::Value {
    json!({"modelName": name, "sourceModelUri": format!("hf://o/{name}"), "nodeGroup": group})
}

fn said(limit: &str, usage: &[(&str, i128)], problems: &[Statement]) -> LocalModelNodeGroupStatus {
    let usage = usage.iter().map(|(node, used)| ((*node).to_owned(), *used)).collect();
    let group = group_limited(limit);
    status(&View {
        group: &group,
        usage: &usage,
        disks: None,
        problems: problems.to_vec(),
        stuck: &BTreeMap::new(),
        now: at(1_700_000_000),
    })
}

/// The status's `used` and `available`, and its conditions' types, reasons of `Ready` instead.
fn brief<'a>(status: &'a LocalModelNodeGroupStatus) -> (Option<&'a str>, Option<&'a str>, Vec<&'a str>) {
    let kinds = status.conditions.iter().map(|c| if c.type_ == READY { &*c.reason } else { &*c.type_ });
    let text = |quantity: &'a Option<Quantity>| quantity.as_ref().map(|quantity| quantity.0.as_str());
    (text(&status.used), text(&status.available), kinds.collect())
}

#[test]
fn each_nodes_list_is_summed_up_by_group_and_what_is_about_to_go_does_not_count() {
    let caches = [cache_sized("a", "4", 1), cache_sized("b", "6", 2)];
    let caches: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
    let nodes = [
        local("one", &json!([entry("a", None), entry("b", Some("other")), entry("gone", None)])),
        local("two", &json!([entry("a", Some("workers")), entry("b", None)])),
        local("three", &json!([])),
    ];
    let nodes: Vec<&LocalModelNode> = nodes.iter().collect();
    let of = |group: &str| usage(group, &nodes, &caches);
    assert_eq!(of("workers"), Usage::from([("one".into(), 4), ("two".into(), 10)]));
    assert_eq!(of("other"), Usage::from([("one".into(), 6)]));
    assert_eq!(of("none"), Usage::new());
}

#[test]
fn the_status_holds_the_bytes_on_the_fullest_node_and_what_is_left_there() {
    let gi = |n: i128| n << 30;
    let status = said("100Gi", &[("one", gi(10)), ("two", gi(30))], &[]);
    assert_eq!(brief(&status), (Some("30Gi"), Some("70Gi"), vec!["AgentsApplied"]));
    assert_eq!(brief(&said("1T", &[], &[])), (Some("0"), Some("1T"), vec!["AgentsApplied"]));
}

#[test]
fn a_limit_that_is_exceeded_is_a_condition_beside_ready() {
    let status = said("10", &[("one", 12), ("two", 10), ("three", 13)], &[]);
    assert_eq!(brief(&status), (Some("13"), Some("0"), vec!["AgentsApplied", STORAGE_LIMIT_EXCEEDED]));
    let message = &status.conditions[1].message;
    assert!(message.contains("12 on one, 13 on three") && !message.contains("two"), "{message}");
}

#[test]
fn a_limit_that_cannot_be_read_stands_in_ready_and_leaves_no_number_of_what_is_available() {
    let status = said("much", &[("one", 12)], &[]);
    assert_eq!(brief(&status), (Some("12"), None, vec![INVALID_STORAGE_LIMIT, INVALID_STORAGE_LIMIT]));
    let problem = Statement::problem("NoPath", "no path");
    assert_eq!(brief(&said("1", &[], &[problem])).2, ["NoPath", "NoPath"]);
}

#[test]
fn the_same_look_at_a_later_time_changes_nothing() {
    let mut group = group_limited("10");
    let usage = Usage::from([("one".into(), 12)]);
    let look = |group: &LocalModelNodeGroup, second| {
        let (problems, stuck) = (Vec::new(), &BTreeMap::new());
        status(&View { group, usage: &usage, disks: None, problems, stuck, now: at(second) })
    };
    group.status = Some(look(&group, 1_700_000_000));
    assert_eq!(Some(look(&group, 1_800_000_000)), group.status);
}

#[test]
fn the_status_of_a_group_that_was_taken_over_too_full_is_as_reviewed() {
    insta::assert_yaml_snapshot!(said("1700G", &[("kind-worker", 1_800_000_000_000)], &[]));
}

#[test]
fn a_disk_that_an_agent_cannot_use_is_a_condition_beside_ready_as_long_as_the_node_is_a_member() {
    let saying = |name: &str, groups: &str, disks: &serde_json::Value| -> LocalModelNode {
        let mut local = json!(local(name, &json!([])));
        local["metadata"]["annotations"] = json!({names::MEMBER_OF: groups});
        local["status"] = json!({"disks": disks});
        from(local)
    };
    let bad = json!({"workers": {"reason": "DiskNotWritable", "message": "models/ cannot be written"}});
    let good = json!({"workers": {"free": "10"}, "other": {"reason": "DiskFull"}});
    let nodes = [
        saying("two", "other,workers", &bad),
        saying("one", "workers", &bad),
        saying("well", "workers,other", &good),
        saying("left", "other", &bad),
    ];
    let nodes: Vec<&LocalModelNode> = nodes.iter().collect();
    let words = "on one: models/ cannot be written, on two: models/ cannot be written";
    assert_eq!(disks("workers", &nodes), Some(Statement::problem(DISK_UNUSABLE, words)));
    assert_eq!(disks("other", &nodes).unwrap().message, "on well: DiskFull");
    assert_eq!(disks("workers", &nodes[2..]), None);
    let (group, usage) = (group_limited("10"), Usage::new());
    let disks = disks("workers", &nodes);
    let status = status(&View {
        group: &group,
        usage: &usage,
        disks,
        problems: Vec::new(),
        stuck: &BTreeMap::new(),
        now: at(0),
    });
    assert_eq!(brief(&status).2, [DISK_UNUSABLE, "AgentsApplied"]);
}
