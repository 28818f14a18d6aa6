use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::*;
use crate::api::CacheSpec;
use crate::plan::samples::{at, group_limited};
use crate::plan::users::Kind;

fn spec(uri: &str, groups: &[&str]) -> CacheSpec {
    CacheSpec {
        source_model_uri: uri.into(),
        model_size: Quantity("1Gi".into()),
        node_groups: groups.iter().map(ToString::to_string).collect(),
        service_account_name: None,
        storage: None,
    }
}

fn planned<'a>(key: &CacheKey, spec: &'a CacheSpec) -> PlannedCache<'a> {
    PlannedCache { key: key.clone(), spec, created: None, deleting: false, fetchable: true, measured: 0 }
}

fn user(cache: &CacheKey, kind: Kind, name: &str) -> User {
    User { cache: cache.clone(), kind, namespace: "team".into(), name: name.into(), group: None }
}

/// The words with which a cache is refused; without any, what it is warned of.
fn said(
    cache: &CacheKey,
    uri: &str,
    others: &[PlannedCache],
    missing: &[&str],
) -> Result<Vec<String>, String> {
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    cache_written(&planned(cache, &spec(uri, &["g"])), others, &[], &missing, &[], &EgressSettings::default())
        .map_err(|refused| refused.to_string())
}

#[test]
fn a_second_cluster_cache_of_one_source_is_refused_in_kserves_words() {
    let (first, second) = (CacheKey::cluster("first"), CacheKey::cluster("second"));
    let source = spec("hf://o/m", &["g"]);
    let others = [planned(&first, &source)];
    let refused = Err("LocalModelCache first has the same StorageURI hf://o/m".to_owned());
    assert_eq!(said(&second, "hf://o/m", &others, &[]), refused);
    assert_eq!(said(&second, "hf://o/m2", &others, &[]), Ok(vec![]));
    // The cache itself is among those that are there.
    assert_eq!(said(&first, "hf://o/m", &others, &[]), Ok(vec![]));
    let signed = "https://host/m?sig=secret";
    let source = spec(signed, &["g"]);
    let refused = Err("LocalModelCache first has the same StorageURI https://host/m".to_owned());
    assert_eq!(said(&second, signed, &[planned(&first, &source)], &[]), refused, "without what is secret");
}

#[test]
fn neither_a_cache_in_deletion_nor_a_namespace_cache_takes_a_source() {
    let source = spec("hf://o/m", &["g"]);
    let others = [
        PlannedCache { deleting: true, ..planned(&CacheKey::cluster("old"), &source) },
        planned(&CacheKey::namespaced("team", "theirs"), &source),
    ];
    assert_eq!(said(&CacheKey::cluster("new"), "hf://o/m", &others, &[]), Ok(vec![]));
    let others = [planned(&CacheKey::cluster("shared"), &source)];
    assert_eq!(said(&CacheKey::namespaced("team", "own"), "hf://o/m", &others, &[]), Ok(vec![]));
}

#[test]
fn a_namespace_cache_of_a_group_that_does_not_exist_is_refused_and_a_cluster_cache_waits_for_it() {
    let refused = said(&CacheKey::namespaced("team", "m"), "hf://o/m", &[], &["nowhere"]).unwrap_err();
    assert_eq!(
        refused,
        "LocalModelNamespaceCache team/m names nowhere in nodeGroups, which does not exist: make that node group first, or name another"
    );
    let warned = said(&CacheKey::cluster("m"), "hf://o/m", &[], &["nowhere"]).unwrap();
    assert_eq!(warned, ["LocalModelCache m waits for nowhere in nodeGroups, which does not exist yet"]);
}

#[test]
fn a_cache_that_no_node_of_a_group_can_take_is_warned_of() {
    let (key, spec) = (CacheKey::cluster("m"), spec("hf://o/m", &["workers"]));
    let warned = |limit: &str| {
        let group = group_limited(limit);
        cache_written(&planned(&key, &spec), &[], &[&group], &[], &[], &EgressSettings::default()).unwrap()
    };
    assert_eq!(
        warned("1G"),
        [
            "LocalModelCache m waits: needs 1Gi, more than the 1G that LocalModelNodeGroup workers allows per node: raise its storageLimit or lower modelSize"
        ]
    );
    assert_eq!(
        warned("much"),
        [
            "LocalModelCache m waits: storageLimit of LocalModelNodeGroup workers cannot be read: \"much\" is not a quantity such as 10Gi or 1.7T"
        ]
    );
    assert_eq!(warned("1Gi"), Vec::<String>::new());
}

#[test]
fn a_source_that_no_hub_can_have_is_warned_of() {
    let warned = said(&CacheKey::cluster("m"), "hf://only-one-part", &[], &[]).unwrap();
    assert!(warned[0].starts_with("LocalModelCache m cannot be downloaded: "), "{warned:?}");
    assert!(warned[0].contains("hf://only-one-part") && warned[0].contains("two parts"), "{warned:?}");
    assert_eq!(said(&CacheKey::cluster("m"), "s3://bucket/m", &[], &[]), Ok(vec![]));
}

#[test]
fn a_cache_in_use_is_kept_in_kserves_words() {
    let (cluster, own) = (CacheKey::cluster("m"), CacheKey::namespaced("team", "m"));
    let cases = [
        (
            &cluster,
            Kind::InferenceService,
            "LocalModelCache m is being used by InferenceService (1) in 1 namespace",
        ),
        (
            &cluster,
            Kind::LLMInferenceService,
            "LocalModelCache m is being used by LLMInferenceService (1) in 1 namespace",
        ),
        (&cluster, Kind::Pod, "LocalModelCache m is being used by Pod (1) in 1 namespace"),
        (
            &own,
            Kind::InferenceService,
            "LocalModelNamespaceCache team/m is being used by InferenceService team/svc",
        ),
        (&own, Kind::Pod, "LocalModelNamespaceCache team/m is being used by Pod team/svc"),
    ];
    for (cache, kind, words) in cases {
        let refused = cache_deleted(cache, &[user(cache, kind, "svc")], true).unwrap_err();
        assert_eq!(refused.to_string(), words);
    }
}

