//! What an agent or an operator that was taken over may not do, tried with the token of a real one (O6).
//!
//! Everything is tried as a dry run, which asks the same of roles and policies and harms nobody.

use std::fmt::Debug;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use localmodel::api::{LocalModelCache, LocalModelNode, ModelStatus};
use localmodel::plan::names::warm_label;
use localmodel_e2e::accounts::{agent, agent_nowhere, operator};
use localmodel_e2e::walkthrough::JOBS;
use localmodel_e2e::world::{WORKERS, World, beside_others};
use localmodel_hub::{Fault, FaultKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const OWN: &str = WORKERS[0];
const OTHER: &str = WORKERS[1];

#[tokio::test]
async fn an_agent_writes_the_status_and_the_jobs_of_its_own_node_and_nothing_else() {
    beside_others("least", |world| async move {
        world.group().await?;
        for node in WORKERS {
            world.join(node).await?;
        }
        // Jobs that are there for as long as the test is.
        world.hub.fault(&Fault::always("least/m", FaultKind::Throttle { bytes_per_second: 1000 })).await?;
        world.cache("m", &world.model("m").await?).await?;
        for node in WORKERS {
            world.until_status(node, "m", ModelStatus::ModelDownloading).await?;
        }
        let team = world.namespace("team").await?;
        let client = agent(&world.client, &world.prefix, OWN).await?;
        nodes(&client).await.context("LocalModelNodes")?;
        jobs(&world, &client).await.context("Jobs")?;
        other_kinds(&client, &team).await.context("everything else")?;
        reads(&client, &team).await.context("reading")?;
        without_a_node(&world, &agent_nowhere().await?).await.context("a token without a node")
    })
    .await;
}

#[tokio::test]
async fn the_operator_writes_the_warm_labels_of_nodes_and_nothing_else_of_them() {
    beside_others("labels", |_| async move {
        let nodes: Api<Node> = Api::all(operator().await?);
        let label = |name: &str| Patch::Merge(json!({"metadata": {"labels": {name: "workers"}}}));
        let warm = warm_label("0123456789abcdef", Some("team"));
        nodes.patch_metadata(OWN, &tried_patch(), &label(&warm)).await.context("a warm label")?;
        for name in ["test/labels", "kubernetes.io/hostname", "localmodel.kserve.io/other"] {
            let words = "of the labels of a node only those are written that say what is warm there";
            refused(nodes.patch_metadata(OWN, &tried_patch(), &label(name)).await, words)?;
        }
        let words = "of a node its labels are written, and nothing else";
        let closed = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        refused(nodes.patch(OWN, &tried_patch(), &closed).await, words)?;
        let noted = Patch::Merge(json!({"metadata": {"annotations": {"test/labels": "yes"}}}));
        refused(nodes.patch_metadata(OWN, &tried_patch(), &noted).await, words)
    })
    .await;
}

/// Only the status, and only its own node's.
async fn nodes(client: &Client) -> Result<()> {
    let api: Api<LocalModelNode> = Api::all(client.clone());
    let status = Patch::Merge(json!({"status": {"modelStatus": {"least-none": "ModelDownloaded"}}}));
    api.patch_status(OWN, &tried_patch(), &status).await.context("its own status")?;
    let words = format!("the agent of node {OWN} may not write LocalModelNode {OTHER}");
    refused(api.patch_status(OTHER, &tried_patch(), &status).await, &words)?;
    let nothing = Patch::Merge(json!({"spec": {"localModels": []}}));
    for node in WORKERS {
        refused(
            api.patch(node, &tried_patch(), &nothing).await,
            "cannot patch resource \"localmodelnodes\"",
        )?;
        refused(api.delete(node, &tried_delete()).await, "cannot delete resource \"localmodelnodes\"")?;
    }
    let new = LocalModelNode::new("least-new", serde_json::from_value(json!({"localModels": []}))?);
    refused(api.create(&tried(), &new).await, "cannot create resource \"localmodelnodes\"")
}

/// Only those that run on its own node, and only what a download Job is.
async fn jobs(world: &World, client: &Client) -> Result<()> {
    let api: Api<Job> = Api::namespaced(client.clone(), JOBS);
    let create = async |job: Value| {
        api.create(&tried(), &serde_json::from_value(job)?).await.map_err(anyhow::Error::from)
    };
    create(job(OWN)).await.context("a Job of its own node")?;
    denied(
        create(job(OTHER)).await,
        "may not make or delete Job least-tried-kind-worker2 of node kind-worker2",
    )?;
    let pod = "/spec/template/spec";
    let pinned = format!("the Job has to run on node {OWN}");
    for (place, field, value, words) in [
        ("/metadata/labels", "node", json!(OTHER), "may not make or delete Job"),
        (pod, "affinity", job(OTHER)["spec"]["template"]["spec"]["affinity"].clone(), &*pinned),
        (pod, "affinity", json!({}), &pinned),
        (pod, "nodeName", json!(OTHER), &pinned),
        (pod, "automountServiceAccountToken", json!(true), "automountServiceAccountToken has to be false"),
        (pod, "volumes", json!([{"name": "root", "hostPath": {"path": "/"}}]), "nothing of the node"),
        (pod, "hostNetwork", json!(true), "of its host"),
        ("/metadata", "finalizers", json!(["test/hold"]), "no finalizer"),
    ] {
        let mut job = job(OWN);
        job.pointer_mut(place).context("a place")?[field] = value.clone();
        denied(create(job).await, words).with_context(|| format!("{field}: {value}"))?;
    }

    let made = |node| format!("{}-{node}", world.name("m"));
    api.delete(&made(OWN), &tried_delete()).await.context("deleting a Job of its own node")?;
    refused(
        api.delete(&made(OTHER), &tried_delete()).await,
        &format!("of node {OTHER}: only those with label node={OWN}"),
    )?;
    let all = ListParams::default();
    let collection = api.delete_collection(&tried_delete(), &all).await.map(drop);
    refused(collection, "cannot deletecollection resource \"jobs\"")?;
    let moved = Patch::Merge(json!({"metadata": {"labels": {"node": OTHER}}}));
    refused(api.patch(&made(OWN), &tried_patch(), &moved).await, "cannot patch resource \"jobs\"")
}

/// A Job that an agent of a node may make.
fn job(node: &str) -> Value {
    let labels = json!({"node": node, "model": "least-m"});
    let own = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    json!({
        "metadata": {"name": format!("least-tried-{node}"), "namespace": JOBS, "labels": labels},
        "spec": {"backoffLimit": 0, "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 60, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": own}}},
                "containers": [{"name": "c", "image": "none"}],
            },
        }},
    })
}

