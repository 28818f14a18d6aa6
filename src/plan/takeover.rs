//! What KServe's agent left on the disk (D6). It has one area, the root, for the caches of all
//! namespaces; its Jobs write straight into `models/K`, and leave no manifest.
//!
//! Its word counts: a copy is complete when a Job of its has succeeded, or when it said so in the node's
//! status and no agent of ours has said anything else since. Such a copy gets a manifest; for a namespace
//! cache it is also linked into the namespace's area, and stays in the root for the pods that mount it
//! there, as long as any cache has its source.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use super::disk::{CopyKey, Folder};
use super::gate::GateStatus;
use super::names::{MANAGED_BY, MANAGER};
use super::pass::{Action, JobPhase, JobView, Outcome, Said, View, is_active};
use crate::api::node::ModelDetail;
use crate::api::{LocalModelNode, ModelStatus};

/// The status keys whose `ModelDownloaded` somebody else wrote: the API server remembers who did, on
/// definitions that keep our own fields and on those that do not.
pub fn vouched(local: &LocalModelNode) -> BTreeSet<String> {
    let managed = local.managed_fields();
    if managed.is_empty() {
        return BTreeSet::new(); // who wrote what is not known
    }
    let ours: Vec<_> = managed
        .iter()
        .filter(|fields| fields.manager.as_deref() == Some(MANAGER))
        .filter_map(|fields| fields.fields_v1.as_ref()?.0.pointer("/f:status/f:modelStatus"))
        .collect();
    let is_ours = |key: &str| ours.iter().any(|fields| fields.get(format!("f:{key}")).is_some());
    let said = local.status.iter().flat_map(|status| &status.model_status);
    said.filter(|(key, phase)| **phase == ModelStatus::ModelDownloaded && !is_ours(key))
        .map(|(key, _)| key.clone())
        .collect()
}

/// Whether KServe's word says that the copy is complete.
fn is_vouched(view: &View, copy: &CopyKey) -> bool {
    let by_status = || {
        let mut entries = view.all.iter().filter(|entry| CopyKey::of(entry) == *copy);
        entries.any(|entry| view.vouched.contains(&entry.status_key()))
    };
    let by_job = |job: &JobView| {
        job.kserve && job.copy == *copy && matches!(job.phase, JobPhase::Succeeded(_)) && !job.deleting
    };
    by_status() || view.jobs.iter().any(by_job)
}

/// Whether a copy that KServe vouches for looks complete by a manifest that no agent of ours has written or placed: its
/// source brought that. KServe writes nothing but the root.
pub(super) fn is_planted(view: &View, copy: &CopyKey) -> bool {
    copy.namespace.is_none() && !view.disk.sealed.contains(copy) && is_vouched(view, copy)
}

/// Whether a copy in the root is still needed although no cluster cache has its source: pods of namespace
/// caches may read it there.
pub(super) fn is_kept(view: &View, copy: &CopyKey) -> bool {
    let mut others = view.all.iter().map(CopyKey::of).filter(|other| other.key == copy.key);
    copy.namespace.is_none()
        && others.any(|other| view.disk.kept.contains(&copy.key) || is_vouched(view, &other))
}

/// Marks copies in the root that namespace caches have from KServe's time.
pub(super) fn keep(view: &View, outcome: &mut Outcome) {
    let of_namespaces = view.entries.iter().map(CopyKey::of).filter(|copy| copy.namespace.is_some());
    let keys: BTreeSet<String> = of_namespaces
        .filter(|copy| {
            let is_there = !matches!(view.disk.models.get(&copy.in_root()), None | Some(Folder::Empty));
            is_there && !view.disk.kept.contains(&copy.key) && is_vouched(view, copy)
        })
        .filter(|copy| view.unwritable(&copy.in_root()).is_none())
        .map(|copy| copy.key)
        .collect();
    outcome.actions.extend(keys.into_iter().map(Action::Keep));
}

