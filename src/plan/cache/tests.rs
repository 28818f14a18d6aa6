use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::api::LocalModelNode;
use crate::api::cache::NamespacedName;
use crate::plan::capacity::{self, Waiting};
use crate::plan::samples::{at, cache_sized, from, group_limited, node, not_ready};

mod events;

const M: &str = "meta-llama3-8b-instruct";

fn local(phase: &str, detail: &Value) -> LocalModelNode {
    from(json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode",
        "metadata": {"name": "kind-worker"}, "spec": {"localModels": []},
        "status": {"modelStatus": {M: phase}, "models": {M: detail}},
    }))
}

fn of(nodes: &[(Node, LocalModelNode)], problems: &[Statement], enabled: bool) -> CacheStatus {
    after(&CacheStatus::default(), nodes, problems, enabled)
}

fn after(
    before: &CacheStatus,
    nodes: &[(Node, LocalModelNode)],
    problems: &[Statement],
    enabled: bool,
) -> CacheStatus {
    let copies: Vec<Copy> = nodes.iter().map(|(node, local)| Copy { node, local: Some(local) }).collect();
    status(&View {
        key: &CacheKey::cluster(M),
        generation: Some(1),
        before,
        enabled,
        copies: &copies,
        users: &[],
        problems: problems.to_vec(),
        lacking: 0,
        stuck: &BTreeMap::new(),
        now: at(1_700_000_000),
    })
}

fn ready(status: &CacheStatus) -> (&str, &str, &str) {
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").expect("a cache always has Ready");
    (&ready.status, &ready.reason, &ready.message)
}

#[test]
fn the_status_in_each_phase_is_as_reviewed() {
    let worker = |phase: &str, detail: Value| [(node("kind-worker"), local(phase, &detail))];
    let pending = worker(
        "ModelDownloadPending",
        json!({"reason": "SecretNotFound",
        "message": "secret \"hf-secret\" not found"}),
    );
    insta::assert_yaml_snapshot!("pending", of(&pending, &[], true));
    let downloaded = worker(
        "ModelDownloaded",
        json!({"bytesDone": 100, "bytesTotal": 100, "filesDone": 2, "filesTotal": 2,
        "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:04:21Z"}),
    );
    insta::assert_yaml_snapshot!("downloaded", of(&downloaded, &[], true));
    let failed = worker(
        "ModelDownloadError",
        json!({"reason": "Gated",
        "message": "accept the licence at https://huggingface.co/meta-llama/meta-llama-3-8b-instruct",
        "attempts": 1, "nextTry": "2026-01-01T00:01:00Z", "finished": "2026-01-01T00:00:00Z"}),
    );
    insta::assert_yaml_snapshot!("error", of(&failed, &[], true));
    let waiting = BTreeMap::from([("kind-worker".to_owned(), waiting(95))]);
    let waiting = capacity::problems(&cache_sized(M, "10Gi", 1).spec, &[&group_limited("100Gi")], &waiting);
    insta::assert_yaml_snapshot!("waiting", of(&[], &waiting, true));
}

/// What waits on a node where so many GiB are used.
fn waiting(used: i128) -> Waiting {
    let (cache, group) = (CacheKey::cluster(M), "workers".to_owned());
    Waiting {
        limit: capacity::Limit::Group,
        cache,
        group,
        asked: 10 << 30,
        used: used << 30,
        allowed: Some(100 << 30),
    }
}

#[test]
fn bytes_that_come_and_go_with_other_caches_change_the_condition_and_are_no_event() {
    let told = |used| {
        let spec = cache_sized(M, "10Gi", 1).spec;
        let waiting = BTreeMap::from([("n".to_owned(), waiting(used))]);
        of(&[], &capacity::problems(&spec, &[&group_limited("100Gi")], &waiting), true)
    };
    let (first, second) = (told(95), told(98));
    assert_ne!(first.conditions, second.conditions);
    let reasons: Vec<String> =
        happenings(&CacheStatus::default(), &first).into_iter().map(|h| h.reason).collect();
    assert_eq!(reasons, [INSUFFICIENT_CAPACITY]);
    assert_eq!(happenings(&first, &second), []);
}

