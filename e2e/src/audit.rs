//! The API server's audit log: who wrote what.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Deserialize;

use crate::command::on_node;

const LOG: &str = "/var/log/kubernetes/kube-apiserver-audit.log";

/// A write that the API server saw.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Write {
    /// Its identity.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// The verb of the request.
    pub verb: String,
    /// The path of the request.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who asked.
    pub user: User,
}

/// Who asked.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The user's name.
    pub username: String,
}

/// All writes of our operator and agents so far, leases excepted.
pub async fn writes() -> Result<BTreeSet<Write>> {
    // Only the lines of our accounts leave the node: the whole log is long.
    let log =
        on_node("kind-control-plane", &format!("grep system:serviceaccount:kserve:localmodel {LOG} || true"))
            .await?;
    let writes = log.lines().filter_map(|line| serde_json::from_str::<Write>(line).ok());
    Ok(writes.filter(|write| !write.request_uri.contains("/leases/")).collect())
}
