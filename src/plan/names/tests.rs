use proptest::prelude::*;

use super::*;

#[test]
fn the_documented_names_come_out_as_printed() {
    let cache = CacheKey::cluster("meta-llama3-8b-instruct");
    assert_eq!(download_claim(&cache, "workers", true), "meta-llama3-8b-instruct");
    assert_eq!(download_volume(&cache, "workers", true), "meta-llama3-8b-instruct-download");
    assert_eq!(agent("workers"), "workers-agent");
    assert_eq!(job(&cache, "kind-worker"), "meta-llama3-8b-instruct-kind-worker");
}

#[test]
fn other_groups_and_namespace_caches_have_kserves_names() {
    let cache = CacheKey::cluster("m");
    assert_eq!(download_claim(&cache, "g", false), "m-g");
    assert_eq!(download_volume(&cache, "g", false), "m-g-download");
    let cache = CacheKey { namespace: Some("ns".into()), name: "m".into() };
    assert_eq!(download_claim(&cache, "g", true), "m-g-ns-download");
    assert_eq!(download_volume(&cache, "g", true), "m-g-ns-download");
}

#[test]
fn a_name_that_is_too_long_keeps_its_beginning_and_stays_valid() {
    let long = job(&CacheKey::cluster("m".repeat(63)), "node.example.com");
    assert_eq!(long.len(), 63);
    assert!(long.starts_with("mmmm"));
    let cut_at_a_dot = job(&CacheKey::cluster(format!("{}.{}", "m".repeat(53), "x".repeat(20))), "n");
    assert!(cut_at_a_dot.len() <= 63 && !cut_at_a_dot.contains(".-"), "{cut_at_a_dot}");
    assert!(label_value(&"n".repeat(253)).len() <= 63);
}

#[test]
fn parts_that_join_alike_get_different_hashed_names() {
    let (one, other) = (CacheKey::cluster("a"), CacheKey::cluster("a-b"));
    assert_eq!(job(&one, "b-c"), job(&other, "c"));
    assert_ne!(job_aside(&one, "b-c"), job_aside(&other, "c"));
    let of_namespace = CacheKey::namespaced("b", "a");
    assert_eq!(job(&of_namespace, "c"), job(&other, "c"));
    assert_ne!(job_aside(&of_namespace, "c"), job_aside(&other, "c"));
}

#[test]
fn a_namespace_cache_and_a_cluster_cache_of_one_name_have_jobs_and_labels_of_their_own() {
    let (cluster, namespaced) = (CacheKey::cluster("m"), CacheKey::namespaced("ns", "m"));
    assert_eq!((job(&cluster, "n").as_str(), job(&namespaced, "n").as_str()), ("m-n", "m-ns-n"));
    let key = "c277d78a31bc6624";
    assert_eq!(warm_label(key, None), "localmodel.kserve.io/c277d78a31bc6624");
    assert_eq!(warm_label(key, Some("ns")), "localmodel.kserve.io/c277d78a31bc6624-7bfba6e0");
    for label in [warm_label(key, None), warm_label(key, Some("ns"))] {
        assert!(is_warm_label(&label), "{label}");
    }
    let others =
        ["model", "c277d78a31bc6624-", "c277d78a31bc6624-7bfba6e", "c277d78a31bc6624-7BFBA6E0", "x-7bfba6e0"];
    for other in others {
        assert!(!is_warm_label(&format!("localmodel.kserve.io/{other}")), "{other}");
    }
    assert!(!is_warm_label("example.com/c277d78a31bc6624"));
}

#[test]
fn what_a_label_shortens_stands_in_full_in_an_annotation() {
    let long = format!("{}.example.com", "n".repeat(70));
    let all = full_names(&[(JOB_MODEL, "m"), (JOB_NODE, &long), (NODE_GROUP, &long)]).unwrap();
    let keys: Vec<&str> = all.keys().map(String::as_str).collect();
    assert_eq!(keys, ["localmodel.kserve.io/node", "localmodel.kserve.io/node-group"]);
    assert!(all.values().all(|name| *name == long));
    assert_eq!(full_names(&[(JOB_MODEL, "m")]), None);
}

