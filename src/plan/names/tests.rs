use super::*;

#[test]
fn the_documented_names_come_out_as_printed() {
    let cache = CacheKey::cluster("meta-llama3-8b-instruct");
    assert_eq!(download_claim(&cache, "workers", true), "meta-llama3-8b-instruct");
    assert_eq!(download_volume(&cache, "workers", true), "meta-llama3-8b-instruct-download");
    assert_eq!(agent("workers"), "workers-agent");
    assert_eq!(job(&cache.name, "kind-worker"), "meta-llama3-8b-instruct-kind-worker");
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
    let long = job(&"m".repeat(63), "node.example.com");
    assert_eq!(long.len(), 63);
    assert!(long.starts_with("mmmm"));
    let cut_at_a_dot = job(&format!("{}.{}", "m".repeat(53), "x".repeat(20)), "n");
    assert!(cut_at_a_dot.len() <= 63 && !cut_at_a_dot.contains(".-"), "{cut_at_a_dot}");
    assert!(label_value(&"n".repeat(253)).len() <= 63);
}

#[test]
fn parts_that_join_alike_get_different_hashed_names() {
    assert_eq!(job("a", "b-c"), job("a-b", "c"));
    assert_ne!(job_aside("a", "b-c"), job_aside("a-b", "c"));
}
