use serde_json::json;

use super::*;
use crate::api::cache::LocalModelNamespaceCacheSpec;
use crate::plan::samples::{
    KEY, URI, cache, cache_named, entry_of, from, group, group_named, labelled_node, node, not_ready,
};

mod room;
mod share;

fn planned(
    node: &Node,
    groups: &[LocalModelNodeGroup],
    caches: &[LocalModelCache],
    before: &[ModelEntry],
    enabled: bool,
) -> Vec<ModelEntry> {
    let groups: Vec<&LocalModelNodeGroup> = groups.iter().collect();
    let caches: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
    entries(node, &groups, &caches, before, enabled).entries
}

fn names(entries: &[ModelEntry]) -> Vec<(&str, Option<&str>)> {
    entries.iter().map(|e| (e.model_name.as_str(), e.node_group.as_deref())).collect()
}

#[test]
fn a_node_keeps_one_entry_per_cache_of_its_groups_sorted_whatever_the_order_of_the_stores() {
    let node = labelled_node("n", &json!({"group": "a"}));
    let groups = [group_named("b"), group_named("a")];
    let mut caches = vec![
        cache_named("y", "hf://o/y", &["a"]),
        cache_named("x", "hf://o/x", &["a", "b"]),
        cache_named("z", "hf://o/z", &["b"]),
    ];
    let one = planned(&node, &groups, &caches, &[], true);
    assert_eq!(names(&one), [("x", None), ("y", None)]);
    caches.reverse();
    assert_eq!(planned(&node, &groups, &caches, &[], true), one);
}

#[test]
fn an_entry_repeats_what_the_cache_says_about_access_and_nothing_else() {
    let mut cache = cache();
    cache.spec.0.service_account_name = Some("puller".into());
    cache.spec.0.storage = from(json!({"key": "k", "parameters": {"region": "eu"}}));
    let entries = planned(&node("n"), &[group()], &[cache], &[], true);
    let expected = json!([{"modelName": "meta-llama3-8b-instruct", "sourceModelUri": URI,
        "serviceAccountName": "puller", "storage": {"key": "k", "parameters": {"region": "eu"}}}]);
    assert_eq!(json!(entries), expected);
}

