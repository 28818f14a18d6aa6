//! What is an Event, and what is not.

use super::*;

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
