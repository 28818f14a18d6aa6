//! What every way to install puts into a cluster: the kustomize overlays and the Helm chart, as they render
//! and beside each other. `hack/just unit` sees to kubectl and helm.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside the tests

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

/// Objects by kind, namespace and name.
type Objects = BTreeMap<String, Value>;

fn output(program: &str, arguments: &[&str]) -> String {
    let command = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}; `hack/just unit` sees to {program}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn objects(yaml: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let name = |object: &Value| {
        let part = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("-").to_owned();
        format!("{} {} {}", part("/kind"), part("/metadata/namespace"), part("/metadata/name"))
    };
    let count = documents.len();
    let objects: Objects = documents.into_iter().map(|object| (name(&object), object)).collect();
    assert_eq!(objects.len(), count, "an object stands there twice");
    objects
}

fn kustomized(folder: &str) -> Objects {
    objects(&output("kubectl", &["kustomize", folder]))
}

fn templated(flags: &[&str]) -> Objects {
    let chart = ["template", "localmodel", "charts/localmodel", "--namespace", "kserve"];
    objects(&output("helm", &[&chart, flags].concat()))
}

const BESIDE_KSERVE: [&str; 2] = ["--set", "kserve.present=true"];

/// The objects of a release as kustomize makes them: without the notes that tell Helm what to do with them.
fn without_notes(objects: Objects) -> Objects {
    let without = |mut object: Value| {
        let metadata = object["metadata"].as_object_mut().unwrap();
        if let Some(notes) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            notes.retain(|note, _| !note.starts_with("helm.sh/"));
        }
        if metadata.get("annotations") == Some(&json!({})) {
            metadata.remove("annotations");
        }
        object
    };
    objects.into_iter().map(|(name, object)| (name, without(object))).collect()
}

/// Fails with the names of what only one side has, then with the first object that differs.
fn assert_same(chart: &Objects, kustomize: &Objects) {
    let only = |one: &Objects, other: &Objects| -> Vec<String> {
        one.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
    };
    let (missing, more) = (only(kustomize, chart), only(chart, kustomize));
    assert!(missing.is_empty(), "kustomize installs what the chart lacks: {missing:#?}");
    assert!(more.is_empty(), "the chart installs what kustomize lacks: {more:#?}");
    for (name, object) in kustomize {
        assert_eq!(chart[name], *object, "{name}");
    }
}

/// What `deploy/FOLDER` and `deploy/uninstall` install, other than the namespace that is the release's own.
fn with_uninstall(folder: &str) -> Objects {
    let mut all = kustomized(folder);
    all.extend(kustomized("deploy/uninstall"));
    all.remove("Namespace - kserve");
    all
}

#[test]
fn the_chart_installs_what_kustomize_installs() {
    assert_same(&without_notes(templated(&[])), &with_uninstall("deploy/standalone"));
}

#[test]
fn beside_kserve_the_chart_installs_what_that_overlay_installs() {
    assert_same(&without_notes(templated(&BESIDE_KSERVE)), &with_uninstall("deploy/kserve"));
}

#[test]
fn beside_kserve_our_definitions_come_when_they_are_asked_for() {
    let flags = [&BESIDE_KSERVE[..], &["--set", "crds.install=true"]].concat();
    let mut wanted = with_uninstall("deploy/kserve");
    wanted.extend(kustomized("crds"));
    assert_same(&without_notes(templated(&flags)), &wanted);
}

#[test]
fn beside_kserve_nothing_is_ours_that_kserve_or_others_have_things_in() {
    let kinds = ["CustomResourceDefinition", "Namespace", "ConfigMap", "ClusterStorageContainer"];
    for ours in [kustomized("deploy/kserve"), templated(&BESIDE_KSERVE)] {
        let shared: Vec<_> =
            ours.keys().filter(|name| kinds.iter().any(|kind| name.starts_with(kind))).collect();
        assert!(shared.is_empty(), "{shared:?}");
    }
}

