//! The server of the webhooks is down: what waits for it, and what never does.

use anyhow::{Context, Result, ensure};
use localmodel_e2e::admission::{TEAM, namespace_cache, pod, refused};
use localmodel_e2e::command::kubectl;
use localmodel_e2e::objects::apply;
use localmodel_e2e::setup::{scale_operator, until_webhooks_answer};
use localmodel_e2e::wait::until;
use localmodel_e2e::world::{World, alone};

/// What is held in deletion while the server is down.
const HELD: [&[&str]; 2] =
    [&["localmodelcache", "down-leaving"], &["localmodelnamespacecache", "down-own", "-n", TEAM]];
const RELEASE: &str = r#"{"metadata": {"finalizers": null}}"#;

#[tokio::test]
async fn with_the_server_down_only_what_it_guards_is_refused_and_says_what_is_down() {
    alone(
        "down",
        |world| async move { down(&world).await },
        async |_| {
            scale_operator(2).await?;
            until_webhooks_answer().await?;
            for object in HELD {
                let there =
                    kubectl(&[&["get"], object, &["-o", "name", "--ignore-not-found"]].concat()).await?;
                if !there.is_empty() {
                    kubectl(&[&["delete"], object, &["--wait=false"]].concat()).await?;
                    kubectl(&[&["patch"], object, &["--type=merge", "-p", RELEASE]].concat()).await?;
                }
            }
            for pod in ["down-plain", "down-kserve"] {
                kubectl(&["delete", "pod", pod, "-n", TEAM, "--ignore-not-found", "--force"]).await?;
            }
            Ok(())
        },
    )
    .await;
}

async fn down(world: &World) -> Result<()> {
    world.group().await?;
    world.cache("m", "hf://down/m").await?;
    world.cache("leaving", "hf://down/leaving").await?;
    apply(&namespace_cache("down-own", "down")).await?;
    // Beside the operator's own finalizer, whose work is to be done while the operator is there.
    let hold = r#"[{"op": "add", "path": "/metadata/finalizers/-", "value": "test/hold"}]"#;
    for object in HELD {
        until("the operator's finalizer", || async {
            Ok(finalizers(object).await?.contains("kserve.io").then_some(()))
        })
        .await?;
        kubectl(&[&["patch"], object, &["--type=json", "-p", hold]].concat()).await?;
        kubectl(&[&["delete"], object, &["--wait=false"]].concat()).await?;
        until("nobody's finalizer but the test's", || async {
            Ok((finalizers(object).await? == r#"["test/hold"]"#).then_some(()))
        })
        .await?;
    }
    scale_operator(0).await?;

    let plain = pod("down-plain", "app: web");
    apply(&plain).await.context("a pod without the label")?;
    let kserves = pod("down-kserve", "internal.serving.kserve.io/localmodel: down-m");
    apply(&kserves).await.context("a pod of KServe")?;
    let ours = apply(&pod("down-ours", "localmodel.kserve.io/model: down-m")).await;
    refused(ours, "failed calling webhook \"pods.localmodel.kserve.io\"")?;
    let ours = apply(&pod("down-ours", "localmodel.kserve.io/model: down-m")).await;
    refused(ours, "localmodel-webhook.kserve.svc")?;
    let living = kubectl(&["delete", "localmodelcache", "down-m"]).await.map(drop);
    refused(living, "failed calling webhook \"caches.localmodel.kserve.io\"")?;

    for object in HELD {
        kubectl(&[&["patch"], object, &["--type=merge", "-p", RELEASE]].concat()).await?;
        let left = kubectl(&[&["get"], object, &["--ignore-not-found"]].concat()).await?;
        ensure!(left.is_empty(), "an object in deletion waited for the server: {left}");
    }
    Ok(())
}

async fn finalizers(object: &[&str]) -> Result<String> {
    kubectl(&[&["get"], object, &["-o", "jsonpath={.metadata.finalizers}"]].concat()).await
}
