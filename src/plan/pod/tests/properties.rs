//! What holds for every pod: mutating twice changes nothing, and all that the pod had is still there.

use proptest::prelude::*;

use super::*;

fn mount() -> impl Strategy<Value = Value> {
    ("[a-c]", "/(mnt/models|data|tmp)/?").prop_map(|(name, path)| json!({"name": name, "mountPath": path}))
}

fn container(name: String) -> impl Strategy<Value = Value> {
    prop::option::of(prop::collection::vec(mount(), 0..2)).prop_map(move |mounts| {
        let mut container = json!({"name": name, "image": "i", "newField": {"of": "a later Kubernetes"}});
        if let Some(mounts) = mounts {
            container["volumeMounts"] = json!(mounts);
        }
        container
    })
}

fn containers(prefix: &'static str, least: usize) -> impl Strategy<Value = Vec<Value>> {
    (least..4usize)
        .prop_flat_map(move |count| (0..count).map(|n| container(format!("{prefix}{n}"))).collect::<Vec<_>>())
}

fn volumes() -> impl Strategy<Value = Vec<Value>> {
    let name = prop_oneof![5 => "[a-c]".prop_map(String::from), 1 => Just(MODEL_VOLUME.to_owned())];
    prop::collection::vec(name.prop_map(|name| json!({"name": name, "emptyDir": {}})), 0..3)
}

fn affinity() -> impl Strategy<Value = Value> {
    let term = json!({"weight": 1, "preference": {"matchExpressions": [{"key": "k", "operator": "Exists"}]}});
    prop::sample::select(vec![
        json!({}),
        json!({"podAntiAffinity": {}}),
        json!({"nodeAffinity": {}}),
        json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}),
        json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}),
    ])
}

fn annotations() -> impl Strategy<Value = Value> {
    let some = |key: &'static str, values: Vec<&'static str>| {
        prop::option::of(prop::sample::select(values))
            .prop_map(move |value| value.map(|v| (key.to_owned(), v)))
    };
    (
        some(POD_CONTAINERS, vec!["c0", "c0, i0", "none", ""]),
        some(POD_MOUNT_PATH, vec!["/models", "/data", "relative"]),
        some(POD_GATE, vec!["false", "true"]),
        some(CHOSEN_GROUP, vec!["a", "b", "z"]),
    )
        .prop_map(|(a, b, c, d)| {
            json!([a, b, c, d].into_iter().flatten().collect::<std::collections::BTreeMap<_, _>>())
        })
}

prop_compose! {
    fn pod()(
        kserves in any::<bool>(), annotations in annotations(), containers in containers("c", 1),
        init in prop::option::of(containers("i", 0)), volumes in prop::option::of(volumes()),
        affinity in prop::option::of(affinity()),
    ) -> Value {
        let mut pod = if kserves { kserves_pod() } else { vllm() };
        let claim = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let spec = &mut pod["spec"];
        spec["containers"].as_array_mut().unwrap().extend(containers);
        spec["another"] = json!("field of a later Kubernetes");
        for (field, value) in [("initContainers", init), ("volumes", volumes.map(|v| [claim, v].concat()))] {
            if let Some(value) = value {
                spec[field] = json!(value);
            }
        }
        if let Some(affinity) = affinity {
            spec["affinity"] = affinity;
        }
        annotated(pod, &annotations)
    }
}

/// Whether `after` has all that `before` has: objects may have gained fields and lists elements, at the
/// front or at the end.
fn is_kept(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            before.iter().all(|(key, value)| after.get(key).is_some_and(|after| is_kept(value, after)))
        }
        (Value::Array(before), Value::Array(after)) => {
            let same = |window: &[Value]| before.iter().zip(window).all(|(b, a)| is_kept(b, a));
            before.len() <= after.len() && after.windows(before.len().max(1)).any(same) || before.is_empty()
        }
        _ => before == after,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutating_twice_changes_nothing_and_everything_is_kept(pod in pod()) {
        let known = known(&["workers", "a", "b"]);
        let Ok(once) = known.mutate(&pod) else { return Ok(()) };
        prop_assert!(is_kept(&pod, &once), "lost:\n{pod:#}\n{once:#}");
        prop_assert_eq!(known.mutate(&once), Ok(once.clone()));
        let (metadata, spec) = (&once["metadata"], &once["spec"]);
        prop_assert_eq!(&pod["metadata"], metadata);
        // What was added is ours alone.
        for (field, value) in spec.as_object().unwrap() {
            let ours = ["initContainers", "containers", "volumes", "affinity"].contains(&field.as_str());
            prop_assert!(ours || pod["spec"][field] == *value, "{field}");
        }
    }

    #[test]
    fn containers_that_are_not_named_are_untouched(pod in pod()) {
        let pod = with(pod, "/metadata/annotations", json!({POD_CONTAINERS: "c0"}));
        let known = known(&["workers"]);
        let Ok(mutated) = known.mutate(&pod) else { return Ok(()) };
        let of = |pod: &Value, list: &str| -> Vec<Value> {
            let all = pod["spec"][list].as_array().cloned().unwrap_or_default();
            let other = |c: &Value| c["name"] != json!("c0") && c["name"] != json!(GATE_CONTAINER);
            all.into_iter().filter(other).collect()
        };
        for list in ["containers", "initContainers"] {
            prop_assert_eq!(of(&pod, list), of(&mutated, list));
        }
    }

    #[test]
    fn pods_without_a_label_ask_for_nothing(pod in pod()) {
        let bare = with(pod, "/metadata/labels", json!({"app": "web"}));
        prop_assert_eq!(wish(&from(bare)), None);
    }
}
