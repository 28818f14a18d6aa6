use serde::de::DeserializeOwned;

use super::*;

/// The documents of the manifest that is installed.
fn installed<K: Resource<DynamicType = ()> + DeserializeOwned>() -> K {
    let text = include_str!("../../../deploy/base/webhooks.yaml");
    let mut all = text.split("\n---\n").map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    let found = all.find(|document| document["kind"] == json!(K::kind(&())));
    serde_json::from_value(found.expect("a document of the kind")).unwrap()
}

#[test]
fn the_installed_manifest_is_what_the_operator_keeps() {
    assert_eq!(installed::<ValidatingWebhookConfiguration>(), validating("kserve", None).unwrap());
    assert_eq!(installed::<MutatingWebhookConfiguration>(), mutating("kserve", None).unwrap());
}

/// KServe's own configuration, as its manifests make it.
fn kserves() -> ValidatingWebhookConfiguration {
    serde_json::from_value(json!({
        "metadata": {
            "name": VALIDATING_WEBHOOKS,
            "resourceVersion": "7",
            "annotations": {"cert-manager.io/inject-ca-from": "kserve/localmodel-serving-cert", "mine": "stays"},
        },
        "webhooks": [{
            "name": "localmodelcache.kserve-webhook-server.validator",
            "clientConfig": {"service": {
                "name": "localmodel-webhook-server-service", "namespace": "kserve",
                "path": "/validate-serving-kserve-io-v1alpha1-localmodelcache",
            }},
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1beta1"],
        }],
    }))
    .unwrap()
}

#[test]
fn kserves_entry_is_replaced_and_nothing_else_writes_the_bundle_any_more() {
    let wanted = validating("kserve", Some("authority")).unwrap();
    let patch = correction(&kserves(), &wanted).unwrap().expect("a patch");
    let names: Vec<_> =
        patch["webhooks"].as_array().unwrap().iter().map(|entry| entry["name"].clone()).collect();
    assert_eq!(
        names,
        [
            "caches.localmodel.kserve.io",
            "namespacecaches.localmodel.kserve.io",
            "nodegroups.localmodel.kserve.io"
        ]
    );
    let metadata = json!({"resourceVersion": "7", "annotations": {"cert-manager.io/inject-ca-from": null}});
    assert_eq!(patch["metadata"], metadata);
}

#[test]
fn a_configuration_as_wanted_is_not_written() {
    let wanted = mutating("kserve", Some("authority")).unwrap();
    assert_eq!(correction(&wanted, &wanted).unwrap(), None);
}

#[test]
fn an_edit_an_entry_too_many_and_another_bundle_are_put_right() {
    let wanted = validating("kserve", Some("authority")).unwrap();
    let mut edited = wanted.clone();
    edited.webhooks.as_mut().unwrap()[0].failure_policy = Some("Ignore".into());
    let mut more = wanted.clone();
    more.webhooks.as_mut().unwrap().extend(kserves().webhooks.unwrap());
    let other = validating("kserve", Some("another")).unwrap();
    for live in [edited, more, other, validating("kserve", None).unwrap()] {
        let patch = correction(&live, &wanted).unwrap().expect("a patch");
        assert_eq!(patch["webhooks"], serde_json::to_value(&wanted).unwrap()["webhooks"]);
    }
}

#[test]
fn an_authority_is_trusted_when_every_entry_has_it() {
    let both = validating("kserve", Some("one\ntwo\n")).unwrap();
    assert!(trusts(&both, "one\n").unwrap() && trusts(&both, "two\n").unwrap());
    assert!(!trusts(&both, "three\n").unwrap());
    assert!(!trusts(&validating("kserve", None).unwrap(), "one\n").unwrap());
    let mut half = both;
    half.webhooks.as_mut().unwrap()[1].client_config.ca_bundle = None;
    assert!(!trusts(&half, "one\n").unwrap());
}

#[test]
fn only_what_is_guarded_fails_closed_and_kserves_pods_never_do() {
    let policies = |value: Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entries = value["webhooks"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| (text(&entry["name"]), text(&entry["failurePolicy"]))).collect()
    };
    let pods = policies(json!(mutating("kserve", None).unwrap()));
    let expected = [("pods.localmodel.kserve.io", "Fail"), ("kserve-pods.localmodel.kserve.io", "Ignore")];
    assert_eq!(pods, expected.map(|(name, policy)| (name.to_owned(), policy.to_owned())));
    let checks = policies(json!(validating("kserve", None).unwrap()));
    assert!(checks.iter().all(|(_, policy)| policy == "Fail"), "{checks:?}");
}
