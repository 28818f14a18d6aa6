//! Whether a live object still is what was applied, so that nothing is written when nothing changed.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::names::APPLIED;
use crate::api::quantity;

/// A manifest with a digest of what it says, by which a live object shows what it was last applied with.
/// The resourceVersion that it was made for says nothing of the object and does not count.
pub fn stamped(mut manifest: Value) -> Value {
    let made_for = manifest["metadata"].as_object_mut().and_then(|meta| meta.remove("resourceVersion"));
    let digest = Sha256::digest(manifest.to_string().as_bytes());
    manifest["metadata"]["annotations"][APPLIED] = json!(hex::encode(&digest[..8]));
    if let Some(made_for) = made_for {
        manifest["metadata"]["resourceVersion"] = made_for;
    }
    manifest
}

/// Whether every field that is wanted stands in the live object. Fields that others or the API
/// server added do not matter; quantities may have another form; lists of named things are compared
/// by name, other lists as a whole. The API server leaves empty maps and lists out.
pub fn satisfied(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            wanted.iter().all(|(key, value)| satisfied(value, live.get(key).unwrap_or(&Value::Null)))
        }
        (Value::Object(wanted), Value::Null) => wanted.values().all(|value| satisfied(value, &Value::Null)),
        (Value::Array(wanted), Value::Null) => wanted.is_empty(),
        (Value::Null, _) => true,
        (Value::Array(wanted), Value::Array(live)) => list_satisfied(wanted, live),
        (Value::String(wanted), Value::String(live)) => quantity::same(wanted, live),
        _ => wanted == live,
    }
}

fn list_satisfied(wanted: &[Value], live: &[Value]) -> bool {
    if !wanted.is_empty() && wanted.iter().all(|item| item.get("name").is_some()) {
        return wanted.iter().all(|item| {
            live.iter().any(|other| other.get("name") == item.get("name") && satisfied(item, other))
        });
    }
    wanted.len() == live.len() && wanted.iter().zip(live).all(|(wanted, live)| satisfied(wanted, live))
}

#[cfg(test)]
mod tests;
