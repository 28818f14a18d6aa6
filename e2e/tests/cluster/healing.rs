//! What was taken away behind our back comes back.

use anyhow::{Context, ensure};
use kube::ResourceExt;
use localmodel::api::LocalModelNode;
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::JOBS;
use localmodel_e2e::world::{WORKERS, beside_others};

#[tokio::test]
async fn a_folder_wiped_behind_its_back_comes_back_and_of_a_damaged_one_only_what_is_missing() {
    beside_others("wiped", |world| async move {
        world.warm(WORKERS[0]).await?;
        let before = world.files(WORKERS[0]).await?;
        let same_again = || async { Ok((world.files(WORKERS[0]).await? == before).then_some(())) };
        on_node(WORKERS[0], "rm -rf /models/wiped/models/*").await?;
        until("the same files again", same_again).await?;
        world.until_available("m", 1, 1).await?;

        world.hub.clear_requests("wiped/").await?;
        let shard = "model-00001-of-00002.safetensors";
        on_node(WORKERS[0], &format!("rm /models/wiped/models/*/{shard}")).await?;
        until("the missing file", same_again).await?;
        let asked = world.hub.requests("wiped/").await?;
        ensure!(!asked.is_empty(), "the hub was not asked for the missing file");
        let of_others: Vec<_> =
            asked.iter().filter(|r| r.path.contains("/resolve") && !r.path.contains(shard)).collect();
        ensure!(of_others.is_empty(), "good files were fetched again: {of_others:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn volumes_objects_and_agents_that_people_delete_or_edit_are_put_right() {
    beside_others("heal", |world| async move {
        world.warm(WORKERS[1]).await?;
        let claim = world.name("m");
        let uid = |kind: &'static str, namespace: &'static str, name: String| async move {
            kubectl(&["get", kind, &name, "-n", namespace, "-o", "jsonpath={.metadata.uid}"]).await
        };
        let old = uid("pvc", JOBS, claim.clone()).await?;
        kubectl(&["delete", "pvc", &claim, "-n", JOBS]).await?;
        until("a new claim, bound", || async {
            let phase =
                kubectl(&["get", "pvc", &claim, "-n", JOBS, "-o", "jsonpath={.status.phase}"]).await?;
            Ok((phase == "Bound" && uid("pvc", JOBS, claim.clone()).await? != old).then_some(()))
        })
        .await?;

        let volume = format!("{claim}-download");
        let old = uid("pv", JOBS, volume.clone()).await?;
        kubectl(&["delete", "pv", &volume, "--wait=false"]).await?;
        until("a new volume, bound", || async {
            let phase = kubectl(&["get", "pv", &volume, "-o", "jsonpath={.status.phase}"]).await?;
            Ok((phase == "Bound" && uid("pv", JOBS, volume.clone()).await? != old).then_some(()))
        })
        .await?;

        let before = world.node(WORKERS[1]).await?.context("the node's object")?;
        kubectl(&["delete", "localmodelnode", WORKERS[1]]).await?;
        let after: LocalModelNode = until("the node's object with our entry", || async {
            let local = world.node(WORKERS[1]).await?;
            Ok(local.filter(|l| l.spec.local_models.iter().any(|entry| entry.model_name == claim)))
        })
        .await?;
        ensure!(after.uid() != before.uid(), "it was not deleted");
        world.until_available("m", 1, 1).await?;

        let image = "jsonpath={.spec.template.spec.containers[0].image}";
        kubectl(&["set", "image", "-n", "kserve", "daemonset/heal-agent", "agent=example.com/wrong:1"])
            .await?;
        until("our image again", || async {
            let found = kubectl(&["get", "daemonset", "heal-agent", "-n", "kserve", "-o", image]).await?;
            Ok((found == world.setup.image).then_some(()))
        })
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_cache_made_before_its_group_heals_when_the_group_appears() {
    beside_others("early", |world| async move {
        world.join(WORKERS[0]).await?;
        world.cache("m", &world.model("m").await?).await?;
        until("condition NodeGroupNotFound", || async {
            let cache = world.get("m").await?;
            let conditions = cache.and_then(|c| c.status).map(|s| s.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|c| c.type_ == "NodeGroupNotFound" && c.status == "True").then_some(()))
        })
        .await?;
        world.group().await?;
        let cache = world.until_available("m", 1, 1).await?;
        let conditions = cache.status.map(|s| s.conditions).unwrap_or_default();
        ensure!(!conditions.iter().any(|c| c.type_ == "NodeGroupNotFound"), "{conditions:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_missing_group_does_not_stop_the_other_groups() {
    beside_others("half", |world| async move {
        world.group().await?;
        world.join(WORKERS[1]).await?;
        let source = world.model("m").await?;
        apply(&format!(
            "
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelCache
metadata: {{name: half-m}}
spec: {{sourceModelUri: '{source}', modelSize: 1Gi, nodeGroups: [half-nowhere, half]}}
"
        ))
        .await?;
        world.until_available("m", 1, 1).await?;
        let entry = world.node(WORKERS[1]).await?.context("the node's object")?;
        let entry =
            entry.spec.local_models.iter().find(|e| e.model_name == "half-m").context("the entry")?.clone();
        ensure!(
            entry.node_group.as_deref() == Some("half"),
            "an entry of another than the first group names it"
        );
        Ok(())
    })
    .await;
}
