use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::plan::samples::{at, cache, cache_named, from, group, group_named, owner};

const J: &str = "kserve-localmodel-jobs";

/// The documented cache's download volumes.
fn wanted() -> Pair {
    let cache = cache();
    download(&CacheKey::cluster(cache.name_any()), &cache.spec, owner(&cache), &group(), J)
}

/// Those of a namespace cache of the same name.
fn wanted_in_namespace() -> Pair {
    let cache = cache();
    let key = CacheKey::namespaced("ns", cache.name_any());
    download(&key, &cache.spec, owner(&cache), &group(), J)
}

/// Those through which services read the documented cache.
fn wanted_for_services() -> Pair {
    let cache = cache();
    serving(&CacheKey::cluster(cache.name_any()), &cache.spec, owner(&cache), &group(), "team")
}

fn volume(phase: &str) -> PersistentVolume {
    volume_of(&wanted(), phase)
}

fn volume_of(wanted: &Pair, phase: &str) -> PersistentVolume {
    PersistentVolume { status: from(json!({ "phase": phase })), ..wanted.volume.clone() }
}

fn claim(phase: &str) -> PersistentVolumeClaim {
    claim_of(&wanted(), phase)
}

fn claim_of(wanted: &Pair, phase: &str) -> PersistentVolumeClaim {
    let mut claim = wanted.claim.clone();
    claim.metadata.uid = Some("claim-uid".into());
    claim.status = from(json!({ "phase": phase }));
    claim
}

fn bound() -> (PersistentVolume, PersistentVolumeClaim) {
    bound_of(&wanted())
}

fn bound_of(wanted: &Pair) -> (PersistentVolume, PersistentVolumeClaim) {
    let (mut volume, mut claim) = (volume_of(wanted, "Bound"), claim_of(wanted, "Bound"));
    claim.spec.as_mut().unwrap().volume_name = volume.metadata.name.clone();
    volume.spec.as_mut().unwrap().claim_ref.as_mut().unwrap().uid = claim.metadata.uid.clone();
    (volume, claim)
}

fn deleting<K: kube::Resource>(mut object: K) -> K {
    object.meta_mut().deletion_timestamp = Some(Time(at(1)));
    object
}

/// As KServe leaves it: owned by the cache, without a label.
fn unlabelled<K: kube::Resource>(mut object: K) -> K {
    object.meta_mut().labels = None;
    object
}

fn unowned<K: kube::Resource>(object: K) -> K {
    let mut object = unlabelled(object);
    object.meta_mut().owner_references = None;
    object
}

/// At the root of the disk.
fn at_root(volume: PersistentVolume) -> PersistentVolume {
    at_path(volume, group().spec.path().unwrap())
}

fn at_path(mut volume: PersistentVolume, path: &str) -> PersistentVolume {
    volume.spec.as_mut().unwrap().local.as_mut().unwrap().path = path.into();
    volume
}

/// Of an earlier cache of the same name.
fn earlier<K: kube::Resource>(mut object: K) -> K {
    let meta = object.meta_mut();
    meta.owner_references.iter_mut().flatten().for_each(|owner| owner.uid = "earlier-uid".into());
    meta.labels
        .iter_mut()
        .filter_map(|labels| labels.get_mut(CACHE_UID))
        .for_each(|uid| *uid = "earlier-uid".into());
    object
}

/// Of another cache that lives.
fn of_another<K: kube::Resource>(object: K) -> K {
    let mut object = earlier(object);
    let meta = object.meta_mut();
    meta.owner_references.iter_mut().flatten().for_each(|owner| owner.name = "another".into());
    meta.labels
        .iter_mut()
        .filter_map(|labels| labels.get_mut(names::CACHE))
        .for_each(|name| *name = "another".into());
    object
}

fn is_wait(step: &Step) -> bool {
    matches!(step, Step::Wait(text) if text.contains("still being deleted"))
}

fn is_replacement(step: &Step) -> bool {
    matches!(step, Step::ReplaceClaim(text) if text.contains("made by KServe for another folder"))
}

