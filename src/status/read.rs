//! What the command asks of the API server. Lists go out together and take whatever version the server has
//! at hand (`resourceVersion=0`): nothing is written on what they say. Only the caches have to be readable;
//! of all else that is refused the reader is told.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{GetParams, ListParams, LogParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::fleet::{CacheView, State};
use super::objects::{Cache, Group, Listed, Node, Operator, Seen, WholeNode};
use super::pace::History;
use super::story;
use crate::api::{LocalModelCache, LocalModelNamespaceCache, LocalModelNode, LocalModelNodeGroup};
use crate::config::Config;
use crate::error::{self, Error};
use crate::plan::names::{
    CONFIG_MAP, CacheKey, JOB_MODEL, JOB_NAMESPACE, JOB_NODE, is_warm_label, label_value,
};
use crate::plan::{job_view, lease};

/// A server that does not answer by then is not there.
const CONNECT: Duration = Duration::from_secs(5);
/// The most nodes of one cache that are asked for their part of its story.
const NODES: usize = 20;
/// The most Jobs of one cache whose pods are looked at.
const JOBS: usize = 20;
/// The most bytes of a log.
const LOG: i64 = 64 << 10;

/// A client of the cluster that the kubeconfig, or the pod that this runs in, names.
pub async fn client(context: Option<String>) -> Result<Client, Error> {
    let config = match context {
        // Of the two ways that failed the kubeconfig is the one that a person can mend.
        None => kube::Config::infer()
            .await
            .map_err(|error| error.source().map_or_else(|| error.to_string(), ToString::to_string)),
        Some(context) => {
            is_context(&context)?;
            let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
            kube::Config::from_kubeconfig(&options).await.map_err(|error| error.to_string())
        }
    };
    let mut config = config.map_err(|error: String| {
        Error::Setup(format!(
            "no cluster is configured ({}): set KUBECONFIG, or see that `kubectl config current-context` names one",
            one_line(&error)
        ))
    })?;
    config.connect_timeout = Some(CONNECT);
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|error| told(&format!("connecting to {server}"), &error))
}

/// Refuses a context that the kubeconfig does not have, with those that it has. What else is wrong with the file is
/// for the client to say.
fn is_context(context: &str) -> Result<(), Error> {
    let Ok(kubeconfig) = Kubeconfig::read() else { return Ok(()) };
    let mut names: Vec<String> = kubeconfig.contexts.into_iter().map(|context| context.name).collect();
    if names.iter().any(|name| name == context) {
        return Ok(());
    }
    names.sort();
    let there = if names.is_empty() { "it has none".into() } else { format!("it has {}", names.join(", ")) };
    Err(Error::Setup(format!("the kubeconfig has no context {context:?}: {there}")))
}

/// Looks at the whole fleet; of namespace caches at those of one namespace, if one is given.
pub async fn fleet(client: &Client, namespace: Option<&str>) -> Result<Seen, Error> {
    let (caches, of_namespaces, groups, nodes, labelled) = tokio::join!(
        list::<LocalModelCache, Cache>(client, None),
        list::<LocalModelNamespaceCache, Cache>(client, namespace),
        list::<LocalModelNodeGroup, Group>(client, None),
        list::<LocalModelNode, Node>(client, None),
        labelled(client),
    );
    let mut seen = Seen::default();
    seen.caches = match caches {
        // Who may see nothing but a namespace still sees that.
        Err(error) if code(&error) == Some(403) && of_namespaces.is_ok() => {
            seen.notes.push(note("LocalModelCaches", &error));
            Vec::new()
        }
        caches => caches.map_err(|error| told("listing LocalModelCaches", &error))?,
    };
    seen.caches.extend(or_note(of_namespaces, "LocalModelNamespaceCaches", &mut seen.notes));
    seen.groups = or_note(groups, "LocalModelNodeGroups", &mut seen.notes);
    // Of nodes that cannot be seen nobody knows whether an agent runs there.
    if nodes.is_ok() {
        seen.labelled = or_note(labelled, "Nodes", &mut seen.notes);
    }
    seen.nodes = or_note(nodes, "LocalModelNodes", &mut seen.notes);
    Ok(seen)
}