/// A name, the copies, the problems, whether caching is enabled; `Ready` as expected.
type Case<'a> = (&'a str, Vec<(Node, LocalModelNode)>, &'a [Statement], bool, (&'a str, &'a str, &'a str));

#[test]
fn a_problem_that_is_new_is_told_whatever_was_told_before() {
    let missing = Statement::problem(NODE_GROUP_NOT_FOUND, "LocalModelNodeGroup g does not exist");
    let full = Statement::problem(INSUFFICIENT_CAPACITY, "it does not fit");
    let conditions = |problems: &[Statement]| of(&[], problems, true).conditions;
    let before = conditions(std::slice::from_ref(&missing));
    let told = new_problems(&before, &conditions(&[missing, full]));
    assert_eq!(told.into_iter().map(|told| told.reason).collect::<Vec<_>>(), [INSUFFICIENT_CAPACITY]);
}

#[test]
fn ready_says_the_first_thing_that_a_person_would_want_to_know() {
    let none = json!({});
    let warm = || (node("a"), local("ModelDownloaded", &none));
    let pending = || (node("b"), local("ModelDownloadPending", &none));
    let loading = || (node("c"), local("ModelDownloading", &none));
    let failed = || (node("d"), local("ModelDownloadError", &json!({"message": "no token"})));
    let away = || (not_ready(node("e")), local("ModelDownloaded", &none));
    let missing = [Statement::problem(NODE_GROUP_NOT_FOUND, "LocalModelNodeGroup g does not exist")];
    let said = |phase: &str, reason: &str, message: &str| {
        local(phase, &json!({"reason": reason, "message": message}))
    };
    let full = || (node("f"), said("ModelDownloadError", "DiskFull", "no space"));
    let token = || (node("g"), said("ModelDownloadError", "TokenInvalid", "expired"));
    let made_up = || (node("g"), said("ModelDownloadError", "no such word!", "why?"));
    let image = || (node("h"), said("ModelDownloadPending", "ImagePullBackOff", "not found"));
    let again = || (node("i"), said("ModelDownloadPending", "CopyVanished", "the copy is missing"));
    let size = [Statement::problem(MODEL_SIZE_TOO_SMALL, "it has 2 GiB")];
    let cases: [Case; 18] = [
        ("all warm", vec![warm()], &[], true, ("True", "Available", "1/1 copies available")),
        (
            "all warm but a group is missing",
            vec![warm()],
            &missing,
            true,
            ("True", "Available", "1/1 copies available"),
        ),
        ("no node", vec![], &[], true, ("False", "NoNodes", "no node matches")),
        ("no node and no group", vec![], &missing, true, ("False", NODE_GROUP_NOT_FOUND, "g does not exist")),
        ("disabled", vec![], &[], false, ("False", "Disabled", "localModel.enabled")),
        ("disabled but warm", vec![warm()], &[], false, ("True", "Available", "1/1")),
        (
            "failed before anything else",
            vec![pending(), failed(), loading(), image()],
            &missing,
            true,
            ("False", "DownloadFailed", "0/4 copies available; 1/4 copies failed; on d: no token"),
        ),
        (
            "a disk that cannot be used",
            vec![warm(), full()],
            &[],
            true,
            ("False", "DiskFull", "1/2 copies available; 1/2 copies failed; on f: no space"),
        ),
        ("a wrong token", vec![warm(), token()], &[], true, ("False", "TokenInvalid", "on g: expired")),
        ("a reason that is no word", vec![made_up()], &[], true, ("False", "DownloadFailed", "on g: why?")),
        (
            "a copy that nobody but a person gets going",
            vec![loading(), image()],
            &missing,
            true,
            ("False", "ImagePullBackOff", "0/2 copies available; 1/2 copies blocked; on h: not found"),
        ),
        ("what comes by itself", vec![again()], &[], true, ("False", "DownloadPending", "is missing")),
        (
            "problem before progress",
            vec![pending()],
            &missing,
            true,
            ("False", NODE_GROUP_NOT_FOUND, "g does not exist"),
        ),
        ("a size that is too small", vec![loading()], &size, true, ("False", "Downloading", "0/1 copies")),
        (
            "loading before pending",
            vec![pending(), loading(), away()],
            &[],
            true,
            ("False", "Downloading", "0/3 copies available, 1 on a NotReady node"),
        ),
        (
            "pending before not ready",
            vec![warm(), pending(), away()],
            &[],
            true,
            ("False", "DownloadPending", "1/3 copies available"),
        ),
        (
            "one node of two is down",
            vec![warm(), away()],
            &[],
            true,
            ("True", "Available", "1/2 copies available, 1 on a NotReady node"),
        ),
        (
            "all nodes are down",
            vec![away()],
            &[],
            true,
            ("False", "NodeNotReady", "0/1 copies available, 1 on a NotReady node; on e: node is NotReady"),
        ),
    ];
    for (case, nodes, problems, enabled, (status, reason, message)) in cases {
        let got = of(&nodes, problems, enabled);
        let (s, r, m) = ready(&got);
        assert_eq!((s, r), (status, reason), "{case}: {m}");
        assert!(m.contains(message), "{case}: {m}");
        assert_eq!(got.conditions.len(), 3 + problems.len(), "{case}");
    }
}

