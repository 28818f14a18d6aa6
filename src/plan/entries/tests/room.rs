//! What fits on a node, and what waits for room (C8).

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use proptest::prelude::*;

use super::*;
use crate::plan::samples::{cache_sized, group_limited};

fn plan(limit: &str, caches: &[LocalModelCache], before: &[ModelEntry]) -> NodePlan {
    let caches: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
    entries(&node("n"), &[&group_limited(limit)], &caches, before, true)
}

fn models(plan: &NodePlan) -> Vec<&str> {
    plan.entries.iter().map(|entry| entry.model_name.as_str()).collect()
}

/// Name, bytes asked, used and allowed of what waits.
fn waiting(plan: &NodePlan) -> Vec<(&str, i128, i128, Option<i128>)> {
    plan.waiting.iter().map(|w| (w.cache.name.as_str(), w.asked, w.used, w.allowed)).collect()
}

fn namespaced(namespace: &str, cache: &LocalModelCache) -> LocalModelNamespaceCache {
    let spec = LocalModelNamespaceCacheSpec(cache.spec.0.clone());
    let mut own = LocalModelNamespaceCache::new(&cache.name_any(), spec);
    own.metadata.namespace = Some(namespace.into());
    own.metadata.creation_timestamp.clone_from(&cache.metadata.creation_timestamp);
    own.metadata.deletion_timestamp.clone_from(&cache.metadata.deletion_timestamp);
    own
}

#[test]
fn what_fills_a_limit_to_the_last_byte_fits_and_a_byte_more_waits() {
    let caches = [cache_sized("a", "6", 1), cache_sized("b", "4", 2)];
    assert_eq!(models(&plan("10", &caches, &[])), ["a", "b"]);
    let plan = plan("9", &caches, &[]);
    assert_eq!(models(&plan), ["a"]);
    assert_eq!(waiting(&plan), [("b", 4, 6, Some(9))]);
}

#[test]
fn older_caches_come_first_and_of_one_age_the_first_by_name() {
    let young_first = [cache_sized("a", "6", 9), cache_sized("b", "6", 1)];
    assert_eq!(models(&plan("10", &young_first, &[])), ["b"]);
    let of_one_age = [cache_sized("b", "6", 1), cache_sized("a", "6", 1)];
    assert_eq!(models(&plan("10", &of_one_age, &[])), ["a"]);
}

#[test]
fn a_younger_cache_that_fits_does_not_wait_for_an_older_one_that_does_not() {
    let caches = [cache_sized("a", "6", 1), cache_sized("big", "20", 2), cache_sized("small", "4", 3)];
    let plan = plan("10", &caches, &[]);
    assert_eq!(models(&plan), ["a", "small"]);
    assert_eq!(waiting(&plan), [("big", 20, 6, Some(10))]);
}

#[test]
fn what_was_planned_before_keeps_its_place_also_when_the_limit_sinks_or_an_older_cache_comes() {
    let mut caches = vec![cache_sized("young", "6", 9)];
    let before = plan("10", &caches, &[]).entries;
    caches.push(cache_sized("old", "6", 1));
    let later = plan("10", &caches, &before);
    assert_eq!((models(&later), waiting(&later)), (vec!["young"], vec![("old", 6, 6, Some(10))]));
    let sunk = plan("5", &caches, &before);
    assert_eq!((models(&sunk), waiting(&sunk)), (vec!["young"], vec![("old", 6, 6, Some(5))]));
}

#[test]
fn what_kserve_planned_stays_although_it_exceeds_the_limit_and_nothing_new_is_added() {
    let caches = [cache_sized("a", "6", 1), cache_sized("b", "6", 2), cache_sized("new", "1", 0)];
    let kserves = |name: &str| ModelEntry {
        node_group: Some("workers".into()),
        ..entry_of(name, &format!("hf://o/{name}"))
    };
    let plan = plan("10", &caches, &[kserves("a"), kserves("b")]);
    assert_eq!(models(&plan), ["a", "b"]);
    assert_eq!(waiting(&plan), [("new", 1, 12, Some(10))]);
}

#[test]
fn room_that_a_cache_leaves_or_a_higher_limit_gives_is_used_by_the_oldest_that_waits() {
    let caches = [cache_sized("a", "6", 1), cache_sized("second", "6", 2), cache_sized("third", "6", 3)];
    let before = plan("10", &caches, &[]).entries;
    assert_eq!(models(&plan("12", &caches, &before)), ["a", "second"]);
    let mut leaving = caches.clone();
    leaving[0].metadata.deletion_timestamp = from(json!("2026-01-01T00:00:00Z"));
    let freed = plan("10", &leaving, &before);
    assert_eq!((models(&freed), waiting(&freed)), (vec!["second"], vec![("third", 6, 6, Some(10))]));
    assert_eq!(models(&plan("10", &caches[1..], &before)), ["second"]);
}

