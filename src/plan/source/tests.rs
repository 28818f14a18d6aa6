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
    problem(&CacheKey::cluster("c"), uri, containers, &EgressSettings::default()).map(|problem| {
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

/// What is said of a source of a namespace's cache.
fn refused(uri: &str, egress: &Value) -> Option<String> {
    problem(&CacheKey::namespaced("team", "m"), uri, &[], &from(egress.clone())).map(|problem| {
        assert_eq!(problem.kind, SOURCE_NOT_ALLOWED, "{problem:?}");
        problem.message
    })
}

#[test]
fn a_namespace_cannot_name_files_of_the_job_or_plain_http_and_a_cluster_cache_can() {
    let usual = json!({});
    for (uri, words) in [
        ("file:///proc/self/environ", "only a LocalModelCache may"),
        ("http://files.example/m", "localModelEgress.plainHttp"),
    ] {
        let message = refused(uri, &usual).expect(uri);
        assert!(message.contains(uri) && message.contains(words), "{message}");
        assert_eq!(said(uri, &[]), None, "{uri}");
    }
    let open = json!({"plainHttp": true, "internalAddresses": true});
    assert_eq!(refused("http://files.example/m", &open), None);
    assert!(refused("file:///proc/self/environ", &open).is_some());
    assert_eq!(refused("https://files.example/m", &usual), None);
}

#[test]
fn a_namespace_may_use_what_lies_below_the_allowed_prefixes_and_nothing_else() {
    let some =
        json!({"uriPrefixes": ["hf://acme/", "s3://models", "https://files.example/models/", "hf://o/m"]});
    for uri in [
        "hf://acme/m",
        "s3://models",
        "s3://models/llama",
        "https://files.example/models/m.tar",
        "https://FILES.example/models/m",
        "hf://o/m",
        "hf://o/m:v1",
    ] {
        assert_eq!(refused(uri, &some), None, "{uri}");
    }
    for uri in [
        "hf://acme-evil/m",
        "s3://models-of-others/m",
        "gs://models/m",
        "https://files.example/models/../secret",
        "https://files.example/models/%2e%2e/secret",
        "https://files.example.evil/models/m",
        "hf://o/m2",
    ] {
        let message = refused(uri, &some).expect(uri);
        assert!(message.contains("hf://acme/, s3://models") && message.contains("uriPrefixes"), "{message}");
    }
    assert!(refused("hf://o/m", &json!({"uriPrefixes": []})).unwrap().contains("none is"));
    assert!(refused("hf://o/m", &json!({"uriPrefixes": [""]})).is_some());
    assert_eq!(refused("hf://o/m", &json!({})), None);
}