#[test]
fn a_node_that_has_no_room_for_its_copy_keeps_the_cache_from_being_ready() {
    let (node, local) = (node("a"), local("ModelDownloaded", &json!({})));
    let got = status(&View {
        key: &CacheKey::cluster(M),
        generation: Some(1),
        before: &CacheStatus::default(),
        enabled: true,
        copies: &[Copy { node: &node, local: Some(&local) }],
        users: &[],
        problems: vec![Statement::problem(INSUFFICIENT_CAPACITY, "it does not fit on b")],
        lacking: 1,
        stuck: &BTreeMap::new(),
        now: at(0),
    });
    assert_eq!(ready(&got), ("False", INSUFFICIENT_CAPACITY, "it does not fit on b"));
}

#[test]
fn the_same_look_at_a_later_time_changes_nothing() {
    let nodes = [(node("a"), local("ModelDownloaded", &json!({})))];
    let first = of(&nodes, &[], true);
    let copies = [Copy { node: &nodes[0].0, local: Some(&nodes[0].1) }];
    let later = status(&View {
        key: &CacheKey::cluster(M),
        generation: Some(1),
        before: &first,
        enabled: true,
        copies: &copies,
        users: &[],
        problems: Vec::new(),
        lacking: 0,
        stuck: &BTreeMap::new(),
        now: at(1_800_000_000),
    });
    assert_eq!(later, first);
}

#[test]
fn a_cache_that_is_neither_ready_nor_progressing_is_degraded() {
    let phases = ["ModelDownloadPending", "ModelDownloading", "ModelDownloaded", "ModelDownloadError", ""];
    let reasons = ["", "ImagePullBackOff", "JobTerminating", "Disabled", "made up by a kubelet"];
    let problems = [
        vec![],
        vec![Statement::problem(VOLUMES_TERMINATING, "it goes")],
        vec![Statement::problem(NODE_GROUP_NOT_FOUND, "it is missing")],
        vec![Statement::problem(MODEL_SIZE_TOO_SMALL, "it is larger")],
    ];
    let holds =
        |status: &CacheStatus, kind| status.conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    let copies = phases.iter().flat_map(|phase| reasons.iter().map(move |reason| (*phase, *reason)));
    let copies = copies.map(|(phase, reason)| {
        let detail = if reason.is_empty() { json!({}) } else { json!({"reason": reason, "message": "why"}) };
        local(phase, &detail)
    });
    let nodes =
        copies.flat_map(|local| [vec![(node("a"), local.clone())], vec![(not_ready(node("a")), local)]]);
    for nodes in nodes.chain([vec![]]) {
        for problems in &problems {
            for enabled in [true, false] {
                let status = of(&nodes, problems, enabled);
                let [ready, progressing, degraded] =
                    ["Ready", PROGRESSING, DEGRADED].map(|kind| holds(&status, kind));
                assert!(ready || progressing || degraded, "{status:?}");
            }
        }
    }
}