#[test]
fn one_source_counts_once_as_the_largest_that_is_said_and_a_namespaces_area_holds_another_copy() {
    let shared = cache_sized("a", "4", 1);
    let (first, mut second) = (namespaced("team", &shared), namespaced("team", &shared));
    second.metadata.name = Some("b".into());
    second.spec.0.model_size = Quantity("5".into());
    let caches = [PlannedCache::from(&shared), PlannedCache::from(&first), PlannedCache::from(&second)];
    let plan = |limit: &str, caches: &[PlannedCache]| {
        entries(&node("n"), &[&group_limited(limit)], caches, &[], true)
    };
    assert_eq!(plan("9", &caches).waiting, []);
    let of_root = plan("4", &caches[..2]);
    assert_eq!((models(&of_root), waiting(&of_root)), (vec!["a"], vec![("a", 4, 4, Some(4))]));
    assert_eq!(of_root.waiting[0].cache, CacheKey::namespaced("team", "a"));
    let larger = plan("8", &caches);
    assert_eq!(waiting(&larger), [("b", 5, 4, Some(8))], "a byte more of a copy that is there");
    second.spec.0.model_size = Quantity("4".into());
    let caches = [PlannedCache::from(&shared), PlannedCache::from(&first), PlannedCache::from(&second)];
    assert_eq!(plan("8", &caches).waiting, [], "the same copy takes nothing more");
}

#[test]
fn while_caching_is_disabled_nothing_waits_and_nothing_moves() {
    let caches = [cache_sized("a", "6", 1), cache_sized("b", "6", 2)];
    let caches: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
    let of_first = entries(&node("n"), &[&group_limited("10")], &caches[..1], &[], true).entries;
    for limit in ["10", "100", "1"] {
        let plan = entries(&node("n"), &[&group_limited(limit)], &caches, &of_first, false);
        assert_eq!((plan.entries, plan.waiting), (of_first.clone(), vec![]), "{limit}");
    }
}

#[test]
fn nothing_new_is_planned_by_a_limit_or_a_size_that_cannot_be_read_and_what_is_there_stays() {
    let caches = [cache_sized("a", "6", 1), cache_sized("b", "1", 2)];
    let before = plan("10", &caches[..1], &[]).entries;
    let unread = plan("much", &caches, &before);
    assert_eq!((models(&unread), waiting(&unread)), (vec!["a"], vec![("b", 1, 6, None)]));
    for size in ["much", "0", "-1"] {
        let caches = [cache_sized("a", size, 1), cache_sized("b", size, 2)];
        let plan = plan("10", &caches, &before);
        assert_eq!((plan.entries, plan.waiting), (before.clone(), vec![]));
    }
}

#[test]
fn another_source_under_the_same_name_is_another_copy_and_waits_its_turn() {
    let caches = [cache_sized("a", "6", 9), cache_sized("b", "6", 1)];
    let before = [entry_of("a", "hf://o/earlier")];
    assert_eq!(models(&plan("10", &caches, &before)), ["b"]);
}

