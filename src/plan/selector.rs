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
    // A requirement that the scheduler cannot read matches nothing.
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !wanted.is_empty() && !listed,
        "Exists" => wanted.is_empty() && value.is_some(),
        "DoesNotExist" => wanted.is_empty() && value.is_none(),
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
mod tests;
