//! `localmodel uninstall`: stops the operator, then takes away what the plan says, until nothing of it is
//! left. Also the Job that runs before the Helm release is deleted (D5).

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::{LocalModelCache, LocalModelNamespaceCache, LocalModelNode, LocalModelNodeGroup};
use crate::error::{Doing, Error};
use crate::plan::names::{MANAGED_BY, MANAGER, MUTATING_WEBHOOKS, OPERATOR, VALIDATING_WEBHOOKS};
use crate::plan::uninstall::{Found, Removal, Target, WebhookKind, Webhooks, removals, volumes_of_caches};

/// The pause between two looks at what is left.
const PAUSE: Duration = Duration::from_millis(300);

/// How the command is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's namespace.
    pub namespace: String,
    /// How long all of it may take.
    pub limit: Duration,
}

/// Takes everything away and tells each thing in a line, also what is left.
pub async fn run(client: Client, settings: &Settings, say: impl Fn(String)) -> Result<(), Error> {
    let deadline = Instant::now() + settings.limit;
    stop_operator(&client, settings, deadline).await?;
    say(format!("stopped     Deployment {OPERATOR}"));
    let mut looks = pauses();
    loop {
        looks.tick().await;
        let found = look(&client, &settings.namespace).await?;
        let removals = removals(&found, &settings.namespace);
        if removals.is_empty() {
            return left(&client, &found, say).await;
        }
        for Removal { what, .. } in removals.iter().filter(|removal| !removal.under_way) {
            remove(&client, &settings.namespace, what).await?;
            say(format!("took away   {what}"));
        }
        in_time(deadline, settings, || {
            removals.iter().map(|removal| removal.what.to_string()).collect::<Vec<_>>().join("; ")
        })?;
    }
}

fn pauses() -> tokio::time::Interval {
    let mut pauses = interval(PAUSE);
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pauses
}

fn in_time(deadline: Instant, settings: &Settings, left: impl FnOnce() -> String) -> Result<(), Error> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let seconds = settings.limit.as_secs();
    Err(Error::Setup(format!(
        "still there after {seconds} s: {}; look at what holds it and run this again",
        left()
    )))
}

/// An operator that runs would put back at once what is taken away.
async fn stop_operator(client: &Client, settings: &Settings, deadline: Instant) -> Result<(), Error> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &settings.namespace);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match deployments.patch_scale(OPERATOR, &by_us(), &none).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {} // it is gone already
        scaled => drop(scaled.doing(|| format!("scaling Deployment {OPERATOR} to 0"))?),
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &settings.namespace);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR}"));
    let mut looks = pauses();
    loop {
        looks.tick().await;
        let running = list(&pods, &ours).await?;
        let names: Vec<String> = running.into_iter().filter_map(|pod| pod.name).collect();
        if names.is_empty() {
            return Ok(());
        }
        in_time(deadline, settings, || format!("Pod {}", names.join(", ")))?;
    }
}

async fn look(client: &Client, namespace: &str) -> Result<Found, Error> {
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let all = ListParams::default();
    let mut webhooks = Vec::new();
    for (kind, name) in
        [(WebhookKind::Validating, VALIDATING_WEBHOOKS), (WebhookKind::Mutating, MUTATING_WEBHOOKS)]
    {
        let found = configurations(client, kind).get_opt(name).await;
        let found = found.doing(|| format!("reading {kind} {name}"))?;
        webhooks.extend(found.map(|found| Webhooks {
            kind,
            entries: found.data["webhooks"].as_array().cloned().unwrap_or_default(),
            metadata: found.metadata,
        }));
    }
    Ok(Found {
        webhooks,
        daemon_sets: list(&Api::<DaemonSet>::namespaced(client.clone(), namespace), &ours).await?,
        claims: list(&Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace), &ours).await?,
        volumes: list(&Api::<PersistentVolume>::all(client.clone()), &ours).await?,
        nodes: list(&Api::<Node>::all(client.clone()), &all).await?,
    })
}

async fn remove(client: &Client, namespace: &str, what: &Target) -> Result<(), Error> {
    let removed = match what {
        Target::Configuration(kind, name) => delete(&configurations(client, *kind), name).await,
        Target::Entries(kept) => {
            let Webhooks { kind, metadata, entries } = &**kept;
            let name = metadata.name.as_deref().unwrap_or_default();
            let version = json!({"resourceVersion": metadata.resource_version});
            let others = Patch::Merge(json!({"metadata": version, "webhooks": entries}));
            configurations(client, *kind).patch(name, &by_us(), &others).await.map(drop)
        }
        Target::DaemonSet(name) => {
            delete(&Api::<DaemonSet>::namespaced(client.clone(), namespace), name).await
        }
        Target::Claim(name) => {
            delete(&Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace), name).await
        }
        Target::Volume(name) => delete(&Api::<PersistentVolume>::all(client.clone()), name).await,
        Target::Labels(node, labels) => {
            let gone: Map<String, Value> = labels.iter().map(|label| (label.clone(), Value::Null)).collect();
            let without = Patch::Merge(json!({"metadata": {"labels": gone}}));
            Api::<Node>::all(client.clone()).patch_metadata(node, &by_us(), &without).await.map(drop)
        }
    };
    match removed {
        // Gone, or written by somebody in between: the next look will see.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        removed => removed.doing(|| format!("removing {what}")),
    }
}

/// What the next operator will find.
async fn left(client: &Client, found: &Found, say: impl Fn(String)) -> Result<(), Error> {
    let caches = count::<LocalModelCache>(client).await? + count::<LocalModelNamespaceCache>(client).await?;
    say(format!("left        caches: {caches}"));
    say(format!("left        LocalModelNodeGroups: {}", count::<LocalModelNodeGroup>(client).await?));
    say(format!("left        LocalModelNodes: {}", count::<LocalModelNode>(client).await?));
    say(format!("left        PersistentVolumes of caches, and their claims: {}", volumes_of_caches(found)));
    say("left        every file on the nodes' disks".into());
    if caches > 0 {
        say("note        a cache that is deleted now goes when an operator runs again, ours or KServe's"
            .into());
    }
    Ok(())
}

/// How many objects of a kind there are; none where the kind is not defined.
async fn count<K>(client: &Client) -> Result<usize, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match list(&Api::<K>::all(client.clone()), &ListParams::default()).await {
        Err(error) if error.code() == Some(404) => Ok(0),
        listed => listed.map(|objects| objects.len()),
    }
}

async fn list<K>(api: &Api<K>, which: &ListParams) -> Result<Vec<ObjectMeta>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let listed = api.list_metadata(which).await.doing(|| format!("listing {}", K::plural(&())))?;
    Ok(listed.items.into_iter().map(|object| object.metadata).collect())
}

/// Deletes an object after what it owns: when a `DaemonSet` is gone, so are its pods.
async fn delete<K: Clone + Debug + DeserializeOwned>(api: &Api<K>, name: &str) -> kube::Result<()> {
    api.delete(name, &DeleteParams::foreground()).await.map(drop)
}

fn configurations(client: &Client, kind: WebhookKind) -> Api<DynamicObject> {
    let resource = match kind {
        WebhookKind::Validating => ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        WebhookKind::Mutating => ApiResource::erase::<MutatingWebhookConfiguration>(&()),
    };
    Api::all_with(client.clone(), &resource)
}

fn by_us() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() }
}

#[cfg(test)]
mod tests;
