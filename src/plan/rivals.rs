//! KServe's own local-model controller: while it runs, two writers would undo each other for ever, so
//! that ours stands back (O1).

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;

/// KServe's Deployment, in the operator's namespace.
pub const DEPLOYMENT: &str = "kserve-localmodel-controller-manager";

/// Why to stand back, for a person; `None` when nothing of KServe's runs. A Deployment that is scaled to
/// zero stands in nobody's way once its last pod has gone.
pub fn standing_back(deployment: Option<&Deployment>) -> Option<String> {
    let deployment = deployment?;
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let running = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    (wanted > 0 || running > 0).then(|| {
        let namespace = deployment.namespace().unwrap_or_default();
        format!(
            "KServe's local-model controller runs (Deployment {namespace}/{DEPLOYMENT}): localmodel stands back until it is scaled to 0 or deleted"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::samples::from;

    fn deployment(spec: Option<i32>, status: Option<i32>) -> Deployment {
        from(json!({
            "metadata": {"name": DEPLOYMENT, "namespace": "kserve"},
            "spec": {"replicas": spec, "selector": {}, "template": {}},
            "status": {"replicas": status},
        }))
    }

    #[test]
    fn the_operator_stands_back_until_kserves_last_pod_has_gone() {
        assert_eq!(standing_back(None), None);
        assert_eq!(standing_back(Some(&deployment(Some(0), None))), None);
        assert_eq!(standing_back(Some(&deployment(Some(0), Some(0)))), None);
        for running in [deployment(None, None), deployment(Some(1), Some(0)), deployment(Some(0), Some(1))] {
            let why = standing_back(Some(&running)).unwrap();
            assert!(why.contains("kserve/kserve-localmodel-controller-manager"), "{why}");
        }
    }
}