fn is_conflict(step: &Step) -> bool {
    matches!(step, Step::Conflict(text) if text.contains("somebody else's"))
}

fn is_conflict_with(cache: &str, step: &Step) -> bool {
    matches!(step, Step::Conflict(text) if text.ends_with(&format!(" is that of {cache}: rename one of the two")))
}

#[test]
fn a_step_is_logged_in_words_of_its_own() {
    let texts = || "why".to_owned();
    let steps = [
        Step::Done,
        Step::CreateVolume,
        Step::CreateClaim,
        Step::AdoptVolume,
        Step::AdoptClaim,
        Step::FreeVolume,
        Step::DeleteClaim,
        Step::DeleteVolume,
        Step::Wait(texts()),
        Step::ReplaceClaim(texts()),
        Step::NarrowClaim(texts()),
        Step::Conflict(texts()),
    ];
    let words: BTreeSet<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), steps.len(), "{words:?}");
}

#[test]
fn a_fresh_pair_is_made_volume_first_and_the_claim_once_the_volume_is_available() {
    let wanted = wanted();
    assert_eq!(step(&wanted, None, None), Step::CreateVolume);
    assert_eq!(step(&wanted, Some(&wanted.volume), None), Step::Done, "no phase yet");
    assert_eq!(step(&wanted, Some(&volume("Pending")), None), Step::Done);
    assert_eq!(step(&wanted, Some(&volume("Available")), None), Step::CreateClaim);
    assert_eq!(step(&wanted, Some(&volume("Available")), Some(&claim("Pending"))), Step::Done);
    let (volume, claim) = bound();
    assert_eq!(step(&wanted, Some(&volume), Some(&claim)), Step::Done);
}

#[test]
fn a_volume_or_claim_of_ours_that_was_changed_stays_as_it_is() {
    let (mut volume, mut claim) = bound();
    volume.spec.as_mut().unwrap().local = from(json!({"path": "/elsewhere"}));
    claim.metadata.annotations = from(json!({"note": "theirs"}));
    assert_eq!(step(&wanted(), Some(&volume), Some(&claim)), Step::Done);
}

#[test]
fn what_was_deleted_by_hand_comes_back() {
    let wanted = wanted();
    let (volume, claim) = bound();
    assert_eq!(step(&wanted, Some(&volume), None), Step::Done, "Kubernetes has yet to release the volume");
    assert_eq!(step(&wanted, Some(&self::volume("Released")), None), Step::FreeVolume);
    assert_eq!(step(&wanted, Some(&self::volume("Failed")), None), Step::FreeVolume);
    assert_eq!(step(&wanted, None, Some(&claim)), Step::CreateVolume);
    assert_eq!(step(&wanted, None, Some(&self::claim("Lost"))), Step::DeleteClaim);
    assert_eq!(
        step(&wanted, Some(&self::volume("Available")), Some(&self::claim("Lost"))),
        Step::DeleteClaim
    );
    assert!(is_wait(&step(&wanted, None, Some(&deleting(claim.clone())))));
    assert!(is_wait(&step(&wanted, Some(&volume), Some(&deleting(claim.clone())))));
    assert_eq!(step(&wanted, Some(&deleting(volume.clone())), Some(&claim)), Step::DeleteClaim);
    assert!(is_wait(&step(&wanted, Some(&deleting(volume.clone())), Some(&deleting(claim)))));
    assert!(is_wait(&step(&wanted, Some(&deleting(volume)), None)));
}

#[test]
fn a_released_volume_is_freed_for_a_claim_that_was_made_too_early() {
    let mut released = bound().0;
    released.status = from(json!({"phase": "Released"}));
    let mut waiting = claim("Pending");
    waiting.metadata.uid = Some("another-uid".into());
    assert_eq!(step(&wanted(), Some(&released), Some(&waiting)), Step::FreeVolume);
    assert_eq!(step(&wanted(), Some(&released), Some(&bound().1)), Step::Done, "only the phase is stale");
    let mut newer = claim("Bound");
    newer.metadata.uid = Some("another-uid".into());
    assert_eq!(step(&wanted(), Some(&released), Some(&newer)), Step::Done, "the volume is seen late");
}

