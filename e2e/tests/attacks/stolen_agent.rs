//! What the token of a node's agent is good for in the hands of somebody else.

use anyhow::{Context, Result, ensure};
use localmodel::api::ModelEntry;
use localmodel::config::Config;
use localmodel::plan::credentials::Injection;
use localmodel::plan::job::{Download, job, recipe};
use localmodel::plan::names::{self, CacheKey, JOB_NODE};
use localmodel::plan::recipe::Versions;
use localmodel_e2e::attack::{Platform, agent, attack, try_create, try_delete, try_get, try_patch};
use localmodel_e2e::sweep::objects::{self, GROUP, IMAGE, NODES};
use localmodel_e2e::wait::until;
use serde_json::{Value, json};

/// The Job that the agent of a node makes for a cache.
fn download(node: &str, cache: &str, name: &str) -> Result<Value> {
    let entry = ModelEntry {
        model_name: cache.into(),
        source_model_uri: format!("hf://acme/{cache}"),
        ..ModelEntry::default()
    };
    let owner = json!({"apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode", "name": node, "uid": "u"});
    let (config, credentials) = (Config::default(), Injection::default());
    let download = Download {
        entry: &entry,
        group: GROUP,
        first: true,
        node,
        owner: serde_json::from_value(owner)?,
        config: &config,
        containers: &[],
        own_image: IMAGE,
        restricted: true,
        credentials: &credentials,
    };
    let mut job = json!(job(&download, &recipe(&download, &Versions::new()), name)?);
    // The object that owns it is there for real, or the Job were collected.
    job["metadata"]["ownerReferences"] = json!([]);
    Ok(job)
}

/// A cache's name and the one of its Job on a node.
fn names_of(platform: &Platform, node: &str) -> (String, String) {
    let cache = platform.unique("stolen");
    let job = names::job(&CacheKey::cluster(&cache), node);
    (cache, job)
}

#[test]
fn a_stolen_token_makes_no_job_that_another_nodes_agent_needs() {
    attack(async |platform| {
        let [a, b] = [agent(platform, NODES[0]).await?, agent(platform, NODES[1]).await?];
        let (cache, own) = names_of(platform, NODES[0]);
        try_create(&a, &download(NODES[0], &cache, &own)?).await?.map_err(anyhow::Error::msg)?;

        let key = CacheKey::cluster(&cache);
        let victims = names::job(&key, NODES[1]);
        for name in [&victims, &names::job_aside(&key, NODES[1])] {
            let mut taken = download(NODES[0], &cache, name)?;
            let words = try_create(&a, &taken).await?.err().with_context(|| format!("{name} was made"))?;
            ensure!(words.contains("has to end in -node-a"), "{words}");
            taken["metadata"]["labels"][JOB_NODE] = json!(NODES[1]);
            try_create(&a, &taken).await?.err().with_context(|| format!("{name} was made"))?;
            let generated = name.strip_suffix(|_: char| true).unwrap_or(name);
            taken["metadata"] = json!({"generateName": generated, "namespace": taken["metadata"]["namespace"],
                "labels": download(NODES[0], &cache, name)?["metadata"]["labels"]});
            let words = try_create(&a, &taken).await?.err().context("a generated name was taken")?;
            ensure!(words.contains("has to end in -node-a"), "{words}");
        }
        let job = download(NODES[1], &cache, &victims)?;
        try_create(&b, &job).await?.map_err(anyhow::Error::msg)?;
        let path = objects::path(&job)?;
        ensure!(try_delete(&a, &path).await?.is_err(), "the Job of node b was deleted by node a's agent");
        try_get(&platform.client, &path).await?.map_err(anyhow::Error::msg)?;
        Ok(())
    });
}

