//! Pods mount one model of a serving claim or its gate, and never the claim as a whole (K4).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::*;
use crate::plan::entries::PlannedCache;
use crate::plan::names::{CacheKey, POD_MODEL, serving_claim};
use crate::plan::pod::{Facts, additions, wish};
use crate::plan::samples::{OWN_IMAGE, cache_named, from, group_named};

const POLICIES: &str = include_str!("../../../deploy/base/mount-policies.yaml");
const MODEL: &str = "models/0123456789abcdef/";

/// What a policy says of a pod of namespace `team` beside a cache `m` of these groups.
fn refused_beside(groups: &[&str], pod: Value) -> Option<String> {
    let asked = Asked {
        request: json!({"operation": "CREATE", "namespace": "team"}),
        object: pod,
        params: json!({"metadata": {"name": "m"}, "spec": {"nodeGroups": groups}}),
        ..Asked::default()
    };
    refusal(&policy(POLICIES, "cache-mounts.localmodel.kserve.io"), &asked)
}

fn refused(pod: Value) -> Option<String> {
    refused_beside(&["g", "h"], pod)
}

/// A pod with a volume, mounted by the second container of a kind.
fn pod(volume: &Value, kind: &str, mount: &Value) -> Value {
    let mut mounts = json!({"name": "v", "mountPath": "/m"});
    mounts.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
    let mut pod =
        json!({"metadata": {"name": "p"}, "spec": {"volumes": [volume], "containers": [{"name": "a"}]}});
    pod["spec"][kind] = json!([{"name": "b"}, {"name": "c", "volumeMounts": [mounts]}]);
    pod
}

fn claim(name: &str) -> Value {
    json!({"name": "v", "persistentVolumeClaim": {"claimName": name}})
}

#[test]
fn a_claim_of_a_cache_is_mounted_by_the_subpath_of_a_model_or_a_gate_and_not_otherwise() {
    let sub_path = |path: &str| json!({"subPath": path});
    for kind in ["containers", "initContainers"] {
        for path in
            [MODEL, "models/0123456789abcdef", "models/0123456789abcdef/a/b", "gate/0123456789abcdef/"]
        {
            assert_eq!(refused(pod(&claim("m-g"), kind, &sub_path(path))), None, "{path} in {kind}");
        }
        let elsewhere = [
            "",
            "models",
            "models/",
            "models/backup",
            "namespaces/other/models/0123456789abcdef",
            "incoming/0123456789abcdef",
            "models/0123456789abcdef0",
            "x/models/0123456789abcdef",
        ];
        for mount in elsewhere.map(sub_path).into_iter().chain([json!({}), json!({"subPathExpr": "$(A)"})]) {
            for name in ["m-g", "m-h"] {
                let told =
                    refused(pod(&claim(name), kind, &mount)).unwrap_or_else(|| panic!("{mount} in {kind}"));
                assert!(
                    told.starts_with("a claim of LocalModelCache m may not be mounted whole: "),
                    "{told}"
                );
            }
        }
    }
    let told = refused(pod(&claim("m-g"), "ephemeralContainers", &json!({})));
    assert!(told.is_some(), "an ephemeral container cannot have a subPath");
}

#[test]
fn other_claims_and_pods_that_mount_none_are_let_through() {
    for name in ["m", "m-i", "n-g", "m-g-x", "x-m-g"] {
        assert_eq!(refused(pod(&claim(name), "containers", &json!({}))), None, "{name}");
    }
    assert_eq!(refused(json!({"metadata": {"name": "p"}, "spec": {"containers": []}})), None);
    let mut unmounted = pod(&claim("m-g"), "containers", &json!({}));
    unmounted["spec"]["volumes"][0]["name"] = json!("another");
    assert_eq!(refused(unmounted), None);
    let download = Asked {
        request: json!({"operation": "CREATE", "namespace": "kserve-localmodel-jobs"}),
        object: pod(&claim("m-g"), "containers", &json!({"subPath": "incoming/0123456789abcdef"})),
        params: json!({"metadata": {"name": "m"}, "spec": {"nodeGroups": ["g"]}}),
        ..Asked::default()
    };
    assert_eq!(refusal(&policy(POLICIES, "cache-mounts.localmodel.kserve.io"), &download), None);
}

#[test]
fn an_ephemeral_volume_that_would_have_a_claims_name_is_held_to_the_same() {
    let ephemeral = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
    let mut whole = pod(&ephemeral, "containers", &json!({}));
    whole["metadata"]["name"] = json!("m");
    assert!(refused_beside(&["v"], whole.clone()).is_some());
    assert_eq!(refused_beside(&["w"], whole), None);
}

#[test]
fn a_claim_whose_name_had_to_be_shortened_is_known_too() {
    let group = "g".repeat(253);
    let name = serving_claim(&CacheKey::cluster("m"), &group);
    assert!(name.len() <= 253);
    assert!(refused_beside(&[&group], pod(&claim(&name), "containers", &json!({}))).is_some());
    assert_eq!(refused_beside(&[&group], pod(&claim(&name), "containers", &json!({"subPath": MODEL}))), None);
}

#[test]
fn a_pod_that_asks_for_a_model_by_label_is_let_through_with_what_it_gets() {
    let cache = cache_named("m", "hf://o/m", &["g"]);
    let groups = [Arc::new(group_named("g"))];
    let planned = PlannedCache {
        key: CacheKey::cluster("m"),
        spec: &cache.spec.0,
        created: None,
        deleting: false,
        fetchable: true,
        measured: 0,
    };
    let facts = Facts {
        namespace: "team",
        cache: Some(planned),
        known: &[],
        groups: &groups,
        nodes: &[],
        image: OWN_IMAGE,
        standing_back: None,
    };
    let mut pod = json!({
        "metadata": {"name": "p", "labels": {POD_MODEL: "m"}},
        "spec": {"containers": [{"name": "server"}]},
    });
    let typed: Pod = from(pod.clone());
    let patch = additions(&typed, &wish(&typed).unwrap(), &facts).unwrap_or_else(|denied| panic!("{denied}"));
    json_patch::patch(&mut pod, &patch).unwrap();
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], json!("m-g"));
    assert_eq!(refused_beside(&["g"], pod), None);
}

#[test]
fn both_kinds_of_cache_are_guarded_by_the_same_words() {
    let said = |name: &str| {
        let mut policy = policy(POLICIES, name);
        policy["failurePolicy"].take();
        policy.to_string()
    };
    let of_namespaces = said("namespace-cache-mounts.localmodel.kserve.io");
    let renamed =
        said("cache-mounts.localmodel.kserve.io").replace("LocalModelCache", "LocalModelNamespaceCache");
    assert_eq!(of_namespaces, renamed);
}
