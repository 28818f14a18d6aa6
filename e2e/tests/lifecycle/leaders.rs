//! Two operators: one of them writes, and the other one takes over from one that is paused or dies (O1).

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use localmodel::plan::lease;
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::setup::{scale_operator, until_webhooks_answer};
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{WORKERS, World, alone};
use tokio::sync::Mutex;

/// The longest time without anybody who writes.
const LONGEST: SignedDuration = SignedDuration::from_secs(20);

#[tokio::test]
async fn another_operator_takes_over_from_one_that_is_paused_and_from_one_that_dies() {
    alone(
        "leaders",
        |world| async move { two(&world).await },
        async |_| {
            scale_operator(2).await?;
            until_webhooks_answer().await
        },
    )
    .await;
}

async fn two(world: &World) -> Result<()> {
    world.group().await?;
    world.join(WORKERS[0]).await?;
    let first = holder(world).await?;
    let (name, paused) = (first.0.clone(), Process::of(world, &first.0).await?);

    paused.signal("STOP").await?;
    let second = next(world, &first).await?;
    paused.signal("CONT").await?;
    until("the end of the one that was paused", || async {
        let pod = world.in_namespace::<Pod>("kserve").get(&name).await?;
        let states = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
        Ok(states.iter().any(|state| state.restart_count > 0).then_some(()))
    })
    .await?;
    // Whoever leads now works. The other one may still be asked, until its end is known everywhere.
    let source = world.model("m").await?;
    until("a cache", || async { world.cache("m", &source).await.map(Some) }).await?;
    world.until_available("m", 1, 1).await?;
    ensure!(holder(world).await?.0 == second.0, "the one that was paused took the lease back");

    Process::of(world, &second.0).await?.signal("KILL").await?;
    let pod = ["delete", "pod", &second.0, "-n", "kserve", "--force", "--grace-period=0", "--wait=false"];
    kubectl(&pod).await?;
    next(world, &second).await?;
    let source = world.model("n").await?;
    until("another cache", || async { world.cache("n", &source).await.map(Some) }).await?;
    world.until_available("n", 1, 1).await?;

    // A lease that somebody deletes is made anew by the one operator that is left.
    scale_operator(1).await?;
    kubectl(&["delete", "lease", lease::NAME, "-n", "kserve"]).await?;
    until("a new lease", || async { holder(world).await.map(Some) }).await.map(drop)
}

/// A process of an operator's pod, on the node where it runs.
struct Process {
    node: String,
    id: String,
}

impl Process {
    async fn of(world: &World, pod: &str) -> Result<Self> {
        let found = world.in_namespace::<Pod>("kserve").get(pod).await?;
        let node = found.spec.and_then(|spec| spec.node_name).context("a node")?;
        // Each is told its pod's name.
        let find = format!("grep -lz '^POD_NAME={pod}$' /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3");
        let id = on_node(&node, &find).await?.trim().to_owned();
        ensure!(!id.is_empty() && !id.contains('\n'), "processes of {pod}: {id:?}");
        Ok(Self { node, id })
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        on_node(&self.node, &format!("kill -{signal} {}", self.id)).await.map(drop)
    }
}

/// Who holds the lease, and what else it says.
async fn holder(world: &World) -> Result<(String, LeaseSpec)> {
    let spec = world.in_namespace::<Lease>("kserve").get(lease::NAME).await?.spec.context("a spec")?;
    let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty()).context("a holder")?;
    Ok((holder, spec))
}

/// Waits until another one holds it, which must not take long after the last word of the one before.
async fn next(world: &World, before: &(String, LeaseSpec)) -> Result<(String, LeaseSpec)> {
    let last_word = Mutex::new(before.1.renew_time.clone());
    let (name, spec) = until("another operator that leads", || async {
        let (name, spec) = holder(world).await?;
        if name == before.0 {
            *last_word.lock().await = spec.renew_time;
            return Ok(None);
        }
        Ok(Some((name, spec)))
    })
    .await?;
    let taken = spec.acquire_time.clone().context("a time at which it was taken")?;
    let last_word = last_word.into_inner().context("a time at which it was held")?;
    let without = taken.0.duration_since(last_word.0);
    ensure!(without < LONGEST, "nobody led for {without:#}");
    Ok((name, spec))
}
