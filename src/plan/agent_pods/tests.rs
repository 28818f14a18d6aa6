use serde_json::json;

use super::*;
use crate::plan::samples::{at, from, group_named, labelled_node};

const PATH: &str = "MountVolume.NewMounter initialization failed: path \"/models\" does not exist";

/// A pod that the group's `DaemonSet` made for the node.
fn pod(node: &str, status: &serde_json::Value) -> Pod {
    from(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "uid": format!("{node}-pod"), "labels": {(names::NODE_GROUP): "g"}},
        "spec": {"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}],
        }}}},
        "status": status,
    }))
}

fn event(of: &str, second: i64, message: &str) -> Event {
    from(json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Warning", "reason": "FailedMount",
        "involvedObject": {"uid": of}, "message": message,
        "lastTimestamp": Timestamp::from_second(second).unwrap(),
    }))
}

fn member(name: &str, taints: &serde_json::Value) -> Node {
    let mut node = labelled_node(name, &json!({"group": "g"}));
    node.spec = from(json!({"taints": taints}));
    node
}

/// Why the agent of group g on node n does not run.
fn why(
    pods: &[Pod],
    events: &[Event],
    taints: &serde_json::Value,
    tolerations: &[Toleration],
) -> Option<String> {
    let node = member("n", taints);
    let view = View {
        pods: &pods.iter().collect::<Vec<_>>(),
        events: &events.iter().collect::<Vec<_>>(),
        tolerations,
        now: at(100),
    };
    let mut stuck = stuck(&group_named("g"), &[&node], &view);
    let why = stuck.agents.remove("n");
    assert_eq!(stuck.starting.contains("n"), why.is_none(), "what has not said that it is ready is starting");
    assert_eq!((stuck.agents.len(), stuck.settled), (0, None));
    why
}

fn waiting(reason: &str, message: Option<&str>) -> serde_json::Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "agent", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}]})
}

#[test]
fn an_agent_that_runs_or_takes_its_usual_moments_is_not_told_of() {
    let running = json!({"phase": "Running", "containerStatuses": [{"name": "agent", "image": "", "imageID": "",
        "ready": true, "restartCount": 0, "state": {"running": {}}}]});
    let starting = json!({"phase": "Pending", "conditions": [
        {"type": "Initialized", "status": "False", "message": "containers with incomplete status"},
        {"type": "PodScheduled", "status": "True"}]});
    for status in [running, starting, waiting("ContainerCreating", None), json!({"phase": "Pending"})] {
        // An old word about its volume does not count once it runs; nor does one about another pod.
        let events = [event("another-pod", 1, PATH)];
        assert_eq!(why(&[pod("n", &status)], &events, &json!([]), &[]), None, "{status}");
    }
    assert_eq!(why(&[], &[], &json!([]), &[]), None, "its DaemonSet is about to make it");
}

#[test]
fn only_a_pod_that_says_so_is_ready() {
    let starting = |ready: &str| {
        let pod = pod("n", &json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}));
        let view = View { pods: &[&pod], events: &[], tolerations: &[], now: at(100) };
        stuck(&group_named("g"), &[&member("n", &json!([]))], &view).starting.len()
    };
    assert_eq!((starting("True"), starting("False"), starting("Unknown")), (0, 1, 1));
}

#[test]
fn a_missing_path_is_told_in_the_newest_words_of_the_kubelet() {
    let creating = [pod("n", &waiting("ContainerCreating", None))];
    let events = [event("n-pod", 2, PATH), event("n-pod", 1, "something older")];
    assert_eq!(why(&creating, &events, &json!([]), &[]), Some(format!("FailedMount: {PATH}")));
}

#[test]
fn an_image_that_cannot_be_pulled_and_a_node_without_room_are_told() {
    let status = waiting("ImagePullBackOff", Some("Back-off pulling image \"x\""));
    let told = why(&[pod("n", &status)], &[], &json!([]), &[]);
    assert_eq!(told.as_deref(), Some("ImagePullBackOff: Back-off pulling image \"x\""));
    for (reason, message) in [
        ("ErrImagePull", "x: not found"),
        ("ImagePullBackOff", "Back-off pulling image \"x\": ErrImagePull: x: not found"),
    ] {
        let told = why(&[pod("n", &waiting(reason, Some(message)))], &[], &json!([]), &[]);
        assert_eq!(told.as_deref(), Some("ImagePullBackOff: x: not found"), "one cause, one text");
    }
    let status = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/3 nodes are available: 1 Insufficient cpu."}]});
    let told = why(&[pod("n", &status)], &[], &json!([]), &[]);
    let words = "its pod cannot be scheduled: 0/3 nodes are available: 1 Insufficient cpu.";
    assert_eq!(told.as_deref(), Some(words));
}

