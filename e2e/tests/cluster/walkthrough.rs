//! The documented walkthrough, in its order, with the substitutions that `walkthrough.rs` of the harness
//! lists.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use localmodel_e2e::command::{apply, kubectl, on_node};
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::{
    CACHE, GROUP, JOBS, KEY, NODE, config_map, documented, label, object, remove,
};
use localmodel_e2e::world::{World, beside_others_then};
use localmodel_e2e::{audit, table, world};
use serde_json::Value;

use crate::services;

/// After so long without a write of ours the cluster has settled.
const SETTLED: SignedDuration = SignedDuration::from_secs(6);

#[tokio::test]
async fn the_documented_walkthrough_happens_as_printed() {
    let test = |world| async move {
        remove().await?;
        walkthrough(&world).await
    };
    beside_others_then("walkthrough", test, async |world| {
        // The second service guards the cache for as long as it is there.
        world.end_users().await?;
        remove().await
    })
    .await;
}

async fn walkthrough(world: &World) -> Result<()> {
    documented_steps(world).await?;
    // The node's object has every test's models, and their tests write.
    let _quiet = world::hold_others().await;
    documented_statuses(world).await?;
    ready_for_people().await?;
    files_are_the_hubs(world).await?;
    // "Deploy InferenceService using the LocalModelCache"
    services::documented(world).await?;
    quiet_for(Duration::from_mins(1)).await
}

/// The same on KServe's own definitions, which drop the fields that are ours: nothing is written again for
/// their sake.
pub(crate) async fn on_plain_definitions(world: &World) -> Result<()> {
    remove().await?;
    documented_steps(world).await?;
    documented_statuses(world).await?;
    let status = kubectl(&["get", "localmodelcache", CACHE, "-o", "jsonpath={.status}"]).await?;
    ensure!(!status.contains("conditions"), "the definitions are not KServe's: {status}");
    files_are_the_hubs(world).await?;
    quiet_for(Duration::from_secs(11)).await?;
    remove().await
}

async fn documented_steps(world: &World) -> Result<()> {
    world.hub.clear_requests("meta-llama").await?;
    label(NODE).await?;
    // "Enable Local Model Cache", "Configure Local Model Download Job Namespace"
    apply(&config_map(&world.setup.image)?).await?;
    apply(&object(&world.setup.image, "hf-secret.yaml")?).await?;
    apply(&object(&world.setup.image, "cluster-storage-container.yaml")?).await?;
    // "Create the LocalModelNodeGroup"
    apply(&object(&world.setup.image, "local-model-node-group.yaml")?).await?;
    printed("get-daemonset.txt", &["get", "daemonset", "-n", "kserve", "workers-agent"]).await?;
    // "Create the LocalModelCache"
    apply(&object(&world.setup.image, "local-model-cache.yaml")?).await?;
    printed("get-job.txt", &["get", "jobs", &format!("{CACHE}-{NODE}"), "-n", JOBS]).await?;
    printed("get-pvc.txt", &["get", "pvc", CACHE, "-n", JOBS]).await?;
    Ok(())
}

/// "Check the LocalModelCache Status". The node has no other models than these and the test's own.
async fn documented_statuses(world: &World) -> Result<()> {
    let own = world.name("");
    contains("local-model-cache-status.yaml", &["get", "localmodelcache", CACHE, "-o", "json"], &own).await?;
    contains("local-model-node-status.yaml", &["get", "localmodelnode", NODE, "-o", "json"], &own).await
}

/// The `-gptq` that a name gains in two of the printed outputs is stale: every earlier step has the name
/// without it.
fn without_stale_name(text: &str) -> String {
    text.replace("-gptq", "")
}

/// Waits until a table of kubectl is as printed.
async fn printed(name: &str, command: &[&str]) -> Result<()> {
    let wanted = without_stale_name(&documented(name)?);
    until(&format!("kubectl {} as in {name}", command.join(" ")), || async {
        let found = kubectl(command).await?;
        let differences = table::differences(&wanted, &found);
        ensure!(differences.is_empty(), "{differences:?} in\n{found}");
        Ok(Some(()))
    })
    .await
}

/// Waits until an object has every field that is printed; models whose names begin with `own` are not looked
/// at.
async fn contains(name: &str, command: &[&str], own: &str) -> Result<()> {
    let mut wanted: Value = yaml(&without_stale_name(&documented(name)?))?;
    // The printed `nodeGroup` is stale: the object was made with `nodeGroups`.
    if let Some(group) = wanted["spec"].as_object_mut().and_then(|spec| spec.remove("nodeGroup")) {
        wanted["spec"]["nodeGroups"] = Value::Array(vec![group]);
    }
    until(&format!("kubectl {} as in {name}", command.join(" ")), || async {
        let mut found: Value = serde_json::from_str(&kubectl(command).await?)?;
        let is_own = |key: &str| key.rsplit('/').next().is_some_and(|name| name.starts_with(own));
        if let Some(models) = found["spec"]["localModels"].as_array_mut() {
            models.retain(|model| !model["modelName"].as_str().is_some_and(is_own));
        }
        if let Some(models) = found["status"]["modelStatus"].as_object_mut() {
            models.retain(|key, _| !is_own(key));
        }
        has(&wanted, &found, "")?;
        Ok(Some(()))
    })
    .await
}

