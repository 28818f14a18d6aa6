use serde_json::{Value, json};

use super::*;
use crate::plan::samples::{KEY, URI, at, from};

/// A Job as the API server returns it, with this status.
fn job(status: &Value) -> Value {
    json!({
        "metadata": {"name": "j", "uid": "job-uid", "labels": {"model": "m", "node": "n",
            "app.kubernetes.io/managed-by": "localmodel", "localmodel.kserve.io/node-group": "workers"}},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "args": [URI, "/mnt/models"]}]}}},
        "status": status,
    })
}

fn pod(created: i64, status: &Value) -> Pod {
    from(json!({
        "metadata": {"name": format!("p{created}"), "namespace": "jobs", "creationTimestamp": at(created).to_string(),
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job-uid"}]},
        "status": status,
    }))
}

fn phase_of(status: &Value, pods: &[Pod]) -> JobPhase {
    view(&from(job(status)), &pods.iter().collect::<Vec<_>>(), "workers").expect("a download Job").phase
}

fn condition(kind: &str) -> Value {
    json!({"conditions": [{"type": kind, "status": "True", "reason": "BackoffLimitExceeded",
        "message": "Job has reached the specified backoff limit", "lastTransitionTime": "1970-01-01T00:01:40Z"}]})
}

fn terminated(exit_code: i32, reason: &str, message: &str) -> Value {
    json!({"phase": "Failed", "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": exit_code, "reason": reason, "message": message}}}]})
}

fn waiting_for(reason: &str, message: &str) -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}]})
}