/// A name of an object: dots and dashes inside, letters and digits at the ends.
fn name(longest: usize) -> impl Strategy<Value = String> {
    let label = "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?";
    let names = proptest::string::string_regex(&format!("{label}(\\.{label}){{0,14}}")).unwrap();
    (names, 1..=longest)
        .prop_map(|(name, length)| name[..name.len().min(length)].trim_end_matches(['.', '-']).to_owned())
}

fn is_valid(name: &str, longest: usize) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= longest && name.split('.').all(label)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_name_is_valid_and_the_plain_one_where_it_fits(
        cache in name(63), group in name(253), node in name(253), namespace in "[a-z]{1,63}",
    ) {
        let key = CacheKey::cluster(&cache);
        let of_namespace = CacheKey { namespace: Some(namespace.clone()), name: cache.clone() };
        let all = [
            (download_claim(&key, &group, true), 253, cache.clone()),
            (download_claim(&key, &group, false), 253, format!("{cache}-{group}")),
            (download_volume(&key, &group, true), 253, format!("{cache}-download")),
            (download_volume(&key, &group, false), 253, format!("{cache}-{group}-download")),
            (download_claim(&of_namespace, &group, true), 253, format!("{cache}-{group}-{namespace}-download")),
            (serving_claim(&key, &group), 253, format!("{cache}-{group}")),
            (serving_volume(&of_namespace, &group, &namespace), 253, format!("{cache}-{group}-{namespace}")),
            (agent(&group), 253, format!("{group}-agent")),
            (job(&key, &node), 63, format!("{cache}-{node}")),
            (job(&of_namespace, &node), 63, format!("{cache}-{namespace}-{node}")),
            (label_value(&node), 63, node.clone()),
        ];
        for (name, longest, plain) in all {
            prop_assert!(is_valid(&name, longest), "{}", name);
            if plain.len() <= longest {
                prop_assert_eq!(name, plain);
            } else {
                prop_assert!(name.len() >= longest - 9 - 31, "{} is cut too short", name);
            }
        }
        let (plain, aside) = (job(&key, &node), job_aside(&key, &node));
        prop_assert!(is_valid(&aside, 63), "{}", aside);
        prop_assert_eq!(plain == aside, cache.len() + node.len() > 62, "{}", aside);
    }

    #[test]
    fn one_text_split_at_two_places_gets_two_hashed_names(
        text in "[a-c-]{58,80}", one in 1..80usize, other in 1..80usize,
    ) {
        let split = |at: usize| text.split_at(at.min(text.len() - 1));
        let name = |(left, right): (&str, &str)| hashed(&[left, right], 63);
        let (one, other) = (split(one), split(other));
        prop_assert_eq!(one == other, name(one) == name(other));
    }
}

#[test]
fn only_a_storage_key_alone_or_with_eight_digits_of_a_namespace_is_a_warm_label() {
    for warm in ["localmodel.kserve.io/c277d78a31bc6624", "localmodel.kserve.io/c277d78a31bc6624-0a1b2c3d"] {
        assert!(is_warm_label(warm), "{warm}");
    }
    for other in [
        "c277d78a31bc6624",
        "localmodel.kserve.io/cache",
        "localmodel.kserve.io/node-group",
        "localmodel.kserve.io/c277d78a31bc662",
        "localmodel.kserve.io/c277d78a31bc6624-",
        "localmodel.kserve.io/c277d78a31bc6624-0a1b2c3",
        "localmodel.kserve.io/c277d78a31bc6624-0a1b2c3d-x",
    ] {
        assert!(!is_warm_label(other), "{other}");
    }
}
