use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::api::LocalModelNode;
use crate::plan::samples::{at, cache_named, from, node, not_ready};

fn user(cache: &CacheKey, kind: Kind, namespace: &str, name: &str, group: Option<&str>) -> User {
    User {
        cache: cache.clone(),
        kind,
        namespace: namespace.into(),
        name: name.into(),
        group: group.map(Into::into),
    }
}

fn claim_noted(note: Option<&str>) -> PersistentVolumeClaim {
    let annotations = note.map_or(json!({}), |note| json!({ UNUSED_SINCE: note }));
    from(json!({"metadata": {"name": "m-g", "namespace": "ns", "annotations": annotations}}))
}

#[test]
fn each_namespace_with_users_has_the_volumes_of_the_groups_in_use_once() {
    let spec = cache_named("m", "hf://o/m", &["a", "b"]).spec.0;
    let (m, other) = (CacheKey::cluster("m"), CacheKey::namespaced("x", "m"));
    let users = [
        user(&m, Kind::InferenceService, "x", "one", None),
        user(&m, Kind::InferenceService, "x", "two", Some("a")),
        user(&m, Kind::LLMInferenceService, "y", "three", Some("b")),
        user(&m, Kind::Pod, "y", "four", None),
        user(&m, Kind::ServicePod, "w", "has-what-its-service-has", None),
        user(&other, Kind::InferenceService, "z", "of-another-cache", None),
        user(&m, Kind::InferenceService, "z", "of-no-group-of-the-cache", Some("c")),
    ];
    let wanted = [("x", "a"), ("y", "a"), ("y", "b")].map(|(ns, g)| (ns.to_owned(), g.to_owned()));
    assert_eq!(in_use(&m, &spec, &users), BTreeSet::from(wanted));
}

#[test]
fn the_status_lists_services_sorted_by_namespace_and_name_and_no_pods() {
    let m = CacheKey::cluster("m");
    let users = [
        user(&m, Kind::InferenceService, "y", "b", None),
        user(&m, Kind::Pod, "a", "pod", None),
        user(&m, Kind::InferenceService, "y", "a", None),
        user(&m, Kind::LLMInferenceService, "x", "llm", None),
        user(&m, Kind::InferenceService, "x", "z", None),
    ];
    let listed = |kind| {
        let names = listed(&m, kind, &users).into_iter();
        names.map(|n| format!("{}/{}", n.namespace.unwrap(), n.name.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(listed(Kind::InferenceService), ["x/z", "y/a", "y/b"]);
    assert_eq!(listed(Kind::LLMInferenceService), ["x/llm"]);
}

#[test]
fn the_first_volumes_wait_for_the_agents_of_ready_nodes_and_for_a_minute_at_most() {
    let m = CacheKey::cluster("m");
    let local = |status: Value| from(json!({"metadata": {}, "spec": {"localModels": []}, "status": status}));
    let (silent, of_another) = (local(json!({})), local(json!({"modelStatus": {"n": "ModelDownloaded"}})));
    let said: LocalModelNode = local(json!({"modelStatus": {"m": "ModelDownloadPending"}}));
    let (ready, away) = (node("a"), not_ready(node("b")));
    let until = |copies: &[(&Node, Option<&LocalModelNode>)], now| {
        let copies: Vec<Copy> = copies.iter().map(|(node, local)| Copy { node, local: *local }).collect();
        waits_until(&m, Some(at(100)), &copies, at(now))
    };
    for local in [None, Some(&silent), Some(&of_another)] {
        assert_eq!(until(&[(&ready, Some(&said)), (&ready, local)], 110), Some(at(160)), "{local:?}");
        assert_eq!(until(&[(&ready, local)], 160), None, "an agent may be unable to run");
        assert_eq!(until(&[(&away, local)], 110), None, "nothing runs there anyway");
    }
    assert_eq!(until(&[(&ready, Some(&said))], 110), None);
    assert_eq!(until(&[(&ready, Some(&said))], 101), None);
    assert_eq!(until(&[(&ready, None)], 99), None, "another clock is not believed");
}

#[test]
fn a_claim_outlives_its_last_user_by_ten_minutes_and_a_user_that_comes_back_finds_it() {
    let noted = claim_noted(Some("1970-01-01T00:01:40Z"));
    let since = at(100);
    assert_eq!(claim(&claim_noted(None), true, since), Claim::Keep);
    assert_eq!(claim(&claim_noted(None), false, since), Claim::Mark);
    assert_eq!(claim(&noted, false, at(101)), Claim::Until(at(700)));
    assert_eq!(claim(&noted, false, at(699)), Claim::Until(at(700)));
    assert_eq!(claim(&noted, false, at(700)), Claim::DeleteIfUnmounted);
    assert_eq!(claim(&noted, true, at(700)), Claim::Unmark);
}

#[test]
fn a_note_that_makes_no_sense_is_written_anew() {
    assert_eq!(claim(&claim_noted(Some("yesterday")), false, at(9)), Claim::Mark);
    assert_eq!(claim(&claim_noted(Some("1970-01-01T00:01:40Z")), false, at(9)), Claim::Mark);
}

#[test]
fn a_claim_in_deletion_is_left_to_kubernetes() {
    let mut deleting = claim_noted(None);
    deleting.metadata.deletion_timestamp = Some(from(json!("1970-01-01T00:01:40Z")));
    assert_eq!(claim(&deleting, false, at(1000)), Claim::Keep);
    assert_eq!(claim(&deleting, true, at(1000)), Claim::Keep);
}
