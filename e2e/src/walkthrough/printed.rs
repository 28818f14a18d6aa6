//! The documented steps, and what the documentation prints after them.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{CACHE, JOBS, KEY, NODE, config_map, documented, label, object};
use crate::command::{kubectl, on_node};
use crate::objects::apply;
use crate::table;
use crate::wait::until;
use crate::world::World;

/// From enabling the feature to the cache, whose Job and claim come as printed.
pub async fn steps(world: &World) -> Result<()> {
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

/// "Check the `LocalModelCache` Status". The node has no other models than these and the test's own.
pub async fn statuses(world: &World) -> Result<()> {
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

/// The bytes on the worker's disk are those of the hub, and of nothing else.
pub async fn files_are_the_hubs(world: &World) -> Result<()> {
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