#[test]
fn a_node_of_two_groups_gets_one_entry_for_the_first_that_the_cache_names() {
    let both = labelled_node("n", &json!({"group": "a", "second": "b"}));
    let mut b = group_named("b");
    b.spec.persistent_volume_spec.node_affinity = from(json!({"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "second", "operator": "Exists"}]}]}}));
    let groups = [group_named("a"), b];
    for (order, expected) in [(["a", "b"], None), (["b", "a"], None), (["none", "b"], Some("b"))] {
        let entries = planned(&both, &groups, &[cache_named("m", "hf://o/m", &order)], &[], true);
        assert_eq!(names(&entries), [("m", expected)], "{order:?}");
    }
    let only_second = labelled_node("n", &json!({"second": "b"}));
    let entries = planned(&only_second, &groups, &[cache_named("m", "hf://o/m", &["a", "b"])], &[], true);
    assert_eq!(names(&entries), [("m", Some("b"))], "not the first group, so it is named");
}

#[test]
fn readiness_never_changes_a_list() {
    let caches = [cache()];
    let ready = planned(&node("n"), &[group()], &caches, &[], true);
    assert_eq!(ready.len(), 1);
    assert_eq!(planned(&not_ready(node("n")), &[group()], &caches, &ready, true), ready);
}

#[test]
fn while_caching_is_disabled_only_what_was_planned_before_stays() {
    let caches = [cache(), cache_named("new", "hf://o/new", &["workers"])];
    let before = planned(&node("n"), &[group()], &caches[..1], &[], true);
    assert_eq!(planned(&node("n"), &[group()], &caches, &before, false), before);
    assert_eq!(planned(&node("n"), &[group()], &caches, &[], false), []);
    assert_eq!(planned(&node("n"), &[group()], &[], &before, false), [], "deletions go on");
}

#[test]
fn a_source_that_nobody_can_download_is_planned_nowhere_and_takes_nothing_away() {
    let cache = cache_named("m", "gopher://o/m", &["workers"]);
    let caches = [PlannedCache { fetchable: false, ..PlannedCache::from(&cache) }];
    let plan = |before: &[ModelEntry]| entries(&node("n"), &[&group()], &caches, before, true);
    assert_eq!(plan(&[]), NodePlan::default());
    let before = vec![entry_of("m", "gopher://o/m")];
    assert_eq!(plan(&before).entries, before);
}

#[test]
fn a_cache_in_deletion_leaves_every_list() {
    let mut leaving = cache();
    leaving.metadata.deletion_timestamp = from(json!("2026-01-01T00:00:00Z"));
    let before = planned(&node("n"), &[group()], &[cache()], &[], true);
    assert_eq!(planned(&node("n"), &[group()], &[leaving], &before, true), []);
}

#[test]
fn a_label_that_flaps_brings_the_same_list_back() {
    let (on, off) = (node("n"), labelled_node("n", &json!({})));
    let groups = [group()];
    let first = planned(&on, &groups, &[cache()], &[], true);
    assert_eq!(groups_of_node(&on, &[&groups[0]]), [groups[0].name_any()]);
    assert_eq!(groups_of_node(&off, &[&groups[0]]), Vec::<String>::new());
    assert_eq!(planned(&off, &groups, &[cache()], &first, true), []);
    assert_eq!(planned(&on, &groups, &[cache()], &[], true), first);
}

#[test]
fn a_node_of_no_group_keeps_the_labels_of_caches_that_are_there_and_no_other() {
    let (warm, gone) = (names::warm_label(KEY, None), names::warm_label("0123456789abcdef", None));
    let node = labelled_node("n", &json!({&warm: "workers", gone: "workers", "zone": "a"}));
    let mut cache = cache();
    let kept = labels_to_come_back_to(&node, &[PlannedCache::from(&cache)]);
    assert_eq!(kept, BTreeMap::from([(warm, "workers".to_owned())]));
    cache.metadata.deletion_timestamp = from(json!("2026-01-01T00:00:00Z"));
    assert!(labels_to_come_back_to(&node, &[PlannedCache::from(&cache)]).is_empty());
}

#[test]
fn a_group_that_is_gone_takes_its_entries_along_and_leaves_those_of_others() {
    let node = labelled_node("n", &json!({"group": "b"}));
    let caches = [cache_named("m", "hf://o/m", &["gone", "b"]), cache_named("o", "hf://o/o", &["gone"])];
    let entries = planned(&node, &[group_named("b")], &caches, &[], true);
    assert_eq!(names(&entries), [("m", Some("b"))]);
}

#[test]
fn an_entry_that_names_its_group_is_warm_in_that_group() {
    let cache = cache_named("m", URI, &["a", "b"]);
    let entry = ModelEntry { node_group: Some("b".into()), ..entry_of("m", URI) };
    let status: LocalModelNodeStatus = from(json!({"modelStatus": {"m": "ModelDownloaded"}}));
    let labels = warm_labels(&node("n"), &[PlannedCache::from(&cache)], &[entry], Some(&status));
    assert_eq!(labels.into_values().collect::<Vec<_>>(), ["b"]);
}

fn warm(status: Option<&LocalModelNodeStatus>, entries: &[ModelEntry]) -> BTreeMap<String, String> {
    warm_labels(&node("n"), &[PlannedCache::from(&cache())], entries, status)
}

#[test]
fn a_warm_label_stands_for_a_complete_copy_that_is_still_wanted() {
    let entries = planned(&node("n"), &[group()], &[cache()], &[], true);
    let status = |phase: &str| -> LocalModelNodeStatus {
        from(json!({"modelStatus": {"meta-llama3-8b-instruct": phase, "left-over": "ModelDownloaded"}}))
    };
    let label = format!("localmodel.kserve.io/{KEY}");
    let expected = BTreeMap::from([(label, "workers".to_owned())]);
    assert_eq!(warm(Some(&status("ModelDownloaded")), &entries), expected);
    for phase in ["ModelDownloading", "ModelDownloadPending", "ModelDownloadError", ""] {
        assert_eq!(warm(Some(&status(phase)), &entries), BTreeMap::new(), "{phase}");
    }
    assert_eq!(warm(None, &entries), BTreeMap::new());
    assert_eq!(warm(Some(&status("ModelDownloaded")), &[]), BTreeMap::new());
}

#[test]
fn the_label_of_a_planned_copy_stays_until_an_agent_has_spoken_of_it() {
    let label = format!("localmodel.kserve.io/{KEY}");
    let node = labelled_node("n", &json!({label.as_str(): "another", "group": "g"}));
    let cache = cache();
    let (caches, entries) = ([PlannedCache::from(&cache)], [entry_of("meta-llama3-8b-instruct", URI)]);
    let stays = |phases: serde_json::Value| {
        let status: LocalModelNodeStatus = from(json!({ "modelStatus": phases }));
        warm_labels(&node, &caches, &entries, Some(&status)).into_values().collect::<Vec<_>>()
    };
    assert_eq!(stays(json!({})), ["workers"], "in the group through which it is planned now");
    assert_eq!(stays(json!({"other": "ModelDownloading"})), ["workers"]);
    assert_eq!(stays(json!({"meta-llama3-8b-instruct": "ModelDownloadPending"})), Vec::<String>::new());
    assert_eq!(warm_labels(&node, &caches, &entries, None).into_keys().collect::<Vec<_>>(), [label]);
    assert_eq!(warm_labels(&node, &caches, &[], None), BTreeMap::new(), "nobody wants it");
}

#[test]
fn a_namespace_cache_has_an_entry_and_a_warm_label_of_its_own_beside_a_cluster_cache_of_its_name() {
    let (cluster, group) = (cache_named("m", URI, &["workers"]), group());
    let of = |namespace: &str| {
        let mut cache =
            LocalModelNamespaceCache::new("m", LocalModelNamespaceCacheSpec(cluster.spec.0.clone()));
        cache.metadata.namespace = Some(namespace.into());
        cache
    };
    let (a, b) = (of("a"), of("b"));
    let caches = [PlannedCache::from(&b), PlannedCache::from(&cluster), PlannedCache::from(&a)];
    let entries = entries(&node("n"), &[&group], &caches, &[], true).entries;
    assert_eq!(
        json!(entries),
        json!([
            {"modelName": "m", "sourceModelUri": URI},
            {"modelName": "m", "sourceModelUri": URI, "namespace": "a", "nodeGroup": "workers"},
            {"modelName": "m", "sourceModelUri": URI, "namespace": "b", "nodeGroup": "workers"},
        ])
    );
    let status: LocalModelNodeStatus = from(
        json!({"modelStatus": {"m": "ModelDownloading", "a/m": "ModelDownloaded", "b/m": "ModelDownloaded"}}),
    );
    let labels = |caches: &[PlannedCache]| warm_labels(&node("n"), caches, &entries, Some(&status));
    let expected =
        ["a", "b"].map(|namespace| (names::warm_label(KEY, Some(namespace)), "workers".to_owned()));
    assert_eq!(labels(&caches), BTreeMap::from(expected));
    assert_eq!(labels(&caches[1..2]), BTreeMap::new(), "not of a cache that is gone");
}

#[test]
fn only_stale_and_missing_warm_labels_are_changed_and_those_of_others_stay() {
    let key = |c: &str| format!("localmodel.kserve.io/{}", c.repeat(16));
    let node = labelled_node(
        "n",
        &json!({key("a"): "workers", key("b"): "old", key("c"): "g", "gpu": "a100",
            names::warm_label(KEY, Some("gone")): "g", "localmodel.kserve.io/mine": "x", "example.com/aaaaaaaaaaaaaaaa": "y"}),
    );
    let wanted = BTreeMap::from([
        (key("a"), "workers".to_owned()),
        (key("b"), "workers".to_owned()),
        (key("d"), "workers".to_owned()),
    ]);
    let expected = BTreeMap::from([
        (key("b"), Some("workers".to_owned())),
        (key("c"), None),
        (names::warm_label(KEY, Some("gone")), None),
        (key("d"), Some("workers".to_owned())),
    ]);
    assert_eq!(label_changes(&node, &wanted), expected);
    let mut done = node;
    done.metadata.labels = Some(wanted.clone());
    assert_eq!(label_changes(&done, &wanted), BTreeMap::new());
}

#[test]
fn a_node_is_ready_when_its_kubelet_says_so() {
    assert!(is_ready(&node("n")));
    assert!(!is_ready(&not_ready(node("n"))));
    assert!(!is_ready(&Node::default()));
}

#[test]
fn the_documented_nodes_object_is_as_reviewed() {
    let mut node = node("kind-worker");
    node.metadata.uid = Some("5d5a".into());
    let groups = [group()];
    let entries = planned(&node, &groups, &[cache()], &[], true);
    let local = local_model_node(&node, entries, &groups_of_node(&node, &[&groups[0]]));
    insta::assert_snapshot!(serde_saphyr::to_string(&local).unwrap());
}
