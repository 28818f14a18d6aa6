use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::api::LocalModelNode;
use crate::api::cache::NamespacedName;
use crate::plan::capacity::{self, Waiting};
use crate::plan::samples::{at, cache_sized, from, group_limited, node, not_ready};

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
fn an_event_is_told_for_each_copy_that_ends_and_each_new_problem_and_never_twice() {
    let missing = Statement::problem(NODE_GROUP_NOT_FOUND, "LocalModelNodeGroup g does not exist");
    let empty = CacheStatus::default();
    let failed = json!({"reason": "TokenInvalid", "message": "the token is invalid"});
    let error = of(&[(node("n"), local("ModelDownloadError", &failed))], &[missing], true);
    let told = happenings(&empty, &error);
    let told: Vec<_> = told.iter().map(|h| (h.warning, h.reason.as_str(), h.note.as_str())).collect();
    assert_eq!(
        told,
        [
            (true, "TokenInvalid", "on n: the token is invalid"),
            (true, NODE_GROUP_NOT_FOUND, "LocalModelNodeGroup g does not exist"),
        ]
    );
    assert_eq!(happenings(&error, &error), []);
    let times = json!({"bytesTotal": 19 << 20, "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:05Z"});
    let done = of(&[(node("n"), local("ModelDownloaded", &times))], &[], true);
    let told = happenings(&error, &done);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].warning, told[0].reason.as_str(), told[0].node.as_deref()),
        (false, "Downloaded", Some("n"))
    );
    assert_eq!(told[0].note, "downloaded to n (19 MiB in 5 s)");
}

#[test]
fn downloaded_is_an_event_only_when_a_download_has_ended() {
    let times = |second: u8| {
        let finished = format!("2026-01-01T00:00:{second:02}Z");
        json!({"started": "2026-01-01T00:00:00Z", "finished": finished, "bytesDone": 1, "bytesTotal": 1})
    };
    let warm = |detail: &Value| [(node("n"), local("ModelDownloaded", detail))];
    let count = |before: &CacheStatus, after: &CacheStatus| {
        happenings(before, after).iter().filter(|told| told.reason == "Downloaded").count()
    };
    let first = of(&warm(&times(5)), &[], true);
    assert_eq!(count(&CacheStatus::default(), &first), 1);
    let down = after(&first, &[(not_ready(node("n")), local("ModelDownloaded", &times(5)))], &[], true);
    assert_eq!(count(&first, &down), 0);
    assert_eq!(count(&down, &after(&down, &warm(&times(5)), &[], true)), 0, "the node has come back");
    let anew = after(&first, &[(node("n"), local("ModelDownloadPending", &json!({})))], &[], true);
    assert_eq!(count(&anew, &after(&anew, &warm(&times(5)), &[], true)), 0, "its object was deleted by hand");
    assert_eq!(count(&anew, &after(&anew, &warm(&json!({})), &[], true)), 0, "and its Job has gone");
    let found = of(&warm(&json!({"bytesTotal": 1})), &[], true);
    assert_eq!(count(&CacheStatus::default(), &found), 0, "another cache had it on the disk");
    let again = after(
        &first,
        &[(node("n"), local("ModelDownloading", &json!({"started": "2026-01-01T00:00:06Z"})))],
        &[],
        true,
    );
    assert_eq!(
        count(&again, &after(&again, &warm(&times(9)), &[], true)),
        1,
        "a damaged copy was downloaded again"
    );
    let plain = |phase: &str| of(&[(node("n"), local(phase, &json!({})))], &[], true).without_ours();
    assert_eq!(count(&plain("ModelDownloading"), &plain("ModelDownloaded")), 1, "KServe's own definition");
}

