//! Why an agent cannot run on a node, in the words of who knows: the kubelet, the scheduler, or the node's
//! taints (G8).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Node, Pod, PodCondition, Taint, Toleration};
use kube::ResourceExt;

use super::admission::list;
use super::conditions::Statement;
use super::job_view;
use super::names;
use super::selector;
use crate::api::LocalModelNodeGroup;
use crate::api::cache::{NodeCopy, NodeStatus};

/// The agent of a node group cannot run on a node (G8).
pub const AGENT_NOT_RUNNING: &str = "AgentNotRunning";

/// How long a pod may wait for a node before that is told: the volumes of a new group are made and bound meanwhile.
const SETTLES: SignedDuration = SignedDuration::from_secs(10);

/// The taints that every pod of a `DaemonSet` tolerates (Kubernetes' own list).
const TOLERATED_BY_DAEMONS: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
];

/// What is known of the agents.
#[derive(Debug)]
pub struct View<'a> {
    /// The agents' pods, of whatever group.
    pub pods: &'a [&'a Pod],
    /// Warnings about pods in the agents' namespace.
    pub events: &'a [&'a Event],
    /// What agents tolerate beside what every `DaemonSet` does.
    pub tolerations: &'a [Toleration],
    /// The time of the look.
    pub now: Timestamp,
}

/// The agents of a group that do not run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// Why, by node.
    pub agents: BTreeMap<String, String>,
    /// The nodes where one has still to start.
    pub starting: BTreeSet<String>,
    /// When to look again for those that are still in their usual moments.
    pub settled: Option<Timestamp>,
}

/// Why the agents of a group do not run. A node that is not ready is told of as such, not here.
pub fn stuck(group: &LocalModelNodeGroup, nodes: &[&Node], view: &View) -> Stuck {
    let label = names::label_value(&group.name_any());
    let of_group: Vec<&Pod> = view
        .pods
        .iter()
        .copied()
        .filter(|pod| pod.labels().get(names::NODE_GROUP) == Some(&label))
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect();
    let mut stuck = Stuck::default();
    for node in nodes.iter().filter(|node| selector::matches(group.spec.node_selector(), node)) {
        let name = node.name_any();
        let pod = of_group.iter().find(|pod| node_of(pod) == Some(name.as_str()));
        let why = match pod {
            Some(pod) => {
                let settled = settled(pod).filter(|settled| *settled > view.now);
                stuck.settled = stuck.settled.into_iter().chain(settled).min();
                if settled.is_some() { None } else { problem(pod, view.events) }
            }
            None => untolerated(node, view.tolerations),
        };
        match why {
            Some(why) => drop(stuck.agents.insert(name, why)),
            None if pod.is_none_or(|pod| !is_ready(pod)) => drop(stuck.starting.insert(name)),
            None => {}
        }
    }
    stuck
}

/// Whether a pod has said that it is ready: what is not yet known to fail does not run for that.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// From when on it counts that a pod has no node.
fn settled(pod: &Pod) -> Option<Timestamp> {
    Some(unscheduled(pod)?.last_transition_time.as_ref()?.0 + SETTLES)
}

fn unscheduled(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")
}

/// The node that a pod runs on, or that its `DaemonSet` made it for.
fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = &spec.node_name {
        return Some(node);
    }
    let required = spec
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let mut fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let name = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    name.values.as_ref()?.first().map(String::as_str)
}

/// What keeps a pod from running; nothing while it takes its usual moments.
fn problem(pod: &Pod, events: &[&Event]) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(condition) = unscheduled(pod) {
        return condition.message.as_ref().map(|why| format!("its pod cannot be scheduled: {why}"));
    }
    let container = status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref());
    let waiting = match container {
        Some(state) => state.waiting.as_ref()?,
        None if status.phase.as_deref() == Some("Failed") => {
            return Some(status.message.clone().unwrap_or_else(|| "its pod failed".into()));
        }
        None => return told(pod, events),
    };
    let reason = waiting.reason.as_deref().unwrap_or_default();
    if matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
        return told(pod, events);
    }
    let (reason, message) = job_view::of_image(reason, waiting.message.as_deref().unwrap_or_default());
    Some(if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") })
}

/// The newest warning about a pod: of a path that is missing the kubelet speaks in Events only.
fn told(pod: &Pod, events: &[&Event]) -> Option<String> {
    let uid = pod.uid()?;
    // It has a node by now, and one whose probes fail runs.
    let is_past = |event: &Event| matches!(event.reason.as_deref(), Some("FailedScheduling" | "Unhealthy"));
    let is_of_pod = |event: &&&Event| event.involved_object.uid.as_deref() == Some(uid.as_str());
    let of_pod = events.iter().filter(is_of_pod).filter(|event| !is_past(event));
    let newest = of_pod.max_by_key(|event| when(event))?;
    let reason = newest.reason.as_ref().map(|reason| format!("{reason}: ")).unwrap_or_default();
    newest.message.as_ref().map(|message| reason + message)
}

fn when(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let time = series.or(event.event_time.as_ref()).map(|time| time.0);
    time.max(event.last_timestamp.as_ref().map(|time| time.0))
}

/// The taint that keeps the agent away. Its `DaemonSet` then makes no pod for the node at all.
fn untolerated(node: &Node, tolerations: &[Toleration]) -> Option<String> {
    let taints = node.spec.as_ref()?.taints.iter().flatten();
    let mut keeping_away = taints.filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    let taint = keeping_away.find(|taint| {
        !TOLERATED_BY_DAEMONS.contains(&taint.key.as_str())
            && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    })?;
    let value = taint.value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
    Some(format!(
        "it does not tolerate the node's taint {}{value}:{}: add it to localModelAgentPod.tolerations in ConfigMap {}",
        taint.key,
        taint.effect,
        names::CONFIG_MAP
    ))
}

/// Whether a toleration is for a taint, as the scheduler reads it.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value = |of: &Option<String>| of.clone().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && ((key.is_empty() && exists)
            || (key == taint.key && (exists || value(&toleration.value) == value(&taint.value))))
}

/// The condition of a group some of whose agents do not run.
pub fn problem_of_group(stuck: &BTreeMap<String, String>) -> Option<Statement> {
    let told: Vec<String> = stuck.iter().map(|(node, why)| format!("on {node}: {why}")).collect();
    (!told.is_empty()).then(|| Statement::problem(AGENT_NOT_RUNNING, list(&told)))
}

/// Tells of each copy that waits for an agent why that does not run, and returns the cache's condition where
/// there is such a copy. `stuck` holds, by node, a group of the cache's and why its agent does not run there.
pub fn told_of_copies(
    nodes: &mut BTreeMap<String, NodeCopy>,
    stuck: &BTreeMap<String, (String, String)>,
) -> Option<Statement> {
    let mut told = Vec::new();
    for (node, (group, why)) in stuck {
        let Some(copy) = nodes.get_mut(node).filter(|copy| waits(copy.phase)) else { continue };
        copy.reason = Some(AGENT_NOT_RUNNING.into());
        copy.message = Some(format!("the agent of {group} does not run: {why}"));
        told.push(format!("the agent of {group} does not run on {node}: {why}"));
    }
    (!told.is_empty()).then(|| Statement::problem(AGENT_NOT_RUNNING, list(&told)))
}

fn waits(phase: NodeStatus) -> bool {
    matches!(phase, NodeStatus::NodeDownloadPending | NodeStatus::NodeDownloading | NodeStatus::Unknown)
}

#[cfg(test)]
mod tests;
