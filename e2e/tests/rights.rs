//! After whole runs of the cluster's tests: each right of our accounts was used and none was missing, no
//! operator wrote while another could lead, and no token was told.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use localmodel::plan::lease;
use localmodel_e2e::audit::{self, Request};
use localmodel_e2e::command::{kubectl, run};
use localmodel_e2e::rights::{Right, granted};
use localmodel_e2e::setup::setup;
use localmodel_e2e::tokens;
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

#[tokio::test]
async fn no_operator_has_written_without_holding_the_lease() -> Result<()> {
    let requests = audit::requests(made(&setup().await?.image).await?).await?;
    let of_operator = |request: &&Request| request.user.username.ends_with(":localmodel-operator");
    let reads = ["get", "list", "watch"];
    let (leases, writes): (Vec<_>, Vec<_>) = requests
        .iter()
        .filter(of_operator)
        .filter(|request| !reads.contains(&request.verb.as_str()))
        .partition(|request| request.object_ref.resource == "leases");
    let mut held: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    for lease in leases.into_iter().filter(|request| request.response_status.code < 300) {
        held.entry(lease.pod().unwrap_or_default()).or_default().push(lease.received);
    }
    let lasts = SignedDuration::try_from(lease::DURATION)?;
    let holds = |write: &Request| {
        let times = write.pod().and_then(|pod| held.get(pod));
        times
            .is_some_and(|times| times.iter().any(|at| *at <= write.received && write.received < *at + lasts))
    };
    // An operator of an earlier build, which may know no lease, writes until this one takes its place.
    let first = held.values().flatten().min().copied();
    let begun = |write: &Request| first.is_some_and(|first| first <= write.received);
    let late: Vec<_> = writes.iter().filter(|write| begun(write) && !holds(write)).collect();
    assert!(late.is_empty(), "{} of {} writes without the lease: {late:#?}", late.len(), writes.len());
    assert!(held.len() > 2 && !writes.is_empty(), "nothing was proved: {held:?}");
    Ok(())
}

#[tokio::test]
async fn no_token_is_told_by_operator_or_agents() -> Result<()> {
    setup().await?;
    tokens::are_kept_by_operator_and_agents(&Client::try_default().await?).await
}

/// When this build's image was made: what earlier builds did on the same cluster says nothing about it.
async fn made(image: &str) -> Result<Timestamp> {
    Ok(run("docker", &["image", "inspect", image, "--format", "{{.Created}}"]).await?.trim().parse()?)
}