#[test]
fn services_that_use_the_cache_are_listed_and_nothing_stale_is_kept() {
    let stale = NamespacedName { namespace: Some("gone".into()), name: Some("gone".into()) };
    let before = CacheStatus { inference_services: vec![stale.clone()], ..CacheStatus::default() };
    let user = |kind, cache: CacheKey| User {
        cache,
        kind,
        namespace: "team".into(),
        name: "service".into(),
        group: None,
    };
    let users = [
        user(Kind::InferenceService, CacheKey::namespaced("team", M)),
        user(Kind::LLMInferenceService, CacheKey::cluster(M)),
    ];
    let after = status(&View {
        key: &CacheKey::cluster(M),
        generation: Some(1),
        before: &before,
        enabled: true,
        copies: &[],
        users: &users,
        problems: Vec::new(),
        lacking: 0,
        stuck: &BTreeMap::new(),
        now: at(0),
    });
    assert_eq!(after.inference_services, []);
    let listed = NamespacedName { namespace: Some("team".into()), name: Some("service".into()) };
    assert_eq!(after.llm_inference_services, [listed]);
}

#[test]
fn progressing_and_degraded_say_whether_anything_comes_by_itself() {
    let missing = [Statement::problem(NODE_GROUP_NOT_FOUND, "LocalModelNodeGroup g does not exist")];
    let going = [Statement::problem(VOLUMES_TERMINATING, "PersistentVolume v is still being deleted")];
    let error = json!({"reason": "TokenInvalid", "message": "the token is invalid"});
    let copy = |phase: &str, detail: &Value| (node("n"), local(phase, detail));
    let cases = [
        ("warm", copy("ModelDownloaded", &json!({})), &[][..], ("False", "Settled"), ("False", "AsExpected")),
        (
            "loading",
            copy("ModelDownloading", &json!({})),
            &[],
            ("True", "Downloading"),
            ("False", "AsExpected"),
        ),
        (
            "pending",
            copy("ModelDownloadPending", &json!({})),
            &going,
            ("True", "DownloadPending"),
            ("False", "AsExpected"),
        ),
        ("failed", copy("ModelDownloadError", &error), &[], ("False", "Settled"), ("True", "TokenInvalid")),
        (
            "blocked",
            copy("ModelDownloadPending", &json!({"reason": "PodRefused", "message": "a quota"})),
            &[],
            ("False", "Blocked"),
            ("True", "PodRefused"),
        ),
        (
            "on a node that is down",
            (not_ready(node("n")), local("ModelDownloaded", &json!({}))),
            &[],
            ("False", "Settled"),
            ("True", "NodeNotReady"),
        ),
        (
            "half",
            copy("ModelDownloaded", &json!({})),
            &missing,
            ("False", "Settled"),
            ("True", NODE_GROUP_NOT_FOUND),
        ),
    ];
    for (case, copy, problems, progressing, degraded) in cases {
        let got = of(&[copy], problems, true);
        let condition = |kind| {
            let found = got.conditions.iter().find(|c| c.type_ == kind).expect(kind);
            (found.status.as_str(), found.reason.as_str())
        };
        assert_eq!((condition(PROGRESSING), condition(DEGRADED)), (progressing, degraded), "{case}");
    }
}
