//! A pod with our label has its model, or is refused.

use super::*;
use crate::plan::names::{MODEL_VOLUME, POD_MODEL};

const POLICIES: &str = include_str!("../../../deploy/base/pod-policies.yaml");

fn refused(spec: &Value) -> Option<String> {
    let policy = policy(POLICIES, "model-pods.localmodel.kserve.io");
    let selector = &policy["matchConstraints"]["objectSelector"]["matchExpressions"][0];
    assert_eq!(*selector, json!({"key": POD_MODEL, "operator": "Exists"}), "other pods are not asked about");
    let object = json!({"metadata": {"name": "p", "labels": {POD_MODEL: "m"}}, "spec": spec});
    refusal(&policy, &Asked { object, ..Asked::default() })
}

#[test]
fn a_labelled_pod_without_the_models_volume_is_refused_and_says_why() {
    let claim = json!({"claimName": "m-g"});
    for volumes in [
        json!([]),
        json!([{"name": "other", "persistentVolumeClaim": claim}]),
        json!([{"name": MODEL_VOLUME, "emptyDir": {}}]),
    ] {
        let refused = refused(&json!({"volumes": volumes})).unwrap();
        assert!(refused.contains(POD_MODEL) && refused.contains("webhook is not installed"), "{refused}");
    }
    assert!(refused(&json!({})).is_some());
    let mutated =
        json!([{"name": "other", "emptyDir": {}}, {"name": MODEL_VOLUME, "persistentVolumeClaim": claim}]);
    assert_eq!(refused(&json!({"volumes": mutated})), None);
}
