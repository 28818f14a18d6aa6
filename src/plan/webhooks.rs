//! The webhook configurations: which requests wait for the webhook server, and which authority the API
//! server trusts it by (O5, D6).
//!
//! What is guarded fails closed; all else never waits. Every field is written out, the API server's
//! defaults too, so that what is there can be compared as a whole: an entry that somebody else left in the
//! list, KServe's own included, goes.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::names::{
    MANAGED_BY, MANAGER, MUTATING_WEBHOOKS, POD_MODEL, SERVICE_MODEL, VALIDATING_WEBHOOKS, WEBHOOK_SERVICE,
};

/// The path for cluster caches.
pub const CACHES_PATH: &str = "/validate-caches";
/// The path for namespace caches.
pub const NAMESPACE_CACHES_PATH: &str = "/validate-namespace-caches";
/// The path for node groups.
pub const GROUPS_PATH: &str = "/validate-node-groups";
/// The path for pods with our label.
pub const PODS_PATH: &str = "/mutate-pods";
/// The path for the pods of KServe's services.
pub const KSERVE_PODS_PATH: &str = "/mutate-kserve-pods";

/// The longest that a request waits, in seconds.
const TIMEOUT: i32 = 5;
/// What cert-manager's annotations begin with that make it write bundles: KServe's configuration has one.
const INJECT: &str = "cert-manager.io/inject-";

/// The checks of caches and groups. Without a bundle it is the manifest that is installed.
pub fn validating(
    namespace: &str,
    bundle: Option<&str>,
) -> Result<ValidatingWebhookConfiguration, serde_json::Error> {
    // What is in deletion never waits, nor does a write that changes nothing that is checked: finalizers.
    let alive = json!({
        "name": "not-in-deletion",
        "expression": "request.operation == 'CREATE' || !has(oldObject.metadata.deletionTimestamp)",
    });
    let changed = json!({
        "name": "spec-changes",
        "expression": "request.operation != 'UPDATE' || object.spec != oldObject.spec",
    });
    let server = Server { namespace, bundle };
    // A cluster cache's source cannot be changed: only a new one can be a second one.
    let caches = Entry {
        name: "caches.localmodel.kserve.io",
        path: CACHES_PATH,
        rule: rule("serving.kserve.io", "v1alpha1", "localmodelcaches", "Cluster", &["CREATE", "DELETE"]),
        conditions: json!([alive]),
    };
    let operations = ["CREATE", "UPDATE", "DELETE"];
    let namespaced =
        rule("serving.kserve.io", "v1alpha1", "localmodelnamespacecaches", "Namespaced", &operations);
    let namespace_caches = Entry {
        name: "namespacecaches.localmodel.kserve.io",
        path: NAMESPACE_CACHES_PATH,
        rule: namespaced,
        conditions: json!([alive, changed]),
    };
    let groups = Entry {
        name: "nodegroups.localmodel.kserve.io",
        path: GROUPS_PATH,
        rule: rule("serving.kserve.io", "v1alpha1", "localmodelnodegroups", "Cluster", &["DELETE"]),
        conditions: json!([alive]),
    };
    let entries = [caches, namespace_caches, groups].map(|entry| server.webhook(entry));
    serde_json::from_value(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": VALIDATING_WEBHOOKS, "labels": {MANAGED_BY: MANAGER}},
        "webhooks": entries,
    }))
}

/// The mutation of pods that use a cache. Without a bundle it is the manifest that is installed.
pub fn mutating(
    namespace: &str,
    bundle: Option<&str>,
) -> Result<MutatingWebhookConfiguration, serde_json::Error> {
    let server = Server { namespace, bundle };
    let exists = |label: &str| json!({"key": label, "operator": "Exists"});
    let pods = |name, path, policy: &str, labels: Value| {
        let rule = rule("", "v1", "pods", "Namespaced", &["CREATE"]);
        let mut webhook = server.webhook(Entry { name, path, rule, conditions: Value::Null });
        webhook["failurePolicy"] = json!(policy);
        webhook["reinvocationPolicy"] = json!("IfNeeded");
        webhook["objectSelector"] = json!({"matchExpressions": labels});
        // The cluster, and the server itself, have to be able to start without the server.
        webhook["namespaceSelector"] = json!({"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", namespace]},
        ]});
        webhook
    };
    // KServe's pods work without preference and gate: they never wait for a server that is down.
    let kserves = json!([exists(SERVICE_MODEL), {"key": POD_MODEL, "operator": "DoesNotExist"}]);
    serde_json::from_value(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": MUTATING_WEBHOOKS, "labels": {MANAGED_BY: MANAGER}},
        "webhooks": [
            pods("pods.localmodel.kserve.io", PODS_PATH, "Fail", json!([exists(POD_MODEL)])),
            pods("kserve-pods.localmodel.kserve.io", KSERVE_PODS_PATH, "Ignore", kserves),
        ],
    }))
}

/// Where the API server finds the webhook server.
#[derive(Clone, Copy)]
struct Server<'a> {
    namespace: &'a str,
    bundle: Option<&'a str>,
}

struct Entry<'a> {
    name: &'a str,
    path: &'a str,
    rule: Value,
    conditions: Value,
}

impl Server<'_> {
    fn webhook(self, entry: Entry) -> Value {
        let mut client = json!({"service": {
            "name": WEBHOOK_SERVICE, "namespace": self.namespace, "path": entry.path, "port": 443,
        }});
        if let Some(bundle) = self.bundle {
            client["caBundle"] = json!(ByteString(bundle.as_bytes().to_vec()));
        }
        let mut webhook = json!({
            "name": entry.name,
            "clientConfig": client,
            "rules": [entry.rule],
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": {},
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT,
            "admissionReviewVersions": ["v1"],
        });
        if !entry.conditions.is_null() {
            webhook["matchConditions"] = entry.conditions;
        }
        webhook
    }
}

fn rule(group: &str, version: &str, resource: &str, scope: &str, operations: &[&str]) -> Value {
    json!({
        "apiGroups": [group], "apiVersions": [version], "resources": [resource], "scope": scope,
        "operations": operations,
    })
}

/// The merge patch that makes a configuration's list the wanted one and ends what else would write it;
/// `None` when nothing differs.
pub fn correction<K: Resource + Serialize>(live: &K, wanted: &K) -> Result<Option<Value>, serde_json::Error> {
    let list =
        |configuration: &K| serde_json::to_value(configuration).map(|mut value| value["webhooks"].take());
    let wanted = list(wanted)?;
    let injectors = live.annotations().keys().filter(|key| key.starts_with(INJECT));
    let annotations: serde_json::Map<_, _> = injectors.map(|key| (key.clone(), Value::Null)).collect();
    if list(live)? == wanted && annotations.is_empty() {
        return Ok(None);
    }
    let version = live.resource_version();
    let mut patch = json!({"metadata": {"resourceVersion": version}, "webhooks": wanted});
    if !annotations.is_empty() {
        patch["metadata"]["annotations"] = Value::Object(annotations);
    }
    Ok(Some(patch))
}

/// Whether a configuration has entries and each of them trusts this authority.
pub fn trusts<K: Serialize>(live: &K, authority: &str) -> Result<bool, serde_json::Error> {
    let live = serde_json::to_value(live)?;
    let entries = live["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    for entry in entries {
        let bundle: Option<ByteString> = serde_json::from_value(entry["clientConfig"]["caBundle"].clone())?;
        if !bundle.is_some_and(|bundle| String::from_utf8_lossy(&bundle.0).contains(authority)) {
            return Ok(false);
        }
    }
    Ok(!entries.is_empty())
}

#[cfg(test)]
mod tests;
