//! The agents of a node group: one `DaemonSet` on the nodes of the group (G1, G2).

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::conditions::Statement;
use super::names::{self, AGENT_ACCOUNT, MANAGED_BY, MANAGER, MOUNT_PATH};
use super::selector;
use crate::api::{LocalModelNodeGroup, quantity};
use crate::config::{Config, agent_image};

/// The group has no required node affinity, or one that matches no node (G3).
pub const NO_NODE_AFFINITY: &str = "NoNodeAffinity";
/// The group says no folder (G5).
pub const NO_PATH: &str = "NoPath";

/// A volume spec of the group has a quantity that cannot be read (G7).
pub const INVALID_QUANTITY: &str = "InvalidQuantity";

/// The `app.kubernetes.io/name` of agents' pods.
pub const AGENT_PODS: &str = "localmodel-agent";

/// The port on which the operator and the agents answer health checks and tell their metrics.
pub const HEALTH_PORT: u16 = 8081;
/// Where on that port the metrics are.
pub const METRICS_PATH: &str = "/metrics";

/// The agents of a group. `own_image` is the operator's image.
pub fn daemon_set(
    group: &LocalModelNodeGroup,
    owner: &OwnerReference,
    config: &Config,
    namespace: &str,
    own_image: &str,
) -> Result<DaemonSet, serde_json::Error> {
    let name = names::agent(&group.name_any());
    let pod_labels = BTreeMap::from([
        ("app.kubernetes.io/name", AGENT_PODS.to_owned()),
        (MANAGED_BY, MANAGER.to_owned()),
        (names::NODE_GROUP, names::label_value(&group.name_any())),
    ]);
    serde_json::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": pod_labels,
            "annotations": names::full_names(&[(names::NODE_GROUP, &group.name_any())]),
            "ownerReferences": [owner],
        },
        "spec": {
            "selector": {"matchLabels": pod_labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": pod_labels, "annotations": {
                    "prometheus.io/scrape": "true",
                    "prometheus.io/port": HEALTH_PORT.to_string(),
                    "prometheus.io/path": METRICS_PATH,
                }},
                "spec": pod(group, config, &name, own_image),
            },
        },
    }))
}

fn pod(group: &LocalModelNodeGroup, config: &Config, claim: &str, own_image: &str) -> Value {
    let mut pod = json!({
        "serviceAccountName": AGENT_ACCOUNT,
        "enableServiceLinks": false,
        "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": group.spec.node_selector(),
        }},
        "securityContext": security_context(config),
        "tolerations": config.pod.tolerations,
        "imagePullSecrets": config.pod.image_pull_secrets,
        "containers": [container(group, config, own_image)],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": claim}}],
    });
    if let Some(class) = &config.pod.priority_class_name {
        pod["priorityClassName"] = json!(class);
    }
    pod
}

fn container(group: &LocalModelNodeGroup, config: &Config, own_image: &str) -> Value {
    let (image, _) = agent_image(config, own_image);
    let mut container = json!({
        "name": "agent",
        "image": image,
        "args": ["agent", "--node-group", group.name_any()],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "OWN_IMAGE", "value": image},
            {"name": "DISK_PATH", "value": group.spec.path()},
        ],
        "ports": [{"name": "health", "containerPort": HEALTH_PORT}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "health"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 2},
        "resources": {
            "requests": {"cpu": config.agent_cpu_request, "memory": config.agent_memory_request},
            "limits": {"cpu": config.agent_cpu_limit, "memory": config.agent_memory_limit},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "models", "mountPath": MOUNT_PATH}],
    });
    if let Some(policy) = &config.agent_image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    container
}

/// The pod security that agents and our own Jobs share: the same user and the same group, so that what
/// one writes the other may move and erase.
pub fn security_context(config: &Config) -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": config.fs_group,
        "runAsGroup": config.fs_group,
        "fsGroup": config.fs_group,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// What a group lacks before agents can run for it.
pub fn problems(group: &LocalModelNodeGroup) -> Vec<Statement> {
    let mut problems = Vec::new();
    if selector::is_empty(group.spec.node_selector()) {
        problems.push(Statement::problem(
            NO_NODE_AFFINITY,
            "persistentVolumeSpec.nodeAffinity.required matches no node: say there which nodes belong to the group",
        ));
    }
    if group.spec.path().is_none() {
        problems.push(Statement::problem(
            NO_PATH,
            "persistentVolumeSpec has no local.path: say there in which folder of the nodes models are kept",
        ));
    }
    let volume = group.spec.persistent_volume_spec.capacity.iter().flatten();
    let claim = group.spec.persistent_volume_claim_spec.resources.as_ref();
    let claim = claim.into_iter().flat_map(|resources| [&resources.requests, &resources.limits]).flatten();
    for (of, quantity) in volume.chain(claim.flatten()) {
        if let Err(error) = quantity::bytes(quantity) {
            let message = format!("{of} of the volume specs cannot be read: {error}; make a new node group");
            problems.push(Statement::problem(INVALID_QUANTITY, message));
        }
    }
    problems
}

/// The same for a cache that names the group: no volume of its can be made there (G3, G5, G7).
pub fn problems_of_cache(group: &LocalModelNodeGroup) -> Vec<Statement> {
    let name = group.name_any();
    let told = |problem: Statement| {
        Statement::problem(problem.kind, format!("LocalModelNodeGroup {name}: {}", problem.message))
    };
    problems(group).into_iter().map(told).collect()
}

#[cfg(test)]
mod tests;
