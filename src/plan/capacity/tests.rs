use super::*;
use crate::plan::samples::{cache_sized, group_limited, group_named};

fn waits(used: i128) -> Waiting {
    let group = "workers".to_owned();
    let (cache, limit) = (CacheKey::cluster("m"), Limit::Group);
    Waiting { limit, cache, group, asked: 10 << 30, used, allowed: Some(100 << 30) }
}

fn told(size: &str, limit: &str, waiting: &[(&str, i128)]) -> Vec<(&'static str, String)> {
    let waiting = waiting.iter().map(|(node, used)| ((*node).to_owned(), waits(*used))).collect();
    let statements = problems(&cache_sized("m", size, 1).spec, &[&group_limited(limit)], &waiting);
    statements.into_iter().map(|s| (s.kind, s.message)).collect()
}

#[test]
fn a_cache_that_waits_is_told_the_nodes_and_the_bytes_asked_used_and_allowed() {
    let expected = "needs 10 GiB; LocalModelNodeGroup workers allows 100 GiB per node (95 GiB used on kind-worker, 98 GiB used on kind-worker2): delete a cache of the group or raise its storageLimit";
    let waiting = [("kind-worker", 95 << 30), ("kind-worker2", 98 << 30)];
    assert_eq!(told("10Gi", "100Gi", &waiting), [(INSUFFICIENT_CAPACITY, expected.to_owned())]);
    assert_eq!(told("10Gi", "100Gi", &[]), []);
}

#[test]
fn of_very_many_nodes_ten_are_named() {
    let names: Vec<String> = (10..40).map(|n| format!("n{n}")).collect();
    let nodes: Vec<(&str, i128)> = names.iter().map(|name| (name.as_str(), 95 << 30)).collect();
    let told = told("10Gi", "100Gi", &nodes);
    assert!(told[0].1.contains("95 GiB used on n19 and 20 more"), "{told:?}");
}

#[test]
fn a_limit_below_one_caches_size_is_told_with_and_without_a_node() {
    let words = "needs 10Gi, more than the 5Gi that LocalModelNodeGroup workers allows per node: raise its storageLimit or lower modelSize";
    assert_eq!(told("10Gi", "5Gi", &[]), [(INSUFFICIENT_CAPACITY, words.to_owned())]);
    let with_node = format!("{words} (0 B used on n)");
    assert_eq!(told("10Gi", "5Gi", &[("n", 0)]), [(INSUFFICIENT_CAPACITY, with_node)]);
}

#[test]
fn what_cannot_be_read_is_told_with_its_text() {
    let limit = told("10Gi", "much", &[]);
    assert!(limit[0].1.contains("storageLimit of LocalModelNodeGroup workers cannot be read: \"much\""));
    for size in ["much", "0", "-1"] {
        let size_told = told(size, "100Gi", &[]);
        assert_eq!(size_told.len(), 1);
        assert_eq!(size_told[0].0, INVALID_SIZE);
        assert!(size_told[0].1.contains(size), "{size_told:?}");
    }
}

#[test]
fn each_group_has_its_own_words() {
    let spec = cache_sized("m", "10Gi", 1).spec;
    let (mut full, small) = (group_named("full"), group_limited("5Gi"));
    full.spec.storage_limit = group_limited("100Gi").spec.storage_limit;
    let waiting = BTreeMap::from([("n".to_owned(), Waiting { group: "full".into(), ..waits(95 << 30) })]);
    let told: Vec<String> =
        problems(&spec, &[&full, &small], &waiting).into_iter().map(|s| s.message).collect();
    assert_eq!(told.len(), 2);
    assert!(told[0].contains("LocalModelNodeGroup full") && told[1].contains("LocalModelNodeGroup workers"));
}

#[test]
fn what_several_ask_for_counts_once_and_is_given_up_by_the_last_one() {
    let mut ledger = Ledger::default();
    let (root, area) = ((None, "hf://o/m"), (Some("team"), "hf://o/m"));
    ledger.keep("g", root, 4);
    ledger.keep("g", root, 6);
    ledger.keep("g", area, 5);
    assert_eq!((ledger.used("g"), ledger.used_beside("g", root), ledger.used("other")), (11, 5, 0));
    ledger.give_up("g", root, 6);
    assert_eq!(ledger.used("g"), 9);
    ledger.give_up("g", root, 4);
    assert_eq!(ledger.used("g"), 5);
    ledger.give_up("g", root, 4);
    assert_eq!(ledger.used("g"), 5, "nothing is kept any more");
}

