//! Clients that ask as somebody else: as the agent of a node, or as a tenant.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{AuthInfo, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use localmodel::plan::names::OPERATOR;

use crate::audit::TRIES;
use crate::command::kubectl;
use crate::objects::apply;

/// The account of agents.
pub const AGENT: &str = "localmodel-agent";

/// What the agent of a group on a node can ask for, with a token as its pod has it.
pub async fn agent(client: &Client, group: &str, node: &str) -> Result<Client> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kserve");
    let agents = ListParams::default()
        .labels(&format!("localmodel.kserve.io/node-group={group}"))
        .fields(&format!("spec.nodeName={node}"));
    let pod = pods.list(&agents).await?.items.into_iter().next();
    let pod = pod.with_context(|| format!("group {group} has no agent on {node}"))?.name_any();
    with_token(&["kserve", AGENT, "--bound-object-kind=Pod", &format!("--bound-object-name={pod}")]).await
}

/// The agents' account with a token that belongs to no pod.
pub async fn agent_nowhere() -> Result<Client> {
    with_token(&["kserve", AGENT]).await
}

/// What the operator can ask for.
pub async fn operator() -> Result<Client> {
    with_token(&["kserve", OPERATOR]).await
}

/// Somebody who may edit one namespace.
pub async fn tenant(namespace: &str) -> Result<Client> {
    apply(&format!(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: tenant, namespace: {namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: tenant, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}
subjects: [{{kind: ServiceAccount, name: tenant, namespace: {namespace}}}]
"
    ))
    .await?;
    with_token(&[namespace, "tenant"]).await
}

/// A kubeconfig with a new token of an account.
pub async fn kubeconfig(namespace: &str, account: &str) -> Result<String> {
    let token = token(&[namespace, account]).await?;
    let mut config = Kubeconfig::read()?;
    for user in &mut config.auth_infos {
        user.auth_info = Some(AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() });
    }
    Ok(serde_json::to_string(&config)?)
}

/// A client with a new token of an account: namespace, name and what else the token has.
async fn with_token(account: &[&str]) -> Result<Client> {
    let token = token(account).await?;
    let mut config = Config::infer().await?;
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    // What a test tries says nothing about what the account itself does.
    config.headers.push(("user-agent".parse()?, TRIES.parse()?));
    Ok(Client::try_from(config)?)
}

async fn token(account: &[&str]) -> Result<String> {
    Ok(kubectl(&[&["create", "token", "-n"], account].concat()).await?.trim().to_owned())
}
