//! Merge patches that change exactly what differs.

use serde_json::{Map, Value};

/// The JSON merge patch (RFC 7396) that turns one value into the other; `None` when they are equal.
pub fn merge(from: &Value, to: &Value) -> Option<Value> {
    match (from, to) {
        _ if from == to => None,
        (Value::Object(from), Value::Object(to)) => {
            let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
            let changed = to.iter().filter_map(|(key, value)| {
                Some((key.clone(), merge(from.get(key).unwrap_or(&Value::Null), value)?))
            });
            Some(Value::Object(gone.chain(changed).collect::<Map<_, _>>()))
        }
        _ => Some(to.clone()),
    }
}

#[cfg(test)]
mod tests;
