//! Tenants whose caches are larger than what they may take of a node, of its list and of an object.

use anyhow::{Context, Result, ensure};
use localmodel_e2e::attack::{Platform, Tenant, attack, try_create, try_get};
use localmodel_e2e::sweep::control_plane::create;
use localmodel_e2e::sweep::objects;
use localmodel_e2e::wait::until;
use serde_json::{Value, json};

/// A node group with a node of its own, 10 GiB, and 6 GiB for each namespace.
async fn shared_group(platform: &Platform) -> Result<String> {
    let name = platform.unique("shared");
    create(&platform.client, &objects::node(&name)).await?;
    let mut group = objects::group();
    group["metadata"]["name"] = json!(name);
    group["spec"]["namespaceStorageLimit"] = json!("6Gi");
    group["spec"]["persistentVolumeSpec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] =
        json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
    create(&platform.client, &group).await?;
    Ok(name)
}

fn cache(tenant: &Tenant, name: &str, group: &str, size: &str) -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelNamespaceCache",
        "metadata": {"name": name, "namespace": tenant.namespace},
        "spec": {"sourceModelUri": format!("hf://{}/{name}", tenant.namespace), "modelSize": size, "nodeGroups": [group]},
    })
}

async fn made(tenant: &Tenant, cache: &Value) -> Result<()> {
    try_create(&tenant.client, cache).await?.map(drop).map_err(anyhow::Error::msg)
}

/// Waits until the list of a node has a tenant's model.
async fn planned(platform: &Platform, node: &str, tenant: &Tenant, name: &str) -> Result<()> {
    let path = format!("/apis/serving.kserve.io/v1alpha1/localmodelnodes/{node}");
    until(&format!("{name} to be planned on {node}"), || async {
        let list = try_get(&platform.client, &path).await?.map_err(anyhow::Error::msg)?;
        let mut models = list["spec"]["localModels"].as_array().into_iter().flatten();
        let is_it =
            |model: &Value| model["modelName"] == name && model["namespace"] == tenant.namespace.as_str();
        Ok(models.any(is_it).then_some(()))
    })
    .await
}

/// Waits until a tenant's cache has this condition, and returns its message.
async fn told(tenant: &Tenant, cache: &Value, condition: &str) -> Result<String> {
    until(&format!("condition {condition}"), || async {
        let found = try_get(&tenant.client, &objects::path(cache)?).await?.map_err(anyhow::Error::msg)?;
        let mut conditions = found["status"]["conditions"].as_array().into_iter().flatten();
        let is_it = conditions.find(|found| found["type"] == condition && found["status"] == "True");
        Ok(is_it.and_then(|found| found["message"].as_str()).map(Into::into))
    })
    .await
}

#[test]
fn an_invented_size_takes_no_more_than_the_share_of_its_namespace() {
    attack(async |platform| {
        let group = shared_group(platform).await?;
        let (victim, attacker) = (platform.tenant("victim").await?, platform.tenant("attacker").await?);
        let first = cache(&attacker, "fits", &group, "5Gi");
        made(&attacker, &first).await?;
        planned(platform, &group, &attacker, "fits").await?;
        for (name, size) in [("invented", "5Gi"), ("huge", "8Ei")] {
            let invented = cache(&attacker, name, &group, size);
            made(&attacker, &invented).await?;
            if name == "invented" {
                let words = told(&attacker, &invented, "NamespaceLimitReached").await?;
                for part in [&attacker.namespace, &group, "5 GiB asked", "6 GiB", "5 GiB on"] {
                    ensure!(words.contains(part), "{words} lacks {part}");
                }
            }
        }
        let modest = cache(&victim, "modest", &group, "5Gi");
        made(&victim, &modest).await?;
        planned(platform, &group, &victim, "modest").await
    });
}

#[test]
fn a_cache_that_is_too_large_for_a_list_is_refused_and_holds_up_no_other() {
    attack(async |platform| {
        let group = shared_group(platform).await?;
        let (victim, attacker) = (platform.tenant("victim").await?, platform.tenant("attacker").await?);
        made(&attacker, &cache(&attacker, "valid", &group, "1Mi")).await?;
        let parameters = |count: usize, bytes: usize| -> Value {
            (0..count)
                .map(|at| (format!("p{at}"), json!("x".repeat(bytes))))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        for (field, value, words) in [
            ("storage", json!({"parameters": parameters(1, 900_000)}), "spec.storage.parameters.p0"),
            ("storage", json!({"parameters": parameters(33, 1)}), "spec.storage.parameters"),
            (
                "storage",
                json!({"parameters": parameters(32, 1000)}),
                "storage.parameters may have 4096 characters",
            ),
            ("storage", json!({"parameters": {"k".repeat(254): ""}}), "a key of storage.parameters"),
            ("storage", json!({"key": "k".repeat(254)}), "spec.storage.key"),
            ("serviceAccountName", json!("a".repeat(254)), "spec.serviceAccountName"),
            ("sourceModelUri", json!(format!("hf://a/{}", "b".repeat(4000))), "spec.sourceModelUri"),
            ("modelSize", json!(format!("1{}", "0".repeat(100))), "spec.modelSize"),
        ] {
            let mut large = cache(&attacker, "large", &group, "1Mi");
            large["spec"][field] = value;
            let said = try_create(&attacker.client, &large).await?.err().context(field)?;
            ensure!(said.contains(words), "{field}: {said}");
        }
        made(&victim, &cache(&victim, "modest", &group, "1Mi")).await?;
        planned(platform, &group, &victim, "modest").await
    });
}

#[test]
fn many_caches_of_one_namespace_leave_space_in_a_list_for_others() {
    attack(async |platform| {
        let group = shared_group(platform).await?;
        let (victim, attacker) = (platform.tenant("victim").await?, platform.tenant("attacker").await?);
        let mut last = Value::Null;
        for at in 0..120 {
            last = cache(&attacker, &format!("many-{at:03}"), &group, "1Ki");
            last["spec"]["sourceModelUri"] = json!(format!("hf://acme/{at}{}", "u".repeat(2000)));
            made(&attacker, &last).await?;
        }
        planned(platform, &group, &attacker, "many-000").await?;
        let words = told(&attacker, &last, "NodeListFull").await?;
        ensure!(words.contains("256 KiB") && words.contains(&attacker.namespace), "{words}");
        made(&victim, &cache(&victim, "modest", &group, "1Mi")).await?;
        planned(platform, &group, &victim, "modest").await
    });
}
