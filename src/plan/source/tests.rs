use serde_json::{Value, json};

use super::*;
use crate::plan::samples::from;

fn container(format: &Value, workload: &str) -> ClusterStorageContainer {
    from(json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterStorageContainer", "metadata": {"name": "c"},
        "spec": {"container": {"name": "c"}, "supportedUriFormats": [format], "workloadType": workload},
    }))
}

fn said(uri: &str, containers: &[&ClusterStorageContainer]) -> Option<String> {
    problem(uri, containers).map(|problem| {
        assert_eq!(problem.kind, INVALID_SOURCE);
        problem.message
    })
}

#[test]
fn a_known_scheme_has_to_be_well_formed_whatever_container_fetches_it() {
    let hub = container(&json!({"prefix": "hf://"}), "localModelDownloadJob");
    for uri in ["hf://only-one-part", "hf:///x", "s3://", "file://relative"] {
        let message = said(uri, &[&hub]).expect(uri);
        assert!(message.contains(uri) && message.contains("make a cache with another source"), "{message}");
    }
    for uri in ["hf://o/m", "s3://b/p", "file:///models/m", "https://host/model.tar"] {
        assert_eq!(said(uri, &[]), None, "{uri}");
    }
}

#[test]
fn another_scheme_is_for_the_containers_of_download_jobs_to_support() {
    let ours = container(&json!({"regex": "^oci://"}), "localModelDownloadJob");
    let init = container(&json!({"prefix": "oci://"}), "initContainer");
    assert_eq!(said("oci://r/m", &[&ours]), None);
    let message = said("oci://r/m", &[&init]).unwrap();
    assert!(
        message.contains("nothing downloads oci://r/m") && message.contains("hf://owner/model"),
        "{message}"
    );
    assert!(said("no-scheme", &[]).is_some());
    let plain = container(&json!({"regex": "^no-scheme$"}), "localModelDownloadJob");
    assert_eq!(said("no-scheme", &[&plain]), None);
}

#[test]
fn what_may_be_a_secret_in_a_source_is_not_told() {
    for uri in ["https://user:hunter2@host/file", "https://account.blob.core.windows.net/?sig=hunter2"] {
        let message = said(uri, &[]).expect(uri);
        assert!(!message.contains("hunter2"), "{message}");
    }
}
