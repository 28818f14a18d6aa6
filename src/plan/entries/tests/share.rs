//! What one namespace may take of a group, and what does not fit into a list.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::*;
use crate::api::cache::StorageSpec;
use crate::plan::capacity::Limit;
use crate::plan::samples::{cache_sized, group_limited};

fn group_with_share(limit: &str, share: &str) -> LocalModelNodeGroup {
    let mut group = group_limited(limit);
    group.spec.namespace_storage_limit = Some(Quantity(share.into()));
    group
}

fn of_namespace(namespace: &str, name: &str, size: &str, second: i64) -> LocalModelNamespaceCache {
    let cache = cache_sized(name, size, second);
    let mut own = LocalModelNamespaceCache::new(name, LocalModelNamespaceCacheSpec(cache.spec.0));
    own.metadata.namespace = Some(namespace.into());
    own.metadata.creation_timestamp = cache.metadata.creation_timestamp;
    own
}

fn plan(group: &LocalModelNodeGroup, caches: &[LocalModelNamespaceCache], before: &[ModelEntry]) -> NodePlan {
    let caches: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
    entries(&node("n"), &[group], &caches, before, true)
}

fn keys(plan: &NodePlan) -> Vec<String> {
    plan.entries.iter().map(ModelEntry::status_key).collect()
}

#[test]
fn a_namespace_takes_its_share_and_others_find_the_rest() {
    let group = group_with_share("10", "6");
    let caches = [
        of_namespace("a", "one", "4", 1),
        of_namespace("a", "two", "4", 2),
        of_namespace("b", "one", "6", 3),
    ];
    let shared = plan(&group, &caches, &[]);
    assert_eq!(keys(&shared), ["a/one", "b/one"]);
    let [waits] = &shared.waiting[..] else { panic!("one waits: {:?}", shared.waiting) };
    assert_eq!((waits.limit, waits.asked, waits.used, waits.allowed), (Limit::Namespace, 4, 4, Some(6)));
    assert_eq!(keys(&plan(&group_limited("10"), &caches, &[])), ["a/one", "a/two"], "no share is set");
    assert_eq!(keys(&plan(&group_with_share("10", "much"), &caches, &[])), Vec::<String>::new());
}

#[test]
fn a_size_that_is_written_later_takes_no_more_than_the_share_and_the_copy_stays() {
    let group = group_with_share("10", "6");
    let mut caches = vec![of_namespace("a", "one", "1", 1), of_namespace("a", "two", "2", 2)];
    let before = plan(&group, &caches, &[]).entries;
    for (at, size) in [(0, "8Ei"), (1, "9")] {
        caches[at].spec.0.model_size = Quantity(size.into());
        caches.push(of_namespace("b", &format!("new-{at}"), "2", 3));
        let grown = plan(&group, &caches, &before);
        assert!(keys(&grown).starts_with(&["a/one".to_owned(), "a/two".to_owned()]), "{:?}", keys(&grown));
        assert!(keys(&grown).contains(&format!("b/new-{at}")), "{:?}", keys(&grown));
        let of_a: u64 = ["a/one", "a/two"].iter().map(|key| grown.sizes[*key]).sum();
        assert!(of_a <= 6, "{:?}", grown.sizes);
        assert!(grown.waiting.iter().any(|waits| waits.limit == Limit::Namespace), "{:?}", grown.waiting);
    }
}

#[test]
fn a_cache_that_is_too_large_for_any_list_is_left_out_and_no_other_is() {
    let mut large = of_namespace("a", "large", "1", 1);
    let parameters = [("p".to_owned(), "x".repeat(900_000))].into();
    large.spec.0.storage = Some(StorageSpec { key: None, parameters: Some(parameters) });
    let caches = [large, of_namespace("b", "small", "1", 2)];
    let planned = plan(&group_limited("10"), &caches, &[]);
    assert_eq!((keys(&planned), planned.waiting.len()), (vec!["b/small".to_owned()], 0));
    let listed = [ModelEntry { namespace: Some("a".into()), ..entry_of("large", "hf://o/large") }];
    assert_eq!(keys(&plan(&group_limited("10"), &caches, &listed)), ["b/small"], "also where it was listed");
}

#[test]
fn a_full_list_keeps_what_it_has_as_it_is_and_says_so_of_what_has_grown_and_what_is_new() {
    let long = |name: &str, second| {
        let mut cache = of_namespace("a", name, "1", second);
        cache.spec.0.source_model_uri = format!("hf://o/{name}{}", "u".repeat(2000));
        cache
    };
    let group = group_limited("1Ti");
    let mut caches: Vec<_> = (0..200).map(|at| long(&format!("m{at:03}"), 100 + at)).collect();
    let first = plan(&group, &caches, &[]);
    assert!(first.entries.len() > 50 && first.entries.len() < 100, "{}", first.entries.len());
    assert!(first.waiting.iter().all(|waits| waits.limit == Limit::ListOfNamespace));
    caches.push(long("older", 1));
    let parameters = [("p".to_owned(), "x".repeat(4000))].into();
    caches[0].spec.0.storage = Some(StorageSpec { key: None, parameters: Some(parameters) });
    let second = plan(&group, &caches, &first.entries);
    assert_eq!(second.entries, first.entries, "what was listed stays, also as it was");
    for name in ["older", "m000"] {
        assert!(second.waiting.iter().any(|waits| waits.cache.name == name), "{name}");
    }
    assert_eq!(plan(&group, &caches, &second.entries), second, "a second look changes nothing");
    let key = CacheKey::namespaced("a", "m000");
    let planned: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
    let changed = planned.iter().find(|cache| cache.key == key).unwrap();
    let local = local_model_node(&node("n"), first.entries, &[]);
    let place = place(changed, &node("n"), &[&group], &planned, Some(&local), true);
    assert!(matches!(place, Place::Outdated(_)), "{place:?}");
}
