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
        (json!({"key": "cards", "operator": "Lt", "values": ["8"]}), false),
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
    assert!(!selects(&json!([{"matchFields": [{"key": "spec.other", "operator": "In", "values": ["n1"]}]}])));
}

#[test]
fn no_affinity_no_term_and_an_empty_term_match_no_node() {
    assert!(!matches(None, &node()));
    assert!(!selects(&json!([])));
    assert!(!selects(&json!([{}])));
    assert!(is_empty(None));
}

#[test]
fn a_requirement_that_the_scheduler_cannot_read_matches_no_node() {
    for requirement in [
        json!({"key": "gpu", "operator": "In", "values": []}),
        json!({"key": "gpu", "operator": "NotIn"}),
        json!({"key": "gpu", "operator": "Exists", "values": ["a100"]}),
        json!({"key": "none", "operator": "DoesNotExist", "values": ["a100"]}),
        json!({"key": "cards", "operator": "Gt", "values": ["1", "2"]}),
        json!({"key": "cards", "operator": "Gt", "values": ["one"]}),
        json!({"key": "none", "operator": "Lt", "values": ["9"]}),
    ] {
        assert!(!selects(&json!([{"matchExpressions": [requirement]}])), "{requirement}");
    }
}

#[test]
fn labels_and_fields_of_one_term_add_up() {
    let term = |name: &str| {
        json!([{
            "matchExpressions": [{"key": "gpu", "operator": "Exists"}],
            "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [name]}],
        }])
    };
    assert!(selects(&term("n2")));
    assert!(!selects(&term("n1")));
}

#[test]
fn a_selector_is_empty_when_none_of_its_terms_requires_anything() {
    let empty =
        |terms: Value| is_empty(Some(&serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap()));
    assert!(empty(json!([])));
    assert!(empty(json!([{}, {"matchExpressions": []}])));
    assert!(!empty(json!([{}, {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}])));
}
