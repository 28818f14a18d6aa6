//! Who attacks: tenants, and whoever holds the token of a node's agent.

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use super::{Platform, client_of, with_token};
use crate::accounts::AGENT;
use crate::sweep::control_plane::create;
use crate::sweep::objects::OPERATOR;

/// Somebody with full rights in a namespace of his own.
pub struct Tenant {
    /// The namespace.
    pub namespace: String,
    /// What the tenant can ask for.
    pub client: Client,
}

pub(super) async fn tenant(platform: &Platform, namespace: &str) -> Result<Tenant> {
    let admin = &platform.client;
    let metadata = json!({"name": "tenant", "namespace": namespace});
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": namespace}],
        }),
    ] {
        create(admin, &object).await?;
    }
    let token = token(admin, namespace, "tenant", None).await?;
    let client = client_of(with_token(&platform.plane.kubeconfig(), &token)?).await?;
    Ok(Tenant { namespace: namespace.to_owned(), client })
}

/// What somebody can ask for who has taken the token from the agent's pod on a node.
pub async fn agent(platform: &Platform, node: &str) -> Result<Client> {
    let token = agent_token(platform, node).await?;
    client_of(with_token(&platform.plane.kubeconfig(), &token)?).await
}

/// The token of an agent's pod on a node.
pub(super) async fn agent_token(platform: &Platform, node: &str) -> Result<String> {
    let name = platform.unique("stolen-from");
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": OPERATOR},
        "spec": {
            "serviceAccountName": AGENT,
            "nodeName": node,
            "containers": [{"name": "agent", "image": "none"}],
        },
    });
    let pod = create(&platform.client, &pod).await?;
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(name),
        uid: pod["metadata"]["uid"].as_str().map(Into::into),
    };
    token(&platform.client, OPERATOR, AGENT, Some(bound)).await
}

/// What somebody can ask for who has a token of the agents' account that belongs to no pod.
pub async fn agent_nowhere(platform: &Platform) -> Result<Client> {
    let token = token(&platform.client, OPERATOR, AGENT, None).await?;
    client_of(with_token(&platform.plane.kubeconfig(), &token)?).await
}

/// A new token of a service account.
pub(super) async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    bound: Option<BoundObjectReference>,
) -> Result<String> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec { bound_object_ref: bound, ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = api.create_token_request(account, &PostParams::default(), &request).await;
    let answer = answer.with_context(|| format!("a token of {namespace}/{account}"))?;
    answer.status.map(|status| status.token).context("the answer has no token")
}