#[test]
fn a_pod_that_the_kubelet_gave_up_is_told_in_its_words_if_there_are_any() {
    let evicted = json!({"phase": "Failed", "message": "The node was low on resource: memory."});
    let told = why(&[pod("n", &evicted)], &[], &json!([]), &[]);
    assert_eq!(told.as_deref(), Some("The node was low on resource: memory."));
    let told = why(&[pod("n", &json!({"phase": "Failed"}))], &[], &json!([]), &[]);
    assert_eq!(told.as_deref(), Some("its pod failed"));
}

#[test]
fn a_pod_is_of_the_node_that_it_must_run_on_and_not_of_one_that_it_must_avoid() {
    let status = waiting("ImagePullBackOff", None);
    let mut elsewhere = serde_json::to_value(pod("n", &status)).unwrap();
    let fields = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields";
    *elsewhere.pointer_mut(fields).unwrap() =
        json!([{"key": "metadata.name", "operator": "NotIn", "values": ["n"]}]);
    assert_eq!(why(&[from(elsewhere)], &[], &json!([]), &[]), None);
    assert_eq!(why(&[pod("n", &status)], &[], &json!([]), &[]).as_deref(), Some("ImagePullBackOff"));
}

#[test]
fn a_pod_that_waits_for_a_node_is_told_of_when_its_volumes_have_had_their_time() {
    let since = |second: i64| {
        let status = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "lastTransitionTime": at(second), "message": "pod has unbound immediate PersistentVolumeClaims"}]});
        let (pod, node) = (pod("n", &status), member("n", &json!([])));
        let view = View { pods: &[&pod], events: &[], tolerations: &[], now: at(100) };
        stuck(&group_named("g"), &[&node], &view)
    };
    let starting = BTreeSet::from(["n".to_owned()]);
    assert_eq!(since(91), Stuck { settled: Some(at(101)), starting, ..Stuck::default() });
    assert!(since(90).agents["n"].contains("unbound"), "{:?}", since(90));
    assert_eq!(since(90).settled, None);
}

#[test]
fn what_kept_a_pod_from_its_node_or_its_probe_from_an_answer_is_not_why_it_does_not_run() {
    let creating = [pod("n", &waiting("ContainerCreating", None))];
    for reason in ["FailedScheduling", "Unhealthy"] {
        let past = Event { reason: Some(reason.into()), ..event("n-pod", 1, "words") };
        assert_eq!(why(&creating, &[past], &json!([]), &[]), None, "{reason}");
    }
}

#[test]
fn a_taint_that_is_not_tolerated_keeps_the_agent_away() {
    let taint = json!([{"key": "team", "value": "x", "effect": "NoSchedule"}]);
    let told = why(&[], &[], &taint, &[]).unwrap();
    assert!(told.contains("team=x:NoSchedule") && told.contains("localModelAgentPod.tolerations"), "{told}");
    for toleration in [
        json!({"operator": "Exists"}),
        json!({"key": "team", "operator": "Exists", "effect": "NoSchedule"}),
        json!({"key": "team", "value": "x"}),
    ] {
        assert_eq!(why(&[], &[], &taint, &[from(toleration.clone())]), None, "{toleration}");
    }
    for toleration in [json!({"key": "team", "value": "y"}), json!({"key": "other", "operator": "Exists"})] {
        assert!(why(&[], &[], &taint, &[from(toleration.clone())]).is_some(), "{toleration}");
    }
    for harmless in [
        json!([{"key": "team", "effect": "PreferNoSchedule"}]),
        json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]),
    ] {
        assert_eq!(why(&[], &[], &harmless, &[]), None, "{harmless}");
    }
}

#[test]
fn a_group_tells_of_each_node_whose_agent_does_not_run() {
    let stuck = BTreeMap::from([("a".to_owned(), "no path".to_owned()), ("b".into(), "no image".into())]);
    let told = problem_of_group(&stuck).unwrap();
    assert_eq!((told.kind, &*told.message), (AGENT_NOT_RUNNING, "on a: no path, on b: no image"));
    assert_eq!(problem_of_group(&BTreeMap::new()), None);
}

#[test]
fn copies_that_wait_for_the_agent_say_so_and_those_that_are_there_do_not() {
    let copy = |phase| NodeCopy { phase, ..from(json!({"phase": "NodeDownloaded"})) };
    let mut nodes = BTreeMap::from([
        ("cold".to_owned(), copy(NodeStatus::NodeDownloadPending)),
        ("warm".to_owned(), copy(NodeStatus::NodeDownloaded)),
    ]);
    let why = ("g".to_owned(), "no path".to_owned());
    let stuck = BTreeMap::from([("cold".to_owned(), why.clone()), ("warm".to_owned(), why)]);
    let told = told_of_copies(&mut nodes, &stuck).unwrap();
    assert_eq!(
        (told.kind, &*told.message),
        (AGENT_NOT_RUNNING, "the agent of g does not run on cold: no path")
    );
    assert_eq!(nodes["cold"].reason.as_deref(), Some(AGENT_NOT_RUNNING));
    assert_eq!(nodes["warm"].reason, None);
    nodes.remove("cold");
    assert_eq!(told_of_copies(&mut nodes, &stuck), None);
}
