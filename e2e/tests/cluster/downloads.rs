//! What a download needs: its secret, and little memory.

use anyhow::{Context, Result, ensure};
use localmodel::api::ModelStatus::ModelDownloadPending;
use localmodel::api::node::ModelDetail;
use localmodel_e2e::command::kubectl;
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::JOBS;
use localmodel_e2e::world::{WORKERS, World, beside_others};
use localmodel_hub::{Access, ModelSpec};

#[tokio::test]
async fn a_model_larger_than_the_containers_memory_is_downloaded_in_128_mi() {
    beside_others("small", |world| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        let model = ModelSpec { access: Access::Gated, ..ModelSpec::new("small-memory/m", 300_000_000, 3) };
        world.hub.add_model(&model).await?;
        secret("small-secret", localmodel_hub::TOKEN).await?;
        let limited = container(&world, "hf://small-memory/", "small-secret")
            .replace("    env:\n", "    resources: {limits: {memory: 128Mi}}\n    env:\n");
        apply(&limited).await?;
        world.cache("m", "hf://small-memory/m").await?;
        let available = world.until_available("m", 1, 1).await.map(drop);
        kubectl(&["delete", "secret", "small-secret", "-n", JOBS]).await?;
        available
    })
    .await;
}

#[tokio::test]
async fn a_missing_secret_is_a_reason_and_not_an_endless_silence() {
    beside_others("absent", |world| async move {
        world.group().await?;
        world.join(WORKERS[1]).await?;
        apply(&container(&world, "hf://absent/", "absent-secret")).await?;
        world.cache("m", &world.model("m").await?).await?;
        let local = world.until_status(WORKERS[1], "m", ModelDownloadPending).await?;
        ensure!(local.spec.local_models.iter().any(|entry| entry.model_name == "absent-m"), "{local:?}");
        until("reason SecretNotFound", || async {
            let detail = detail(&world, WORKERS[1], "m").await?;
            ensure!(detail.reason.as_deref() == Some("SecretNotFound"), "{detail:?}");
            ensure!(detail.message.is_some_and(|m| m.contains("absent-secret")), "the secret is not named");
            Ok(Some(()))
        })
        .await?;
        world.until_described("m", &["SecretNotFound", "absent-secret"]).await?;
        secret("absent-secret", localmodel_hub::TOKEN).await?;
        let available = world.until_available("m", 1, 1).await.map(drop);
        kubectl(&["delete", "secret", "absent-secret", "-n", JOBS]).await?;
        available
    })
    .await;
}

async fn detail(world: &World, node: &str, cache: &str) -> Result<ModelDetail> {
    let status = world.node(node).await?.and_then(|local| local.status).unwrap_or_default();
    status.models.get(&world.name(cache)).cloned().with_context(|| format!("the detail of {cache}"))
}

async fn secret(name: &str, token: &str) -> Result<()> {
    apply(&format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {JOBS}}}
stringData: {{HF_TOKEN: {token}}}
"
    ))
    .await
}

/// A storage container for one prefix; its name sorts before the documented one's, as the choice wants.
fn container(world: &World, prefix: &str, secret: &str) -> String {
    let (name, image) = (&world.prefix, &world.setup.image);
    format!(
        "
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterStorageContainer
metadata: {{name: {name}}}
spec:
  container:
    name: storage-initializer
    image: {image}
    env:
      - {{name: HF_ENDPOINT, value: 'http://hub:8080'}}
      - {{name: HF_TOKEN, valueFrom: {{secretKeyRef: {{name: {secret}, key: HF_TOKEN}}}}}}
  supportedUriFormats: [{{prefix: '{prefix}'}}]
  workloadType: localModelDownloadJob
"
    )
}
