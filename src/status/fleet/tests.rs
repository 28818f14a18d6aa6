use serde_json::json;

use super::State::{Complete, Downloading, Failed, NodeNotReady, Waiting};
use super::*;
use crate::status::samples::{self, from, now};

fn seen() -> Seen {
    let caches = samples::caches().into_iter().chain(samples::namespace_caches());
    Seen {
        caches: caches.map(from).collect(),
        groups: samples::groups().into_iter().map(from).collect(),
        nodes: samples::nodes().into_iter().map(from).collect(),
        ..Seen::default()
    }
}

fn of(seen: &Seen) -> Fleet {
    fleet(seen, &History::default(), now())
}

#[test]
fn what_is_worst_comes_first() {
    let fleet = of(&seen());
    let names: Vec<String> = fleet.caches.iter().map(|cache| cache.key().to_string()).collect();
    assert_eq!(names, ["mixtral-8x7b-instruct", "falcon-180b", "qwen3-4b", "llama3-8b", "search/reranker"]);
    let states: Vec<State> = fleet.caches[0].nodes.iter().map(|copy| copy.state).collect();
    assert_eq!(states, [Failed, Waiting, NodeNotReady, Downloading, Complete]);
    assert_eq!(fleet.node_groups[0].name, "archive", "a group whose agents cannot run");
}

#[test]
fn a_download_has_a_pace_and_a_time_left() {
    let fleet = of(&seen());
    let mixtral = &fleet.caches[0];
    // 56 GiB in 100 s, 31 GiB are left.
    assert_eq!(mixtral.bytes_per_second, Some((56 << 30) / 100));
    assert_eq!(mixtral.seconds_left, Some(56));
}

#[test]
fn copies_that_no_node_has_measured_count_as_large_as_the_others() {
    let fleet = of(&seen());
    let mixtral = &fleet.caches[0];
    assert_eq!(mixtral.bytes_total, (5 * 87) << 30);
    assert_eq!(mixtral.bytes_done, (56 + 87) << 30);
}

#[test]
fn one_reason_of_many_copies_is_told_once() {
    let told = |node: &str| {
        (node.to_owned(), samples::with_reason("NodeDownloadError", "RepositoryGated", samples::GATED))
    };
    let copies: Vec<_> = ["a", "b", "c"].iter().map(|node| told(node)).collect();
    let copies: Vec<_> = copies.iter().map(|(node, copy)| (node.as_str(), copy.clone())).collect();
    let caches = ["m", "n"].map(|name| from(samples::cache(name, "1Gi", &copies, &[])));
    let fleet = of(&Seen { caches: caches.into(), ..Seen::default() });
    assert_eq!(fleet.reasons.len(), 1);
    let why = &fleet.reasons[0];
    assert_eq!((why.copies, why.caches.len(), why.nodes.len()), (6, 2, 3));
    assert_eq!(why.message.as_deref(), Some(samples::GATED));
}

#[test]
fn a_condition_that_names_a_problem_is_told_and_one_that_sums_up_is_not() {
    let conditions = [
        samples::condition("Ready", "False", "Downloading", "0 of 1"),
        samples::condition("Progressing", "True", "Downloading", "0 of 1"),
        samples::condition("Degraded", "True", "NameConflict", "a volume"),
        samples::condition("NameConflict", "True", "NameConflict", "a volume"),
    ];
    let cache = from(samples::cache("m", "1Gi", &[("a", samples::downloading(0, 9))], &conditions));
    let view = view(&cache, &History::default(), now());
    let reasons: Vec<&str> = view.problems.iter().map(|problem| problem.reason.as_str()).collect();
    assert_eq!(reasons, ["NameConflict"]);
}

