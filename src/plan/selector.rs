//! Which nodes a group has: node affinity as the scheduler reads it (G3).

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use kube::ResourceExt;

/// Whether a node matches: one of the terms, and of that term everything. No selector, no term and an
/// empty term match nothing.
pub fn matches(selector: Option<&NodeSelector>, node: &Node) -> bool {
    selector.is_some_and(|s| s.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

/// Whether the selector could match any node at all.
pub fn is_empty(selector: Option<&NodeSelector>) -> bool {
    selector.is_none_or(|s| s.node_selector_terms.iter().all(|t| requirements(t).next().is_none()))
}

fn requirements(term: &NodeSelectorTerm) -> impl Iterator<Item = (&NodeSelectorRequirement, bool)> {
    let labels = term.match_expressions.iter().flatten().map(|r| (r, false));
    labels.chain(term.match_fields.iter().flatten().map(|r| (r, true)))
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    requirements(term).next().is_some()
        && requirements(term).all(|(requirement, is_field)| {
            let name = node.name_any();
            let value = if is_field {
                (requirement.key == "metadata.name").then_some(name.as_str())
            } else {
                node.labels().get(&requirement.key).map(String::as_str)
            };
            requirement_matches(requirement, value)
        })
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let wanted = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| wanted.iter().any(|w| w == v));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers(value, wanted).is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers(value, wanted).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn numbers(value: Option<&str>, wanted: &[String]) -> Option<(i64, i64)> {
    let [bound] = wanted else { return None };
    Some((value?.parse().ok()?, bound.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"gpu": "a100", "cards": "8"}}}))
            .unwrap()
    }

    fn selects(terms: &Value) -> bool {
        let selector: NodeSelector = serde_json::from_value(json!({ "nodeSelectorTerms": terms })).unwrap();
        matches(Some(&selector), &node())
    }

    #[test]
    fn each_operator_means_what_it_means_to_the_scheduler() {
        let cases = [
            (json!({"key": "gpu", "operator": "In", "values": ["h100", "a100"]}), true),
            (json!({"key": "gpu", "operator": "In", "values": ["h100"]}), false),
            (json!({"key": "gpu", "operator": "NotIn", "values": ["h100"]}), true),
            (json!({"key": "none", "operator": "NotIn", "values": ["h100"]}), true),
            (json!({"key": "gpu", "operator": "Exists"}), true),
            (json!({"key": "none", "operator": "Exists"}), false),
            (json!({"key": "none", "operator": "DoesNotExist"}), true),
            (json!({"key": "cards", "operator": "Gt", "values": ["7"]}), true),
            (json!({"key": "cards", "operator": "Gt", "values": ["8"]}), false),
            (json!({"key": "cards", "operator": "Lt", "values": ["9"]}), true),
            (json!({"key": "gpu", "operator": "Lt", "values": ["9"]}), false),
            (json!({"key": "gpu", "operator": "Near", "values": ["a100"]}), false),
        ];
        for (requirement, expected) in cases {
            assert_eq!(selects(&json!([{"matchExpressions": [requirement]}])), expected, "{requirement}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_requirements_add_up() {
        let yes = json!({"key": "gpu", "operator": "Exists"});
        let no = json!({"key": "none", "operator": "Exists"});
        assert!(selects(&json!([{"matchExpressions": [no]}, {"matchExpressions": [yes]}])));
        assert!(!selects(&json!([{"matchExpressions": [yes, no]}])));
    }

    #[test]
    fn a_node_can_be_named_by_field() {
        let by_name =
            |name| json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
        assert!(selects(&by_name("n1")));
        assert!(!selects(&by_name("n2")));
        assert!(!selects(
            &json!([{"matchFields": [{"key": "spec.other", "operator": "In", "values": ["n1"]}]}])
        ));
    }

    #[test]
    fn no_affinity_no_term_and_an_empty_term_match_no_node() {
        assert!(!matches(None, &node()));
        assert!(!selects(&json!([])));
        assert!(!selects(&json!([{}])));
        assert!(is_empty(None));
    }
}
