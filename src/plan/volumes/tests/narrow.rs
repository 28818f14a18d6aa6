//! Serving volumes lead to one model; those that earlier versions and KServe made are replaced.

use super::*;
use crate::plan::samples::KEY;

fn path(volume: &PersistentVolume) -> String {
    volume.spec.clone().unwrap().local.unwrap().path
}

fn is_narrowing(step: &Step) -> bool {
    matches!(step, Step::NarrowClaim(text) if text.contains("team/meta-llama3-8b-instruct-workers shows more"))
}

#[test]
fn a_serving_volume_leads_to_the_folder_of_one_model_in_its_caches_area() {
    let cache = cache();
    let path_of = |key: &CacheKey| path(&serving(key, &cache.spec, owner(&cache), &group(), "team").volume);
    assert_eq!(path_of(&CacheKey::cluster("m")), format!("/models/serve/{KEY}"));
    assert_eq!(path_of(&CacheKey::namespaced("team", "m")), format!("/models/namespaces/team/serve/{KEY}"));
}

#[test]
fn a_serving_pair_of_a_namespace_cache_is_one_of_its_own_namespace_whoever_asks() {
    let cache = cache();
    let key = CacheKey::namespaced("victim", "secret");
    let pair = |services| serving(&key, &cache.spec, owner(&cache), &group(), services);
    let asked = pair("attacker");
    assert_eq!(asked.claim.metadata.namespace.as_deref(), Some("victim"));
    let claim_ref = asked.volume.spec.clone().unwrap().claim_ref.unwrap();
    assert_eq!(claim_ref.namespace.as_deref(), Some("victim"));
    assert_eq!(asked.volume, pair("victim").volume);
}

#[test]
fn services_of_a_group_with_a_host_path_read_through_a_local_volume_that_can_be_mounted_read_only() {
    let cache = cache();
    let mut group = group();
    let spec = &mut group.spec.persistent_volume_spec;
    spec.local = None;
    spec.host_path = from(json!({"path": "/models/", "type": "DirectoryOrCreate"}));
    let pair = serving(&CacheKey::cluster("m"), &cache.spec, owner(&cache), &group, "team");
    let volume = pair.volume.spec.unwrap();
    assert_eq!(json!(volume.local), json!({"path": format!("/models/serve/{KEY}")}));
    assert_eq!((volume.host_path, volume.mount_options), (None, Some(vec!["ro".to_owned()])));
    assert_eq!(volume.node_affinity, group.spec.persistent_volume_spec.node_affinity);
    let downloads = download(&CacheKey::cluster("m"), &cache.spec, owner(&cache), &group, J);
    let downloads = downloads.volume.spec.unwrap();
    assert_eq!((downloads.local, downloads.host_path), (None, group.spec.persistent_volume_spec.host_path));
}

#[test]
fn volumes_of_an_earlier_version_make_way_claim_first_when_no_pod_uses_them() {
    let wanted = wanted_for_services();
    let (volume, claim) = bound_of(&wanted);
    assert_eq!(step(&wanted, Some(&volume), Some(&claim)), Step::Done);
    for earlier in
        ["/models", "/models/namespaces/team", "/models/serve", "/old/models/serve/0000000000000000"]
    {
        let volume = at_path(volume.clone(), earlier);
        assert!(is_narrowing(&step(&wanted, Some(&volume), Some(&claim))), "{earlier}");
        assert!(is_wait(&step(&wanted, Some(&volume), Some(&deleting(claim.clone())))), "a pod still has it");
        assert_eq!(step(&wanted, Some(&volume), None), Step::DeleteVolume);
        assert!(is_wait(&step(&wanted, Some(&deleting(volume)), None)));
    }
    let moved = at_path(volume, &format!("/old/serve/{KEY}"));
    assert_eq!(step(&wanted, Some(&moved), Some(&claim)), Step::Done, "it shows one model");
    assert!(outdated(&wanted, &moved).is_some(), "of another disk than its group's");
}

#[test]
fn volumes_that_kserve_made_are_adopted_and_then_make_way_like_those_of_an_earlier_version() {
    let cache = cache();
    let of_namespace = serving(
        &CacheKey::namespaced("team", cache.name_any()),
        &cache.spec,
        owner(&cache),
        &group(),
        "team",
    );
    for wanted in [wanted_for_services(), of_namespace] {
        let (volume, claim) = bound_of(&wanted);
        let theirs = unowned(at_root(volume.clone()));
        assert_eq!(step(&wanted, Some(&theirs), Some(&unowned(claim.clone()))), Step::AdoptVolume);
        let ours = at_root(volume.clone());
        assert_eq!(step(&wanted, Some(&ours), Some(&unowned(claim.clone()))), Step::AdoptClaim);
        assert!(is_narrowing(&step(&wanted, Some(&ours), Some(&claim))));
        let elsewhere = unowned(at_path(volume, "/elsewhere"));
        assert!(is_conflict(&step(&wanted, Some(&elsewhere), None)));
    }
}

#[test]
fn a_download_volume_at_the_root_is_no_serving_volume_and_stays() {
    let (volume, claim) = bound();
    assert_eq!(path(&volume), "/models");
    assert_eq!(step(&wanted(), Some(&volume), Some(&claim)), Step::Done);
}