#[test]
fn a_cache_with_one_of_its_nodes_down_is_warm() {
    let nodes = [
        ("a", samples::complete(1)),
        ("b", samples::with_reason("NodeNotReady", "NodeNotReady", "node is NotReady")),
    ];
    for conditions in [vec![samples::condition("Ready", "True", "Available", "1/2 copies available")], vec![]]
    {
        let view = view(&from(samples::cache("m", "1Gi", &nodes, &conditions)), &History::default(), now());
        assert_eq!((view.warm, view.state), (true, NodeNotReady));
    }
    let down = [nodes[1].clone()];
    assert!(!view(&from(samples::cache("m", "1Gi", &down, &[])), &History::default(), now()).warm);
}

#[test]
fn one_cause_is_told_once_with_the_names_of_all_that_it_holds_back() {
    let stuck = samples::with_reason("NodeDownloadPending", "AgentNotRunning", "the agent of g does not run");
    let condition =
        samples::condition("AgentNotRunning", "True", "AgentNotRunning", "the agent of g does not run on a");
    let caches = ["m", "n", "o", "p"].map(|name| {
        from(samples::cache(name, "1Gi", &[("a", stuck.clone())], std::slice::from_ref(&condition)))
    });
    let fleet = of(&Seen { caches: caches.into(), ..Seen::default() });
    assert_eq!(fleet.reasons.len(), 1, "{:?}", fleet.reasons);
    assert_eq!((fleet.reasons[0].copies, fleet.reasons[0].caches.len()), (4, 4));
    let lines = crate::status::draw::fleet(&fleet, 80);
    let text = crate::status::text::print(
        &lines,
        crate::status::text::Look { width: 80, height: None, colour: false },
    );
    assert!(text.contains("AgentNotRunning  4 copies waiting: m, n, o, p on a"), "{text}");
}

#[test]
fn on_kserves_own_definitions_phases_are_all_there_is() {
    let caches = samples::caches().into_iter().map(samples::pruned).map(from).collect();
    let fleet = of(&Seen { caches, ..Seen::default() });
    let mixtral = &fleet.caches[0];
    let expected = Counts { failed: 1, waiting: 1, node_not_ready: 1, downloading: 1, complete: 1, total: 5 };
    assert_eq!(mixtral.copies, expected);
    assert!((mixtral.part() - 0.2).abs() < 1e-9, "one of five, each as large as the cache asks for");
    let falcon = fleet.caches.iter().find(|cache| cache.name == "falcon-180b").unwrap();
    assert_eq!((falcon.state, falcon.problems[0].reason.as_str()), (State::Blocked, "NoNodes"));
}

#[test]
fn a_status_that_names_no_nodes_is_counted_by_its_sums() {
    let status = json!({"copies": {"available": 3, "total": 5, "failed": 1}});
    let cache = from(json!({"metadata": {"name": "m"}, "spec": {"modelSize": "1Gi"}, "status": status}));
    let view = view(&cache, &History::default(), now());
    assert_eq!(view.copies, Counts { failed: 1, waiting: 1, complete: 3, total: 5, ..Counts::default() });
    assert_eq!(view.state, Failed);
}

#[test]
fn a_cache_without_a_status_or_a_readable_size_is_shown_all_the_same() {
    for cache in [json!({}), json!({"metadata": {"name": "m"}, "spec": {"modelSize": "ten"}})] {
        let view = view(&from(cache), &History::default(), now());
        assert_eq!((view.state, view.warm, view.bytes_total), (State::Blocked, false, 0));
    }
}

#[test]
fn a_disk_that_cannot_be_used_is_told_and_others_are_not() {
    let fleet = of(&seen());
    assert_eq!(fleet.disks.len(), 1);
    assert_eq!((fleet.disks[0].node.as_str(), fleet.disks[0].reason.as_str()), ("gpu-f", "DiskNotWritable"));
}

#[test]
fn a_signature_in_a_source_is_not_shown() {
    let mut cache = samples::cache("m", "1Gi", &[], &[]);
    cache["spec"]["sourceModelUri"] = json!("https://host/m?sig=secret");
    let fleet = of(&Seen { caches: vec![from(cache)], ..Seen::default() });
    let shown = serde_json::to_string(&fleet).unwrap();
    assert!(shown.contains("\"https://host/m\"") && !shown.contains("secret"), "{shown}");
}
