//! The rules that the API server applies, run without one, and the generated definitions.

use kube::CustomResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    ClusterStorageContainer, LocalModelCache, LocalModelNamespaceCache, LocalModelNode, LocalModelNodeGroup,
    crd_yaml, crds,
};

fn fixture<K: DeserializeOwned>(text: &str) -> K {
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
fn every_kind_is_in_the_category_by_which_all_are_listed() {
    for crd in crds() {
        let categories = crd.spec.names.categories.unwrap_or_default();
        assert_eq!(categories, ["localmodel"], "{}", crd.spec.names.kind);
    }
}

#[test]
fn a_node_is_listed_with_its_models_its_space_its_disk_and_its_last_scrub() {
    let columns = LocalModelNode::crd().spec.versions.remove(0).additional_printer_columns.unwrap();
    let columns: Vec<String> = columns.into_iter().map(|column| column.name).collect();
    assert_eq!(columns, ["Models", "Free", "Disk", "Scrubbed", "Age"]);
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

/// The messages with which the API server refuses an object: what the definition's schema says of it,
/// else what our type and then the CEL rules say.
fn refusals_by_definition<K>(object: &Value) -> Vec<String>
where
    K: CustomResourceExt + DeserializeOwned + Serialize,
{
    let crd = crds().into_iter().find(|crd| crd.metadata.name.as_deref() == Some(K::crd_name()));
    let crd = serde_json::to_value(crd.unwrap()).unwrap();
    let mut all = Vec::new();
    structural(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], object, "", &mut all);
    if !all.is_empty() {
        return all; // the API server does not run the rules then
    }
    match serde_json::from_value::<K>(object.clone()) {
        Err(error) => vec![format!("our type cannot read it: {error}")],
        Ok(typed) => {
            let kept = serde_json::to_value(&typed).unwrap();
            assert!(keeps(object, &kept), "a field is lost:\n{object}\n{kept}");
            let errors = kube::core::cel::validate_cel(&typed).err();
            errors.iter().flat_map(|all| all.iter().map(|e| e.message.clone())).collect()
        }
    }
}

/// Whether everything in `object` stands in `kept`, numbers perhaps as text.
fn keeps(object: &Value, kept: &Value) -> bool {
    match (object, kept) {
        (Value::Object(object), Value::Object(kept)) => {
            object.iter().all(|(key, value)| kept.get(key).is_some_and(|kept| keeps(value, kept)))
        }
        (Value::Array(object), Value::Array(kept)) => {
            object.len() == kept.len() && object.iter().zip(kept).all(|(object, kept)| keeps(object, kept))
        }
        (Value::Number(number), Value::String(text)) => number.to_string() == *text,
        _ => object == kept,
    }
}

/// The part of a structural schema that the definitions use, in the API server's words.
fn structural(schema: &Value, value: &Value, path: &str, all: &mut Vec<String>) {
    let of = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let bound = |name: &str| schema[name].as_u64().and_then(|bound| usize::try_from(bound).ok());
    let mut check = |holds: bool, words: String| {
        if !holds {
            all.push(format!("{path} {words}"));
        }
    };
    match value {
        Value::Object(fields) => {
            check(matches!(schema["type"].as_str(), None | Some("object")), "is an object".into());
            let most = bound("maxProperties").unwrap_or(usize::MAX);
            check(fields.len() <= most, format!("must have at most {most} items"));
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    all.push(format!("{}: Required value", of(name)));
                }
            }
            for (name, value) in fields {
                let by_name = schema["properties"].get(name);
                let schema = by_name.or_else(|| schema.get("additionalProperties"));
                if let Some(schema) = schema {
                    structural(schema, value, &of(name), all);
                }
            }
        }
        Value::Array(items) => {
            check(schema["type"] == "array", "is a list".into());
            let (least, most) = (bound("minItems").unwrap_or(0), bound("maxItems").unwrap_or(usize::MAX));
            check(items.len() >= least, format!("in body should have at least {least} items"));
            check(items.len() <= most, format!("must have at most {most} items"));
            for (at, item) in items.iter().enumerate() {
                structural(&schema["items"], item, &format!("{path}[{at}]"), all);
            }
        }
        Value::String(text) => {
            check(matches!(schema["type"].as_str(), None | Some("string")), "is text".into());
            let (least, most) = (bound("minLength").unwrap_or(0), bound("maxLength").unwrap_or(usize::MAX));
            check(text.len() >= least, format!("in body should be at least {least} chars long"));
            check(text.len() <= most, format!("may not be longer than {most}"));
        }
        _ => {}
    }
}

/// Every file of a folder of fixtures: its path, its text, and the API server's refusals.
fn objects(folder: &str) -> Vec<(String, String, Vec<String>)> {
    let folder = format!("{}/fixtures/objects/{folder}", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let object: Value = fixture(&text);
        let check = match object["kind"].as_str() {
            Some("LocalModelCache") => refusals_by_definition::<LocalModelCache>,
            Some("LocalModelNamespaceCache") => refusals_by_definition::<LocalModelNamespaceCache>,
            Some("LocalModelNodeGroup") => refusals_by_definition::<LocalModelNodeGroup>,
            Some("LocalModelNode") => refusals_by_definition::<LocalModelNode>,
            Some("ClusterStorageContainer") => refusals_by_definition::<ClusterStorageContainer>,
            other => panic!("{} is a {other:?}", path.display()),
        };
        (path.display().to_string(), text, check(&object))
    };
    files.map(read).collect()
}

#[test]
fn every_good_object_is_accepted_and_read_without_losing_a_field() {
    let objects = objects("good");
    assert!(objects.len() >= 7);
    for (path, _, refusals) in objects {
        assert_eq!(refusals, Vec::<String>::new(), "{path}");
    }
}

#[test]
fn every_bad_object_is_refused_with_the_words_in_its_first_line() {
    let objects = objects("bad");
    assert!(objects.len() >= 16);
    for (path, text, refusals) in objects {
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# refused: ")).expect(&path);
        assert!(refusals.iter().any(|message| message.contains(expected)), "{path}: {refusals:?}");
    }
}

#[test]
fn a_status_value_of_a_later_kserve_does_not_make_a_cache_unreadable() {
    let mut cache = documented_cache();
    cache["status"] = json!({"nodeStatus": {"n": "NodeTakingANap"}});
    let cache: LocalModelCache = serde_json::from_value(cache).unwrap();
    assert_eq!(cache.status.unwrap().node_status["n"], super::cache::NodeStatus::Unknown);
}
