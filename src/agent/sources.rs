//! What an agent knows of the cluster: its node's object, and the Jobs of its node.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::Notify;

use super::Settings;
use crate::api::{ClusterStorageContainer, LocalModelCache, LocalModelNode};
use crate::error::{Doing, Error};
use crate::plan::job_view;
use crate::plan::names::{JOB_NODE, label_value};
use crate::plan::pass::{JobPhase, JobView, Problem};
use crate::watch::{Change, Watch, watch};

/// The stores of one agent.
#[derive(Debug)]
pub(super) struct Sources {
    node: String,
    local_nodes: Watch<LocalModelNode>,
    jobs: Watch<Job>,
    pods: Watch<Pod>,
    containers: Watch<ClusterStorageContainer>,
}

impl Sources {
    pub(super) fn start(
        client: &Client,
        settings: &Settings,
        job_namespace: &str,
        wake: &Arc<Notify>,
    ) -> Self {
        let this_node = watcher::Config::default().fields(&format!("metadata.name={}", settings.node));
        let of_node =
            watcher::Config::default().labels(&format!("{JOB_NODE}={}", label_value(&settings.node)));
        Self {
            node: settings.node.clone(),
            local_nodes: watch(Api::all(client.clone()), this_node, waking(wake)),
            jobs: watch(Api::namespaced(client.clone(), job_namespace), of_node.clone(), waking(wake)),
            pods: watch(Api::namespaced(client.clone(), job_namespace), of_node, waking(wake)),
            containers: watch(Api::all(client.clone()), watcher::Config::default(), waking(wake)),
        }
    }

    /// Waits until every store has its first list.
    pub(super) async fn ready(&self) {
        let mut retry = tokio::time::interval(Duration::from_millis(100));
        loop {
            let mut missing = Vec::new();
            self.local_nodes.name_if_unfilled(&mut missing);
            self.jobs.name_if_unfilled(&mut missing);
            self.pods.name_if_unfilled(&mut missing);
            self.containers.name_if_unfilled(&mut missing);
            if missing.is_empty() {
                return;
            }
            retry.tick().await;
        }
    }

    /// This node's object; none means that nothing is known, not that nothing is wanted.
    pub(super) fn local_node(&self) -> Option<Arc<LocalModelNode>> {
        let local = self.local_nodes.store.get(&ObjectRef::new(&self.node))?;
        local.metadata.deletion_timestamp.is_none().then_some(local)
    }

    /// The download Jobs of this node and group.
    pub(super) fn jobs(&self, group: &str) -> Vec<JobView> {
        let pods = self.pods.store.state();
        let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        self.jobs.store.state().iter().filter_map(|job| job_view::view(job, &pods, group)).collect()
    }

    /// The containers to choose from.
    pub(super) fn containers(&self) -> Vec<Arc<ClusterStorageContainer>> {
        self.containers.store.state()
    }
}

/// Adds to Jobs that still have no pod why Kubernetes makes none: only Events say so.
pub(super) async fn explain(client: &Client, job_namespace: &str, jobs: &mut [JobView], now: Timestamp) {
    for job in jobs.iter_mut().filter(|job| job.explained_at().is_some_and(|at| at <= now)) {
        match refusal(client, job_namespace, &job.name).await {
            Ok(problem) => job.phase = JobPhase::Pending(problem),
            Err(error) => tracing::warn!(job = job.name, %error, "why a Job has no pod cannot be told"),
        }
    }
}

async fn refusal(client: &Client, job_namespace: &str, job: &str) -> Result<Option<Problem>, Error> {
    let of_job = ListParams::default().fields(&format!("involvedObject.kind=Job,involvedObject.name={job}"));
    let api: Api<Event> = Api::namespaced(client.clone(), job_namespace);
    let events = api.list(&of_job).await.doing(|| format!("listing the Events of Job {job}"))?;
    Ok(job_view::refusal(job, &events.items))
}

fn waking<K: Debug>(wake: &Arc<Notify>) -> impl FnMut(Change<K>) + Send + 'static + use<K> {
    let wake = wake.clone();
    move |_| wake.notify_one()
}

/// A node's object as the API server has it. By list: the right to it is the watch's.
pub(super) async fn local_node_now(client: &Client, node: &str) -> Result<Option<LocalModelNode>, Error> {
    let this_node = ListParams::default().fields(&format!("metadata.name={node}"));
    let api: Api<LocalModelNode> = Api::all(client.clone());
    let found = api.list(&this_node).await.doing(|| format!("reading LocalModelNode {node}"))?;
    Ok(found.items.into_iter().next().filter(|local| local.metadata.deletion_timestamp.is_none()))
}

/// The first group of a cluster cache; `None` when the cache is gone.
pub(super) async fn first_group(client: &Client, cache: &str) -> Result<Option<String>, Error> {
    let api: Api<LocalModelCache> = Api::all(client.clone());
    let cache = api.get_opt(cache).await.doing(|| format!("reading LocalModelCache {cache}"))?;
    Ok(cache.and_then(|cache| cache.spec.node_groups.first().cloned()))
}

/// Whether the job namespace enforces the "restricted" pod security standard.
pub(super) async fn is_restricted(client: &Client, namespace: &str) -> Result<bool, Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = api.get(namespace).await.doing(|| format!("reading Namespace {namespace}"))?;
    let labels = namespace.metadata.labels.unwrap_or_default();
    Ok(labels.get("pod-security.kubernetes.io/enforce").is_some_and(|level| level == "restricted"))
}