/// It changes nothing of any other kind.
async fn other_kinds(client: &Client, team: &str) -> Result<()> {
    let label = Patch::Merge(json!({"metadata": {"labels": {"test/least": "yes"}}}));
    let nodes: Api<Node> = Api::all(client.clone());
    refused(nodes.patch_metadata(OWN, &tried_patch(), &label).await, "cannot patch resource \"nodes\"")?;
    let caches: Api<LocalModelCache> = Api::all(client.clone());
    refused(
        caches.patch_metadata("least-m", &tried_patch(), &label).await,
        "cannot patch resource \"localmodelcaches\"",
    )?;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "least-tried"}, "spec": {"containers": [{"name": "c", "image": "none"}]},
    }))?;
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "least-tried"}}))?;
    for namespace in [JOBS, "kserve", team] {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        refused(pods.create(&tried(), &pod).await, "cannot create resource \"pods\"")?;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        refused(maps.create(&tried(), &map).await, "cannot create resource \"configmaps\"")?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        refused(
            claims.delete("least-m", &tried_delete()).await,
            "cannot delete resource \"persistentvolumeclaims\"",
        )?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let asked = serde_json::from_value(json!({"spec": {"audiences": []}}))?;
        let token = accounts.create_token_request("default", &tried(), &asked).await;
        refused(token, "cannot create resource \"serviceaccounts/token\"")?;
    }
    Ok(())
}

/// No Secret outside the namespace of download Jobs, and no pods of other people.
async fn reads(client: &Client, team: &str) -> Result<()> {
    for namespace in ["kserve", team, "kube-system"] {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        refused(secrets.get("any").await, "cannot get resource \"secrets\"")?;
        all_refused(secrets, "cannot list resource \"secrets\"").await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        all_refused(pods, "cannot list resource \"pods\"").await?;
    }
    all_refused(Api::<Secret>::all(client.clone()), "cannot list resource \"secrets\"").await
}

/// A token that was not given to a pod writes nothing.
async fn without_a_node(world: &World, client: &Client) -> Result<()> {
    let words = "the token of this agent names no node";
    let api: Api<LocalModelNode> = Api::all(client.clone());
    let status = Patch::Merge(json!({"status": {"modelStatus": {}}}));
    refused(api.patch_status(OWN, &tried_patch(), &status).await, words)?;
    let api: Api<Job> = Api::namespaced(client.clone(), JOBS);
    refused(api.create(&tried(), &serde_json::from_value(job(OWN))?).await, words)?;
    refused(api.delete(&format!("{}-{OWN}", world.name("m")), &tried_delete()).await, words)
}

async fn all_refused<K>(api: Api<K>, words: &str) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    refused(
        api.list(&ListParams::default())
            .await
            .map(|list| list.iter().map(ResourceExt::name_any).collect::<Vec<_>>()),
        words,
    )
}

fn tried() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

fn tried_patch() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::default() }
}

fn tried_delete() -> DeleteParams {
    DeleteParams { dry_run: true, ..DeleteParams::default() }
}

fn refused<T: Debug>(result: kube::Result<T>, words: &str) -> Result<()> {
    denied(result.map_err(Into::into), words)
}

fn denied<T: Debug>(result: Result<T>, words: &str) -> Result<()> {
    match result {
        Ok(done) => anyhow::bail!("allowed, not refused with {words:?}: {done:?}"),
        Err(error) => {
            ensure!(error.to_string().contains(words), "not {words:?} but {error}");
            Ok(())
        }
    }
}
