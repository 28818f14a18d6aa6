//! What a Job and its pods say, as an agent needs it.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};
use kube::ResourceExt;

use super::disk::CopyKey;
use super::names::{
    INCOMING, JOB_MODEL, JOB_NAMESPACE, MANAGED_BY, MANAGER, MODELS, MOUNT_PATH, NAMESPACES, NODE_GROUP,
    RECIPE, label_value,
};
use super::pass::{JobPhase, JobView, POD_REFUSED, Problem};
use super::reasons;
use crate::api::source::storage_key;
use crate::download::Failure;
use crate::download::source::text_without_secrets;

const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";
/// How the kubelet begins when it waits before it pulls an image again.
const BACK_OFF: &str = "Back-off pulling image ";

/// The view of a download Job, of whatever group, ours or KServe's; `None` for any other Job.
pub fn view(job: &Job, pods: &[&Pod], group: &str) -> Option<JobView> {
    let labels = job.labels();
    if !labels.contains_key(JOB_MODEL) {
        return None;
    }
    let container = job.spec.as_ref()?.template.spec.as_ref()?.containers.first()?;
    let uri = container.args.as_ref()?.first()?;
    let key = storage_key(uri);
    let in_models = format!("{MODELS}/{key}");
    let mut mounts = container.volume_mounts.iter().flatten();
    let is_ours = labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER);
    let uid = job.uid()?;
    let own = |pod: &&&Pod| pod.owner_references().iter().any(|owner| owner.uid == uid);
    let mut pods: Vec<&Pod> = pods.iter().filter(own).copied().collect();
    pods.sort_by_key(|pod| pod.creation_timestamp());
    let started = job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|time| time.0);
    Some(JobView {
        name: job.name_any(),
        copy: CopyKey {
            namespace: labels.get(JOB_NAMESPACE).filter(|namespace| !namespace.is_empty()).cloned(),
            key,
        },
        kserve: !is_ours && mounts.any(|mount| mount.sub_path.as_ref() == Some(&in_models)),
        own: labels.get(NODE_GROUP).is_some_and(|of| *of == label_value(group)),
        phase: phase(job, &pods),
        deleting: job.metadata.deletion_timestamp.is_some(),
        recipe: job.annotations().get(RECIPE).and_then(|text| text.parse().ok()),
        started,
        without_pod_since: started.filter(|_| pods.is_empty()),
    })
}

fn phase(job: &Job, pods: &[&Pod]) -> JobPhase {
    let status = job.status.clone().unwrap_or_default();
    let holds =
        |kind| status.conditions.iter().flatten().find(move |c| c.type_ == kind && c.status == "True");
    let at = |time: Option<Timestamp>| time.unwrap_or(Timestamp::UNIX_EPOCH);
    if let Some(complete) = holds("Complete") {
        let ended = status.completion_time.as_ref().or(complete.last_transition_time.as_ref());
        return JobPhase::Succeeded(at(ended.map(|time| time.0)));
    }
    if let Some(failed) = holds("Failed") {
        // What a pod says that was stopped for it is no reason.
        let is_late = failed.reason.as_deref() == Some(reasons::DEADLINE_EXCEEDED.as_str());
        let said = is_late
            .then(|| deadline_exceeded(job))
            .or_else(|| pods.iter().rev().find_map(|pod| failure(pod)));
        let problem = said.unwrap_or_else(|| {
            let reason = failed.reason.as_deref().unwrap_or("JobFailed");
            Problem::new(reason, failed.message.as_deref().unwrap_or("the download Job failed"))
        });
        return JobPhase::Failed(at(failed.last_transition_time.as_ref().map(|time| time.0)), problem);
    }
    // A pod that has ended is under way until the Job says how: it may have been the last one or not.
    let phase = pods.last().and_then(|pod| pod.status.as_ref()?.phase.as_deref());
    if status.ready.unwrap_or(0) > 0 || matches!(phase, Some("Running" | "Succeeded" | "Failed")) {
        return JobPhase::Running;
    }
    JobPhase::Pending(pods.last().and_then(|pod| waiting(pod)))
}

