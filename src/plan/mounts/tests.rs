use serde_json::{Value, json};

use super::*;
use crate::plan::samples::from;

fn pod(name: &str, phase: &str, volume: &Value) -> Pod {
    let metadata = json!({"name": name, "namespace": "ns"});
    let spec = json!({"containers": [], "volumes": [volume]});
    from(json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}}))
}

fn claimed() -> Value {
    json!({"name": "v", "persistentVolumeClaim": {"claimName": "m-g"}})
}

#[test]
fn a_pod_uses_a_claim_until_it_has_ended() {
    let uses = |phase: &str, volume: &Value, claim: &str| mounts(&pod("m", phase, volume), claim);
    assert!(uses("Running", &claimed(), "m-g") && uses("Pending", &claimed(), "m-g"));
    assert!(!uses("Succeeded", &claimed(), "m-g") && !uses("Failed", &claimed(), "m-g"));
    assert!(!uses("Running", &claimed(), "m-other"));
    assert!(!uses("Running", &json!({"name": "g", "emptyDir": {}}), "m-g"));
    assert!(uses("Running", &json!({"name": "g", "ephemeral": {}}), "m-g"));
}

#[test]
fn the_pods_that_keep_a_wide_claim_are_named() {
    let running = |number: usize| pod(&format!("p{number:02}"), "Running", &claimed());
    assert_eq!(in_the_way(&[], "m-g"), None);
    assert_eq!(in_the_way(&[running(1)], "m-other"), None);
    let message = in_the_way(&[running(2), running(1)], "m-g").unwrap();
    assert!(message.starts_with("claim ns/m-g was made by KServe or an earlier version"), "{message}");
    assert!(message.ends_with("to 0 and up again: p01, p02"), "{message}");
    let many: Vec<Pod> = (0..12).map(running).collect();
    assert!(in_the_way(&many, "m-g").unwrap().ends_with("p09 and 2 more"));
}