#[test]
fn a_copy_keeps_its_place_for_whichever_cache_asks_for_it_when_the_one_that_had_it_goes() {
    let caches = [cache_sized("first", "6", 1), cache_sized("older", "6", 2), cache_sized("next", "6", 9)];
    let [mut first, older, mut next] = caches;
    next.spec.0.source_model_uri = "hf://o/first".into();
    let within = |limit: &str, caches: &[PlannedCache], before: &[ModelEntry]| {
        entries(&node("n"), &[&group_limited(limit)], caches, before, true)
    };
    let plan = |caches: &[PlannedCache], before: &[ModelEntry]| within("10", caches, before);
    let before = plan(&[PlannedCache::from(&first)], &[]).entries;
    let of_team = plan(&[PlannedCache::from(&namespaced("team", &first))], &[]).entries;
    let mut larger = next.clone();
    larger.spec.0.model_size = Quantity("7".into());
    let beside = [PlannedCache::from(&first), PlannedCache::from(&larger)];
    assert_eq!(models(&within("7", &beside, &before)), ["first", "next"]);
    assert_eq!(models(&within("6", &beside, &before)), ["first"], "a larger one beside it needs the room");

    first.metadata.deletion_timestamp = from(json!("2026-01-01T00:00:00Z"));
    let (leaving, heir) = (namespaced("team", &first), namespaced("team", &next));
    let (older, leaving, heir) =
        (PlannedCache::from(&older), PlannedCache::from(&leaving), PlannedCache::from(&heir));
    let outcome = |plan: NodePlan| {
        let waiting = plan.waiting.into_iter().map(|w| (w.cache.name, w.used));
        (
            plan.entries.into_iter().map(|entry| entry.model_name).collect::<Vec<_>>(),
            waiting.collect::<Vec<_>>(),
        )
    };
    let inherited = (vec!["next".to_owned()], vec![("older".to_owned(), 6)]);
    assert_eq!(outcome(plan(&[leaving.clone(), older.clone(), heir.clone()], &of_team)), inherited);
    assert_eq!(outcome(plan(&[older.clone(), heir.clone()], &of_team)), inherited);
    let (leaving, heir_of_all) = (PlannedCache::from(&first), PlannedCache::from(&next));
    assert_eq!(outcome(plan(&[leaving, older.clone(), heir_of_all.clone()], &before)), inherited);

    let waits = (vec!["older".to_owned()], vec![("next".to_owned(), 6)]);
    assert_eq!(outcome(plan(&[older.clone(), heir], &before)), waits, "another area is another copy");
    assert_eq!(
        outcome(plan(&[older, heir_of_all], &before)),
        waits,
        "nobody knows through which group it was"
    );
}

/// A node of groups `a` and `b`, each with a limit.
fn two_groups(limits: [&str; 2]) -> (Node, [LocalModelNodeGroup; 2]) {
    let groups = ["a", "b"].map(|name| {
        let mut group = group_named(name);
        group.spec.persistent_volume_spec.node_affinity = from(json!({"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": name, "operator": "Exists"}]}]}}));
        group
    });
    let [mut a, mut b] = groups;
    a.spec.storage_limit = Quantity(limits[0].into());
    b.spec.storage_limit = Quantity(limits[1].into());
    (labelled_node("n", &json!({"a": "", "b": ""})), [a, b])
}

#[test]
fn each_group_of_a_node_has_a_limit_of_its_own_and_a_full_one_does_not_spill_over() {
    let (node, [a, b]) = two_groups(["5", "10"]);
    let caches = [cache_named("x", "hf://o/x", &["a", "b"]), cache_named("y", "hf://o/y", &["b", "a"])];
    let caches = caches.map(|mut cache| {
        cache.spec.0.model_size = Quantity("6".into());
        cache
    });
    let caches: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
    let plan = entries(&node, &[&a, &b], &caches, &[], true);
    assert_eq!(models(&plan), ["y"]);
    assert_eq!((plan.waiting[0].group.as_str(), waiting(&plan)), ("a", vec![("x", 6, 0, Some(5))]));
}

#[test]
fn what_a_node_has_through_another_group_goes_over_to_the_first_one_when_there_is_room() {
    let mut cache = cache_named("m", "hf://o/m", &["a", "b"]);
    cache.spec.0.model_size = Quantity("6".into());
    let caches = [PlannedCache::from(&cache)];
    let before = [ModelEntry { node_group: Some("b".into()), ..entry_of("m", "hf://o/m") }];
    let (node, [a, b]) = two_groups(["5", "10"]);
    let stays = entries(&node, &[&a, &b], &caches, &before, true);
    assert_eq!((names(&stays.entries), stays.waiting), (vec![("m", Some("b"))], vec![]));
    let (node, [a, b]) = two_groups(["6", "10"]);
    let mut next = cache_named("next", "hf://o/next", &["b"]);
    next.spec.0.model_size = Quantity("10".into());
    next.metadata.creation_timestamp = from(json!("2026-01-01T00:00:00Z"));
    let both = [PlannedCache::from(&cache), PlannedCache::from(&next)];
    let goes = entries(&node, &[&a, &b], &both, &before, true);
    assert_eq!(names(&goes.entries), [("m", None), ("next", None)], "and the room that it leaves is free");
    assert_eq!(names(&entries(&node, &[&a, &b], &caches, &before, false).entries), [("m", Some("b"))]);
}