fn deadline_exceeded(job: &Job) -> Problem {
    let seconds = job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or_default();
    let message = format!(
        "the download did not end within the {} min that its Job may take: check how fast the source is and whether modelSize is right; the next try goes on where this one stopped",
        seconds / 60
    );
    Problem::new(reasons::DEADLINE_EXCEEDED.as_str(), message)
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

/// Why a pod failed: the downloader's own word in the termination message, else the kubelet's.
fn failure(pod: &Pod) -> Option<Problem> {
    let ended =
        containers(pod).find_map(|c| c.state.as_ref()?.terminated.as_ref()).filter(|t| t.exit_code != 0);
    let Some(ended) = ended else {
        let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Failed"))?;
        let message = status.message.as_deref().unwrap_or("the pod failed");
        return Some(told(status.reason.as_deref().unwrap_or("PodFailed"), message));
    };
    if let Some(Ok(said)) = ended.message.as_deref().map(|text| serde_json::from_str::<Failure>(text.trim()))
    {
        return Some(told(&said.reason, &said.message));
    }
    Some(in_words_of_the_kubelet(ended))
}

fn in_words_of_the_kubelet(ended: &ContainerStateTerminated) -> Problem {
    let reason = ended.reason.as_deref().filter(|reason| *reason != "Error").unwrap_or("DownloadFailed");
    let last = ended.message.as_deref().and_then(|text| text.trim().lines().last()).unwrap_or_default();
    let code = format!("the download container ended with exit code {}", ended.exit_code);
    let words = if last.is_empty() { code } else { format!("{code}: {last}") };
    told(reason, &words)
}

/// In words that others chose: another initializer may log an address that is signed.
fn told(reason: &str, message: &str) -> Problem {
    Problem::new(reason, text_without_secrets(message))
}

/// What a pod waits for, when that needs somebody to act.
fn waiting(pod: &Pod) -> Option<Problem> {
    let waiting = containers(pod).find_map(|c| c.state.as_ref()?.waiting.as_ref());
    if let Some(waiting) = waiting {
        let reason =
            waiting.reason.as_deref().filter(|r| !matches!(*r, "ContainerCreating" | "PodInitializing"))?;
        let message = waiting.message.as_deref().unwrap_or("the container cannot start");
        if message.starts_with("secret ") && message.ends_with(" not found") {
            let namespace = pod.namespace().unwrap_or_default();
            return Some(told("SecretNotFound", &format!("{message} in namespace {namespace}")));
        }
        if message.starts_with("couldn't find key ") && message.contains(" in Secret ") {
            return Some(told("SecretKeyNotFound", message));
        }
        let (reason, message) = of_image(reason, message);
        return Some(told(reason, message));
    }
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let unscheduled = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(Problem::new(
        unscheduled.reason.as_deref().unwrap_or("Unschedulable"),
        unscheduled.message.as_deref().unwrap_or("the pod cannot be scheduled"),
    ))
}

/// The kubelet says by turns that it cannot pull an image and that it waits before it tries again: one cause, in the
/// words that name it.
pub fn of_image<'a>(reason: &'a str, message: &'a str) -> (&'a str, &'a str) {
    if !matches!(reason, "ErrImagePull" | IMAGE_PULL_BACK_OFF) {
        return (reason, message);
    }
    let cause = message.strip_prefix(BACK_OFF).and_then(|rest| rest.split_once("ErrImagePull: "));
    (IMAGE_PULL_BACK_OFF, cause.map_or(message, |(_, cause)| cause))
}

/// What is said of a Job's image, where the kubelet names the cause in one moment and not in the next.
pub fn lasting(problem: &Problem, before: Option<(&str, &str)>) -> Problem {
    match before {
        Some((IMAGE_PULL_BACK_OFF, cause))
            if problem.reason == IMAGE_PULL_BACK_OFF && problem.message.starts_with(BACK_OFF) =>
        {
            Problem::new(IMAGE_PULL_BACK_OFF, cause)
        }
        _ => problem.clone(),
    }
}

/// Names the disk as it is on the node, with its group, in what Jobs say of the folder that they see.
pub fn name_disk(jobs: &mut [JobView], path: &str, group: &str) {
    for job in jobs.iter_mut().filter(|job| job.own) {
        let JobPhase::Failed(_, problem) = &mut job.phase else { continue };
        if problem.message.contains(MOUNT_PATH) {
            let area = job.copy.namespace.as_ref().map(|namespace| format!("{NAMESPACES}/{namespace}/"));
            let folder = format!("{path}/{}{INCOMING}/{}", area.unwrap_or_default(), job.copy.key);
            let message = problem.message.replace(MOUNT_PATH, &folder);
            problem.message = format!("{message} (node group {group})");
        }
    }
}

/// Why Kubernetes makes no pod for a Job, as the last Event about it says. Its words name a pod that is another
/// one at each try: what stays is told, so that a status is not written for every try.
pub fn refusal(job: &str, events: &[Event]) -> Option<Problem> {
    let failed = events.iter().filter(|event| event.reason.as_deref() == Some("FailedCreate"));
    let at = |event: &&Event| {
        let last = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
        last.or(event.event_time.as_ref())
            .map(|time| time.0)
            .or(event.last_timestamp.as_ref().map(|time| time.0))
    };
    let message = failed.max_by_key(at)?.message.as_deref()?;
    let pod = format!("\"{job}-");
    let words =
        match message.split_once(&pod).and_then(|(before, rest)| Some((before, rest.split_once('"')?.1))) {
            Some((before, after)) => format!("{before}\"{job}-…\"{after}"),
            None => message.to_owned(),
        };
    Some(Problem::new(POD_REFUSED, words))
}

#[cfg(test)]
mod tests;
