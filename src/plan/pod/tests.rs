use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::api::CacheSpec;
use crate::plan::samples::{KEY, OWN_IMAGE, cache, from, group_named, labelled_node};

mod properties;

/// What is known in a test: one cache, in these groups.
struct Known {
    key: CacheKey,
    spec: CacheSpec,
    groups: Vec<Arc<LocalModelNodeGroup>>,
    nodes: Vec<Arc<Node>>,
    standing_back: Option<&'static str>,
}

fn known(groups: &[&str]) -> Known {
    let names = groups.iter().map(ToString::to_string).collect();
    Known {
        key: CacheKey::cluster("meta-llama3-8b-instruct"),
        spec: CacheSpec { node_groups: names, ..cache().spec.0 },
        groups: groups.iter().map(|name| Arc::new(group_named(name))).collect(),
        nodes: Vec::new(),
        standing_back: None,
    }
}

impl Known {
    fn with_nodes(mut self, nodes: &[(&str, Value)]) -> Self {
        self.nodes = nodes.iter().map(|(name, labels)| Arc::new(labelled_node(name, labels))).collect();
        self
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            namespace: "team",
            cache: Some(PlannedCache {
                key: self.key.clone(),
                spec: &self.spec,
                created: None,
                deleting: false,
                fetchable: true,
                measured: 0,
            }),
            known: &[],
            groups: &self.groups,
            nodes: &self.nodes,
            image: OWN_IMAGE,
            standing_back: self.standing_back,
        }
    }

    /// The pod as it is after the webhook, or why it is refused.
    fn mutate(&self, pod: &Value) -> Result<Value, String> {
        mutated(pod, &self.facts())
    }
}

fn mutated(pod: &Value, facts: &Facts) -> Result<Value, String> {
    let typed: Pod = from(pod.clone());
    let wish = wish(&typed).expect("the pod asks for a cache");
    let patch = additions(&typed, &wish, facts).map_err(|denied| denied.to_string())?;
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).expect("the patch fits the pod");
    Ok(pod)
}

fn vllm() -> Value {
    json!({
        "metadata": {"generateName": "vllm-", "labels": {"app": "vllm", POD_MODEL: "meta-llama3-8b-instruct"}},
        "spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai", "args": ["--model", "/mnt/models"]}]},
    })
}

/// A pod as KServe's webhook leaves it.
fn kserves_pod() -> Value {
    json!({
        "metadata": {
            "name": "llama-predictor-0",
            "labels": {SERVICE_MODEL: "meta-llama3-8b-instruct"},
            "annotations": {"internal.serving.kserve.io/localmodel-pvc-name": "meta-llama3-8b-instruct-workers"},
        },
        "spec": {
            "containers": [{
                "name": "kserve-container",
                "image": "stub",
                "volumeMounts": [{
                    "name": MODEL_VOLUME, "mountPath": "/mnt/models", "readOnly": true,
                    "subPath": format!("models/{KEY}/"),
                }],
            }],
            "volumes": [{
                "name": MODEL_VOLUME,
                "persistentVolumeClaim": {"claimName": "meta-llama3-8b-instruct-workers", "readOnly": false},
            }],
        },
    })
}

fn with(mut pod: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/");
    pod.pointer_mut(parent).expect("the field's parent is there")[key] = value;
    pod
}

fn annotated(pod: Value, annotations: &Value) -> Value {
    with(pod, "/metadata/annotations", annotations.clone())
}

#[test]
fn a_plain_pod_gets_the_claim_the_mount_the_preference_and_the_gate() {
    insta::assert_yaml_snapshot!(known(&["workers"]).mutate(&vllm()).unwrap());
}

#[test]
fn a_pod_of_kserve_gets_the_preference_and_the_gate_alone() {
    insta::assert_yaml_snapshot!(known(&["workers"]).mutate(&kserves_pod()).unwrap());
}

#[test]
fn a_namespace_cache_has_a_warm_label_of_its_own() {
    let own = Known { key: CacheKey::namespaced("team", "own"), ..known(&["workers"]) };
    insta::assert_yaml_snapshot!(own.mutate(&vllm()).unwrap());
}

#[test]
fn what_was_chosen_stands_on_the_pod_for_whoever_keeps_its_volumes() {
    let two =
        known(&["a", "b"]).with_nodes(&[("one", json!({"group": "a"})), ("two", json!({"group": "b"}))]);
    let on_b = with(vllm(), "/spec/nodeSelector", json!({"group": "b"}));
    let chosen = two.mutate(&on_b).unwrap();
    assert_eq!(chosen["metadata"]["annotations"][CHOSEN_GROUP], json!("b"));
    let labels = |pod: &Value| pod["metadata"]["labels"].clone();
    assert_eq!(labels(&chosen).get(POD_MODEL_NAMESPACE), None);

    let own = Known { key: CacheKey::namespaced("team", "own"), ..known(&["a"]) };
    assert_eq!(labels(&own.mutate(&vllm()).unwrap())[POD_MODEL_NAMESPACE], json!("team"));
    let mut forged = vllm();
    forged["metadata"]["labels"][POD_MODEL_NAMESPACE] = json!("another");
    assert_eq!(labels(&known(&["a"]).mutate(&forged).unwrap())[POD_MODEL_NAMESPACE], json!(""));
}

