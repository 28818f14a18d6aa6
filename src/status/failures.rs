//! Every failure that the system knows, and what each place says where a person looks: one list of reasons.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::fleet::fleet;
use super::objects::{Operator, Seen as Objects};
use super::pace::History;
use super::samples::{from, now};
use crate::api::{CacheStatus, LocalModelNode, LocalModelNodeGroup};
use crate::plan::agent_pods::Stuck;
use crate::plan::cache::{self, happenings, new_problems};
use crate::plan::conditions::Statement;
use crate::plan::copies::Copy;
use crate::plan::names::{CacheKey, MEMBER_OF};
use crate::plan::node_group;
use crate::plan::reasons::{self, Entry, Seen};

const CACHE: &str = "m";

/// What is said of one failure.
struct Told {
    status: String,
    conditions: Vec<String>,
    events: Vec<String>,
    command: Vec<String>,
    alert: &'static str,
}

fn types(conditions: &[Condition]) -> Vec<String> {
    let of = |c: &Condition| {
        if c.type_ == c.reason { c.type_.clone() } else { format!("{}={}", c.type_, c.reason) }
    };
    conditions.iter().filter(|c| c.type_ != "Ready" && c.status == "True").map(of).collect()
}

fn reason(conditions: &[Condition]) -> String {
    let ready = conditions.iter().find(|c| c.type_ == "Ready").expect("Ready is always there");
    ready.reason.clone()
}

/// A cache with a copy in this phase, for this reason, and with these problems.
fn of_cache(copy: Option<(&str, &str)>, problems: &[Statement]) -> Told {
    let local: Option<LocalModelNode> = copy.map(|(phase, reason)| {
        from(json!({
            "metadata": {"name": "n"}, "spec": {"localModels": []},
            "status": {"modelStatus": {CACHE: phase}, "models": {CACHE: {"reason": reason, "message": "why"}}},
        }))
    });
    let node = node();
    let copies: Vec<Copy> = local.iter().map(|local| Copy { node: &node, local: Some(local) }).collect();
    let status = cache::status(&cache::View {
        key: &CacheKey::cluster(CACHE),
        generation: None,
        before: &CacheStatus::default(),
        enabled: true,
        copies: &copies,
        users: &[],
        problems: problems.to_vec(),
        lacking: 0,
        stuck: &BTreeMap::new(),
        now: now(),
    });
    let count = crate::plan::fleet::cache(&CacheKey::cluster(CACHE), Some(&status));
    let is_degraded = |reason: &&str| !["NodeNotReady", "InsufficientCapacity", "Disabled"].contains(reason);
    let alert = match (count.not_ready, count.degraded) {
        _ if !count.failed.is_empty() => "LocalModelCopyFailed",
        (_, Some("InsufficientCapacity")) => "LocalModelNoRoom",
        (_, Some(reason)) if is_degraded(&reason) => "LocalModelCacheDegraded",
        (Some(_), _) => "LocalModelCacheNotReady",
        (None, _) => "",
    };
    let object =
        json!({"metadata": {"name": CACHE}, "spec": {"sourceModelUri": "hf://o/m"}, "status": status});
    told(&status.conditions, &json!([object]), &json!([]), alert, || {
        happenings(&CacheStatus::default(), &status).into_iter().map(|happening| happening.reason).collect()
    })
}

/// A node group for which this is so.
fn of_group(word: &'static str) -> Told {
    let mut group: LocalModelNodeGroup =
        serde_saphyr::from_str(include_str!("../../fixtures/walkthrough/local-model-node-group.yaml"))
            .expect("the documented group");
    let disk = match word {
        "DiskUnusable" => json!({"reason": "DiskNotWritable", "message": "why"}),
        "StorageLimitTooLarge" => json!({"capacity": "1Gi"}),
        _ => json!({}),
    };
    let local: LocalModelNode = from(json!({
        "metadata": {"name": "n", "annotations": {(MEMBER_OF): "workers"}}, "spec": {"localModels": []},
        "status": {"disks": {"workers": disk}},
    }));
    let used = if word == "StorageLimitExceeded" { 1 << 50 } else { 0 };
    let mut agents = Stuck::default();
    let mut problems = Vec::new();
    match word {
        "DiskUnusable" | "StorageLimitTooLarge" | "StorageLimitExceeded" => {}
        "AgentNotRunning" => drop(agents.agents.insert("n".into(), "why".into())),
        "InvalidStorageLimit" => group.spec.storage_limit.0 = "much".into(),
        _ => problems.push(Statement::problem(word, "why")),
    }
    let status = node_group::status(&node_group::View {
        group: &group,
        nodes: &[&node()],
        usage: &BTreeMap::from([("n".to_owned(), used)]),
        disks: &node_group::disks("workers", &[&local]),
        problems,
        agents: &agents,
        now: now(),
    });
    group.status = Some(status.clone());
    let count = crate::plan::fleet::group(&group, &[], &[]);
    let alert = match count.not_ready {
        Some(_) => "LocalModelNodeGroupNotReady",
        None if count.problems.contains("StorageLimitTooLarge") => "LocalModelStorageLimitTooLarge",
        None if used > 0 => "LocalModelGroupOverLimit",
        None => "",
    };
    let object = json!({"metadata": {"name": "workers"}, "spec": {"storageLimit": "1Gi"}, "status": status});
    told(&status.conditions, &json!([]), &json!([object]), alert, || {
        new_problems(&[], &status.conditions).into_iter().map(|happening| happening.reason).collect()
    })
}

