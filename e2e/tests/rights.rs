//! The rights of our accounts after a whole run of the cluster's tests: each was used, none was missing.

use anyhow::Result;
use jiff::Timestamp;
use localmodel_e2e::audit::{self, Request};
use localmodel_e2e::command::{kubectl, run};
use localmodel_e2e::rights::{Right, granted};
use localmodel_e2e::setup::setup;
use serde_json::Value;

#[tokio::test]
async fn our_accounts_may_do_what_they_do_and_nothing_else() -> Result<()> {
    let mut objects: Vec<Value> = Vec::new();
    for folder in ["deploy/standalone", "deploy/uninstall"] {
        objects.extend(serde_saphyr::from_multiple::<Value>(&kubectl(&["kustomize", folder]).await?)?);
    }
    let requests = audit::requests(made(&setup().await?.image).await?).await?;
    let is_used = |right: &Right| requests.iter().any(|request| right.allowed(request));
    let unused: Vec<String> =
        granted(&objects)?.iter().filter(|right| !is_used(right)).map(ToString::to_string).collect();
    assert!(
        unused.is_empty(),
        "rights that nothing used; take them away, or test what needs them: {unused:#?}"
    );
    let is_forbidden = |request: &&Request| {
        request.annotations.get("authorization.k8s.io/decision").is_some_and(|said| said == "forbid")
    };
    let forbidden: Vec<&Request> = requests.iter().filter(is_forbidden).collect();
    assert!(forbidden.is_empty(), "asked without the right to: {forbidden:#?}");
    Ok(())
}

/// When this build's image was made: what earlier builds did on the same cluster says nothing about it.
async fn made(image: &str) -> Result<Timestamp> {
    Ok(run("docker", &["image", "inspect", image, "--format", "{{.Created}}"]).await?.trim().parse()?)
}