/// Asks whether an operator runs.
pub async fn operator(client: &Client, namespace: &str) -> (Operator, Option<String>) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    match leases.get_opt(lease::NAME).await {
        Ok(found) => match lease::is_held(found.as_ref(), jiff::Timestamp::now()) {
            Ok(()) => (Operator::Running, None),
            Err(spoke) => (Operator::Gone(spoke), None),
        },
        Err(error) if code(&error) == Some(404) => (Operator::Gone(None), None),
        Err(error) => {
            (Operator::Unknown, Some(note(&format!("Lease {} in {namespace}", lease::NAME), &error)))
        }
    }
}

/// The settings; those by default, and a note, where they cannot be read.
pub async fn settings(client: &Client, namespace: &str, notes: &mut Vec<String>) -> Config {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let what = format!("ConfigMap {CONFIG_MAP} in {namespace}");
    let map = or_note(maps.get_opt(CONFIG_MAP).await, &what, notes);
    Config::read(map.as_ref()).unwrap_or_else(|error| {
        notes.push(format!("{what}: {error}; the operator goes on with the last good settings"));
        Config::default()
    })
}

/// The nodes with labels of copies, of which nothing but the labels is read.
async fn labelled(client: &Client) -> kube::Result<Vec<String>> {
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
    let nodes = nodes.list_metadata(&ListParams::default().match_any()).await?.items.into_iter();
    let is_labelled = |labels: &BTreeMap<String, String>| labels.keys().any(|label| is_warm_label(label));
    Ok(nodes.filter(|node| is_labelled(node.labels())).map(|node| node.name_any()).collect())
}

/// Looks at one cache.
pub async fn story(
    client: &Client,
    key: &CacheKey,
    operator_namespace: &str,
    log_lines: u32,
) -> Result<story::Seen, Error> {
    let cache = cache(client, key).await?;
    let view = super::fleet::view(&cache, &History::default(), jiff::Timestamp::now());
    let (groups, nodes, events, jobs) = tokio::join!(
        list::<LocalModelNodeGroup, Group>(client, None),
        nodes(client, &view),
        events(client, key),
        jobs(client, &view, operator_namespace, log_lines),
    );
    let mut seen = jobs;
    seen.cache = cache;
    seen.groups = or_note(groups, "LocalModelNodeGroups", &mut seen.notes);
    seen.events = or_note(events, "Events", &mut seen.notes);
    for (name, node) in nodes {
        match node {
            Ok(node) => drop(seen.nodes.insert(name, node.status.unwrap_or_default())),
            Err(error) if code(&error) == Some(404) => {}
            Err(error) => {
                seen.notes.push(note("LocalModelNodes", &error));
                break;
            }
        }
    }
    Ok(seen)
}

async fn cache(client: &Client, key: &CacheKey) -> Result<Cache, Error> {
    let found = match key.namespace.as_deref() {
        None => get::<LocalModelCache, Cache>(client, None, &key.name).await,
        Some(namespace) => get::<LocalModelNamespaceCache, Cache>(client, Some(namespace), &key.name).await,
    };
    let kind = if key.namespace.is_some() { "LocalModelNamespaceCache" } else { "LocalModelCache" };
    match found {
        Err(error) if code(&error) == Some(404) => {
            // The lists say whether the kinds are missing, or this one, and what there is instead.
            let seen = fleet(client, None).await?;
            let alike = seen.caches.iter().filter(|cache| cache.metadata.name == key.name);
            let mut others: Vec<String> = alike.map(|cache| cache.key().to_string()).collect();
            if others.is_empty() {
                others = seen.caches.iter().map(|cache| cache.key().to_string()).collect();
                others.sort();
            }
            let more = others.len().saturating_sub(10);
            others.truncate(10);
            let others = match (others.is_empty(), more) {
                (true, _) => "there is no cache at all".to_owned(),
                (false, 0) => format!("there is {}", others.join(", ")),
                (false, more) => format!("there are {} and {more} more", others.join(", ")),
            };
            Err(Error::Setup(format!("no {kind} is named {key:?}; {others}", key = key.to_string())))
        }
        found => found.map_err(|error| told(&format!("reading {kind} {key}"), &error)),
    }
}