/// A node of the documented group that is ready.
fn node() -> Node {
    from(json!({
        "metadata": {"name": "n", "labels": {"nvidia.com/gpu-product": "NVIDIA-A100-SXM4-80GB"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

fn told(
    conditions: &[Condition],
    caches: &Value,
    groups: &Value,
    alert: &'static str,
    events: impl FnOnce() -> Vec<String>,
) -> Told {
    let seen = Objects {
        caches: from(caches.clone()),
        groups: from(groups.clone()),
        operator: Operator::Running,
        ..Objects::default()
    };
    let view = fleet(&seen, &History::default(), now());
    let of_caches = view.reasons.into_iter().filter_map(|why| why.reason);
    let of_groups =
        view.node_groups.into_iter().flat_map(|group| group.problems).map(|problem| problem.reason);
    let mut command: Vec<String> = of_caches.chain(of_groups).collect();
    command.dedup();
    Told { status: reason(conditions), conditions: types(conditions), events: events(), command, alert }
}

/// The failures of a word: what it stands on, and what is said.
fn failures(entry: &Entry) -> Vec<(&'static str, Told)> {
    let word = entry.reason.as_str();
    let problem = || Statement::problem(word, "why");
    let complete = Some(("ModelDownloaded", ""));
    match entry.seen {
        _ if ["Progressing", "Degraded"].contains(&word) => Vec::new(),
        Seen::Cache => {
            vec![("cache", of_cache(None, &[problem()])), ("cache, warm", of_cache(complete, &[problem()]))]
        }
        Seen::Group => vec![("node group", of_group(word))],
        Seen::Both => vec![("cache", of_cache(None, &[problem()])), ("node group", of_group(word))],
        Seen::Copy => vec![("copy, pending", of_cache(Some(("ModelDownloadPending", word)), &[]))],
        Seen::Failure | Seen::Disk => {
            vec![("copy, failed", of_cache(Some(("ModelDownloadError", word)), &[]))]
        }
        Seen::ReadyCache | Seen::ReadyGroup | Seen::Event | Seen::Gate => Vec::new(),
    }
}

#[test]
fn every_failure_is_told_in_every_place_where_a_person_looks() {
    let mut table = String::from("failure | STATUS | conditions | Events | localmodel status | alert\n");
    for entry in reasons::ALL {
        for (on, told) in failures(entry) {
            let word = entry.reason.as_str();
            let cells = [
                format!("{word} ({on})"),
                told.status.clone(),
                told.conditions.join(", "),
                told.events.join(", "),
                told.command.join(", "),
                told.alert.to_owned(),
            ];
            table += &(cells.join(" | ") + "\n");
            let passes = reasons::passes(word) || word == "VolumesTerminating";
            if passes {
                continue;
            }
            let says = |cell: &[String]| cell.iter().any(|said| said.ends_with(word));
            // These stand beside Ready: what is there works all the same.
            let is_beside =
                on == "cache, warm" || ["StorageLimitExceeded", "StorageLimitTooLarge"].contains(&word);
            let is_beside = is_beside || word == "ModelSizeTooSmall";
            assert!(is_beside || told.status == word, "{word} on {on}: STATUS {}", told.status);
            assert!(says(&told.conditions), "{word} on {on}: {:?}", told.conditions);
            assert!(says(&told.events), "{word} on {on}: {:?}", told.events);
            assert!(says(&told.command), "{word} on {on}: {:?}", told.command);
            assert!(!told.alert.is_empty(), "{word} on {on}: no alert");
        }
    }
    insta::assert_snapshot!(table);
}
