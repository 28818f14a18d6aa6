use proptest::prelude::*;

use super::*;
use serde_json::json;

#[test]
fn only_what_differs_is_in_the_patch() {
    let from = json!({"a": 1, "b": {"x": 1, "y": 2}, "list": [1, 2], "gone": true});
    let to = json!({"a": 1, "b": {"x": 1, "y": 3, "z": 4}, "list": [1], "new": {"k": {}}});
    assert_eq!(
        merge(&from, &to),
        Some(json!({"b": {"y": 3, "z": 4}, "list": [1], "gone": null, "new": {"k": {}}}))
    );
    assert_eq!(merge(&from, &from), None);
}

/// RFC 7396, as the API server does it.
fn applied(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = target.as_object().cloned().unwrap_or_default();
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            let before = target.get(key).cloned().unwrap_or(Value::Null);
            target.insert(key.clone(), applied(&before, value));
        }
    }
    Value::Object(target)
}

/// An object without nulls, as a serialized status is.
fn status() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from), Just(json!([1]))];
    let value = leaf.prop_recursive(3, 16, 3, |inner| {
        prop::collection::btree_map("[ab/]{1,2}", inner, 0..3).prop_map(|map| json!(map))
    });
    prop::collection::btree_map("[ab]", value, 0..3).prop_map(|map| json!(map))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_patch_turns_one_value_into_the_other(from in status(), to in status()) {
        let patched = merge(&from, &to).map_or_else(|| from.clone(), |patch| applied(&from, &patch));
        prop_assert_eq!(patched, to);
    }
}
