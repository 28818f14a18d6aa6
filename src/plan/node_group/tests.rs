use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::*;
use crate::plan::conditions::READY;
use crate::plan::samples::{at, cache_sized, from, group_limited, node, not_ready};

fn local(name: &str, entries: &serde_json::Value) -> LocalModelNode {
    from(json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode",
        "metadata": {"name": name}, "spec": {"localModels": entries},
    }))
}

fn entry(name: &str, group: Option<&str>) -> serde_json::Value {
    json!({"modelName": name, "sourceModelUri": format!("hf://o/{name}"), "nodeGroup": group})
}

/// A node of the group `workers`, whose agent runs, and what that says of its disk.
fn member(name: &str, disk: &serde_json::Value) -> (Node, LocalModelNode) {
    let mut local = json!(local(name, &json!([])));
    local["metadata"]["annotations"] = json!({names::MEMBER_OF: "workers"});
    local["status"] = if disk.is_null() { json!({}) } else { json!({"disks": {"workers": disk}}) };
    (node(name), from(local))
}

fn look(
    group: &LocalModelNodeGroup,
    members: &[(Node, LocalModelNode)],
    usage: &[(&str, i128)],
    problems: &[Statement],
    agents: &Stuck,
) -> LocalModelNodeGroupStatus {
    let usage = usage.iter().map(|(node, used)| ((*node).to_owned(), *used)).collect();
    let locals: Vec<&LocalModelNode> = members.iter().map(|(_, local)| local).collect();
    status(&View {
        group,
        nodes: &members.iter().map(|(node, _)| node).collect::<Vec<_>>(),
        usage: &usage,
        disks: &disks("workers", &locals),
        problems: problems.to_vec(),
        agents,
        now: at(1_700_000_000),
    })
}

fn said(limit: &str, usage: &[(&str, i128)], problems: &[Statement]) -> LocalModelNodeGroupStatus {
    let members = [member("one", &json!({}))];
    look(&group_limited(limit), &members, usage, problems, &Stuck::default())
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
    assert!(message.contains("12 B on one, 13 B on three") && !message.contains("two"), "{message}");
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
        let (problems, agents, disks) = (Vec::new(), &Stuck::default(), &Disks::default());
        status(&View { group, nodes: &[], usage: &usage, disks, problems, agents, now: at(second) })
    };
    group.status = Some(look(&group, 1_700_000_000));
    assert_eq!(Some(look(&group, 1_800_000_000)), group.status);
}

#[test]
fn a_group_is_ready_when_every_agent_on_a_node_that_is_ready_has_said_that_it_can_use_its_disk() {
    let group = group_limited("10");
    let ready = |members: &[(Node, LocalModelNode)], agents: &Stuck| {
        let status = look(&group, members, &[], &[], agents);
        let ready = status.conditions.into_iter().find(|c| c.type_ == READY).unwrap();
        (ready.status, ready.reason, ready.message)
    };
    let expect = |got: (String, String, String), status: &str, reason: &str, words: &str| {
        assert_eq!((got.0.as_str(), got.1.as_str()), (status, reason), "{}", got.2);
        assert!(got.2.contains(words), "{}", got.2);
    };
    let well = || member("one", &json!({"free": "10"}));
    let bad = || member("two", &json!({"reason": "DiskNotWritable", "message": "/models cannot be written"}));
    let silent = || member("two", &json!(null));
    let down = |(node, local): (Node, LocalModelNode)| (not_ready(node), local);
    let none = Stuck::default();
    let stuck = Stuck {
        agents: BTreeMap::from([("two".into(), "FailedMount: path \"/models\" does not exist".into())]),
        ..Stuck::default()
    };
    let starting = Stuck { starting: BTreeSet::from(["one".into()]), ..Stuck::default() };
    expect(ready(&[well()], &none), "True", "AgentsApplied", "up to date");
    expect(ready(&[well(), bad()], &none), "False", DISK_UNUSABLE, "on two: /models cannot be written");
    expect(ready(&[well(), down(bad())], &none), "True", "AgentsApplied", "");
    expect(ready(&[well(), silent()], &none), "False", "AgentsStarting", "on two have not");
    expect(ready(&[well(), down(silent())], &none), "True", "AgentsApplied", "");
    expect(ready(&[well()], &starting), "False", "AgentsStarting", "on one have not");
    expect(ready(&[well(), silent()], &stuck), "False", "AgentNotRunning", "does not exist");
    expect(ready(&[down(well())], &none), "False", "NodeNotReady", "all nodes");
    expect(ready(&[], &none), "False", "NoNodes", "no node matches");
}

#[test]
fn a_limit_above_what_a_disk_holds_is_told_and_no_more_is_available_than_is_free() {
    let gi = |n: i128| (n << 30).to_string();
    let small = member("small", &json!({"capacity": gi(40), "free": gi(9)}));
    let large = member("large", &json!({"capacity": gi(200), "free": gi(150)}));
    let full =
        member("full", &json!({"capacity": gi(200), "free": gi(9), "reason": "DiskFull", "message": "full"}));
    let of = |members: &[(Node, LocalModelNode)]| {
        look(&group_limited("100Gi"), members, &[("small", 1 << 30)], &[], &Stuck::default())
    };
    let status = of(&[small, large.clone()]);
    assert_eq!(brief(&status), (Some("1Gi"), Some("9Gi"), vec!["AgentsApplied", STORAGE_LIMIT_TOO_LARGE]));
    let words = "storageLimit is 100Gi, but the disk is smaller: 40 GiB on small; lower storageLimit to what the disks hold";
    assert_eq!(status.conditions[1].message, words);
    assert_eq!(brief(&of(std::slice::from_ref(&large))).1, Some("99Gi"));
    assert_eq!(brief(&of(&[large, full])).1, Some("0"));
}

#[test]
fn the_status_of_a_group_that_was_taken_over_too_full_is_as_reviewed() {
    insta::assert_yaml_snapshot!(said("1700G", &[("kind-worker", 1_800_000_000_000)], &[]));
}

#[test]
fn a_disk_that_an_agent_cannot_use_is_a_condition_as_long_as_the_node_is_a_member() {
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
    let ready = BTreeSet::from(["one", "two", "well", "left"].map(String::from));
    let told = |group: &str, nodes: &[&LocalModelNode]| disks(group, nodes).unusable(&ready);
    let words = "on one: models/ cannot be written, on two: models/ cannot be written";
    assert_eq!(told("workers", &nodes), Some(Statement::problem(DISK_UNUSABLE, words)));
    assert_eq!(told("other", &nodes).unwrap().message, "on well: DiskFull");
    assert_eq!(told("workers", &nodes[2..]), None);
}
