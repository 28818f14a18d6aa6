//! Nothing of ours stops what is not ours: parts of the installation are missing, in any order and over restarts of the
//! API server, and pods that use no model are created as always.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use localmodel::api::crds;
use localmodel::plan::names::{MODEL_VOLUME, MUTATING_WEBHOOKS, POD_MODEL, SERVICE_MODEL};
use localmodel_e2e::attack::{
    Platform, Tenant, alone, apply, pod, shipped, try_create, try_delete, try_get, try_patch,
};
use localmodel_e2e::sweep::objects::{self, NODES, cache, path};
use localmodel_e2e::wait::until;
use serde_json::{Value, json};

/// What refuses a pod whose model was not mounted.
const POLICY: &str = "model-pods.localmodel.kserve.io";

#[test]
fn whichever_part_of_ours_is_missing_other_pods_are_created_and_those_with_a_model_are_told_why_not() {
    alone(async |platform| {
        let mut parts = Parts::new(platform).await?;
        parts.check().await?;
        for part in parts.all.clone() {
            parts.delete(&part).await?;
            if part["kind"] == "CustomResourceDefinition" {
                platform.plane.restart_api_server().await?;
            }
            parts.check().await.with_context(|| format!("without {}", path(&part).unwrap_or_default()))?;
            parts.install(&part).await?;
        }
        Ok(())
    });
}

#[test]
fn without_our_pods_and_in_whatever_order_the_parts_go_and_come_other_pods_are_created() {
    alone(async |platform| {
        let mut parts = Parts::new(platform).await?;
        platform.operator.stop().await?;
        parts.check().await.context("without an operator")?;
        let forwards = parts.all.clone();
        let backwards: Vec<Value> = forwards.iter().rev().cloned().collect();
        // Every third, then the rest: kinds alternate.
        let mixed: Vec<Value> = (0..3).flat_map(|n| forwards.iter().skip(n).step_by(3)).cloned().collect();
        for order in [forwards, backwards, mixed] {
            for part in &order {
                parts.delete(part).await?;
                parts.check().await.with_context(|| parts.words())?;
            }
            platform.plane.restart_api_server().await?;
            parts.check().await.context("without anything of ours, after a restart")?;
            for part in &order {
                parts.install(part).await?;
                parts.check().await.with_context(|| parts.words())?;
            }
        }
        Ok(())
    });
}

/// The installation, part by part.
struct Parts<'a> {
    platform: &'a Platform,
    tenant: Tenant,
    model: String,
    all: Vec<Value>,
    missing: BTreeSet<String>,
}

impl<'a> Parts<'a> {
    async fn new(platform: &'a Platform) -> Result<Self> {
        let tenant = platform.tenant("tenant").await?;
        let mut all = Vec::new();
        for definition in crds() {
            let mut definition = serde_json::to_value(definition)?;
            definition["kind"] = json!("CustomResourceDefinition");
            definition["apiVersion"] = json!("apiextensions.k8s.io/v1");
            all.push(definition);
        }
        all.extend(shipped()?);
        let model = platform.unique("model");
        try_create(&platform.client, &cache(&model, &format!("acme/{model}"), 1))
            .await?
            .map_err(anyhow::Error::msg)?;
        Ok(Self { platform, tenant, model, all, missing: BTreeSet::new() })
    }

    async fn delete(&mut self, part: &Value) -> Result<()> {
        let path = path(part)?;
        try_delete(&self.platform.client, &path).await?.map_err(anyhow::Error::msg)?;
        until(&format!("the end of {path}"), || async {
            self.release(part).await?;
            Ok(try_get(&self.platform.client, &path).await?.is_err().then_some(()))
        })
        .await?;
        self.missing.insert(path);
        Ok(())
    }

    /// Takes finalizers from the objects of a definition that goes, as somebody who wants to be rid of it does.
    async fn release(&self, part: &Value) -> Result<()> {
        if part["kind"] != "CustomResourceDefinition" {
            return Ok(());
        }
        let (group, plural) = (&part["spec"]["group"], &part["spec"]["names"]["plural"]);
        let version = &part["spec"]["versions"][0]["name"];
        let all = format!("/apis/{}/{}/{}", text(group), text(version), text(plural));
        let Ok(list) = try_get(&self.platform.client, &all).await? else { return Ok(()) };
        for object in list["items"].as_array().into_iter().flatten() {
            if object["metadata"]["finalizers"].is_array() {
                let none = json!({"metadata": {"finalizers": null}});
                // An error means that it has gone.
                let _ = try_patch(&self.platform.client, &path(object)?, &none).await?;
            }
        }
        Ok(())
    }

    async fn install(&mut self, part: &Value) -> Result<()> {
        let path = path(part)?;
        until(&path, || async { apply(&self.platform.client, part).await.map(Some) }).await?;
        self.missing.remove(&path);
        Ok(())
    }

    fn words(&self) -> String {
        format!("without {:?}", self.missing)
    }

    fn is_missing(&self, name: &str) -> bool {
        self.missing.iter().any(|path| path.ends_with(&format!("/{name}")))
    }

    /// What is not ours works as always; a pod with our label has its model or is refused.
    async fn check(&self) -> Result<()> {
        let admin = &self.platform.client;
        let namespace = &self.tenant.namespace;
        let mut mounting = pod(namespace, &self.platform.unique("mounting"), &json!({}));
        mounting["spec"]["volumes"] =
            json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        mounting["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        let of_cluster = pod("kube-system", &self.platform.unique("dns"), &json!({"k8s-app": "kube-dns"}));
        let of_kserve = pod(namespace, &self.platform.unique("served"), &json!({SERVICE_MODEL: self.model}));
        let job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.platform.unique("job"), "namespace": namespace},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}}},
        });
        for (somebody, object) in [
            (&self.tenant.client, &mounting),
            (admin, &of_cluster),
            (&self.tenant.client, &of_kserve),
            (&self.tenant.client, &job),
        ] {
            until(&path(object)?, || async {
                let made = try_create(somebody, object).await?.map_err(anyhow::Error::msg)?;
                Ok(Some(made))
            })
            .await?;
        }
        let node = path(&objects::node(NODES[0]))?;
        let change = json!({"metadata": {"annotations": {"noted": self.platform.unique("by")}}});
        try_patch(admin, &node, &change).await?.map_err(anyhow::Error::msg)?;
        self.check_labelled().await
    }

    async fn check_labelled(&self) -> Result<()> {
        // Nothing of ours that sees pods is left: our label is one of many.
        let unseen = self.is_missing(MUTATING_WEBHOOKS) && self.is_missing(POLICY);
        until("an answer to a pod with our label", || async {
            let asking =
                pod(&self.tenant.namespace, &self.platform.unique("asking"), &json!({POD_MODEL: self.model}));
            match try_create(&self.tenant.client, &asking).await? {
                Err(words) => ensure!(words.contains("localmodel"), "refused without a reason: {words}"),
                Ok(made) => {
                    let volumes = made["spec"]["volumes"].as_array();
                    let mounted =
                        volumes.is_some_and(|all| all.iter().any(|volume| volume["name"] == MODEL_VOLUME));
                    ensure!(mounted || unseen, "created without its model: {made}");
                }
            }
            Ok(Some(()))
        })
        .await
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
