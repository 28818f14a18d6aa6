//! A node's status as one of its agents leaves it: the agent's own part new, the rest as it was, and
//! no key that spec does not have (A9).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pass::{Problem, Said};
use super::scrub::Summary;
use super::text::{MESSAGE_MAX, REASON_MAX, cut, cut_some};
use crate::api::node::{
    Damage, DiskStatus, LocalModelNodeStatus, ModelDetail, ModelEntry, ModelStatus, NodeSummary,
};
use crate::api::quantity;

/// Size and room of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The size of the disk.
    pub capacity: u64,
    /// The room left on it.
    pub free: u64,
}

/// The whole status after a pass of the agent of `group`.
pub fn status(
    before: &LocalModelNodeStatus,
    spec: &[ModelEntry],
    group: &str,
    said: &BTreeMap<String, Said>,
    disk: DiskStatus,
) -> LocalModelNodeStatus {
    let mut status = before.clone();
    let is_wanted = |key: &String| spec.iter().any(|entry| entry.status_key() == *key);
    status.model_status.retain(|key, _| is_wanted(key));
    status.models.retain(|key, _| is_wanted(key));
    for (key, (phase, detail)) in said {
        status.model_status.insert(key.clone(), *phase);
        status.models.insert(key.clone(), bounded(detail.clone()));
    }
    status.disks.insert(group.to_owned(), disk);
    let mut status = settle(before, status, group);
    status.summary = Some(summary(&status, spec));
    status
}

/// The node in a line. A disk that has not been scrubbed at all has no time, and so has the node.
fn summary(status: &LocalModelNodeStatus, spec: &[ModelEntry]) -> NodeSummary {
    let is_complete = |entry: &&ModelEntry| {
        status.model_status.get(&entry.status_key()) == Some(&ModelStatus::ModelDownloaded)
    };
    let complete = spec.iter().filter(is_complete).count();
    let free = status.disks.values().filter_map(|disk| quantity::bytes(disk.free.as_ref()?).ok()).min();
    let reasons: BTreeSet<&str> = status.disks.values().filter_map(|disk| disk.reason.as_deref()).collect();
    let reasons: Vec<&str> = reasons.into_iter().collect();
    let scrubs: Option<Vec<Time>> = status.disks.values().map(|disk| disk.last_scrub.clone()).collect();
    NodeSummary {
        models: format!("{complete}/{}", spec.len()),
        free: free.map(quantity::at_most),
        disk: if reasons.is_empty() { "Usable".into() } else { reasons.join(",") },
        last_scrub: scrubs.and_then(|scrubs| scrubs.into_iter().min()),
    }
}

/// An initializer of somebody else's may have written the words.
fn bounded(detail: ModelDetail) -> ModelDetail {
    ModelDetail {
        reason: cut_some(detail.reason, REASON_MAX),
        message: cut_some(detail.message, MESSAGE_MAX),
        last_damage: detail.last_damage.map(Damage::cut),
        ..detail
    }
}

/// Free space alone is no news until it has changed by 5 % (A8).
fn settle(
    before: &LocalModelNodeStatus,
    mut status: LocalModelNodeStatus,
    group: &str,
) -> LocalModelNodeStatus {
    let free = |status: &LocalModelNodeStatus| {
        let quantity = status.disks.get(group)?.free.clone()?;
        Some((quantity::bytes(&quantity).ok()?, quantity))
    };
    let (Some((old, quantity)), Some((new, _))) = (free(before), free(&status)) else { return status };
    if (new - old).abs() * 20 >= old.max(1) {
        return status;
    }
    let measured = status.disks.get_mut(group).and_then(|disk| disk.free.replace(quantity));
    if status != *before
        && let Some(disk) = status.disks.get_mut(group)
    {
        disk.free = measured;
    }
    status
}

/// What is known of a disk.
#[derive(Debug, Default)]
pub struct DiskView<'a> {
    /// Size and room, where they can be told.
    pub usage: Option<Usage>,
    /// Why it cannot be used.
    pub problem: Option<&'a Problem>,
    /// The last result of the scrub.
    pub scrub: Summary,
    /// What lies on it that is not ours.
    pub not_ours: &'a [String],
}

/// What is said of a disk.
pub fn disk(view: &DiskView) -> DiskStatus {
    /// Nobody reads on.
    const TOLD: usize = 10;
    let count = |count: u64| i64::try_from(count).ok().filter(|count| *count > 0);
    DiskStatus {
        capacity: view.usage.map(|usage| Quantity(usage.capacity.to_string())),
        free: view.usage.map(|usage| Quantity(usage.free.to_string())),
        last_scrub: view.scrub.checked.map(Time),
        scrubbed_bytes: count(view.scrub.bytes),
        damaged_files: count(view.scrub.damaged),
        not_ours: view.not_ours.iter().take(TOLD).map(|name| cut(name, MESSAGE_MAX)).collect(),
        reason: view.problem.map(|problem| cut(&problem.reason, REASON_MAX)),
        message: view.problem.map(|problem| cut(&problem.message, MESSAGE_MAX)),
    }
}

/// What is said of a disk of which nothing was seen: what was known, and why no more is.
pub fn unanswered(before: Option<&DiskStatus>, problem: &Problem) -> DiskStatus {
    DiskStatus {
        reason: Some(problem.reason.clone()),
        message: Some(problem.message.clone()),
        ..before.cloned().unwrap_or_default()
    }
}

/// What was said of each model in a status that was written earlier.
pub fn said(status: &LocalModelNodeStatus) -> BTreeMap<String, Said> {
    let detail = |key| status.models.get(key).cloned().unwrap_or_default();
    status.model_status.iter().map(|(key, phase)| (key.clone(), (*phase, detail(key)))).collect()
}

#[cfg(test)]
mod tests;
