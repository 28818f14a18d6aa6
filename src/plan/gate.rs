//! What `gate/K/status.json` says of a copy to the pods that wait for it (S11): nothing but what stands
//! in the node's status, too.

use serde::{Deserialize, Serialize};

use super::pass::Said;
use crate::api::ModelStatus;

/// The file's name, in the copy's folder below `gate/`.
pub const FILE: &str = "status.json";

/// How a copy fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// The phase; the gate opens at `ModelDownloaded`.
    pub phase: ModelStatus,
    /// Why it is in this phase, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bytes of the copy that are on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    /// Bytes that the whole copy has, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
}

impl From<&Said> for GateStatus {
    fn from((phase, detail): &Said) -> Self {
        Self {
            phase: *phase,
            reason: detail.reason.clone(),
            message: detail.message.clone(),
            bytes_done: detail.bytes_done,
            bytes_total: detail.bytes_total,
        }
    }
}