/// What the nodes say whose copies are not complete, the worst first.
async fn nodes(client: &Client, view: &CacheView) -> Vec<(String, kube::Result<WholeNode>)> {
    let wanted = view.nodes.iter().filter(|copy| copy.state < State::Complete).take(NODES);
    let one = |copy: &super::fleet::CopyView| {
        let name = copy.node.clone();
        async move {
            let node = get::<LocalModelNode, WholeNode>(client, None, &name).await;
            (name, node)
        }
    };
    join_all(wanted.map(one)).await
}

async fn events(client: &Client, key: &CacheKey) -> kube::Result<Vec<Event>> {
    let kind = if key.namespace.is_some() { "LocalModelNamespaceCache" } else { "LocalModelCache" };
    // Events on what has no namespace are kept in this one.
    let api: Api<Event> = Api::namespaced(client.clone(), key.namespace.as_deref().unwrap_or("default"));
    let of = format!("involvedObject.kind={kind},involvedObject.name={}", key.name);
    Ok(api.list(&ListParams::default().fields(&of)).await?.items)
}

/// The cache's Jobs, and the log of the one that failed last.
async fn jobs(client: &Client, view: &CacheView, operator_namespace: &str, log_lines: u32) -> story::Seen {
    let mut seen = story::Seen::default();
    seen.job_namespace = settings(client, operator_namespace, &mut seen.notes).await.job_namespace;
    let namespace = match &view.namespace {
        None => format!("!{JOB_NAMESPACE}"),
        Some(namespace) => format!("{JOB_NAMESPACE}={namespace}"),
    };
    let of = format!("{JOB_MODEL}={},{namespace}", label_value(&view.name));
    let api: Api<Job> = Api::namespaced(client.clone(), &seen.job_namespace);
    let what = format!("Jobs in {}", seen.job_namespace);
    let listed = api.list(&ListParams::default().labels(&of)).await.map(|list| list.items);
    let jobs = or_note(listed, &what, &mut seen.notes);
    let pods = pods(client, &jobs, &mut seen).await;
    let references: Vec<&Pod> = pods.iter().collect();
    let job = |job: &Job| {
        let view = job_view::view(job, &references, "")?;
        Some(story::Job { node: job.labels().get(JOB_NODE).cloned().unwrap_or_default(), view })
    };
    seen.jobs = jobs.iter().filter_map(job).collect();
    if let Some(failed) = story::failed_job(view, &seen.jobs).filter(|_| log_lines > 0) {
        let pod = last_pod(&pods, &failed.view.name);
        let log = log(client, failed, pod, &seen.job_namespace, log_lines).await;
        seen.log = or_note(log, &format!("the log of Job {}", failed.view.name), &mut seen.notes);
    }
    seen
}

/// The pods of Jobs that have not succeeded.
async fn pods(client: &Client, jobs: &[Job], seen: &mut story::Seen) -> Vec<Pod> {
    let unfinished = |job: &&Job| job.status.as_ref().is_none_or(|status| status.completion_time.is_none());
    let names: Vec<String> = jobs.iter().filter(unfinished).take(JOBS).map(ResourceExt::name_any).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), &seen.job_namespace);
    let of = format!("{JOB_NAME} in ({})", names.join(","));
    let listed = api.list(&ListParams::default().labels(&of)).await.map(|list| list.items);
    or_note(listed, &format!("Pods in {}", seen.job_namespace), &mut seen.notes)
}

/// The label that Kubernetes gives a Job's pods.
const JOB_NAME: &str = "job-name";