/// Tells the pods that read a kept copy in the root how it fares: their claims begin there, and so does the
/// gate that they see. Where a cluster cache has the source its own word stands there.
pub(super) fn gates(view: &View, outcome: &mut Outcome) {
    let of_namespaces = view.entries.iter().map(CopyKey::of).filter(|copy| copy.namespace.is_some());
    let is_clusters = |root: &CopyKey| view.all.iter().any(|entry| CopyKey::of(entry) == *root);
    for root in of_namespaces.map(|copy| copy.in_root()) {
        if !view.disk.kept.contains(&root.key) || is_clusters(&root) || view.unwritable(&root).is_some() {
            continue;
        }
        let is_whole = matches!(view.disk.models.get(&root), Some(Folder::Complete { .. }));
        let said = if is_whole {
            (ModelStatus::ModelDownloaded, ModelDetail::default())
        } else {
            let detail = ModelDetail {
                reason: Some("KServesCopyDamaged".into()),
                message: Some(format!(
                    "the copy that KServe made in models/{} is not whole any more; delete the service's claim and its pods, and they read the namespace's own copy",
                    root.key
                )),
                ..ModelDetail::default()
            };
            (ModelStatus::ModelDownloadError, detail)
        };
        outcome.gates.insert(root, GateStatus::from(&said));
    }
}

/// The next step from a copy of KServe's to one of ours, and what is said meanwhile; `None` where there
/// is no such copy.
pub(super) fn take(
    view: &View,
    copy: &CopyKey,
    before: Option<&Said>,
    outcome: &mut Outcome,
) -> Option<Said> {
    let writes = |job: &JobView| is_active(job) && (job.copy == *copy || job.writes_root(&copy.key));
    let is_refused = |copy: &CopyKey| view.unadoptable.contains_key(copy);
    if !is_vouched(view, copy)
        || view.jobs.iter().any(writes)
        || is_refused(copy)
        || is_refused(&copy.in_root())
    {
        return None;
    }
    let found = |copy: &CopyKey| match view.disk.models.get(copy) {
        // What a planted manifest says does not count.
        Some(Folder::Complete { .. }) if copy.namespace.is_none() && !view.disk.sealed.contains(copy) => {
            Folder::Bare
        }
        Some(found) => *found,
        None => Folder::Empty,
    };
    let linked = view.disk.incoming.get(copy);
    let step = match (found(copy), found(&copy.in_root())) {
        (Folder::Bare, _) => Action::AdoptModel(copy.clone()),
        (Folder::Empty, root) if copy.namespace.is_some() => match (linked, root) {
            (Some(Folder::Complete { .. }), _) => Action::Place(copy.clone()),
            (_, Folder::Complete { .. }) => Action::Link(copy.clone()),
            (_, Folder::Bare) => Action::AdoptModel(copy.in_root()),
            _ => return None,
        },
        _ => return None,
    };
    if view.unwritable(copy).is_none() {
        outcome.actions.push(step);
    }
    // What serves stays served: the status does not change while the books are put right.
    Some(match before {
        Some(said) if said.0 == ModelStatus::ModelDownloaded => said.clone(),
        _ => (ModelStatus::ModelDownloading, ModelDetail::default()),
    })
}

/// Jobs of KServe's whose result is taken, or was worth nothing. Their pods hold the claim that is to be
/// replaced.
pub(super) fn dismiss(view: &View, copy: &CopyKey, outcome: &mut Outcome) {
    let steps = |action: &Action| match action {
        Action::AdoptModel(of) => of.key == copy.key,
        Action::Link(of) | Action::Place(of) => of == copy,
        _ => false,
    };
    if copy.namespace.is_none() || outcome.actions.iter().any(steps) {
        return;
    }
    let is_done = |job: &&JobView| {
        job.kserve && job.copy == *copy && !job.deleting && matches!(job.phase, JobPhase::Succeeded(_))
    };
    let done = view.jobs.iter().filter(is_done).map(|job| Action::DeleteJob(job.name.clone()));
    outcome.actions.extend(done.collect::<Vec<_>>());
}

/// What the claim of a pair of KServe's waits for before it is replaced: a Job that still runs on it, or
/// one whose result no agent has taken yet. Failed ones hold up nothing.
pub fn replacing_waits_for(jobs: &[Job]) -> Option<String> {
    let has_failed = |job: &Job| {
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.type_ == "Failed" && c.status == "True")
    };
    let is_theirs = |job: &&Job| job.labels().get(MANAGED_BY).is_none_or(|by| by != MANAGER);
    jobs.iter().filter(is_theirs).find(|job| !has_failed(job)).map(ResourceExt::name_any)
}

#[cfg(test)]
mod tests;
