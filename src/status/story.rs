//! One cache's whole story: what is asked, how each copy fares and what to do, who uses it, what happened
//! of late and what the Job that failed last had to say. Also what `-o json` prints.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;

use super::fleet::{self, CacheView, CopyView, DiskView, GroupView, State};
use super::objects::{Cache, Group, Operator};
use super::pace::History;
use crate::api::node::LocalModelNodeStatus;
use crate::api::source::storage_key;
use crate::api::{CacheStatus, NamespacedName};
use crate::plan::names::label_value;
use crate::plan::pass::{JobPhase, JobView, Problem};

/// The most Events that are told.
const EVENTS: usize = 12;

/// A download Job of the cache.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its node, as its label has it.
    pub node: String,
    /// The Job.
    pub view: JobView,
}

/// The last lines of a Job's log.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    pub job: String,
    pub pod: String,
    pub node: String,
    pub lines: Vec<String>,
}

/// All that one look at a cache sees.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The cache.
    pub cache: Cache,
    /// All node groups.
    pub groups: Vec<Group>,
    /// What the nodes say whose copies are not complete.
    pub nodes: BTreeMap<String, LocalModelNodeStatus>,
    /// The cache's Jobs.
    pub jobs: Vec<Job>,
    /// The namespace of Jobs.
    pub job_namespace: String,
    /// What happened to the cache.
    pub events: Vec<Event>,
    /// The log of the Job that failed last.
    pub log: Option<Log>,
    /// The operator.
    pub operator: Operator,
    /// What could not be seen, and why.
    pub notes: Vec<String>,
}

/// The story.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// When it was looked at.
    pub time: Time,
    /// Which kind of cache it is.
    pub kind: &'static str,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// The cache and its copies.
    #[serde(flatten)]
    pub cache: CacheView,
    /// The name of its folder on the nodes.
    pub storage_key: String,
    /// Where its credentials come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// Its node groups.
    pub groups: Vec<GroupView>,
    /// The disks of its groups that cannot be used, on nodes whose copies are not complete.
    pub disks: Vec<DiskView>,
    /// What holds for it as a whole.
    pub conditions: Vec<Condition>,
    /// What its nodes do about copies that are not complete.
    pub tries: BTreeMap<String, Tries>,
    /// The namespace of its Jobs.
    pub job_namespace: String,
    /// Who uses it.
    pub used_by: Vec<User>,
    /// What happened, the latest first.
    pub events: Vec<Happened>,
    /// The last lines of the Job that failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
    /// Why all of this may be stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
    /// What could not be seen, and why.
    pub notes: Vec<String>,
}

/// How often a download was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tries {
    /// How often it has failed in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Time>,
    /// Its Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

/// Who uses a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// The kind of service.
    pub kind: &'static str,
    /// Which one.
    #[serde(flatten)]
    pub name: NamespacedName,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Happened {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    pub warning: bool,
    pub reason: String,
    pub message: String,
    pub count: i32,
}

/// The story of what was seen.
pub fn story(seen: &Seen, history: &History, now: Timestamp) -> Story {
    let mut cache = fleet::view(&seen.cache, history, now);
    let key = cache.key();
    let told = cache.nodes.iter().any(|copy| copy.detail.reason.is_some());
    for copy in cache.nodes.iter_mut().filter(|copy| copy.state < State::Downloading && !told) {
        tell(copy, &seen.jobs);
    }
    let tries = cache.nodes.iter().filter(|copy| copy.state < State::Complete);
    let tries = tries.map(|copy| (copy.node.clone(), tries_of(copy, &key.to_string(), seen))).collect();
    let spec = &seen.cache.spec;
    let mut groups: Vec<GroupView> = seen.groups.iter().map(fleet::group).collect();
    groups.retain(|group| cache.node_groups.contains(&group.name));
    let disks = seen.nodes.iter().flat_map(|(node, status)| fleet::bad_disks(node, &status.disks));
    let disks = disks.filter(|disk| cache.node_groups.contains(&disk.node_group)).collect();
    let status = seen.cache.status.clone().unwrap_or_default();
    Story {
        time: Time(now),
        kind: if key.namespace.is_some() { "LocalModelNamespaceCache" } else { "LocalModelCache" },
        created: seen.cache.metadata.creation_timestamp.clone(),
        storage_key: storage_key(&spec.source_model_uri),
        credentials: credentials(
            spec.service_account_name.as_deref(),
            spec.storage.as_ref().and_then(|s| s.key.as_deref()),
        ),
        groups,
        disks,
        tries,
        job_namespace: seen.job_namespace.clone(),
        used_by: users(&status),
        events: happened(&seen.events, seen.cache.metadata.uid.as_deref()),
        log: seen.log.clone(),
        stale: seen.operator.stale(std::slice::from_ref(&seen.cache), now),
        notes: seen.notes.clone(),
        conditions: status.conditions,
        cache,
    }
}