#[test]
fn a_copy_fits_up_to_the_last_byte_and_always_when_it_takes_nothing_more() {
    let mut ledger = Ledger::default();
    let (one, other) = ((None, "hf://o/one"), (None, "hf://o/other"));
    ledger.keep("g", one, 6);
    for (copy, size, allowed, fits) in [
        (other, 4, Some(10), true),
        (other, 5, Some(10), false),
        (other, 1, None, false),
        (one, 10, Some(10), true),
        (one, 11, Some(10), false),
        (one, 6, Some(5), true),
        (one, 3, None, true),
    ] {
        assert_eq!(ledger.fits("g", copy, size, allowed), fits, "{copy:?} {size} {allowed:?}");
    }
}

#[test]
fn sums_of_the_largest_sizes_stay_numbers() {
    let huge = asked(&cache_sized("m", "99999999999E", 1).spec).unwrap();
    assert_eq!(huge, i64::MAX.into());
    assert_eq!(allowed(&group_limited("99999999999E")), Ok(i64::MAX.into()));
    assert_eq!(allowed(&group_limited("-1")), Ok(0));
}

#[test]
fn a_model_that_is_larger_than_its_size_says_is_told_with_a_size_that_would_do() {
    let of = |size: &str, measured| {
        too_small(&cache_sized("m", size, 1).spec, measured).map(|told| (told.kind, told.message))
    };
    let words = "modelSize is 1 KiB, but the model has 286 MiB, with which it is planned: set modelSize to at least 286Mi";
    assert_eq!(of("1Ki", 286 << 20), Some((MODEL_SIZE_TOO_SMALL, words.to_owned())));
    assert_eq!((of("286Mi", 286 << 20), of("1Ki", 0), of("much", 1)), (None, None, None));
}

#[test]
fn what_a_cache_does_not_fit_into_beside_the_disk_is_told_for_people_with_namespace_group_and_nodes() {
    let of = |limit| {
        let waits =
            Waiting { limit, cache: CacheKey::namespaced("team", "m"), asked: 5 << 30, ..waits(3 << 29) };
        let waiting =
            [("a", waits.clone()), ("b", waits)].map(|(node, waits)| (node.to_owned(), waits)).into();
        let told = problems(&cache_sized("m", "5Gi", 1).spec, &[&group_limited("100Gi")], &waiting);
        assert_eq!(told.len(), 1);
        (told[0].kind, told[0].message.clone())
    };
    assert_eq!(
        of(Limit::Namespace),
        (NAMESPACE_LIMIT_REACHED, "5 GiB asked; of the 100 GiB that LocalModelNodeGroup workers allows namespace team on a node, its caches use 1.5 GiB on a, 1.5 GiB on b: delete one of them, or have namespaceStorageLimit of the group raised".to_owned())
    );
    for (limit, words) in [
        (Limit::ListOfNamespace, "that namespace team may have in the list of a node"),
        (Limit::List, "that the list of a node may have"),
    ] {
        let (kind, message) = of(limit);
        assert!(kind == NODE_LIST_FULL && message.contains(words), "{kind}: {message}");
    }
}

#[test]
fn a_namespaces_share_counts_its_copies_in_that_group_alone() {
    let mut ledger = Ledger::default();
    let (one, other) = ((Some("team"), "hf://o/one"), (Some("team"), "hf://o/other"));
    ledger.keep("g", one, 6);
    ledger.keep("g", (Some("others"), "hf://o/one"), 50);
    ledger.keep("g", (None, "hf://o/one"), 50);
    ledger.keep("h", (Some("team"), "hf://o/third"), 50);
    for (copy, size, share, fits) in [
        (other, 4, Some(10), true),
        (other, 5, Some(10), false),
        (other, 5, None, true),
        (one, 10, Some(10), true),
        (one, 11, Some(10), false),
        (one, 6, Some(1), true),
        ((None, "hf://o/two"), 50, Some(10), true),
    ] {
        assert_eq!(ledger.fits_share("g", copy, size, share), fits, "{copy:?} {size} {share:?}");
    }
    assert_eq!(ledger.granted("g", one, 50, Some(10)), 10);
    assert_eq!(ledger.granted("g", other, 50, Some(10)), 4);
    assert_eq!(ledger.granted("g", other, 50, Some(3)), 0);
    assert_eq!(ledger.granted("g", other, 50, None), 50);
    ledger.give_up("g", one, 6);
    assert_eq!(ledger.used_of_namespace_beside("g", other), 0);
}