#[test]
fn where_a_nodes_object_is_gone_its_labels_say_what_keeps_its_place() {
    let caches = [cache_sized("old", "6", 1), cache_sized("young", "6", 9)];
    let planned: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
    let label = names::warm_label(&storage_key("hf://o/young"), None);
    let node =
        labelled_node("n", &json!({"nvidia.com/gpu-product": "NVIDIA-A100-SXM4-80GB", label: "workers"}));
    let before = planned_before(&node, &planned, None);
    assert_eq!(names(&before), [("young", None)]);
    let limit = group_limited("10");
    assert_eq!(models(&entries(&node, &[&limit], &planned, &before, true)), ["young"]);
    let mut local = local_model_node(&node, vec![entry_of("old", "hf://o/old")], &[]);
    assert_eq!(names(&planned_before(&node, &planned, Some(&local))), [("old", None)]);
    local.spec.local_models.clear();
    assert_eq!(planned_before(&node, &planned, Some(&local)).len(), 0, "an empty list is a list");
}

#[test]
fn a_cache_is_where_the_list_has_it_or_the_plan_puts_it_and_waits_elsewhere() {
    let caches = [cache_sized("a", "6", 1), cache_sized("b", "6", 2)];
    let caches: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
    let (limit, on) = (group_limited("10"), node("n"));
    let of = |which: usize, local: Option<&LocalModelNode>, enabled| {
        place(&caches[which], &on, &[&limit], &caches, local, enabled)
    };
    let used = |place| match place {
        Place::Waiting(waiting) => Some(waiting.used),
        _ => None,
    };
    assert_eq!(of(0, None, true), Place::Planned);
    assert_eq!(used(of(1, None, true)), Some(6));
    assert_eq!(of(0, None, false), Place::Nowhere);
    let listed = local_model_node(&on, vec![entry_of("b", "hf://o/b")], &[]);
    assert_eq!(of(1, Some(&listed), true), Place::Planned);
    assert_eq!(of(1, Some(&listed), false), Place::Planned);
    assert_eq!(used(of(0, Some(&listed), true)), Some(6), "the list keeps its place");
    let off = labelled_node("n", &json!({}));
    for cache in &caches {
        let placed = place(cache, &off, &[&limit], &caches, Some(&listed), true);
        assert_eq!(placed, Place::Nowhere, "a list that is about to be emptied: {}", cache.key);
    }
    let earlier =
        local_model_node(&on, vec![entry_of("b", "hf://o/earlier"), entry_of("c", "hf://o/b")], &[]);
    assert_eq!(
        of(1, Some(&earlier), false),
        Place::Nowhere,
        "its name and its source stand in other entries"
    );
}