/// The Job whose log tells most: the one that failed last, of a copy that is still not there.
pub fn failed_job<'a>(cache: &CacheView, jobs: &'a [Job]) -> Option<&'a Job> {
    let is_wanted = |job: &&Job| {
        let copy = cache.nodes.iter().find(|copy| is_of(job, copy));
        copy.is_none_or(|copy| copy.state != State::Complete)
    };
    let at = |job: &Job| match job.view.phase {
        JobPhase::Failed(at, _) => Some(at),
        _ => None,
    };
    jobs.iter().filter(is_wanted).filter(|job| at(job).is_some()).max_by_key(|job| at(job))
}

fn is_of(job: &Job, copy: &CopyView) -> bool {
    job.node == label_value(&copy.node)
}

/// The Job's own words, where the status has no room for any (KServe's own definitions).
fn tell(copy: &mut CopyView, jobs: &[Job]) {
    let problem = jobs.iter().filter(|job| is_of(job, copy)).find_map(|job| match &job.view.phase {
        JobPhase::Failed(_, problem) | JobPhase::Pending(Some(problem)) => Some(problem),
        _ => None,
    });
    if let Some(Problem { reason, message }) = problem {
        copy.detail.reason = Some(reason.clone());
        copy.detail.message = Some(message.clone());
    }
}

fn tries_of(copy: &CopyView, key: &str, seen: &Seen) -> Tries {
    let detail = seen.nodes.get(&copy.node).and_then(|status| status.models.get(key));
    Tries {
        attempts: detail.and_then(|detail| detail.attempts),
        next_try: detail.and_then(|detail| detail.next_try.clone()),
        job: seen.jobs.iter().find(|job| is_of(job, copy)).map(|job| job.view.name.clone()),
    }
}

fn credentials(account: Option<&str>, key: Option<&str>) -> Option<String> {
    let account = account.map(|name| format!("service account {name}"));
    let key = key.map(|key| format!("key {key} of the storage secret"));
    let all: Vec<String> = account.into_iter().chain(key).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn users(status: &CacheStatus) -> Vec<User> {
    let of = |kind, names: &[NamespacedName]| -> Vec<User> {
        names.iter().map(|name| User { kind, name: name.clone() }).collect()
    };
    let mut all = of("InferenceService", &status.inference_services);
    all.extend(of("LLMInferenceService", &status.llm_inference_services));
    all
}

/// The latest first; none of an earlier cache of the same name.
fn happened(events: &[Event], uid: Option<&str>) -> Vec<Happened> {
    let is_of = |event: &&Event| {
        let of = event.involved_object.uid.as_deref().filter(|of| !of.is_empty());
        of.is_none() || uid.is_none() || of == uid
    };
    let mut all: Vec<Happened> = events.iter().filter(is_of).map(one).collect();
    all.sort_by_key(|event| std::cmp::Reverse(event.time.as_ref().map(|time| time.0)));
    all.truncate(EVENTS);
    all
}

fn one(event: &Event) -> Happened {
    let series = event.series.as_ref();
    let micro = series.and_then(|series| series.last_observed_time.as_ref()).or(event.event_time.as_ref());
    let plain = event.last_timestamp.as_ref().or(event.first_timestamp.as_ref());
    let at = plain.map(|time| time.0).into_iter().chain(micro.map(|time| time.0)).max();
    Happened {
        time: at.map(Time),
        warning: event.type_.as_deref() == Some("Warning"),
        reason: event.reason.clone().unwrap_or_default(),
        message: event.message.clone().unwrap_or_default(),
        count: series.and_then(|series| series.count).or(event.count).unwrap_or(1),
    }
}

#[cfg(test)]
pub(super) mod tests;
