use serde_json::json;

use super::*;
use crate::plan::conditions::conditions;
use crate::plan::samples::{OWN_IMAGE, at, config, from, group, group_named, owner};

fn agents(group: &LocalModelNodeGroup, config: &Config) -> Value {
    json!(daemon_set(group, &owner(group), config, "kserve", OWN_IMAGE).unwrap())
}

#[test]
fn the_documented_groups_agents_are_as_reviewed() {
    insta::assert_yaml_snapshot!(
        daemon_set(&group(), &owner(&group()), &config(), "kserve", OWN_IMAGE).unwrap()
    );
}

#[test]
fn image_pull_policy_resources_and_pod_settings_come_from_the_settings() {
    let config = Config {
        agent_image: Some("registry.example.com/localmodel:2".into()),
        agent_image_pull_policy: Some("Always".into()),
        agent_memory_limit: "1Gi".into(),
        fs_group: 2000,
        pod: serde_json::from_value(json!({"tolerations": [], "priorityClassName": "high",
            "imagePullSecrets": [{"name": "pull"}]}))
        .unwrap(),
        ..config()
    };
    let pod = agents(&group(), &config)["spec"]["template"]["spec"].clone();
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example.com/localmodel:2");
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["resources"]["limits"]["memory"], "1Gi");
    assert_eq!(pod["securityContext"]["runAsUser"], 2000);
    assert_eq!(pod["securityContext"]["fsGroup"], 2000);
    assert_eq!(pod["tolerations"], json!([]));
    assert_eq!(pod["priorityClassName"], "high");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
}

#[test]
fn a_groups_long_name_is_kept_in_full_in_an_annotation() {
    let long = "g".repeat(200);
    let agents = agents(&group_named(&long), &config());
    assert_eq!(agents["metadata"]["annotations"][names::NODE_GROUP], json!(long));
    let label = &agents["spec"]["selector"]["matchLabels"][names::NODE_GROUP];
    assert!(label.as_str().unwrap().len() <= 63, "{label}");
    assert_eq!(*label, agents["spec"]["template"]["metadata"]["labels"][names::NODE_GROUP]);
    assert_eq!(agents["spec"]["template"]["spec"]["containers"][0]["args"][2], json!(long));
}

#[test]
fn a_group_without_nodes_or_path_says_what_is_missing() {
    let kinds =
        |group: &LocalModelNodeGroup| -> Vec<&str> { problems(group).iter().map(|p| p.kind).collect() };
    assert_eq!(kinds(&group()), Vec::<&str>::new());
    let mut group = group();
    group.spec.persistent_volume_spec.local = None;
    assert_eq!(kinds(&group), [NO_PATH]);
    group.spec.persistent_volume_spec.host_path = from(json!({"path": "/models"}));
    assert_eq!(kinds(&group), Vec::<&str>::new());
    group.spec.persistent_volume_spec.host_path = from(json!({"path": ""}));
    group.spec.persistent_volume_spec.node_affinity = None;
    assert_eq!(kinds(&group), [NO_NODE_AFFINITY, NO_PATH]);
}

#[test]
fn quantities_of_the_volume_specs_that_cannot_be_read_are_named() {
    let mut group = group();
    group.spec.persistent_volume_spec.capacity = from(json!({"storage": "much"}));
    group.spec.persistent_volume_claim_spec.resources = from(json!({"requests": {"storage": "more"}}));
    let told: Vec<(&str, String)> = problems(&group).into_iter().map(|p| (p.kind, p.message)).collect();
    assert_eq!(told.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [INVALID_QUANTITY; 2]);
    assert!(told[0].1.contains("\"much\"") && told[1].1.contains("\"more\""), "{told:?}");
}

#[test]
fn a_cache_is_told_which_of_its_groups_lacks_what() {
    let mut group = group();
    assert_eq!(problems_of_cache(&group), []);
    group.spec.persistent_volume_spec.local = None;
    let told = problems_of_cache(&group);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kind, NO_PATH);
    assert!(
        told[0].message.starts_with("LocalModelNodeGroup workers: persistentVolumeSpec has no local.path")
    );
}

#[test]
fn the_conditions_of_a_group_that_lacks_everything_are_as_reviewed() {
    let mut group = group();
    group.spec.persistent_volume_spec.local = None;
    group.spec.persistent_volume_spec.node_affinity = None;
    insta::assert_yaml_snapshot!(conditions(&problems(&group), &[], Some(1), at(1_700_000_000)));
}