#[test]
fn a_job_of_kserves_writes_the_root_whatever_its_cache() {
    let kserves = |labels: Value, sub_path: &str| {
        let mut theirs = job(&json!({}));
        theirs["metadata"]["labels"] = labels;
        theirs["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "kserve-pvc-source", "mountPath": "/mnt/models", "subPath": sub_path}]);
        let seen = view(&from(theirs), &[], "workers").unwrap();
        (seen.copy.to_string(), seen.own, seen.kserve)
    };
    let (models, labels) = (format!("models/{KEY}"), json!({"model": "m", "node": "n"}));
    assert_eq!(kserves(labels.clone(), &models), (KEY.to_owned(), false, true));
    let of_namespace = json!({"model": "m", "node": "n", "modelNamespace": "ns"});
    assert_eq!(kserves(of_namespace, &models), (format!("ns/{KEY}"), false, true));
    assert_eq!(kserves(labels, &format!("incoming/{KEY}")), (KEY.to_owned(), false, false), "not as KServe");
    let managed = |by: &str| json!({"model": "m", "node": "n", "app.kubernetes.io/managed-by": by});
    assert_eq!(kserves(managed("kserve"), &models), (KEY.to_owned(), false, true));
    assert_eq!(kserves(managed("localmodel"), &models), (KEY.to_owned(), false, false), "one of ours");
}

#[test]
fn a_download_job_is_known_by_its_label_and_its_first_argument() {
    let seen = view(&from(job(&json!({"startTime": "1970-01-01T00:00:07Z"}))), &[], "workers").unwrap();
    assert_eq!(
        (seen.name.as_str(), &seen.copy, seen.own, seen.kserve),
        ("j", &CopyKey::root(KEY), true, false)
    );
    assert_eq!((seen.started, seen.deleting), (Some(at(7)), false));
    for (pointer, value) in [
        ("/metadata/labels", json!({"node": "n"})),
        ("/spec/template/spec/containers", json!([])),
        ("/spec/template/spec/containers/0/args", json!([])),
        ("/spec/template/spec/containers/0/args", Value::Null),
    ] {
        let mut other = job(&json!({}));
        *other.pointer_mut(pointer).unwrap() = value;
        assert_eq!(view(&from(other), &[], "workers"), None, "{pointer}");
    }
}

#[test]
fn jobs_of_another_group_and_of_kserve_are_seen_but_not_own() {
    assert!(!view(&from(job(&json!({}))), &[], "another").unwrap().own);
    let mut theirs = job(&json!({}));
    theirs["metadata"]["labels"] = json!({"model": "m", "node": "n"});
    assert!(!view(&from(theirs), &[], "workers").unwrap().own);
}

#[test]
fn a_job_in_deletion_says_so() {
    let mut job = job(&json!({}));
    job["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(view(&from(job), &[], "workers").unwrap().deleting);
}

#[test]
fn a_job_runs_once_its_pod_does_and_until_its_own_condition_says_otherwise() {
    assert_eq!(phase_of(&json!({}), &[]), JobPhase::Pending(None));
    assert_eq!(
        phase_of(&json!({"active": 1}), &[pod(1, &json!({"phase": "Pending"}))]),
        JobPhase::Pending(None)
    );
    assert_eq!(phase_of(&json!({"active": 1, "ready": 1}), &[]), JobPhase::Running);
    for phase in ["Running", "Succeeded", "Failed"] {
        assert_eq!(phase_of(&json!({"ready": 0}), &[pod(1, &json!({ "phase": phase }))]), JobPhase::Running);
    }
    let replaced = [pod(2, &json!({"phase": "Pending"})), pod(1, &json!({"phase": "Failed"}))];
    assert_eq!(phase_of(&json!({"active": 1}), &replaced), JobPhase::Pending(None), "Kubernetes tries again");
    assert_eq!(phase_of(&condition("FailureTarget"), &[]), JobPhase::Pending(None));
}

#[test]
fn a_complete_job_has_succeeded_when_it_was_completed() {
    let mut status = condition("Complete");
    assert_eq!(phase_of(&status, &[]), JobPhase::Succeeded(at(100)));
    status["completionTime"] = json!("1970-01-01T00:00:50Z");
    assert_eq!(phase_of(&status, &[]), JobPhase::Succeeded(at(50)));
}

#[test]
fn a_failed_job_gives_the_downloaders_reason_then_the_kubelets_then_its_own() {
    let said = r#"{"reason": "Gated", "message": "accept the licence"}"#;
    for (pods, reason, message) in [
        (vec![pod(1, &terminated(1, "Error", said))], "Gated", "accept the licence"),
        (
            vec![pod(1, &terminated(137, "OOMKilled", ""))],
            "OOMKilled",
            "the download container ended with exit code 137",
        ),
        (
            vec![pod(1, &terminated(1, "Error", "Traceback\n\nValueError: no such model\n"))],
            "DownloadFailed",
            "the download container ended with exit code 1: ValueError: no such model",
        ),
        (
            vec![pod(1, &json!({"phase": "Failed", "reason": "Evicted", "message": "low on disk"}))],
            "Evicted",
            "low on disk",
        ),
        (
            vec![pod(2, &terminated(1, "Error", said)), pod(1, &terminated(137, "OOMKilled", ""))],
            "Gated",
            "accept the licence",
        ),
        (vec![], "BackoffLimitExceeded", "Job has reached the specified backoff limit"),
        (vec![pod(1, &terminated(0, "Completed", ""))], "PodFailed", "the pod failed"),
    ] {
        let expected = JobPhase::Failed(at(100), Problem::new(reason, message));
        assert_eq!(phase_of(&condition("Failed"), &pods), expected);
    }
}

#[test]
fn pods_of_other_jobs_do_not_speak_for_this_one() {
    let mut other = pod(1, &terminated(137, "OOMKilled", ""));
    other.metadata.owner_references.as_mut().unwrap()[0].uid = "another".into();
    let JobPhase::Failed(_, problem) = phase_of(&condition("Failed"), &[other]) else { panic!("it failed") };
    assert_eq!(problem.reason, "BackoffLimitExceeded");
}

#[test]
fn a_pending_job_says_what_somebody_must_do() {
    let unscheduled = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/3 nodes are available: 1 had untolerated taint"}]});
    let starting = json!({"phase": "Pending", "conditions": [
        {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "not yet"},
        {"type": "PodScheduled", "status": "True"}]});
    let config = "CreateContainerConfigError";
    for (status, expected) in [
        (starting, None),
        (waiting_for("ContainerCreating", ""), None),
        (waiting_for("PodInitializing", ""), None),
        (
            waiting_for(config, "secret \"hf-secret\" not found"),
            Some(("SecretNotFound", "secret \"hf-secret\" not found in namespace jobs")),
        ),
        (
            waiting_for(config, "couldn't find key HF_TOKEN in Secret j/hf-secret"),
            Some(("SecretKeyNotFound", "couldn't find key HF_TOKEN in Secret j/hf-secret")),
        ),
        (
            waiting_for(config, "container has runAsNonRoot and image will run as root"),
            Some((config, "container has runAsNonRoot and image will run as root")),
        ),
        (
            waiting_for(config, "couldn't find key K in ConfigMap j/c"),
            Some((config, "couldn't find key K in ConfigMap j/c")),
        ),
        (
            waiting_for(config, "secret \"hf-secret\" is forbidden"),
            Some((config, "secret \"hf-secret\" is forbidden")),
        ),
        (waiting_for(config, "configmap \"c\" not found"), Some((config, "configmap \"c\" not found"))),
        (waiting_for("ImagePullBackOff", "no such image"), Some(("ImagePullBackOff", "no such image"))),
        (waiting_for("ErrImagePull", "x: not found"), Some(("ImagePullBackOff", "x: not found"))),
        (
            waiting_for("ImagePullBackOff", "Back-off pulling image \"x\": ErrImagePull: x: not found"),
            Some(("ImagePullBackOff", "x: not found")),
        ),
        (unscheduled, Some(("Unschedulable", "0/3 nodes are available: 1 had untolerated taint"))),
    ] {
        let expected = JobPhase::Pending(expected.map(|(reason, message)| Problem::new(reason, message)));
        assert_eq!(phase_of(&json!({"active": 1}), &[pod(1, &status)]), expected);
    }
}

#[test]
fn a_signed_url_in_another_initializers_last_words_loses_its_query() {
    let words = "GET https://me:pw@cdn.example.com/m?Signature=secret failed: why?";
    let message = json!({"reason": "Refused", "message": words}).to_string();
    for said in [words, &message] {
        let pods = [pod(1, &terminated(1, "Error", said))];
        let JobPhase::Failed(_, problem) = phase_of(&condition("Failed"), &pods) else { panic!("it failed") };
        assert!(problem.message.ends_with("GET https://cdn.example.com/m failed: why?"), "{problem:?}");
    }
}

#[test]
fn why_a_job_has_no_pod_is_what_the_last_event_says_without_the_name_that_no_pod_has() {
    let event = |reason: &str, second: i64, message: &str| -> Event {
        from(json!({
            "metadata": {"name": "e", "namespace": "jobs"}, "involvedObject": {}, "reason": reason,
            "lastTimestamp": at(second).to_string(), "message": message,
        }))
    };
    let words = |pod: &str, why: &str| format!("Error creating: pods \"{pod}\" is forbidden: {why}");
    let events = [
        event("FailedCreate", 3, &words("m-n-x7k2p", "exceeded quota: q, requested: pods=1")),
        event("FailedCreate", 2, &words("m-n-aaaaa", "another quota")),
        event("SuccessfulCreate", 4, "Created pod: m-n-bbbbb"),
    ];
    let problem = refusal("m-n", &events).unwrap();
    assert_eq!(problem.reason, POD_REFUSED);
    assert_eq!(problem.message, words("m-n-…", "exceeded quota: q, requested: pods=1"));
    let unnamed = [event("FailedCreate", 3, "Error creating: no pods today")];
    assert_eq!(refusal("m-n", &unnamed).unwrap().message, "Error creating: no pods today");
    assert_eq!(refusal("m-n", &events[2..]), None);
}

#[test]
fn a_job_that_reached_its_deadline_says_so_whatever_its_stopped_pod_says() {
    let mut late = job(&condition("Failed"));
    late["spec"]["activeDeadlineSeconds"] = json!(12_040);
    late["status"]["conditions"][0]["reason"] = json!("DeadlineExceeded");
    let said = json!({"reason": "Interrupted", "message": "interrupted by SIGTERM"}).to_string();
    let stopped = pod(1, &terminated(1, "Error", &said));
    for pods in [vec![], vec![&stopped]] {
        let JobPhase::Failed(_, problem) = view(&from(late.clone()), &pods, "workers").unwrap().phase else {
            panic!("the Job has failed");
        };
        assert_eq!(problem.reason, "DeadlineExceeded");
        assert!(problem.message.starts_with("the download did not end within the 200 min"), "{problem:?}");
    }
}

#[test]
fn the_cause_that_a_kubelet_named_stays_while_it_only_says_that_it_waits() {
    let problem = |message: &str| Problem::new(IMAGE_PULL_BACK_OFF, message);
    let waits = problem("Back-off pulling image \"x\"");
    let kept = |before| lasting(&waits, before).message;
    assert_eq!(kept(Some((IMAGE_PULL_BACK_OFF, "x: not found"))), "x: not found");
    assert_eq!(kept(Some(("SecretNotFound", "no secret"))), waits.message);
    assert_eq!(kept(None), waits.message);
    let other = problem("y: not found");
    assert_eq!(lasting(&other, Some((IMAGE_PULL_BACK_OFF, "x: not found"))), other);
}

#[test]
fn a_job_speaks_of_the_disk_as_it_is_on_the_node() {
    let said = r#"{"reason": "DiskError", "message": "cannot write /mnt/models/a: Input/output error"}"#;
    let ended = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
        "lastTransitionTime": "1970-01-01T00:01:40Z"}]});
    let pods = [pod(1, &terminated(1, "Error", said))];
    let pods: Vec<&Pod> = pods.iter().collect();
    let told = |namespace: Option<&str>, group: &str| {
        let mut jobs = [view(&from(job(&ended)), &pods, group).unwrap()];
        jobs[0].copy.namespace = namespace.map(Into::into);
        name_disk(&mut jobs, "/nvme", "workers");
        let JobPhase::Failed(_, problem) = &jobs[0].phase else { panic!("it failed") };
        problem.message.clone()
    };
    let of = |folder: &str| {
        format!("cannot write /nvme/{folder}incoming/{KEY}/a: Input/output error (node group workers)")
    };
    assert_eq!(told(None, "workers"), of(""));
    assert_eq!(told(Some("team"), "workers"), of("namespaces/team/"));
    assert_eq!(
        told(None, "another"),
        "cannot write /mnt/models/a: Input/output error",
        "it has another disk"
    );
}
