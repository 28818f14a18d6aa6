//! Installing, upgrading, uninstalling and installing again leave what is warm as it is (D5).

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::ListParams;
use localmodel::api::ModelStatus::ModelDownloaded;
use localmodel::plan::names::{MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, is_warm_label};
use localmodel_e2e::command::{kubectl, on_node, run, run_with};
use localmodel_e2e::objects::apply;
use localmodel_e2e::setup::{install, manifests};
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, alone, beside_others};
use serde_json::json;

/// What has to be the same before and after.
#[derive(Debug, PartialEq)]
struct Warm {
    cache: Option<String>,
    node: Option<String>,
    files: Vec<String>,
    volumes: Vec<String>,
    claims: Vec<String>,
    jobs: Vec<String>,
}

const CONFIGURATIONS: [(&str, &str); 2] = [
    ("ValidatingWebhookConfiguration", VALIDATING_WEBHOOKS),
    ("MutatingWebhookConfiguration", MUTATING_WEBHOOKS),
];

#[tokio::test]
async fn uninstalled_and_installed_again_by_kustomize_and_helm_everything_is_as_it_was() {
    let test = |world| async move {
        let before = warmed(&world).await?;
        both_ways(&world, &before).await?;
        install(&world.setup.image).await?;
        is_served_as_before(&world, &before).await
    };
    alone("install", test, async |world| install(&world.setup.image).await).await;
}

#[tokio::test]
async fn an_upgrade_rolls_out_operator_and_agents_and_disturbs_nothing() {
    let test = |world: World| async move {
        let before = warmed(&world).await?;
        let next = format!("{}-next", world.setup.image);
        // The same bytes under another name, on every node that can run them.
        let registry = "docker.io/library";
        let tag = format!("images tag --force {registry}/{} {registry}/{next}", world.setup.image);
        for node in WORKERS {
            on_node(node, &format!("ctr --namespace=k8s.io {tag}")).await?;
        }
        upgraded(&world, &next, &before).await?;
        install(&world.setup.image).await?;
        for node in WORKERS {
            on_node(node, &format!("ctr --namespace=k8s.io images rm {registry}/{next}")).await?;
        }
        is_served_as_before(&world, &before).await
    };
    alone("upgrade", test, async |world| install(&world.setup.image).await).await;
}

#[tokio::test]
async fn operator_and_agents_meet_the_restricted_standard() {
    beside_others("standard", |world| async move {
        warmed(&world).await?;
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        let label = format!("kubectl label --dry-run=server --overwrite namespace kserve {enforce} 2>&1");
        let said = run("sh", &["-c", &label]).await?;
        ensure!(said.contains("kserve"), "{said}");
        ensure!(!said.contains("localmodel-operator") && !said.contains("-agent"), "{said}");
        Ok(())
    })
    .await;
}

async fn both_ways(world: &World, before: &Warm) -> Result<()> {
    // KServe's webhook is back under the name that is ours while nobody keeps the list.
    kubectl(&["scale", "-n", "kserve", "deployment/localmodel-operator", "--replicas=0"]).await?;
    kubectl(&["rollout", "status", "-n", "kserve", "deployment/localmodel-operator", "--timeout=120s"])
        .await?;
    webhooks(&["localmodel-webhook", "kserves"]).await?;
    // As the README says for kustomize …
    let job = manifests("deploy/uninstall", &world.setup.image).await?;
    run_with("kubectl", &["replace", "--force", "-f", "-"], &job).await?;
    let done = ["--for=condition=complete", "job/localmodel-uninstall", "--timeout=180s"];
    kubectl(&[&["wait", "-n", "kserve"], &done[..]].concat()).await?;
    let said = kubectl(&["logs", "-n", "kserve", "job/localmodel-uninstall"]).await?;
    ensure!(said.contains("took away   DaemonSet install-agent"), "{said}");
    is_left_as_before(world, before).await?;
    let services = "jsonpath={.webhooks[*].clientConfig.service.name}";
    let kept =
        kubectl(&["get", "validatingwebhookconfiguration", VALIDATING_WEBHOOKS, "-o", services]).await?;
    ensure!(kept == "kserves", "{kept}");
    kubectl(&["delete", "validatingwebhookconfiguration", VALIDATING_WEBHOOKS]).await?;
    kubectl(&["delete", "-k", "deploy/uninstall"]).await?;
    kubectl(&["delete", "-k", "deploy/kserve", "--ignore-not-found"]).await?;
    is_left_as_before(world, before).await?;
    // … and for Helm, beside KServe or where it could be: the ConfigMap is not the release's.
    let image = format!("image={}", world.setup.image);
    let settings = ["--set", "kserve.present=true,crds.install=true", "--set", &image];
    let chart = ["install", "localmodel", "charts/localmodel", "--namespace", "kserve", "--take-ownership"];
    run("helm", &[&chart[..], &settings, &["--wait", "--timeout", "90s"]].concat()).await?;
    is_served_as_before(world, before).await?;
    webhooks(&["localmodel-webhook"]).await?;
    run("helm", &["uninstall", "localmodel", "--namespace", "kserve", "--wait", "--timeout", "100s"]).await?;
    let deployments = kubectl(&["get", "deployments", "-n", "kserve", "-o", "name"]).await?;
    ensure!(!deployments.contains("localmodel-operator"), "{deployments}");
    for (kind, name) in CONFIGURATIONS {
        let there = kubectl(&["get", kind, name, "--ignore-not-found", "-o", "name"]).await?;
        ensure!(there.is_empty(), "left: {there}");
    }
    is_left_as_before(world, before).await
}

