//! The size of each model beside the list of a node: an agent bounds a download by it.

use std::collections::BTreeMap;

use super::names::MODEL_SIZES;
use crate::api::{LocalModelNode, ModelEntry};

/// The annotation, as JSON: bytes by status key.
pub fn annotation(sizes: &BTreeMap<String, u64>) -> String {
    serde_json::json!(sizes).to_string()
}

/// What the annotation of a node says.
pub fn of(local: &LocalModelNode) -> BTreeMap<String, u64> {
    let annotations = local.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(MODEL_SIZES));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The entries of a node, each with its size where the annotation says one.
pub fn entries(local: &LocalModelNode) -> Vec<ModelEntry> {
    let sizes = of(local);
    let with_size = |entry: &ModelEntry| {
        let model_size = sizes.get(&entry.status_key()).copied();
        ModelEntry { model_size, ..entry.clone() }
    };
    local.spec.local_models.iter().map(with_size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::entries::local_model_node;
    use crate::plan::samples::{entry_of, node};

    #[test]
    fn an_agent_reads_the_sizes_that_the_operator_wrote_and_none_where_there_is_none() {
        let list = vec![entry_of("a", "hf://o/a"), entry_of("b", "hf://o/b")];
        let mut local = local_model_node(&node("n"), list.clone(), &[]);
        assert_eq!(entries(&local), list);
        let written = annotation(&[("a".to_owned(), 10 << 30)].into());
        assert_eq!(written, r#"{"a":10737418240}"#);
        for (text, expected) in [(written.as_str(), Some(10 << 30)), ("{", None), (r#"{"a":-1}"#, None)] {
            local.metadata.annotations = Some([(MODEL_SIZES.to_owned(), text.to_owned())].into());
            assert_eq!(entries(&local)[0].model_size, expected, "{text}");
        }
    }
}