#[test]
fn annotations_choose_the_containers_the_path_and_the_group() {
    let pod = with(vllm(), "/spec/initContainers", json!([{"name": "warm-up"}, {"name": "other"}]));
    let pod = with(pod, "/spec/containers", json!([{"name": "vllm"}, {"name": "proxy"}, {"name": "reader"}]));
    let pod = annotated(
        pod,
        &json!({POD_CONTAINERS: "reader, warm-up", POD_MOUNT_PATH: "/models/", CHOSEN_GROUP: "b"}),
    );
    insta::assert_yaml_snapshot!(known(&["a", "b"]).mutate(&pod).unwrap());
}

#[test]
fn an_annotation_leaves_the_gate_out_and_nothing_else() {
    let left_out = annotated(vllm(), &json!({POD_GATE: "false"}));
    let pod = known(&["workers"]).mutate(&left_out).unwrap();
    insta::assert_yaml_snapshot!(pod["spec"]);
    let kserves = with(kserves_pod(), "/metadata/annotations/localmodel.kserve.io~1gate", json!("false"));
    let pod = known(&["workers"]).mutate(&kserves).unwrap();
    assert!(pod["spec"]["initContainers"].is_null() && !pod["spec"]["affinity"].is_null());
}

#[test]
fn a_pod_without_either_label_asks_for_nothing() {
    assert_eq!(wish(&from(json!({"metadata": {"labels": {"app": "web"}}}))), None);
    assert_eq!(wish(&Pod::default()), None);
}

#[test]
fn our_label_comes_before_kserves_and_an_empty_namespace_is_none() {
    let ask = |labels: Value| wish(&from(json!({"metadata": {"labels": labels}})));
    assert_eq!(ask(json!({POD_MODEL: "a", SERVICE_MODEL: "b"})), Some(Wish::Ours("a".into())));
    let kserves = |key| Some(Wish::KServes(key));
    assert_eq!(ask(json!({SERVICE_MODEL: "b", SERVICE_NAMESPACE: ""})), kserves(CacheKey::cluster("b")));
    let own = CacheKey::namespaced("team", "b");
    assert_eq!(ask(json!({SERVICE_MODEL: "b", SERVICE_NAMESPACE: "team"})), kserves(own));
}

#[test]
fn the_group_is_the_first_that_the_pods_own_constraints_allow() {
    let nodes = [
        ("n1", json!({"group": "a", "zone": "east"})),
        ("n2", json!({"group": "b", "zone": "west"})),
        ("n3", json!({"group": "b", "zone": "north"})),
    ];
    let cases = [
        (json!({}), "a"),
        (json!({"nodeSelector": {"zone": "east"}}), "a"),
        (json!({"nodeSelector": {"zone": "west"}}), "b"),
        (json!({"nodeSelector": {"group": "a", "zone": "west"}}), "c"),
        (json!({"nodeName": "n3"}), "b"),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["east"]}]}],
            }}}}),
            "b",
        ),
    ];
    // Group c has no node yet: who fits nowhere else may fit there.
    let known = known(&["a", "b", "c"]).with_nodes(&nodes);
    for (constraints, expected) in cases {
        let mut pod = vllm();
        pod["spec"].as_object_mut().unwrap().extend(constraints.as_object().unwrap().clone());
        let pod = known.mutate(&pod).unwrap();
        let claim = &pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"];
        assert_eq!(*claim, json!(format!("meta-llama3-8b-instruct-{expected}")), "{constraints}");
    }
}

#[test]
fn without_any_node_and_where_no_node_is_allowed_the_first_group_is_taken() {
    let claim = |known: Known, pod: Value| {
        known.mutate(&pod).unwrap()["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"].clone()
    };
    assert_eq!(claim(known(&["a", "b"]), vllm()), json!("meta-llama3-8b-instruct-a"));
    let full = known(&["a", "b"]).with_nodes(&[("n1", json!({"group": "a"})), ("n2", json!({"group": "b"}))]);
    let nowhere = with(vllm(), "/spec/nodeSelector", json!({"zone": "moon"}));
    assert_eq!(claim(full, nowhere), json!("meta-llama3-8b-instruct-a"));
}