/// Configurations of webhooks under our names with an entry for each of these services; they guard nothing.
async fn webhooks(services: &[&str]) -> Result<()> {
    let entries: Vec<_> = services.iter().map(|service| json!({
        "name": format!("{service}.example.com"),
        "clientConfig": {"service": {"name": service, "namespace": "kserve"}},
        "rules": [{"apiGroups": ["none"], "apiVersions": ["v1"], "resources": ["none"], "operations": ["*"]}],
        "failurePolicy": "Ignore",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    })).collect();
    for (kind, name) in CONFIGURATIONS {
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            // The other kind's name is ours alone.
            "webhooks": if name == VALIDATING_WEBHOOKS { &entries[..] } else { &entries[..1] },
        });
        apply(&configuration.to_string()).await?;
    }
    Ok(())
}

async fn upgraded(world: &World, image: &str, before: &Warm) -> Result<()> {
    let ready = ready_since(world).await?;
    install(image).await?;
    until("agents of the new image", || async {
        let of = "jsonpath={.spec.template.spec.containers[0].image}";
        let found = kubectl(&["get", "daemonset", "upgrade-agent", "-n", "kserve", "-o", of]).await?;
        Ok((found == image).then_some(()))
    })
    .await?;
    agents_run(world).await?;
    ensure!(ready_since(world).await? == ready, "the cache was not ready all the time");
    is_served_as_before(world, before).await
}

/// A cache with one copy; from here on the hub's requests count.
async fn warmed(world: &World) -> Result<Warm> {
    world.group().await?;
    world.join(WORKERS[0]).await?;
    world.cache("m", &world.model("m").await?).await?;
    world.until_available("m", 1, 1).await?;
    until("a warm node", || async { Ok((warm_nodes(world).await? == [WORKERS[0]]).then_some(())) }).await?;
    world.hub.clear_requests(&format!("{}/", world.prefix)).await?;
    found(world).await
}

async fn found(world: &World) -> Result<Warm> {
    let mut volumes = world.names(world.in_cluster::<PersistentVolume>()).await?;
    volumes.retain(|name| *name != format!("{}-agent", world.prefix));
    Ok(Warm {
        cache: world.get("m").await?.and_then(|cache| cache.uid()),
        node: world.node(WORKERS[0]).await?.and_then(|node| node.uid()),
        files: world.files(WORKERS[0]).await?,
        volumes,
        claims: world.names(world.in_jobs::<PersistentVolumeClaim>()).await?,
        jobs: world.names(world.in_jobs::<Job>()).await?,
    })
}

/// The operator is gone with its agents, their volumes and the warm labels; what people made is not.
async fn is_left_as_before(world: &World, before: &Warm) -> Result<()> {
    let agents = kubectl(&["get", "daemonsets,persistentvolumeclaims", "-n", "kserve", "-o", "name"]).await?;
    ensure!(!agents.contains("install-agent"), "left: {agents}");
    let volumes = kubectl(&["get", "persistentvolumes", "-o", "name"]).await?;
    ensure!(!volumes.contains("install-agent"), "left: {volumes}");
    ensure!(warm_nodes(world).await?.is_empty(), "nodes are still labelled");
    let after = found(world).await?;
    ensure!(after == *before, "{after:#?} instead of {before:#?}");
    Ok(())
}

/// Agents run, one has looked at its disk, the node is warm, and the hub was asked for nothing.
async fn is_served_as_before(world: &World, before: &Warm) -> Result<()> {
    agents_run(world).await?;
    // An agent that looks writes again what is taken away.
    let nothing = format!(r#"{{"status": {{"modelStatus": {{"{}": null}}}}}}"#, world.name("m"));
    let status =
        ["patch", "localmodelnode", WORKERS[0], "--subresource=status", "--type=merge", "-p", &nothing];
    kubectl(&status).await?;
    world.until_status(WORKERS[0], "m", ModelDownloaded).await?;
    world.until_available("m", 1, 1).await?;
    until("a warm node", || async { Ok((warm_nodes(world).await? == [WORKERS[0]]).then_some(())) }).await?;
    let after = found(world).await?;
    ensure!(after == *before, "{after:#?} instead of {before:#?}");
    let asked = world.hub.requests(&format!("{}/", world.prefix)).await?;
    ensure!(asked.is_empty(), "the hub was asked again: {asked:?}");
    Ok(())
}

async fn agents_run(world: &World) -> Result<()> {
    let agents = format!("daemonset/{}-agent", world.prefix);
    let rollout = ["rollout", "status", "-n", "kserve", &agents, "--timeout=120s"];
    until("agents", || async { kubectl(&rollout).await.map(|_| Some(())) }).await
}

async fn warm_nodes(world: &World) -> Result<Vec<String>> {
    let nodes = world.in_cluster::<Node>().list_metadata(&ListParams::default()).await?;
    let warm = nodes.items.iter().filter(|node| node.labels().keys().any(|label| is_warm_label(label)));
    Ok(warm.map(ResourceExt::name_any).collect())
}

async fn ready_since(world: &World) -> Result<String> {
    let cache = world.get("m").await?.context("the cache")?;
    let conditions = cache.status.map(|status| status.conditions).unwrap_or_default();
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True").context("ready")?;
    Ok(ready.last_transition_time.0.to_string())
}