#[test]
fn what_kserve_made_is_adopted_when_it_is_what_the_plan_wants() {
    let wanted = wanted();
    let (volume, claim) = bound();
    let takers: [fn(PersistentVolume) -> PersistentVolume; 2] = [unlabelled, unowned];
    for taken in takers {
        assert_eq!(step(&wanted, Some(&taken(volume.clone())), Some(&claim)), Step::AdoptVolume);
        assert!(is_wait(&step(&wanted, Some(&taken(deleting(volume.clone()))), None)));
    }
    let takers: [fn(PersistentVolumeClaim) -> PersistentVolumeClaim; 2] = [unlabelled, unowned];
    for taken in takers {
        assert_eq!(step(&wanted, Some(&volume), Some(&taken(claim.clone()))), Step::AdoptClaim);
        assert_eq!(
            step(&wanted, Some(&deleting(volume.clone())), Some(&taken(claim.clone()))),
            Step::AdoptClaim
        );
        assert!(is_wait(&step(&wanted, Some(&volume), Some(&taken(deleting(claim.clone()))))));
    }
}

#[test]
fn an_unowned_volume_that_differs_in_path_claim_or_nodes_is_a_conflict() {
    let affinity = |terms: Value| json!({"required": {"nodeSelectorTerms": terms}});
    let term =
        json!({"key": "nvidia.com/gpu-product", "operator": "In", "values": ["NVIDIA-A100-SXM4-80GB"]});
    let by_name = json!([{"key": "metadata.name", "operator": "In", "values": ["n"]}]);
    for (field, value) in [
        ("local", json!({"path": "/elsewhere"})),
        ("claimRef", json!({"namespace": J, "name": "another"})),
        ("claimRef", Value::Null),
        ("nodeAffinity", affinity(json!([]))),
        ("nodeAffinity", affinity(json!([{"matchExpressions": [term], "matchFields": by_name}]))),
    ] {
        let mut volume = json!(unowned(bound().0));
        volume["spec"][field] = value.clone();
        let step = step(&wanted(), Some(&from(volume)), None);
        assert!(is_conflict(&step), "{field} = {value}: {step:?}");
    }
}

#[test]
fn what_somebody_else_owns_is_a_conflict_although_it_looks_as_wanted() {
    let (volume, claim) = bound();
    let theirs = (of_another(unlabelled(volume.clone())), of_another(unlabelled(claim.clone())));
    assert!(is_conflict(&step(&wanted(), Some(&theirs.0), Some(&claim))));
    assert!(is_conflict(&step(&wanted(), Some(&volume), Some(&theirs.1))));
}

#[test]
fn somebody_elses_claim_is_a_conflict_whatever_the_volume_is() {
    let wanted = wanted();
    let foreign_claim = || unowned(claim("Pending"));
    for volume in
        [None, Some(volume("Available")), Some(deleting(volume("Bound"))), Some(earlier(volume("Bound")))]
    {
        let step = step(&wanted, volume.as_ref(), Some(&foreign_claim()));
        assert!(is_conflict(&step), "{volume:?}: {step:?}");
        assert!(
            matches!(&step, Step::Conflict(text) if text.contains(&format!("{J}/meta-llama3-8b-instruct")))
        );
    }
    assert!(is_wait(&step(&wanted, None, Some(&deleting(foreign_claim())))));
}

#[test]
fn volumes_of_another_living_cache_with_the_same_joined_name_are_a_conflict() {
    let groups = [group_named("b-c"), group_named("c")];
    let pair = |name: &str, group: &LocalModelNodeGroup| {
        let mut cache = cache_named(name, "hf://o/m", &["first", &group.name_any()]);
        cache.metadata.uid = Some(name.into());
        download(&CacheKey::cluster(name), &cache.spec, owner(&cache), group, J)
    };
    let (older, younger) = (pair("a", &groups[0]), pair("a-b", &groups[1]));
    assert_eq!(older.volume.metadata.name, younger.volume.metadata.name);
    let available =
        || PersistentVolume { status: from(json!({"phase": "Available"})), ..older.volume.clone() };
    let is_told = |step: &Step| is_conflict_with("LocalModelCache a", step);
    assert!(is_told(&step(&younger, Some(&available()), None)));
    assert!(is_told(&step(&younger, None, Some(&older.claim))));
    assert_eq!(step(&older, Some(&available()), None), Step::CreateClaim);
}

