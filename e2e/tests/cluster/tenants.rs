//! Tenants' credentials, tried as the attacker (K4): a namespace cache gets what its own namespace has and what
//! the storage container gives to all, and nothing by naming what is another's.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use localmodel::api::node::ModelDetail;
use localmodel::api::source::storage_key;
use localmodel::plan::names;
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::JOBS;
use localmodel_e2e::world::{WORKERS, World, beside_others};
use localmodel_hub::{Access, ModelSpec, STRANGER_TOKEN, TOKEN};

#[tokio::test]
async fn a_namespace_cache_cannot_name_what_belongs_to_another_tenant_or_to_the_jobs() {
    beside_others("thief", |world| async move {
        let source = gated(&world).await?;
        let (owner, thief) = (world.namespace("owner").await?, world.namespace("thief").await?);
        account(&owner, "thief-reader", TOKEN).await?;
        account(JOBS, "thief-reader", TOKEN).await?;
        cache(&world, &thief, "m", &source, "serviceAccountName: thief-reader").await?;
        // KServe's storage secret of the job namespace, which cluster caches may name.
        let config = r#"{"type": "s3", "access_key_id": "a"}"#;
        apply(&secret(JOBS, "storage-config", &format!("thief: '{config}'"))).await?;
        // Another source: of caches that share a copy all tell the same.
        cache(&world, &thief, "k", "hf://thief/k", "storage: {key: thief}").await?;
        for (name, reason) in [("m", "ServiceAccountNotFound"), ("k", "SecretNotFound")] {
            let detail = until_reason(&world, &thief, name, reason).await?;
            let message = detail.message.context("a message")?;
            ensure!(message.contains(&thief), "it looked elsewhere than in {thief}: {message}");
            ensure!(!message.contains(JOBS), "{message}");
        }
        nothing_of(&world, &thief).await?;
        let jobs = format!("modelNamespace={thief}");
        let made = kubectl(&["get", "jobs", "-n", JOBS, "-l", &jobs, "-o", "name"]).await?;
        ensure!(made.trim().is_empty(), "a Job was made: {made}");
        for secret in copies(&world, &thief).await? {
            ensure!(secret.data.unwrap_or_default().is_empty(), "a value was copied");
        }
        kubectl(&["delete", "serviceaccount", "thief-reader", "-n", JOBS]).await?;
        kubectl(&["delete", "secret", "thief-reader", "storage-config", "-n", JOBS]).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_gated_model_that_another_has_cached_is_given_to_whoever_may_read_it_and_to_nobody_else() {
    beside_others("lent", |world| async move {
        let source = gated(&world).await?;
        let (owner, stranger) = (world.namespace("owner").await?, world.namespace("stranger").await?);
        account(&owner, "reader", TOKEN).await?;
        cache(&world, &owner, "m", &source, "serviceAccountName: reader").await?;
        world.until_available_in(&owner, "m", 1, 1).await?;

        account(&stranger, "reader", STRANGER_TOKEN).await?;
        world.hub.clear_requests("lent/").await?;
        cache(&world, &stranger, "m", &source, "serviceAccountName: reader").await?;
        until_reason(&world, &stranger, "m", "RepositoryGated").await?;
        nothing_of(&world, &stranger).await?;

        // The licence is accepted: the next try comes by itself, and the bytes are there already.
        account(&stranger, "reader", TOKEN).await?;
        world.until_available_in(&stranger, "m", 1, 1).await?;
        let key = storage_key(&source);
        let inodes = |namespace: String| {
            let folder = format!("/models/lent/namespaces/{namespace}/models/{key}");
            async move {
                let script =
                    format!("cd {folder} && find . -name '*.safetensors' | sort | xargs stat -c '%n %i'");
                on_node(WORKERS[0], &script).await
            }
        };
        let (first, second) = (inodes(owner).await?, inodes(stranger).await?);
        ensure!(!first.is_empty() && first == second, "the bytes are stored twice:\n{first}\n{second}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_copy_of_credentials_holds_what_is_needed_follows_its_source_and_goes_with_its_cache() {
    beside_others("copied", |world| async move {
        let source = gated(&world).await?;
        let team = world.namespace("team").await?;
        account(&team, "reader", TOKEN).await?;
        cache(&world, &team, "m", &source, "serviceAccountName: reader").await?;
        world.until_available_in(&team, "m", 1, 1).await?;
        let copy = copies(&world, &team).await?.pop().context("a copy")?;
        let keys: Vec<String> = copy.data.unwrap_or_default().into_keys().collect();
        ensure!(keys == ["env.HF_TOKEN"], "{keys:?}");
        ensure!(
            copy.metadata.labels.is_some_and(|labels| labels.contains_key(names::MANAGED_BY)),
            "no label"
        );
        kubectl(&["delete", "localmodelnamespacecache", &world.name("m"), "-n", &team, "--timeout=90s"])
            .await?;
        let left = copies(&world, &team).await?;
        ensure!(left.is_empty(), "a copy is left");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_cluster_cache_gets_the_secrets_of_a_service_account_beside_its_jobs_once_they_are_there() {
    beside_others("reader", |world| async move {
        let source = gated(&world).await?;
        let (name, group) = (world.name("m"), &world.prefix);
        let wanted = format!(
            "
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelCache
metadata: {{name: {name}}}
spec: {{sourceModelUri: '{source}', modelSize: 1Gi, nodeGroups: [{group}], serviceAccountName: reader-hub}}
"
        );
        apply(&wanted).await?;
        until("reason ServiceAccountNotFound", || async {
            let status = world.node(WORKERS[0]).await?.and_then(|local| local.status).unwrap_or_default();
            let detail = status.models.get(&name).cloned().context("no word of it")?;
            ensure!(detail.reason.as_deref() == Some("ServiceAccountNotFound"), "{detail:?}");
            Ok(Some(()))
        })
        .await?;
        account(JOBS, "reader-hub", STRANGER_TOKEN).await?;
        until("reason RepositoryGated", || async {
            let status = world.node(WORKERS[0]).await?.and_then(|local| local.status).unwrap_or_default();
            let detail = status.models.get(&name).cloned().context("no word of it")?;
            ensure!(detail.reason.as_deref() == Some("RepositoryGated"), "{detail:?}");
            Ok(Some(()))
        })
        .await?;
        // Another token brings the next try, long before its time.
        account(JOBS, "reader-hub", TOKEN).await?;
        let available = world.until_available("m", 1, 1).await.map(drop);
        kubectl(&["delete", "secret,serviceaccount", "reader-hub", "-n", JOBS]).await?;
        available
    })
    .await;
}

/// A gated model, a container for it that gives no token to anybody, and a node that may keep it.
async fn gated(world: &World) -> Result<String> {
    world.group().await?;
    world.join(WORKERS[0]).await?;
    let (prefix, image) = (&world.prefix, &world.setup.image);
    let repository = format!("{prefix}/m");
    let model = ModelSpec { access: Access::Gated, ..ModelSpec::new(&repository, 2_000_000, 2) };
    world.hub.add_model(&model).await?;
    apply(&format!(
        "
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterStorageContainer
metadata: {{name: {prefix}}}
spec:
  container:
    name: storage-initializer
    image: {image}
    env:
      - {{name: HF_ENDPOINT, value: 'http://hub:8080'}}
  supportedUriFormats: [{{prefix: 'hf://{prefix}/'}}]
  workloadType: localModelDownloadJob
"
    ))
    .await?;
    Ok(format!("hf://{repository}"))
}

fn secret(namespace: &str, name: &str, data: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {namespace}}}
stringData:
  {data}
"
    )
}

/// A service account with a secret of its name that holds a token, and a key that nobody needs.
async fn account(namespace: &str, name: &str, token: &str) -> Result<()> {
    let secret = secret(namespace, name, &format!("HF_TOKEN: {token}\n  unrelated: value"));
    let account = format!(
        "
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {namespace}}}
secrets: [{{name: {name}}}]
"
    );
    apply(&(secret + &account)).await
}

async fn cache(world: &World, namespace: &str, cache: &str, source: &str, names: &str) -> Result<()> {
    let (name, group) = (world.name(cache), &world.prefix);
    apply(&format!(
        "
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelNamespaceCache
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  sourceModelUri: '{source}'
  modelSize: 1Gi
  nodeGroups: [{group}]
  {names}
"
    ))
    .await
}

/// Waits until the node gives this reason for a namespace cache that it does not keep.
async fn until_reason(world: &World, namespace: &str, cache: &str, reason: &str) -> Result<ModelDetail> {
    let key = format!("{namespace}/{}", world.name(cache));
    until(&format!("reason {reason} of {key}"), || async {
        let status = world.node(WORKERS[0]).await?.and_then(|local| local.status).unwrap_or_default();
        let detail = status.models.get(&key).cloned().context("no word of it")?;
        ensure!(detail.reason.as_deref() == Some(reason), "{detail:?}");
        Ok(Some(detail))
    })
    .await
}

/// Waits until the namespace has no file on the node but what tells its pods how a copy fares.
async fn nothing_of(world: &World, namespace: &str) -> Result<()> {
    let area = format!("./namespaces/{namespace}/");
    until("no file of it", || async {
        let files = world.files(WORKERS[0]).await?;
        let of_it = files.iter().filter(|file| file.starts_with(&area) && !file.contains("/gate/"));
        let of_it: Vec<_> = of_it.collect();
        ensure!(of_it.is_empty(), "{of_it:#?}");
        Ok(Some(()))
    })
    .await
}

/// The copies of credentials of a namespace's caches.
async fn copies(world: &World, namespace: &str) -> Result<Vec<Secret>> {
    let of_namespace = ListParams::default().labels(&format!("{}={namespace}", names::CACHE_NAMESPACE));
    Ok(world.in_jobs::<Secret>().list(&of_namespace).await?.items)
}