#[test]
fn definitions_and_the_namespace_of_jobs_stay_when_the_release_goes() {
    let kept: Vec<_> = templated(&[])
        .into_iter()
        .filter(|(_, object)| object["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep")
        .map(|(name, _)| name)
        .collect();
    let mut wanted: Vec<_> = kustomized("crds").into_keys().collect();
    wanted.push("Namespace - kserve-localmodel-jobs".into());
    assert_eq!(kept, wanted);
}

#[test]
fn before_the_release_is_deleted_exactly_the_uninstall_objects_are_made_and_the_job_last() {
    let notes = |object: &Value, note: &str| object["metadata"]["annotations"][note].clone();
    let hooks: Objects =
        templated(&[]).into_iter().filter(|(_, object)| !notes(object, "helm.sh/hook").is_null()).collect();
    assert_eq!(hooks.keys().collect::<Vec<_>>(), kustomized("deploy/uninstall").keys().collect::<Vec<_>>());
    for object in hooks.values() {
        assert_eq!(notes(object, "helm.sh/hook"), "pre-delete");
        assert_eq!(notes(object, "helm.sh/hook-weight"), if object["kind"] == "Job" { "1" } else { "0" });
    }
}

#[test]
fn a_release_elsewhere_has_everything_there() {
    let flags =
        ["--namespace", "models", "--set", "localModel.jobNamespace=model-jobs", "--set", "image=r.io/l:1"];
    let release = templated(&flags);
    let names = |object: &Value| -> Vec<String> {
        let subjects = object["subjects"].as_array().cloned().unwrap_or_default();
        let webhooks = object["webhooks"].as_array().cloned().unwrap_or_default();
        let services = webhooks.iter().map(|webhook| webhook["clientConfig"]["service"].clone());
        let named = [object["metadata"].clone()].into_iter().chain(subjects).chain(services);
        named.filter_map(|named| named["namespace"].as_str().map(Into::into)).collect()
    };
    for (name, object) in release.iter().filter(|(_, object)| object["kind"] != "CustomResourceDefinition") {
        assert!(names(object).iter().all(|n| n == "models" || n == "model-jobs"), "{name} is elsewhere");
        let text = object.to_string();
        assert!(
            !text.contains("kserve-localmodel-jobs") && !text.contains("serviceaccount:kserve:"),
            "{name}"
        );
    }
    assert!(release.contains_key("Namespace - model-jobs"));
    let image = |name: &str| release[name]["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image("Deployment models localmodel-operator"), "r.io/l:1");
    assert_eq!(image("Job models localmodel-uninstall"), "r.io/l:1");
}

#[test]
fn values_reach_the_settings_the_operators_pod_and_its_container() {
    let values = r#"{"enabled": true, "jobNamespace": "kserve-localmodel-jobs", "fsGroup": 2000}"#;
    let release = templated(&[
        "--set-json",
        &format!("localModel={values}"),
        "--set",
        "storageInitializer.caBundleConfigMapName=private-ca",
        "--set-json",
        r#"operator={"pod": {"nodeSelector": {"a": "b"}}, "resources": {"limits": {"memory": "1Gi"}}}"#,
    ]);
    let settings =
        release["ConfigMap kserve inferenceservice-config"]["data"]["localModel"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(settings).unwrap(),
        serde_json::from_str::<Value>(values).unwrap()
    );
    let of_initializer = &release["ConfigMap kserve inferenceservice-config"]["data"]["storageInitializer"];
    let of_initializer: Value = serde_json::from_str(of_initializer.as_str().unwrap()).unwrap();
    assert_eq!(of_initializer, json!({"caBundleConfigMapName": "private-ca"}));
    for name in ["Deployment kserve localmodel-operator", "Job kserve localmodel-uninstall"] {
        let pod = &release[name]["spec"]["template"]["spec"];
        assert_eq!(pod["nodeSelector"], json!({"a": "b"}), "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
    }
    let operator =
        &release["Deployment kserve localmodel-operator"]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(operator["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
}

#[test]
fn what_jobs_may_reach_and_how_many_there_may_be_is_set_by_values_and_can_be_left_out() {
    let (policy, quota) = (
        "NetworkPolicy kserve-localmodel-jobs localmodel-jobs",
        "ResourceQuota kserve-localmodel-jobs localmodel-jobs",
    );
    let mirror = r#"{"clusterRanges": ["10.0.0.0/8", "fd00::/8"], "egress": [{"ports": [{"port": 8080}]}]}"#;
    for flags in [&[][..], &BESIDE_KSERVE] {
        let set = templated(
            &[
                flags,
                &[
                    "--set-json",
                    &format!("jobs.networkPolicy={mirror}"),
                    "--set-json",
                    r#"jobs.quota.hard={"pods": "7"}"#,
                ],
            ]
            .concat(),
        );
        let egress = &set[policy]["spec"]["egress"];
        assert_eq!(egress[1]["to"][0]["ipBlock"], json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}));
        assert_eq!(egress[1]["to"][1]["ipBlock"], json!({"cidr": "::/0", "except": ["fd00::/8"]}));
        assert_eq!(egress[2], json!({"ports": [{"port": 8080}]}));
        assert_eq!(set[quota]["spec"]["hard"], json!({"count/jobs.batch": "20000", "pods": "7"}));
        let off = ["--set", "jobs.networkPolicy.enabled=false,jobs.quota.enabled=false"];
        let off = templated(&[flags, &off].concat());
        assert!(!off.contains_key(policy) && !off.contains_key(quota));
    }
}

#[test]
fn replicas_disruptions_and_who_reaches_the_webhooks_are_set_by_values() {
    let (budget, policy, deployment) = (
        "PodDisruptionBudget kserve localmodel-operator",
        "NetworkPolicy kserve localmodel-operator",
        "Deployment kserve localmodel-operator",
    );
    let from = r#"[{"ipBlock": {"cidr": "10.0.0.10/32"}}]"#;
    let release = templated(&[
        "--set-json",
        &format!("operator.webhook.from={from}"),
        "--set",
        "operator.replicas=3,operator.webhook.clientCA.configMap=api-server-ca,operator.podDisruptionBudget.enabled=false",
    ]);
    assert_eq!(release[policy]["spec"]["ingress"][0]["from"], serde_json::from_str::<Value>(from).unwrap());
    assert_eq!(release[policy]["spec"]["ingress"][1]["from"], Value::Null, "health checks and metrics");
    assert!(!release.contains_key(budget));
    assert_eq!(release[deployment]["spec"]["replicas"], 3);
    let pod = &release[deployment]["spec"]["template"]["spec"];
    assert_eq!(
        pod["volumes"],
        json!([{"name": "webhook-client-ca", "configMap": {"name": "api-server-ca"}}])
    );
    let container = &pod["containers"][0];
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/webhook-client-ca");
    let file = json!({"name": "WEBHOOK_CLIENT_CA", "value": "/webhook-client-ca/ca.crt"});
    assert!(container["env"].as_array().unwrap().contains(&file), "{container}");

    let off = templated(&["--set", "operator.networkPolicy.enabled=false"]);
    assert!(!off.contains_key(policy) && off.contains_key(budget));
}

#[test]
fn a_misspelt_value_is_refused() {
    let output = Command::new("helm")
        .args(["template", "charts/localmodel", "--set", "kserve.presnt=true"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("presnt"), "{said}");
}

/// As a text in one order, whoever rendered it. Of the definitions, which stand in `crds/`, the names.
fn reviewable(objects: &Objects) -> String {
    let text = |(name, object): (&String, &Value)| match object["kind"].as_str() {
        Some("CustomResourceDefinition") => format!("# {name}\n"),
        _ => format!("---\n{}", serde_saphyr::to_string(object).unwrap()),
    };
    objects.iter().map(text).collect()
}

macro_rules! as_reviewed {
    ($($test:ident: $objects:expr;)*) => {$(
        #[test]
        fn $test() {
            insta::assert_snapshot!(reviewable(&$objects));
        }
    )*};
}

as_reviewed! {
    kustomize_standalone_is_as_reviewed: kustomized("deploy/standalone");
    kustomize_beside_kserve_is_as_reviewed: kustomized("deploy/kserve");
    kustomize_uninstall_is_as_reviewed: kustomized("deploy/uninstall");
    helm_standalone_is_as_reviewed: templated(&[]);
    helm_beside_kserve_is_as_reviewed: templated(&BESIDE_KSERVE);
}