#[test]
fn volumes_of_an_earlier_cache_of_the_same_name_go_claim_first() {
    let wanted = wanted();
    let (volume, claim) = bound();
    let (volume, claim) = (earlier(volume), earlier(claim));
    assert_eq!(step(&wanted, Some(&volume), Some(&claim)), Step::DeleteClaim);
    assert_eq!(step(&wanted, None, Some(&claim)), Step::DeleteClaim);
    assert!(is_wait(&step(&wanted, Some(&volume), Some(&deleting(claim)))));
    assert_eq!(step(&wanted, Some(&volume), None), Step::DeleteVolume);
    assert!(is_wait(&step(&wanted, Some(&deleting(volume.clone())), None)));
    assert_eq!(step(&wanted, Some(&deleting(volume)), Some(&bound().1)), Step::DeleteClaim);
}

#[test]
fn volumes_of_a_namespace_cache_are_known_by_their_labels() {
    let wanted = wanted_in_namespace();
    let (volume, claim) = bound_of(&wanted);
    assert_eq!(wanted.volume.metadata.owner_references, None, "Kubernetes allows none across namespaces");
    assert_eq!(step(&wanted, Some(&volume), Some(&claim)), Step::Done);
    assert_eq!(step(&wanted, None, None), Step::CreateVolume);
    assert_eq!(
        step(&wanted, Some(&earlier(volume.clone())), Some(&earlier(claim.clone()))),
        Step::DeleteClaim
    );
    assert_eq!(step(&wanted, Some(&earlier(volume.clone())), None), Step::DeleteVolume);
    let is_told = |step: &Step| is_conflict_with("LocalModelNamespaceCache ns/another", step);
    assert!(is_told(&step(&wanted, Some(&of_another(volume.clone())), None)));
    assert!(is_told(&step(&wanted, None, Some(&of_another(claim)))));
    let uid = &cache().metadata.uid.unwrap();
    assert!(belongs(&volume.metadata, uid) && belongs(&self::volume("Bound").metadata, uid));
    assert!(!belongs(&earlier(volume).metadata, uid) && !belongs(&ObjectMeta::default(), uid));
}

#[test]
fn volumes_that_kserve_made_for_a_namespace_cache_at_the_root_are_replaced_claim_first() {
    let wanted = wanted_in_namespace();
    let (volume, claim) = bound_of(&wanted);
    let (volume, claim) = (unowned(at_root(volume)), unowned(claim));
    assert!(is_replacement(&step(&wanted, Some(&volume), Some(&claim))));
    assert!(is_wait(&step(&wanted, Some(&volume), Some(&deleting(claim.clone())))), "a pod still names it");
    assert_eq!(step(&wanted, Some(&volume), None), Step::DeleteVolume);
    assert!(is_wait(&step(&wanted, Some(&deleting(volume.clone())), None)));
    let elsewhere = at_path(volume, "/elsewhere");
    assert!(is_conflict(&step(&wanted, Some(&elsewhere), None)));
    assert!(is_conflict(&step(&self::wanted(), Some(&elsewhere), None)));
}

#[test]
fn an_owner_that_others_added_does_not_make_a_volume_theirs() {
    let mut volume = volume("Available");
    let mut other = owner(&cache_named("another", "hf://o/m", &["workers"]).with_uid());
    other.controller = None;
    volume.metadata.owner_references.as_mut().unwrap().insert(0, other);
    assert_eq!(step(&wanted(), Some(&volume), None), Step::CreateClaim);
}

trait WithUid {
    fn with_uid(self) -> Self;
}

impl WithUid for crate::api::LocalModelCache {
    fn with_uid(mut self) -> Self {
        self.metadata.uid = Some("another-uid".into());
        self
    }
}