#[test]
fn a_refused_pod_says_what_is_wrong_and_what_there_is() {
    let known = known(&["a", "b"]);
    let mounted = json!([{"name": "scratch", "mountPath": "/mnt/models/"}]);
    let cases = [
        (
            annotated(vllm(), &json!({CHOSEN_GROUP: "c"})),
            "annotation serving.kserve.io/nodegroup: LocalModelCache meta-llama3-8b-instruct is not kept on node group c; its nodeGroups are a, b",
        ),
        (
            annotated(vllm(), &json!({POD_CONTAINERS: "vllm,typo"})),
            "annotation localmodel.kserve.io/containers: the pod has no container \"typo\"; it has vllm",
        ),
        (
            annotated(vllm(), &json!({POD_MOUNT_PATH: "models"})),
            "annotation localmodel.kserve.io/mount-path: \"models\" is no path for a mount: write an absolute one, without ':' and '..'",
        ),
        (
            with(vllm(), "/spec/volumes", json!([{"name": MODEL_VOLUME, "emptyDir": {}}])),
            "the pod has a volume kserve-pvc-source of its own, which is the name of the model's volume: give it another name",
        ),
        (
            with(vllm(), "/spec/containers/0/volumeMounts", mounted),
            "container vllm has volume scratch mounted at /mnt/models already: say with annotation localmodel.kserve.io/mount-path where the model goes",
        ),
    ];
    for (pod, message) in cases {
        assert_eq!(known.mutate(&pod).unwrap_err(), message);
    }
    for path in ["/", "/a:b", "/a/../b"] {
        let refused = known.mutate(&annotated(vllm(), &json!({POD_MOUNT_PATH: path}))).unwrap_err();
        assert!(refused.contains(path), "{refused}");
    }
}

#[test]
fn an_unknown_cache_is_refused_with_the_names_of_those_that_exist() {
    let known = known(&["workers"]);
    let names: Vec<String> = (10..22).map(|n| format!("m{n}")).collect();
    let facts = |names| Facts { cache: None, known: names, ..known.facts() };
    assert_eq!(
        mutated(&vllm(), &facts(&names)).unwrap_err(),
        "label localmodel.kserve.io/model: there is no LocalModelCache meta-llama3-8b-instruct, nor a \
         LocalModelNamespaceCache meta-llama3-8b-instruct in namespace team; there are LocalModelCaches m10, \
         m11, m12, m13, m14, m15, m16, m17, m18, m19 and 2 more, and kubectl get localmodelnamespacecaches -n team \
         lists those of the namespace"
    );
    let refused = mutated(&vllm(), &facts(&[])).unwrap_err();
    assert!(refused.contains("; there is no LocalModelCache at all, and "), "{refused}");
}

#[test]
fn a_cache_in_deletion_takes_no_new_pods() {
    let known = known(&["workers"]);
    let mut facts = known.facts();
    facts.cache.as_mut().unwrap().deleting = true;
    let refused = mutated(&vllm(), &facts).unwrap_err();
    assert!(refused.contains("LocalModelCache meta-llama3-8b-instruct is being deleted"), "{refused}");
    assert_eq!(mutated(&kserves_pod(), &facts), Ok(kserves_pod()));
}

#[test]
fn while_the_operator_stands_back_our_pods_are_refused_and_kserves_left_alone() {
    let known = Known { standing_back: Some("KServe's own controller runs"), ..known(&["workers"]) };
    let refused = known.mutate(&vllm()).unwrap_err();
    assert_eq!(
        refused,
        "label localmodel.kserve.io/model: no model can be mounted now: KServe's own controller runs"
    );
    assert_eq!(known.mutate(&kserves_pod()), Ok(kserves_pod()));
}

#[test]
fn pods_of_kserve_that_mount_no_claim_of_the_cache_are_left_alone() {
    let known = known(&["workers"]);
    let no_volume = with(kserves_pod(), "/spec/volumes", json!([]));
    let claim = json!({"claimName": "something-else"});
    let other = with(kserves_pod(), "/spec/volumes/0/persistentVolumeClaim", claim);
    for pod in [no_volume, other, kserves_pod()] {
        let mut facts = known.facts();
        if pod == kserves_pod() {
            facts.cache.as_mut().unwrap().key.namespace = Some("victim".into());
        }
        assert_eq!(mutated(&pod, &facts), Ok(pod.clone()), "nothing is told of another namespace's cache");
        let facts = Facts { cache: None, ..known.facts() };
        assert_eq!(mutated(&pod, &facts), Ok(pod));
    }
}

#[test]
fn init_containers_of_the_user_come_after_the_gate() {
    let pod = with(vllm(), "/spec/initContainers", json!([{"name": "convert"}, {"name": "check"}]));
    let pod = known(&["workers"]).mutate(&pod).unwrap();
    let names: Vec<_> =
        pod["spec"]["initContainers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, [GATE_CONTAINER, "convert", "check"]);
}
