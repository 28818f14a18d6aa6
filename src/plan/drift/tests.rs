use super::*;
use serde_json::json;

#[test]
fn what_others_added_is_not_drift() {
    let wanted = json!({"spec": {"containers": [{"name": "agent", "image": "a"}]}, "labels": {}});
    let live = json!({"spec": {"containers": [
        {"name": "sidecar", "image": "s"}, {"name": "agent", "image": "a", "terminationMessagePath": "/dev/x"}
    ], "dnsPolicy": "ClusterFirst"}});
    assert!(satisfied(&wanted, &live));
}

#[test]
fn a_changed_a_missing_and_a_reordered_value_are_drift() {
    let wanted = json!({"image": "a", "args": ["x", "y"]});
    assert!(!satisfied(&wanted, &json!({"image": "b", "args": ["x", "y"]})));
    assert!(!satisfied(&wanted, &json!({"args": ["x", "y"]})));
    assert!(!satisfied(&wanted, &json!({"image": "a", "args": ["y", "x"]})));
    assert!(!satisfied(&wanted, &json!({"image": "a", "args": ["x", "y", "z"]})));
}

#[test]
fn an_empty_list_may_be_left_out_but_not_be_filled() {
    assert!(satisfied(&json!({"models": [], "labels": {}}), &json!({})));
    assert!(!satisfied(&json!({"models": []}), &json!({"models": ["m"]})));
}

#[test]
fn a_null_asks_for_nothing() {
    let wanted = json!({"spec": {"volumeName": null}});
    for live in [json!({}), json!({"spec": {}}), json!({"spec": {"volumeName": "v"}})] {
        assert!(satisfied(&wanted, &live), "{live}");
    }
}

#[test]
fn quantities_in_canonical_form_are_not_drift() {
    assert!(satisfied(&json!({"cpu": "0.1", "memory": "1024Mi"}), &json!({"cpu": "100m", "memory": "1Gi"})));
}

#[test]
fn a_named_thing_that_is_missing_is_drift_and_the_order_of_named_things_is_not() {
    let wanted = json!([{"name": "a", "v": 1}, {"name": "b", "v": 2}]);
    assert!(satisfied(&wanted, &json!([{"name": "b", "v": 2}, {"name": "a", "v": 1}])));
    assert!(!satisfied(&wanted, &json!([{"name": "b", "v": 2}])));
    assert!(!satisfied(&wanted, &json!([{"name": "b", "v": 2}, {"name": "a", "v": 2}])));
}

#[test]
fn the_version_that_a_manifest_was_made_for_stays_in_it_and_is_no_change_of_what_it_says() {
    let made = |version: Value, spec: &str| {
        stamped(json!({"metadata": {"name": "n", "resourceVersion": version}, "spec": spec}))
    };
    let stamp = |manifest: &Value| manifest["metadata"]["annotations"][APPLIED].clone();
    let (first, second) = (made(json!("1"), "a"), made(json!("2"), "a"));
    assert_eq!((&first["metadata"]["resourceVersion"], stamp(&first)), (&json!("1"), stamp(&second)));
    assert_eq!(stamp(&stamped(json!({"metadata": {"name": "n"}, "spec": "a"}))), stamp(&first));
    assert_ne!(stamp(&made(json!("1"), "b")), stamp(&first));
    assert!(satisfied(&second, &made(json!("2"), "a")));
}