#[test]
fn names_that_labels_shorten_stand_in_full_in_annotations() {
    let cache = cache_named(&"m".repeat(80), "hf://o/m", &["workers"]).with_uid();
    let group = group_named(&"g".repeat(70));
    let key = CacheKey::cluster(cache.name_any());
    let pair = download(&key, &cache.spec, owner(&cache), &group, J);
    for meta in [&pair.volume.metadata, &pair.claim.metadata] {
        let full = json!({names::CACHE: cache.name_any(), names::NODE_GROUP: group.name_any()});
        assert_eq!(json!(meta.annotations), full);
        assert!(meta.labels.iter().flatten().all(|(_, value)| value.len() <= 63), "{meta:?}");
    }
    assert_eq!(wanted().volume.metadata.annotations, None);
}

#[test]
fn a_host_path_begins_at_the_area_just_the_same_and_no_slash_is_doubled() {
    let begins = |spec: Value| {
        let mut spec: PersistentVolumeSpec = from(spec);
        begin_at_area(&mut spec, "ns");
        json!({"local": spec.local, "hostPath": spec.host_path})
    };
    let local = begins(json!({"local": {"path": "/models/"}}));
    assert_eq!(local, json!({"local": {"path": "/models/namespaces/ns"}, "hostPath": null}));
    let host = begins(json!({"hostPath": {"path": "/models"}}));
    assert_eq!(host, json!({"local": null, "hostPath": {"path": "/models/namespaces/ns"}}));
}

#[test]
fn sizes_are_the_caches_and_everything_else_is_the_groups() {
    let cache = cache();
    let mut group = group();
    let spec = &mut group.spec.persistent_volume_spec;
    spec.mount_options = Some(vec!["noatime".into()]);
    spec.capacity = None;
    group.spec.persistent_volume_claim_spec.resources = None;
    let pair = download(&CacheKey::cluster("m"), &cache.spec, owner(&cache), &group, J);
    let (volume, claim) = (json!(pair.volume), json!(pair.claim));
    assert_eq!(volume["spec"]["mountOptions"], json!(["noatime"]));
    assert_eq!(volume["spec"]["capacity"], json!({"storage": "10Gi"}));
    assert_eq!(claim["spec"]["resources"], json!({"requests": {"storage": "10Gi"}}));
}

#[test]
fn the_produced_volumes_are_as_reviewed() {
    let Pair { volume, claim, .. } = wanted();
    insta::assert_yaml_snapshot!("download_volume", volume);
    insta::assert_yaml_snapshot!("download_claim", claim);
    let Pair { volume, claim, .. } = agent(&group(), owner(&group()), "kserve");
    insta::assert_yaml_snapshot!("agent_volume", volume);
    insta::assert_yaml_snapshot!("agent_claim", claim);
    let Pair { volume, claim, .. } = wanted_in_namespace();
    insta::assert_yaml_snapshot!("namespace_download_volume", volume);
    insta::assert_yaml_snapshot!("namespace_download_claim", claim);
}

mod convergence;

#[test]
fn a_serving_pair_is_read_only_and_named_as_kserves_pods_mount_it() {
    let cache = cache();
    let key = CacheKey::cluster(cache.name_any());
    let Pair { volume, claim, .. } = serving(&key, &cache.spec, owner(&cache), &group(), "team");
    insta::assert_yaml_snapshot!("serving_volume", volume);
    insta::assert_yaml_snapshot!("serving_claim", claim);
}

mod narrow;

#[test]
fn a_volume_made_from_other_specs_than_the_groups_stays_and_is_told_of() {
    let pair = wanted();
    let mut live = pair.volume.clone();
    assert_eq!(outdated(&pair, &live), None);
    live.spec.as_mut().unwrap().capacity = from(json!({"storage": "1Gi"}));
    assert_eq!(outdated(&pair, &live), None, "another size of the cache is none of its group's");
    live.spec.as_mut().unwrap().local.as_mut().unwrap().path = "/elsewhere".into();
    let told = outdated(&pair, &live).unwrap();
    assert!(told.contains(&live.name_any()) && told.contains("make a new node group"), "{told}");
}
