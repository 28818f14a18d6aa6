//! The rules that the API server applies, run without one, and the generated definitions.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{LocalModelCache, LocalModelNamespaceCache, LocalModelNodeGroup, crd_yaml, crds};

fn fixture<K: serde::de::DeserializeOwned>(text: &str) -> K {
    serde_saphyr::from_str(text).expect("a fixture parses")
}

fn documented_cache() -> Value {
    fixture(include_str!("../../fixtures/walkthrough/local-model-cache.yaml"))
}

fn documented_group() -> Value {
    fixture(include_str!("../../fixtures/walkthrough/local-model-node-group.yaml"))
}

/// The messages with which a cache is refused; with `old`, as an update of it.
fn refusals(cache: &Value, old: Option<&Value>) -> Vec<String> {
    let parse = |v: &Value| serde_json::from_value::<LocalModelCache>(v.clone()).expect("a cache");
    let result = match old {
        None => parse(cache).validate_cel(),
        Some(old) => parse(cache).validate_cel_update(&parse(old)),
    };
    result.err().map(|all| all.iter().map(|e| e.message.clone()).collect()).unwrap_or_default()
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    *object.pointer_mut(pointer).expect("the field is in the fixture") = value;
    object
}

#[test]
fn the_documented_objects_pass_every_rule() {
    assert_eq!(refusals(&documented_cache(), None), Vec::<String>::new());
    let group: LocalModelNodeGroup = serde_json::from_value(documented_group()).unwrap();
    assert!(group.validate_cel().is_ok());
}

#[test]
fn a_malformed_cache_is_refused_with_a_message_that_says_what_to_write() {
    let cases = [
        ("/spec/sourceModelUri", json!(""), "sourceModelUri must say where"),
        ("/spec/modelSize", json!("0"), "modelSize must be more than 0"),
        ("/spec/modelSize", json!("-5Gi"), "modelSize must be more than 0"),
        ("/spec/nodeGroups", json!(["workers", "workers"]), "nodeGroups must not name a group twice"),
        ("/metadata/name", json!("m".repeat(64)), "at most 63 characters"),
    ];
    for (pointer, value, expected) in cases {
        let refusals = refusals(&with(documented_cache(), pointer, value.clone()), None);
        assert!(refusals.iter().any(|m| m.contains(expected)), "{pointer} = {value}: {refusals:?}");
    }
}

#[test]
fn what_the_documented_names_hang_on_cannot_be_changed() {
    let old = documented_cache();
    let cases = [
        ("/spec/sourceModelUri", json!("hf://acme/other"), "StorageUri is immutable"),
        ("/spec/nodeGroups", json!(["others", "workers"]), "the first of nodeGroups cannot be changed"),
    ];
    for (pointer, value, expected) in cases {
        let refusals = refusals(&with(old.clone(), pointer, value), Some(&old));
        assert!(refusals.iter().any(|m| m.contains(expected)), "{pointer}: {refusals:?}");
    }
}

#[test]
fn more_groups_and_another_size_may_be_asked_for_later() {
    let old = documented_cache();
    let grown = with(old.clone(), "/spec/nodeGroups", json!(["workers", "others"]));
    assert_eq!(refusals(&with(grown, "/spec/modelSize", json!("20Gi")), Some(&old)), Vec::<String>::new());
}

#[test]
fn a_groups_volume_cannot_be_changed_but_its_limit_can() {
    let group = |v: Value| serde_json::from_value::<LocalModelNodeGroup>(v).unwrap();
    let old = group(documented_group());
    let moved =
        group(with(documented_group(), "/spec/persistentVolumeSpec/local/path", json!("/somewhere/else")));
    let errors = moved.validate_cel_update(&old).expect_err("a changed path is refused").to_string();
    assert!(errors.contains("persistentVolumeSpec is immutable"), "{errors}");
    let larger = group(with(documented_group(), "/spec/storageLimit", json!("3T")));
    assert!(larger.validate_cel_update(&old).is_ok());
}

#[test]
fn the_schema_itself_refuses_missing_fields_and_empty_groups() {
    let crd = serde_json::to_value(LocalModelCache::crd()).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    assert_eq!(spec["required"], json!(["modelSize", "nodeGroups", "sourceModelUri"]));
    assert_eq!(spec["properties"]["nodeGroups"]["minItems"], 1);
    assert_eq!(spec["properties"]["nodeGroups"]["maxItems"], 16);
}

#[test]
fn both_kinds_of_cache_have_the_same_spec_and_status() {
    let properties = |crd| {
        let crd = serde_json::to_value::<
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        >(crd)
        .unwrap();
        let mut all = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").unwrap().clone();
        all["spec"]["description"].take(); // the kind's own words
        [all["spec"].clone(), all["status"].clone()]
    };
    assert_eq!(properties(LocalModelCache::crd()), properties(LocalModelNamespaceCache::crd()));
}

#[test]
fn the_definitions_on_disk_are_those_of_the_code() {
    for crd in crds() {
        let name = crd.metadata.name.clone().expect("a definition has a name");
        let path = format!("{}/crds/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(on_disk == crd_yaml(&crd).unwrap(), "{path} is out of step: run `just generate`");
    }
}
