use k8s_openapi::api::batch::v1::Job as KubernetesJob;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::plan::job_view;
use crate::status::objects::WholeNode;
use crate::status::samples::{self, from, now};

/// A Job of the sample cache on this node.
pub(in crate::status) fn job(node: &str, status: &Value) -> Value {
    json!({
        "metadata": {
            "name": format!("mixtral-8x7b-instruct-{node}"), "uid": format!("{node}-job"),
            "labels": {"model": "mixtral-8x7b-instruct", "node": node},
        },
        "spec": {"template": {"spec": {"containers": [
            {"name": "c", "args": ["hf://acme/mixtral-8x7b-instruct", "/mnt/models"]},
        ]}}},
        "status": status,
    })
}

/// One that failed a minute and forty seconds ago.
pub(in crate::status) fn failed(node: &str) -> Value {
    let condition = json!({
        "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
        "message": "Job has reached the specified backoff limit", "lastTransitionTime": "2026-01-02T11:58:20Z",
    });
    job(node, &json!({"failed": 1, "conditions": [condition]}))
}

/// The pod of the Job on this node, which ended with these words.
pub(in crate::status) fn pod(node: &str, said: &str) -> Value {
    let job = format!("mixtral-8x7b-instruct-{node}");
    json!({
        "metadata": {
            "name": format!("{job}-x7k2p"), "labels": {"job-name": job},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": format!("{node}-job")}],
        },
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Failed", "containerStatuses": [{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": said}},
        }]},
    })
}

/// What a failed download says last.
pub(in crate::status) fn words() -> String {
    json!({"reason": "RepositoryGated", "message": samples::GATED}).to_string()
}

/// An Event on the sample cache.
pub(in crate::status) fn event(reason: &str, message: &str, at: &str) -> Value {
    json!({
        "metadata": {"name": reason.to_lowercase(), "namespace": "default"},
        "involvedObject": {"kind": "LocalModelCache", "name": "mixtral-8x7b-instruct", "uid": "mixtral-8x7b-instruct-uid"},
        "type": if reason == "Downloaded" { "Normal" } else { "Warning" },
        "reason": reason, "message": message, "eventTime": at,
    })
}

fn view(job: Value, pods: &[Value]) -> Job {
    let job: KubernetesJob = from(job);
    let pods: Vec<Pod> = pods.iter().cloned().map(from).collect();
    let node = job.metadata.labels.as_ref().unwrap()["node"].clone();
    Job { node, view: job_view::view(&job, &pods.iter().collect::<Vec<_>>(), "").unwrap() }
}

/// The sample cache with all that can be told of it.
pub(in crate::status) fn seen() -> Seen {
    let nodes = samples::nodes().into_iter().map(from::<WholeNode>);
    let mut repeated =
        event("RepositoryGated", "on gpu-b: acme/mixtral-8x7b-instruct is gated", "2026-01-02T11:50:00Z");
    repeated["series"] = json!({"count": 3, "lastObservedTime": "2026-01-02T11:58:20.000000Z"});
    let mut earlier = event("Earlier", "of an earlier cache of this name", "2026-01-02T11:59:00Z");
    earlier["involvedObject"]["uid"] = json!("another");
    let log = [
        "2026-01-02T11:58:19Z  INFO downloading bytes_done=0",
        "2026-01-02T11:58:20Z ERROR \u{1b}[31macme/mixtral-8x7b-instruct is gated\u{1b}[0m, and no token is given: accept its licence",
    ];
    Seen {
        cache: from(samples::mixtral()),
        groups: samples::groups().into_iter().map(from).collect(),
        nodes: nodes.map(|node| (node.metadata.name, node.status.unwrap_or_default())).collect(),
        jobs: vec![view(failed("gpu-b"), &[]), view(job("gpu-d", &json!({})), &[])],
        job_namespace: "kserve-localmodel-jobs".into(),
        events: vec![
            from(event("Downloaded", "downloaded to gpu-c (87.00 GiB in 303 s)", "2026-01-01T10:05:04Z")),
            from(repeated),
            from(earlier),
        ],
        log: Some(Log {
            job: "mixtral-8x7b-instruct-gpu-b".into(),
            pod: "mixtral-8x7b-instruct-gpu-b-x7k2p".into(),
            node: "gpu-b".into(),
            lines: log.map(Into::into).into(),
        }),
        operator: Operator::Running,
        notes: Vec::new(),
    }
}

/// The same where KServe's own definitions keep no reasons.
pub(in crate::status) fn seen_on_kserve() -> Seen {
    Seen {
        cache: from(samples::pruned(samples::mixtral())),
        groups: samples::groups().into_iter().map(samples::pruned).map(from).collect(),
        nodes: BTreeMap::new(),
        jobs: vec![view(failed("gpu-b"), &[pod("gpu-b", &words())])],
        ..seen()
    }
}

fn of(seen: &Seen) -> Story {
    story(seen, &History::default(), now())
}

#[test]
fn a_failed_copy_says_how_often_it_was_tried_when_again_and_by_which_job() {
    let story = of(&seen());
    let expected = Tries {
        attempts: Some(3),
        next_try: Some(from(json!("2026-01-02T12:02:10Z"))),
        job: Some("mixtral-8x7b-instruct-gpu-b".into()),
    };
    assert_eq!(story.tries["gpu-b"], expected);
    assert!(!story.tries.contains_key("gpu-c"), "a complete copy has nothing to try");
}

#[test]
fn where_the_status_has_no_reasons_the_job_that_failed_tells_its_own() {
    let story = of(&seen_on_kserve());
    let failed = story.cache.nodes.iter().find(|copy| copy.node == "gpu-b").unwrap();
    assert_eq!(failed.detail.reason.as_deref(), Some("RepositoryGated"));
    assert_eq!(failed.detail.message.as_deref(), Some(samples::GATED));
}

#[test]
fn what_happened_last_comes_first_and_an_earlier_cache_of_the_name_is_left_out() {
    let story = of(&seen());
    let told: Vec<(&str, i32)> = story.events.iter().map(|e| (e.reason.as_str(), e.count)).collect();
    assert_eq!(told, [("RepositoryGated", 3), ("Downloaded", 1)]);
}

#[test]
fn the_log_is_that_of_the_job_that_failed_last_of_a_copy_that_is_not_there() {
    let late = |node: &str, at: &str| {
        let mut job = failed(node);
        job["status"]["conditions"][0]["lastTransitionTime"] = json!(at);
        view(job, &[])
    };
    let seen = seen();
    let cache = fleet::view(&seen.cache, &History::default(), now());
    let jobs = [
        late("gpu-b", "2026-01-02T11:00:00Z"),
        late("gpu-c", "2026-01-02T11:59:00Z"),
        view(job("gpu-d", &json!({})), &[]),
    ];
    assert_eq!(failed_job(&cache, &jobs).unwrap().node, "gpu-b", "the copy on gpu-c is complete by now");
    assert!(failed_job(&cache, &jobs[2..]).is_none());
}