/// A cache by chance: namespace, source, size, age and groups.
type Made = (Option<&'static str>, u8, u8, i64, &'static [&'static str]);

/// Caches by chance, before and after; half of the earlier ones stay, with other sizes and groups.
fn made() -> impl Strategy<Value = (Vec<Made>, Vec<Made>)> {
    let groups: [&[&str]; 4] = [&["a"], &["b"], &["a", "b"], &["b", "a"]];
    let namespace = prop_oneof![Just(None), Just(Some("team"))];
    let cache = (namespace, 0..4u8, 0..9u8, 0..3i64, proptest::sample::select(groups.to_vec()));
    let stays = |(was, is, stays): &(Made, Made, bool)| {
        if *stays { (was.0, was.1, is.2, was.3, is.4) } else { *is }
    };
    proptest::collection::vec((cache.clone(), cache, any::<bool>()), 0..8)
        .prop_map(move |all| (all.iter().map(|(was, ..)| *was).collect(), all.iter().map(stays).collect()))
}

/// The caches, named by their place in the list.
fn named(made: &[Made]) -> Vec<(CacheKey, LocalModelCache)> {
    let sample = cache_named("m", "hf://o/m", &[]);
    let cache = |(at, (namespace, source, size, second, groups)): (usize, &Made)| {
        let mut cache = sample.clone();
        cache.metadata.name = Some(format!("m{at}"));
        cache.spec.0.source_model_uri = format!("hf://o/{source}");
        cache.spec.0.node_groups = groups.iter().map(ToString::to_string).collect();
        cache.spec.0.model_size = Quantity(size.to_string());
        cache.metadata.creation_timestamp = from(json!(crate::plan::samples::at(*second).to_string()));
        (CacheKey { namespace: namespace.map(Into::into), name: cache.name_any() }, cache)
    };
    made.iter().enumerate().map(cache).collect()
}

fn as_planned(caches: &[(CacheKey, LocalModelCache)]) -> Vec<PlannedCache<'_>> {
    caches.iter().map(|(key, cache)| PlannedCache { key: key.clone(), ..PlannedCache::from(cache) }).collect()
}

/// The bytes of a group in a list.
fn used(list: &[ModelEntry], caches: &[PlannedCache], group: &str) -> i128 {
    let mut sizes = BTreeMap::<(Option<&str>, &str), i128>::new();
    for entry in list {
        let Some(cache) = caches.iter().find(|cache| cache.key == CacheKey::of(entry)) else { continue };
        if group_of_entry(entry, cache.spec) == Some(group) {
            let size = sizes.entry((entry.namespace(), &entry.source_model_uri)).or_default();
            *size = (*size).max(capacity::asked(cache.spec).unwrap_or(0));
        }
    }
    sizes.values().sum()
}

/// The entries that a node is to go on with: of caches that still ask for theirs through its group, and of those
/// that ask for a copy that its own cache has left.
fn kept(list: &[ModelEntry], caches: &[PlannedCache], of_node: &[&str]) -> Vec<ModelEntry> {
    let asks = |cache: &PlannedCache, group: &str| cache.spec.node_groups.iter().any(|name| name == group);
    let of_entry = |entry: &ModelEntry| {
        let is_of_copy = |cache: &&PlannedCache| {
            cache.key.namespace == entry.namespace && cache.spec.source_model_uri == entry.source_model_uri
        };
        let of_copy: Vec<&PlannedCache> = caches.iter().filter(is_of_copy).collect();
        let own = of_copy.iter().copied().find(|cache| cache.key.name == entry.model_name);
        let told = own.and_then(|cache| group_of_entry(entry, cache.spec)).or(entry.node_group.as_deref());
        let Some(group) = told.filter(|group| of_node.contains(group)) else { return Vec::new() };
        if own.is_some_and(|cache| asks(cache, group)) {
            return vec![entry.clone()];
        }
        let heirs = of_copy.into_iter().filter(|cache| asks(cache, group));
        let entry_of = |heir: &PlannedCache| ModelEntry {
            model_name: heir.key.name.clone(),
            node_group: Some(group.to_owned()),
            ..entry.clone()
        };
        heirs.map(entry_of).collect()
    };
    list.iter().flat_map(of_entry).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_list_exceeds_a_limit_unless_it_did_before_and_nothing_planned_is_dropped(
        (earlier, caches) in made(), was in [0..20u8, 0..20u8], limits in [0..20u8, 0..20u8],
        joined in [any::<bool>(), any::<bool>()],
    ) {
        let texts = |limits: [u8; 2]| limits.map(|limit| limit.to_string());
        let world = |limits: [u8; 2]| {
            let texts = texts(limits);
            two_groups([&texts[0], &texts[1]])
        };
        let (earlier, caches) = (named(&earlier), named(&caches));
        let (earlier, mut caches) = (as_planned(&earlier), as_planned(&caches));
        let (node, [a, b]) = world(was);
        let before = entries(&node, &[&a, &b], &earlier, &[], true).entries;

        let of_node: Vec<&str> = ["a", "b"].into_iter().zip(joined).filter(|(_, is)| *is).map(|(g, _)| g).collect();
        let node = labelled_node("n", &json!(of_node.iter().map(|g| (*g, "")).collect::<BTreeMap<_, _>>()));
        let (_, [a, b]) = world(limits);
        let plan = entries(&node, &[&a, &b], &caches, &before, true);

        let kept = kept(&before, &caches, &of_node);
        for (group, limit) in ["a", "b"].into_iter().zip(limits) {
            let most = i128::from(limit).max(used(&kept, &caches, group));
            prop_assert!(used(&plan.entries, &caches, group) <= most, "{group}: {plan:?}");
        }
        let keys: Vec<CacheKey> = plan.entries.iter().map(CacheKey::of).collect();
        for entry in &kept {
            prop_assert!(keys.contains(&CacheKey::of(entry)), "{entry:?} is dropped: {plan:?}");
        }
        prop_assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        for waits in &plan.waiting {
            prop_assert!(!keys.contains(&waits.cache));
            prop_assert!(waits.used + waits.asked > waits.allowed.unwrap(), "{waits:?} fits");
        }
        caches.reverse();
        prop_assert_eq!(&entries(&node, &[&a, &b], &caches, &before, true), &plan);

        // Its own writes bring it to rest.
        let mut last = plan;
        for _ in 0..=caches.len() {
            last = entries(&node, &[&a, &b], &caches, &last.entries, true);
        }
        prop_assert_eq!(&entries(&node, &[&a, &b], &caches, &last.entries, true), &last);
    }
}