#[test]
fn who_does_not_know_a_cache_hears_no_names_of_its_users() {
    let own = CacheKey::namespaced("team", "m");
    let users =
        [user(&own, Kind::InferenceService, "svc"), user(&own, Kind::Pod, "a"), user(&own, Kind::Pod, "b")];
    let refused = cache_deleted(&own, &users, false).unwrap_err().to_string();
    assert_eq!(
        refused,
        "LocalModelNamespaceCache team/m is being used by InferenceService (1), Pod (2) in 1 namespace"
    );
}

#[test]
fn users_of_a_cluster_cache_are_counted_over_all_namespaces_services_first() {
    let cache = CacheKey::cluster("m");
    let elsewhere = User { namespace: "other".into(), ..user(&cache, Kind::InferenceService, "svc") };
    let pods = [user(&cache, Kind::Pod, "a"), user(&cache, Kind::ServicePod, "b")];
    let users = [pods[0].clone(), elsewhere, pods[1].clone()];
    let refused = cache_deleted(&cache, &users, true).unwrap_err().to_string();
    assert_eq!(refused, "LocalModelCache m is being used by InferenceService (1), Pod (2) in 2 namespaces");
}

#[test]
fn users_of_other_caches_of_the_same_name_do_not_keep_a_cache() {
    let users = [user(&CacheKey::namespaced("team", "m"), Kind::InferenceService, "svc")];
    assert_eq!(cache_deleted(&CacheKey::cluster("m"), &users, true), Ok(()));
    assert_eq!(cache_deleted(&CacheKey::namespaced("other", "m"), &users, true), Ok(()));
}

#[test]
fn the_first_service_is_told_whatever_the_order_and_before_any_pod() {
    let cache = CacheKey::namespaced("team", "m");
    let users = [
        user(&cache, Kind::Pod, "a"),
        user(&cache, Kind::InferenceService, "z"),
        user(&cache, Kind::InferenceService, "b"),
    ];
    let refused = cache_deleted(&cache, &users, true).unwrap_err().to_string();
    assert!(refused.ends_with("InferenceService team/b"), "{refused}");
}

#[test]
fn a_group_that_caches_name_is_kept_and_the_clusters_are_named() {
    let (uses, other) = (spec("hf://o/m", &["other", "g"]), spec("hf://o/n", &["other"]));
    let caches = [
        planned(&CacheKey::namespaced("team", "x"), &uses),
        planned(&CacheKey::namespaced("team", "y"), &uses),
        planned(&CacheKey::cluster("b"), &uses),
        planned(&CacheKey::cluster("a"), &uses),
        planned(&CacheKey::cluster("unrelated"), &other),
        PlannedCache { deleting: true, ..planned(&CacheKey::cluster("leaving"), &uses) },
    ];
    let refused = group_deleted("g", &users_of_group("g", &caches)).unwrap_err().to_string();
    assert_eq!(
        refused,
        "LocalModelNodeGroup g is still used by LocalModelCache a, LocalModelCache b, 2 LocalModelNamespaceCaches in 1 namespace: \
         delete them, or take the group out of their nodeGroups, first"
    );
    assert_eq!(group_deleted("free", &users_of_group("free", &caches)), Ok(()));
}

#[test]
fn long_lists_end_with_how_many_more_there_are() {
    let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(list(&names(10)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9");
    assert_eq!(list(&names(12)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
}

#[test]
fn a_cache_in_deletion_waits_for_whatever_uses_it() {
    let (m, other) = (CacheKey::cluster("m"), CacheKey::cluster("other"));
    assert_eq!(
        deletion_waits_for(&m, &[user(&other, Kind::Pod, "p"), user(&m, Kind::ServicePod, "q")]),
        None
    );
    for kind in [Kind::InferenceService, Kind::LLMInferenceService, Kind::Pod] {
        let message = deletion_waits_for(&m, &[user(&m, kind, "s")]).unwrap();
        assert!(message.starts_with("LocalModelCache m is being used by "), "{message}");
        assert!(message.ends_with(": it stays, with its copies, until nothing uses it"), "{message}");
    }
}

#[test]
fn a_cache_that_goes_waits_for_the_last_pods_of_services_and_not_for_ever() {
    let (m, n) = (CacheKey::cluster("m"), CacheKey::cluster("n"));
    let pod = user(&m, Kind::ServicePod, "p");
    let until = |users: &[User], now| last_pods(&m, users, at(100), at(now));
    assert_eq!(until(std::slice::from_ref(&pod), 100), Some(at(130)));
    assert_eq!(until(std::slice::from_ref(&pod), 129), Some(at(130)));
    assert_eq!(until(std::slice::from_ref(&pod), 130), None, "somebody keeps it alive");
    assert_eq!(until(std::slice::from_ref(&pod), 99), None, "clocks differ");
    assert_eq!(until(&[], 100), None);
    assert_eq!(until(&[user(&n, Kind::ServicePod, "p")], 100), None, "another cache's");
    // What was deleted in spite of a living service waits for nothing (D1).
    assert_eq!(until(&[pod, user(&m, Kind::InferenceService, "s")], 100), None);
}