#[test]
fn a_cause_that_does_not_pass_by_itself_is_a_warning_once_and_again_when_it_is_another() {
    let pending = |reason: &str| {
        let detail = json!({"reason": reason, "message": "the kubelet's words"});
        of(&[(node("n"), local("ModelDownloadPending", &detail))], &[], true)
    };
    let told = |before: &CacheStatus, after: &CacheStatus| -> Vec<String> {
        happenings(before, after).into_iter().filter(|told| told.warning).map(|told| told.reason).collect()
    };
    let waiting = of(&[(node("n"), local("ModelDownloadPending", &json!({})))], &[], true);
    for reason in
        ["ImagePullBackOff", "SecretNotFound", "PodRefused", "Unschedulable", "CrashLoopBackOff", "Disabled"]
    {
        assert_eq!(told(&waiting, &pending(reason)), [reason]);
        assert_eq!(told(&CacheStatus::default(), &pending(reason)), [reason]);
        assert_eq!(told(&pending(reason), &pending(reason)), [""; 0]);
    }
    assert_eq!(told(&pending("SecretNotFound"), &pending("ImagePullBackOff")), ["ImagePullBackOff"]);
    for passing in ["JobTerminating", "CopyVanished", "CredentialsNotCopied"] {
        assert_eq!(told(&waiting, &pending(passing)), [""; 0], "{passing}");
    }
    let nowhere = of(&[], &[], true);
    assert_eq!(told(&CacheStatus::default(), &nowhere), ["NoNodes"]);
    let away = of(&[(not_ready(node("n")), local("ModelDownloaded", &json!({})))], &[], true);
    assert_eq!(told(&waiting, &away), [""; 0], "Kubernetes has an Event of its own for a node");
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
fn a_copy_that_was_complete_and_is_damaged_is_an_event_with_its_files_and_told_once() {
    let of_node = |phase: &str, detail: Value| of(&[(node("n"), local(phase, &detail))], &[], true);
    let damaged = |second: u8| {
        let time = format!("2026-01-02T03:04:{second:02}Z");
        json!({"lastDamage": {"time": time, "reason": "CopyDamaged", "message": "damaged (a is missing)"}})
    };
    let warm = of_node("ModelDownloaded", json!({}));
    let away = of(&[(not_ready(node("n")), local("ModelDownloaded", &json!({})))], &[], true);
    let loading = of_node("ModelDownloading", damaged(5));
    let mended = of_node("ModelDownloaded", damaged(5));
    let again = of_node("ModelDownloaded", damaged(6));
    let event = [(true, "CopyDamaged", "on n: damaged (a is missing)")];
    let told = |before: &CacheStatus, after: &CacheStatus| {
        let all = happenings(before, after);
        let warnings: Vec<_> = all.into_iter().filter(|h| h.warning).collect();
        let told: Vec<_> = warnings.iter().map(|h| (h.warning, h.reason.as_str(), h.note.as_str())).collect();
        told == event
    };
    for before in [&warm, &away] {
        assert!(told(before, &loading));
        assert!(told(before, &mended), "also where it was mended before anybody looked");
    }
    assert!(told(&mended, &again), "and when it happens again");
    assert!(told(&CacheStatus::default(), &loading));
    for (before, after) in [(&loading, &mended), (&CacheStatus::default(), &mended), (&warm, &warm)] {
        assert!(!told(before, after));
    }
    let vanished = json!({"time": "2026-01-02T03:04:05Z", "reason": "CopyVanished", "message": "gone"});
    let vanished = of_node("ModelDownloadPending", json!({"lastDamage": vanished}));
    assert_eq!(happenings(&warm, &vanished)[0].reason, "CopyVanished");
    let first = of_node("ModelDownloadPending", json!({}));
    assert_eq!(happenings(&warm, &first), [], "an object that was deleted by hand says nothing for a moment");
}

#[test]
fn damage_is_no_news_again_because_a_nodes_object_was_made_anew() {
    let damage = json!({"time": "2026-01-02T03:04:05Z", "reason": "CopyDamaged", "message": "a is missing"});
    let told = [(node("n"), local("ModelDownloaded", &json!({"lastDamage": damage})))];
    let silent = [(node("n"), local("ModelDownloaded", &json!({})))];
    let first = of(&told, &[], true);
    let meanwhile = after(&first, &silent, &[], true);
    assert_eq!(meanwhile.nodes, first.nodes);
    assert_eq!(happenings(&meanwhile, &after(&meanwhile, &told, &[], true)), []);
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