#[test]
fn a_stolen_token_makes_no_job_that_is_more_than_one_download() {
    attack(async |platform| {
        let a = agent(platform, NODES[0]).await?;
        let (cache, name) = names_of(platform, NODES[0]);
        let pod = "/spec/template/spec";
        for (place, field, value, words) in [
            ("/spec", "parallelism", json!(100_000), "has one pod"),
            ("/spec", "completions", json!(100_000), "has one pod"),
            ("/spec", "backoffLimit", json!(1_000_000), "has one pod"),
            ("/spec", "activeDeadlineSeconds", Value::Null, "has an end"),
            ("/spec", "activeDeadlineSeconds", json!(i64::MAX), "has an end"),
            ("/spec", "ttlSecondsAfterFinished", Value::Null, "has an end"),
            ("/spec", "suspend", json!(true), "by Kubernetes itself"),
            ("/spec", "managedBy", json!("example.com/nobody"), "by Kubernetes itself"),
            (
                pod,
                "priorityClassName",
                json!("system-cluster-critical"),
                "system-cluster-critical is not the one",
            ),
            (pod, "priorityClassName", json!("system-node-critical"), "system-node-critical is not the one"),
            (pod, "terminationGracePeriodSeconds", json!(86_400), "has an end"),
            (
                pod,
                "hostAliases",
                json!([{"ip": "10.0.0.1", "hostnames": ["huggingface.co"]}]),
                "name service",
            ),
            (pod, "schedulerName", json!("nobody"), "name service"),
            (pod, "hostNetwork", json!(true), "of its host"),
            ("/spec/template/metadata", "finalizers", json!(["example.com/never"]), "no finalizer"),
        ] {
            let mut job = download(NODES[0], &cache, &name)?;
            job.pointer_mut(place).context("the place is there")?[field] = value.clone();
            let said = try_create(&a, &job).await?.err();
            let said = said.with_context(|| format!("a Job with {field} {value} was made"))?;
            ensure!(said.contains(words), "{field} {value}: {said}");
        }
        try_create(&a, &download(NODES[0], &cache, &name)?).await?.map_err(anyhow::Error::msg)?;
        Ok(())
    });
}

#[test]
fn the_jobs_of_all_nodes_together_have_a_bound() {
    attack(async |platform| {
        let path =
            format!("/api/v1/namespaces/{}/resourcequotas/localmodel-jobs", Config::default().job_namespace);
        until("the quota to be counted", || async {
            let quota = try_get(&platform.client, &path).await?.map_err(anyhow::Error::msg)?;
            let is_counted = quota["status"]["used"]["count/jobs.batch"].is_string();
            ensure!(quota["status"]["hard"]["count/jobs.batch"] == "20k", "{quota}");
            Ok(is_counted.then_some(()))
        })
        .await
    });
}

#[test]
fn what_a_stolen_token_says_of_its_node_reaches_no_status_in_its_length() {
    attack(async |platform| {
        let (admin, a) = (&platform.client, agent(platform, NODES[0]).await?);
        let cache = platform.unique("said");
        let object = objects::cache(&cache, &format!("acme/{cache}"), 1);
        try_create(admin, &object).await?.map_err(anyhow::Error::msg)?;
        let node = format!("/apis/serving.kserve.io/v1alpha1/localmodelnodes/{}", NODES[0]);
        until("the cache to be planned", || async {
            let list = try_get(admin, &node).await?.map_err(anyhow::Error::msg)?;
            let mut models = list["spec"]["localModels"].as_array().into_iter().flatten();
            Ok(models.any(|model| model["modelName"] == cache.as_str()).then_some(()))
        })
        .await?;
        let said = |length: usize| {
            let damage = json!({"time": "2026-01-01T00:00:00Z", "reason": "CopyDamaged", "message": "d".repeat(length)});
            let detail =
                json!({"reason": "r".repeat(length), "message": "m".repeat(length), "lastDamage": damage});
            json!({"status": {"modelStatus": {&cache: "ModelDownloadError"}, "models": {&cache: detail}}})
        };
        let status = format!("{node}/status");
        let words = try_patch(&a, &status, &said(100_000)).await?.err().context("100 kB were taken")?;
        ensure!(words.contains("may not be more than 1024"), "{words}");
        try_patch(&a, &status, &said(1000)).await?.map_err(anyhow::Error::msg)?;
        let told = until("the cache to say it", || async {
            let found = try_get(admin, &objects::path(&object)?).await?.map_err(anyhow::Error::msg)?;
            let copy = found["status"]["nodes"][NODES[0]].clone();
            Ok((copy["phase"] == "NodeDownloadError").then_some(copy))
        })
        .await?;
        let length = |text: &Value| text.as_str().unwrap_or_default().len();
        ensure!(length(&told["message"]) == 256 && length(&told["reason"]) == 64, "{told}");
        ensure!(length(&told["lastDamage"]["message"]) == 256, "{told}");
        try_delete(admin, &objects::path(&object)?).await?.map_err(anyhow::Error::msg)?;
        Ok(())
    });
}
