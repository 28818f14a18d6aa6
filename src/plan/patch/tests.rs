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
