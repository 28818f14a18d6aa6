//! The size of each model beside the list of a node: an agent bounds a download by it.

use std::collections::{BTreeMap, HashMap};

use super::capacity;
use super::entries::PlannedCache;
use super::names::{CacheKey, MODEL_SIZES};
use crate::api::{LocalModelNode, ModelEntry};

/// The annotation for these entries, as JSON: bytes by status key. A size that cannot be read is left out.
pub fn annotation(entries: &[ModelEntry], caches: &[PlannedCache]) -> String {
    let specs: HashMap<&CacheKey, _> = caches.iter().map(|cache| (&cache.key, cache.spec)).collect();
    let size = |entry: &ModelEntry| {
        let bytes = capacity::asked(specs.get(&CacheKey::of(entry))?)?;
        Some((entry.status_key(), u64::try_from(bytes).ok()?))
    };
    let sizes: BTreeMap<String, u64> = entries.iter().filter_map(size).collect();
    serde_json::json!(sizes).to_string()
}

/// The entries of a node, each with its size where the annotation says one.
pub fn entries(local: &LocalModelNode) -> Vec<ModelEntry> {
    let annotations = local.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(MODEL_SIZES));
    let sizes: BTreeMap<String, u64> =
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
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
    use crate::plan::samples::{cache_sized, entry_of, node};

    #[test]
    fn an_agent_reads_the_sizes_that_the_operator_wrote_and_none_where_there_is_none() {
        let caches = [cache_sized("a", "10Gi", 1), cache_sized("b", "much", 1)];
        let caches: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
        let list = vec![entry_of("a", "hf://o/a"), entry_of("b", "hf://o/b"), entry_of("c", "hf://o/c")];
        let mut local = local_model_node(&node("n"), list.clone(), &[]);
        assert_eq!(entries(&local), list);
        let written = annotation(&list, &caches);
        assert_eq!(written, r#"{"a":10737418240}"#);
        for (text, expected) in [(written.as_str(), Some(10 << 30)), ("{", None), (r#"{"a":-1}"#, None)] {
            local.metadata.annotations = Some([(MODEL_SIZES.to_owned(), text.to_owned())].into());
            assert_eq!(entries(&local)[0].model_size, expected, "{text}");
        }
    }
}
