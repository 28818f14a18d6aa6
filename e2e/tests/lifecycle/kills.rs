//! Operator and agents are killed in the middle of the walkthrough; its outcome is the same.

use anyhow::{Result, ensure};
use localmodel::api::ModelStatus;
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::objects::apply;
use localmodel_e2e::setup::until_webhooks_answer;
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::{CACHE, JOBS, KEY, NODE, label, object, remove};
use localmodel_e2e::world::{WORKERS, World, alone};
use localmodel_hub::{Fault, FaultKind};

#[tokio::test]
async fn killing_operator_and_agent_at_any_moment_changes_nothing_in_the_outcome() {
    let test = |world| async move {
        remove().await?;
        killed_walkthrough(&world).await
    };
    alone("kills", test, async |world| {
        world.hub.clear_faults("meta-llama").await?;
        until_webhooks_answer().await?;
        remove().await
    })
    .await;
}

async fn killed_walkthrough(world: &World) -> Result<()> {
    let hub = &world.hub;
    label(NODE).await?;
    apply(&object(&world.setup.image, "local-model-node-group.yaml")?).await?;
    kill("operator").await?;
    // While the operator is down no cache is taken: a person tries again, and so do we.
    let cache = object(&world.setup.image, "local-model-cache.yaml")?;
    until("the documented cache", || async { apply(&cache).await.map(Some) }).await?;
    kill("operator").await?;
    hub.fault(&Fault::always("meta-llama", FaultKind::Throttle { bytes_per_second: 1_000_000 })).await?;
    until("a download under way", || async { status(world, &[ModelStatus::ModelDownloading]).await }).await?;
    kill("agent").await?;
    kill("operator").await?;
    hub.clear_faults("meta-llama").await?;
    kill("agent").await?;
    until("the documented status", || async { status(world, &[ModelStatus::ModelDownloaded]).await }).await?;
    kill("agent").await?;
    kill("operator").await?;

    kubectl(&["wait", "--for=condition=Ready", "localmodelcache", CACHE, "--timeout=120s"]).await?;
    let jobs = kubectl(&["get", "jobs", "-n", JOBS, "-l", &format!("model={CACHE}"), "-o", "name"]).await?;
    ensure!(jobs.trim() == format!("job.batch/{CACHE}-{NODE}"), "one Job, of the documented name: {jobs}");
    let folders = on_node(NODE, "ls /models/models /models/incoming").await?;
    ensure!(folders.matches(KEY).count() == 1, "one folder: {folders}");
    Ok(())
}

async fn status(world: &World, wanted: &[ModelStatus]) -> Result<Option<()>> {
    let local = world.node(NODE).await?;
    let said = local.and_then(|local| local.status?.model_status.get(CACHE).copied());
    Ok(said.is_some_and(|said| wanted.contains(&said)).then_some(()))
}

/// Kills a process as the kernel does when memory runs out. The pod goes too, because the kubelet would
/// wait longer with each restart of its container.
async fn kill(command: &str) -> Result<()> {
    for node in WORKERS {
        on_node(node, &format!("pkill -KILL -f '^/localmodel {command}' || true")).await?;
    }
    let of = format!("app.kubernetes.io/name=localmodel-{command}");
    kubectl(&["delete", "pod", "-n", "kserve", "-l", &of, "--force", "--grace-period=0", "--wait=false"])
        .await
        .map(drop)
}