fn yaml(text: &str) -> Result<Value> {
    Ok(serde_saphyr::from_str(text)?)
}

/// Whether every printed field is there with its printed value; lists and what `modelStatus`, `nodeStatus`
/// and `copies` hold must be exactly as printed.
fn has(wanted: &Value, found: &Value, path: &str) -> Result<()> {
    let exact = ["modelStatus", "nodeStatus", "copies", "localModels", "nodeGroups"];
    match wanted {
        Value::Object(fields) if !exact.iter().any(|name| path.ends_with(name)) => {
            fields.iter().try_for_each(|(name, value)| {
                has(value, found.get(name).unwrap_or(&Value::Null), &format!("{path}.{name}"))
            })
        }
        _ => {
            ensure!(wanted == found, "{path} is {found}, not {wanted}");
            Ok(())
        }
    }
}

/// What a person sees beyond the printed.
async fn ready_for_people() -> Result<()> {
    kubectl(&["wait", "--for=condition=Ready", "localmodelcache", CACHE, "--timeout=30s"]).await?;
    let short = table::rows(&kubectl(&["get", "lmc", CACHE]).await?);
    let row = short.first().context("a row")?;
    ensure!(row["READY"] == "1/1" && row["STATUS"] == "Available", "{row:?}");
    let explained = kubectl(&["explain", "localmodelcache.spec.nodeGroups"]).await?;
    ensure!(explained.contains("cannot be changed"), "{explained}");
    Ok(())
}

/// The bytes on the worker's disk are those of the hub, and of nothing else.
async fn files_are_the_hubs(world: &World) -> Result<()> {
    let repository = "meta-llama/meta-llama-3-8b-instruct";
    let wanted: BTreeMap<String, String> = world.hub.files(repository, "main").await?;
    let script =
        format!("cd /models/models/{KEY} && find . -type f ! -path './.localmodel/*' | xargs sha256sum");
    let found: BTreeMap<String, String> = on_node(NODE, &script)
        .await?
        .lines()
        .filter_map(|line| line.split_once("  ./"))
        .map(|(sum, path)| (path.to_owned(), sum.to_owned()))
        .collect();
    ensure!(wanted == found, "the hub has {wanted:#?}, the disk {found:#?}");
    let left = on_node(NODE, "ls /models/incoming").await?;
    ensure!(left.trim().is_empty(), "left in incoming: {left}");
    Ok(())
}

/// Once what came before has settled, neither the operator nor an agent writes anything for so long.
async fn quiet_for(time: Duration) -> Result<()> {
    until("the last write before the steady state", || async {
        let last = audit::writes().await?.iter().map(|write| write.received).max();
        let last = last.context("the audit log tells no write of ours at all")?;
        Ok((Timestamp::now().duration_since(last) > SETTLED).then_some(()))
    })
    .await?;
    let (before, (said, room)) = (audit::writes().await?, nodes_say().await?);
    let quiet = tokio::time::timeout(time, async {
        let mut looks = tokio::time::interval(Duration::from_secs(5));
        loop {
            looks.tick().await;
            let (said_now, room_now) = nodes_say().await?;
            ensure!(said_now == said, "the nodes say {said_now:#}, not {said:#}");
            let mut new: Vec<_> = audit::writes().await?.difference(&before).cloned().collect();
            // Whoever filled the disk: free room that has changed by 5 % is news (A8).
            new.retain(|write| room_now == room || write.object_ref.resource != "localmodelnodes");
            ensure!(new.is_empty(), "written in steady state: {new:#?}");
        }
    });
    match quiet.await {
        Err(_the_time_is_over) => Ok(()),
        Ok(result) => result,
    }
    .with_context(|| format!("steady state of {GROUP}"))
}

/// The statuses of the nodes' objects without the free room of their disks, and that.
async fn nodes_say() -> Result<(Value, Vec<Value>)> {
    let mut nodes: Value = serde_json::from_str(&kubectl(&["get", "localmodelnodes", "-o", "json"]).await?)?;
    let mut statuses: Vec<Value> = nodes["items"]
        .as_array_mut()
        .context("a list")?
        .iter_mut()
        .map(|node| node["status"].take())
        .collect();
    let disks = statuses.iter_mut().filter_map(|status| status.get_mut("disks")?.as_object_mut()).flatten();
    let room = disks.map(|(_, disk)| disk["free"].take()).collect();
    Ok((statuses.into(), room))
}
