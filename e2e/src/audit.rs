//! The API server's audit log: what our accounts asked for.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use jiff::Timestamp;
use serde::Deserialize;

use crate::command::on_node;

/// The log, and what was rotated out of it.
const LOGS: &str = "/var/log/kubernetes/kube-apiserver-audit*.log";
/// What each line of ours contains.
const ACCOUNTS: &str = "system:serviceaccount:kserve:localmodel";
/// The verbs that change nothing, as they stand in a line.
const READS: &str = r#""verb":"(get|list|watch)""#;

/// The user agent of tests that ask as one of our accounts; what they try is left out.
pub const TRIES: &str = "localmodel-e2e-tries";

/// A request that the API server saw.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Request {
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
    /// Which program asked.
    #[serde(default)]
    pub user_agent: String,
    /// What was asked for; a name is there for a list or watch of one object too.
    #[serde(default)]
    pub object_ref: Object,
    /// How it was answered.
    #[serde(default)]
    pub response_status: Answer,
    /// When it came.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: Timestamp,
    /// Among others whether it was allowed, and why.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Request {
    /// The pod whose account asked, if it was a pod's.
    pub fn pod(&self) -> Option<&str> {
        self.user.extra.get("authentication.kubernetes.io/pod-name")?.first().map(String::as_str)
    }
}

/// Who asked.
#[derive(Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The user's name.
    pub username: String,
    /// Among others the pod whose account it is.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What was asked for; what does not apply is empty.
#[derive(Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// The group; empty for the core.
    pub api_group: String,
    /// The plural.
    pub resource: String,
    /// The part of the object.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// How a request was answered.
#[derive(Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(default)]
pub struct Answer {
    /// The status code of HTTP; 201 where the request made the object.
    pub code: u16,
}

/// All requests of our accounts since a time.
pub async fn requests(since: Timestamp) -> Result<Vec<Request>> {
    let lines = on_node("kind-control-plane", &format!("grep -h {ACCOUNTS} {LOGS} || true")).await?;
    Ok(parsed(&lines).filter(|request| request.received >= since).collect())
}

/// All writes of our accounts so far, leases excepted.
pub async fn writes() -> Result<BTreeSet<Request>> {
    // Only these lines leave the node: the whole log is long.
    let script = format!("grep -h {ACCOUNTS} {LOGS} | grep -Ev '{READS}' || true");
    let lines = on_node("kind-control-plane", &script).await?;
    Ok(parsed(&lines).filter(|write| !write.request_uri.contains("/leases/")).collect())
}

fn parsed(lines: &str) -> impl Iterator<Item = Request> {
    let requests = lines.lines().filter_map(|line| serde_json::from_str::<Request>(line).ok());
    requests.filter(|request| request.user_agent != TRIES)
}
