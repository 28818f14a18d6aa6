use serde_json::{Value, json};

use super::*;
use crate::plan::samples::{at, from};

const WHOLE: &str = "mount the model, or give the mount subPath models/<storage key>/";

fn claimed() -> Value {
    json!({"name": "v", "persistentVolumeClaim": {"claimName": "m-g"}})
}

fn pod(name: &str, phase: &str, volume: &Value, containers: &Value) -> Pod {
    let mut spec = json!({"containers": [], "volumes": [volume]});
    spec.as_object_mut().unwrap().extend(containers.as_object().unwrap().clone());
    let metadata = json!({"name": name, "namespace": "ns"});
    from(json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}}))
}

/// Containers of a kind, the second of which has a mount of the volume at this subPath.
fn mounting(kind: &str, sub_path: Option<&str>) -> Value {
    let mount = json!({"name": "v", "mountPath": "/m", "subPath": sub_path});
    json!({kind: [{"name": "a"}, {"name": "b", "volumeMounts": [mount]}]})
}

#[test]
fn a_pod_mounts_a_claim_until_it_has_ended() {
    let in_phase = |phase: &str, volume: &Value| pod("p", phase, volume, &json!({}));
    assert!(mounts(&in_phase("Running", &claimed()), "m-g"));
    assert!(mounts(&in_phase("Pending", &claimed()), "m-g"));
    assert!(!mounts(&in_phase("Succeeded", &claimed()), "m-g"));
    assert!(!mounts(&in_phase("Failed", &claimed()), "m-g"));
    assert!(!mounts(&in_phase("Running", &claimed()), "m-other"));
    assert!(!mounts(&in_phase("Running", &json!({"name": "v", "emptyDir": {}})), "m-g"));
}

#[test]
fn no_pod_that_mounts_a_claim_whole_gets_its_volume() {
    let key = "0123456789abcdef";
    for sub_path in [
        None,
        Some(""),
        Some("models"),
        Some("models/backup"),
        Some("namespaces/other"),
        Some("incoming/0123456789abcdef"),
    ] {
        for kind in ["containers", "initContainers", "ephemeralContainers"] {
            let running = pod("p", "Running", &claimed(), &mounting(kind, sub_path));
            let told = problem(&[running], "m-g").unwrap_or_else(|| panic!("{sub_path:?} in {kind}"));
            assert!(told.starts_with("claim ns/m-g gets no volume"), "{told}");
            assert!(told.contains("delete p,") && told.ends_with(WHOLE), "{told}");
        }
    }
    for sub_path in [
        format!("models/{key}"),
        format!("models/{key}/"),
        format!("models/{key}/part"),
        format!("gate/{key}/"),
    ] {
        let running = pod("p", "Running", &claimed(), &mounting("containers", Some(&sub_path)));
        assert_eq!(problem(&[running], "m-g"), None, "{sub_path}");
    }
}

#[test]
fn pods_that_have_ended_or_mount_something_else_are_in_nobodys_way() {
    let whole = mounting("containers", None);
    let pods = [
        pod("ended", "Succeeded", &claimed(), &whole),
        pod(
            "another-claim",
            "Running",
            &json!({"name": "v", "persistentVolumeClaim": {"claimName": "x"}}),
            &whole,
        ),
        pod("no-claim", "Running", &json!({"name": "v", "emptyDir": {}}), &whole),
        pod(
            "another-volume",
            "Running",
            &json!({"name": "w", "persistentVolumeClaim": {"claimName": "m-g"}}),
            &whole,
        ),
    ];
    assert_eq!(problem(&pods, "m-g"), None);
}

#[test]
fn an_ephemeral_volume_that_comes_to_have_the_claims_name_counts_as_the_claim() {
    let ephemeral = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
    let pods = [
        pod("m", "Pending", &ephemeral, &mounting("containers", None)),
        pod("n", "Pending", &ephemeral, &mounting("containers", None)),
    ];
    assert!(problem(&pods, "m-v").unwrap().contains("delete m, and"));
    assert_eq!(problem(&pods, "o-v"), None);
}

#[test]
fn a_volume_waits_until_admission_knows_the_cache() {
    let until = |created, now| unknown_until(Some(at(created)), at(now));
    assert_eq!([until(100, 100), until(100, 101)], [Some(at(102)); 2]);
    assert_eq!(until(100, 102), None);
    assert_eq!(until(100, 99), None, "clocks differ, and nothing waits for hours because of it");
    assert_eq!(unknown_until(None, at(100)), None);
}
