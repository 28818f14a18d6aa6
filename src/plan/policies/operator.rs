//! The operator writes the labels that say what is warm on a node, and nothing else of it (O6).

use super::*;
use crate::plan::names::warm_label;

const POLICIES: &str = include_str!("../../../deploy/base/operator-policies.yaml");
const KEY: &str = "0123456789abcdef";

fn by(account: &str, operation: &str, subresource: &str) -> Value {
    json!({
        "userInfo": {"username": format!("system:serviceaccount:kserve:{account}")},
        "operation": operation, "subResource": subresource, "name": "n",
    })
}

fn node(labels: &Value) -> Value {
    json!({"metadata": {"name": "n", "labels": labels}, "spec": {"podCIDR": "10.0.0.0/24"}})
}

fn refused(request: Value, old: Value, object: Value) -> Option<String> {
    let policy = policy(POLICIES, "operator-nodes.localmodel.kserve.io");
    refusal(&policy, &Asked { request, object, old, ..Asked::default() })
}

#[test]
fn operator_and_uninstall_write_and_take_away_warm_labels() {
    let plain = node(&json!({"a": "b"}));
    for label in [warm_label(KEY, None), warm_label(KEY, Some("team"))] {
        let warm = node(&json!({"a": "b", &label: "g"}));
        for account in ["localmodel-operator", "localmodel-uninstall"] {
            let update = || by(account, "UPDATE", "");
            assert_eq!(refused(update(), plain.clone(), warm.clone()), None);
            assert_eq!(refused(update(), warm.clone(), plain.clone()), None);
            assert_eq!(refused(update(), warm.clone(), node(&json!({"a": "b", &label: "h"}))), None);
        }
    }
    let without_labels = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}});
    let update = by("localmodel-operator", "UPDATE", "");
    assert_eq!(refused(update, without_labels, node(&json!({warm_label(KEY, None): "g"}))), None);
}

#[test]
fn other_labels_and_all_else_of_a_node_are_not_the_operators_to_write() {
    let before = node(&json!({"a": "b"}));
    let changed = |place: &str, value: Value| {
        let mut node = node(&json!({"a": "b"}));
        let (parent, field) = place.rsplit_once('/').unwrap();
        node.pointer_mut(parent).unwrap()[field] = value;
        node
    };
    for after in [
        node(&json!({"a": "c"})),
        node(&json!({})),
        node(&json!({"a": "b", "node-role.kubernetes.io/control-plane": ""})),
        node(&json!({"a": "b", "localmodel.kserve.io/other": ""})),
        changed("/spec/unschedulable", json!(true)),
        changed("/spec/taints", json!([{"key": "k", "effect": "NoExecute"}])),
        changed("/metadata/annotations", json!({"a": "b"})),
        changed("/metadata/finalizers", json!(["a/b"])),
        changed("/metadata/ownerReferences", json!([{"uid": "u"}])),
    ] {
        let told = refused(by("localmodel-operator", "UPDATE", ""), before.clone(), after.clone());
        assert!(told.unwrap_or_else(|| panic!("{after}")).starts_with("of "));
        assert_eq!(refused(by("somebody", "UPDATE", ""), before.clone(), after), None);
    }
    for (operation, subresource) in [("UPDATE", "status"), ("CREATE", ""), ("DELETE", "")] {
        let told = refused(by("localmodel-operator", operation, subresource), before.clone(), before.clone());
        assert_eq!(told.as_deref(), Some("of a node its labels are written, and nothing else"));
    }
}
