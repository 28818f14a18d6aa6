//! Conditions: the statements in a status that people and `kubectl wait` read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::text::{CONDITION_MAX, REASON_MAX, cut};

/// The condition that every cache and group has.
pub const READY: &str = "Ready";

/// A statement without the bookkeeping that a condition adds to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The condition's type.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, for a person.
    pub message: String,
}

impl Statement {
    /// A problem that has a condition of its own: its type is its reason.
    pub fn problem(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: true, reason: kind.into(), message: message.into() }
    }

    /// The condition `Ready`.
    pub fn ready(holds: bool, reason: &str, message: impl Into<String>) -> Self {
        Self { kind: READY, holds, reason: reason.into(), message: message.into() }
    }
}

/// The statements as conditions, sorted by type, one for each: where several statements are of one kind,
/// the first one's reason and the words of all. The time of the last change is kept while a status stays
/// what it was, so that equal statements make an equal list.
pub fn conditions(
    statements: &[Statement],
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = BTreeMap::<&str, Condition>::new();
    for statement in statements {
        if let Some(condition) = all.get_mut(statement.kind) {
            condition.message = cut(&format!("{}; {}", condition.message, statement.message), CONDITION_MAX);
            continue;
        }
        let status = if statement.holds { "True" } else { "False" };
        let same = before.iter().find(|c| c.type_ == statement.kind && c.status == status);
        let condition = Condition {
            type_: statement.kind.into(),
            status: status.into(),
            reason: cut(&statement.reason, REASON_MAX),
            message: cut(&statement.message, CONDITION_MAX),
            observed_generation: generation,
            last_transition_time: same.map_or(Time(now), |c| c.last_transition_time.clone()),
        };
        all.insert(statement.kind, condition);
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests;