fn last_pod<'a>(pods: &'a [Pod], job: &str) -> Option<&'a Pod> {
    let of_job = pods.iter().filter(|pod| pod.labels().get(JOB_NAME).is_some_and(|of| of == job));
    of_job.max_by_key(|pod| pod.creation_timestamp().map(|time| time.0))
}

/// The last lines of a pod's log; nothing where the pod has gone.
async fn log(
    client: &Client,
    job: &story::Job,
    pod: Option<&Pod>,
    namespace: &str,
    lines: u32,
) -> kube::Result<Option<story::Log>> {
    let Some(pod) = pod else { return Ok(None) };
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let which = LogParams {
        container: container.map(|container| container.name.clone()),
        tail_lines: Some(i64::from(lines)),
        limit_bytes: Some(LOG),
        ..LogParams::default()
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let text = match api.logs(&pod.name_any(), &which).await {
        // The pod, or its node's kubelet, has gone since.
        Err(error) if code(&error) == Some(404) => return Ok(None),
        text => text?,
    };
    Ok(Some(story::Log {
        job: job.view.name.clone(),
        pod: pod.name_any(),
        node: job.node.clone(),
        lines: text.lines().map(Into::into).collect(),
    }))
}

async fn list<K, O>(client: &Client, namespace: Option<&str>) -> kube::Result<Vec<O>>
where
    K: Resource<DynamicType = ()>,
    O: DeserializeOwned + Send + 'static,
{
    let request = Request::new(K::url_path(&(), namespace));
    let request = request.list(&ListParams::default().match_any()).map_err(kube::Error::BuildRequest)?;
    read::<Listed<O>>(client, request).await.map(|list| list.items)
}

async fn get<K, O>(client: &Client, namespace: Option<&str>, name: &str) -> kube::Result<O>
where
    K: Resource<DynamicType = ()>,
    O: DeserializeOwned + Send + 'static,
{
    let request = Request::new(K::url_path(&(), namespace));
    let request = request.get(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
    read(client, request).await
}

/// Long answers are read beside each other, on threads of their own.
async fn read<O>(client: &Client, request: http::Request<Vec<u8>>) -> kube::Result<O>
where
    O: DeserializeOwned + Send + 'static,
{
    let text = client.request_text(request).await?;
    let parsed = tokio::task::spawn_blocking(move || serde_json::from_str(&text)).await;
    parsed.map_err(|error| kube::Error::Service(error.into()))?.map_err(kube::Error::SerdeError)
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// What a kind holds; nothing where it is not defined, and a note where it cannot be read.
fn or_note<T: Default>(read: kube::Result<T>, what: &str, notes: &mut Vec<String>) -> T {
    read.unwrap_or_else(|error| {
        if code(&error) != Some(404) {
            notes.push(note(what, &error));
        }
        T::default()
    })
}

fn note(what: &str, error: &kube::Error) -> String {
    format!("{what}: {}", for_people(error))
}

/// One line that says what to do.
fn told(doing: &str, error: &kube::Error) -> Error {
    let advice = match (code(error), error) {
        (Some(404), _) => {
            return Error::Setup(format!(
                "{doing}: this cluster does not know the kind: install localmodel, or KServe's local model definitions, or choose another cluster with --context"
            ));
        }
        (Some(401), _) => "log in again, or renew the credentials of your kubeconfig",
        (Some(403), _) => "ask for the rights that docs/status.md lists",
        (Some(_), _) | (None, kube::Error::SerdeError(_)) => "try again",
        (None, _) => {
            "see that `kubectl cluster-info` reaches the cluster, and that the kubeconfig names the right one"
        }
    };
    Error::Setup(format!("{doing}: {}: {advice}", for_people(error)))
}

/// On one line, without what would move the cursor.
fn for_people(error: &kube::Error) -> String {
    one_line(&error::for_people(error))
}

fn one_line(text: &str) -> String {
    super::text::clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}
