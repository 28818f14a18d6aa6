//! `localmodel status` for somebody who may only read: with the roles of `docs/status.md` and no others.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use localmodel_e2e::accounts::kubeconfig;
use localmodel_e2e::command::{root, run, run_with};
use localmodel_e2e::objects::apply;
use localmodel_e2e::setup::binary;
use localmodel_e2e::world::World;
use serde_json::{Value, json};

/// Shows the fleet, in text and for scripts, and the story of a cache whose download has failed.
pub async fn sees(world: &World, failed: &str, warm: &str) -> Result<()> {
    let namespace = world.namespace("reader").await?;
    let roles = roles(&namespace)?;
    apply(&roles).await?;
    let shown = shown(world, &namespace, failed, warm).await;
    run_with("kubectl", &["delete", "--ignore-not-found", "-f", "-"], &roles).await?;
    shown
}

async fn shown(world: &World, namespace: &str, failed: &str, warm: &str) -> Result<()> {
    let mut config = tempfile::NamedTempFile::new()?;
    config.write_all(kubeconfig(namespace, "reader").await?.as_bytes())?;
    let (failed, warm) = (world.name(failed), world.name(warm));

    let fleet = status(config.path(), &[]).await?;
    let row = |mark: &str, name: &str| fleet.lines().any(|line| line.starts_with(&format!("{mark} {name} ")));
    ensure!(row("✓", &warm) && row("✗", &failed), "{fleet}");
    ensure!(fleet.contains("✗ RepositoryNotFound") && !fleet.contains("NOT SEEN"), "{fleet}");

    let json: Value = serde_json::from_str(&status(config.path(), &["-o", "json"]).await?)?;
    let caches = json["caches"].as_array().context("caches")?;
    let is_warm =
        |name: &str| caches.iter().find(|cache| cache["name"] == name).map(|cache| cache["warm"] == true);
    ensure!((is_warm(&warm), is_warm(&failed)) == (Some(true), Some(false)), "{json:#}");

    let story = status(config.path(), &[&failed]).await?;
    for words in ["RepositoryNotFound", "localModelCache", "kubectl delete job", "LOG OF"] {
        ensure!(story.to_lowercase().contains(&words.to_lowercase()), "{words} is not in\n{story}");
    }
    ensure!(!story.contains("NOT SEEN"), "{story}");
    Ok(())
}

async fn status(config: &Path, arguments: &[&str]) -> Result<String> {
    let program = binary("localmodel")?;
    let config = config.to_str().context("a path")?;
    let command = [&format!("KUBECONFIG={config}"), program.to_str().context("a path")?, "status"];
    run("env", &[&command, arguments].concat()).await
}

/// The documented roles, and what gives them to an account `reader` of a namespace.
fn roles(namespace: &str) -> Result<String> {
    let page = std::fs::read_to_string(root().join("docs/status.md"))?;
    let (_, rights) = page.split_once("## Rights").context("the chapter Rights")?;
    let documented = rights.split("```yaml").nth(1).and_then(|block| block.split("```").next());
    let documented = documented.context("the documented roles")?;
    let roles: Vec<Value> = serde_saphyr::from_multiple(documented)?;
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": namespace},
    });
    let binding = |role: &Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": format!("{}Binding", role["kind"].as_str().unwrap_or_default()),
            "metadata": role["metadata"],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role["kind"], "name": role["metadata"]["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
        })
    };
    let all = [account].into_iter().chain(roles.iter().map(binding)).chain(roles.iter().cloned());
    Ok(all.map(|object| object.to_string()).collect::<Vec<_>>().join("\n---\n"))
}
