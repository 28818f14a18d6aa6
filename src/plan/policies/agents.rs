//! Agents write the status of their own node and make and delete the download Jobs of their own node (O6).

use super::*;
use crate::api::{ClusterStorageContainer, ModelEntry};
use crate::plan::credentials::Injection;
use crate::plan::job::{Download, job};
use crate::plan::names::{self, CacheKey};
use crate::plan::recipe::Recipe;
use crate::plan::samples::{OWN_IMAGE, URI, config, entry, entry_of, from, hf_hub};

const POLICIES: &str = include_str!("../../../deploy/base/agent-policies.yaml");
const NODE: &str = "kind-worker";
const ACCOUNT: &str = "system:serviceaccount:kserve:localmodel-agent";

fn jobs() -> Value {
    policy(POLICIES, "agent-jobs.localmodel.kserve.io")
}

fn nodes() -> Value {
    policy(POLICIES, "agent-nodes.localmodel.kserve.io")
}

/// What the agent of a node asks for.
fn by_agent(node: &str, operation: &str, subresource: &str, name: &str) -> Value {
    let extra = json!({"authentication.kubernetes.io/node-name": [node]});
    json!({
        "userInfo": {"username": ACCOUNT, "extra": extra},
        "operation": operation, "subResource": subresource, "name": name,
    })
}

fn made(node: &str, entry: &ModelEntry, containers: &[ClusterStorageContainer]) -> Value {
    let containers: Vec<&ClusterStorageContainer> = containers.iter().collect();
    let owner = json!({"apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode", "name": node, "uid": "u"});
    let download = Download {
        entry,
        group: "workers",
        first: true,
        node,
        owner: from(owner),
        config: &config(),
        containers: &containers,
        own_image: OWN_IMAGE,
        restricted: false,
        credentials: &Injection::default(),
    };
    let recipe = Recipe { pod: "pod".into(), secrets: "secrets".into() };
    json!(job(&download, &recipe, &names::job(&CacheKey::of(entry), node)).unwrap())
}

fn creates(node: &str, job: Value) -> Option<String> {
    let name = job["metadata"]["name"].as_str().unwrap().to_owned();
    let asked = Asked { request: by_agent(node, "CREATE", "", &name), object: job, ..Asked::default() };
    refusal(&jobs(), &asked)
}

#[test]
fn every_job_that_agents_make_is_let_through_on_its_node_and_on_no_other() {
    let long = format!("{}.{}", "n".repeat(63), "m".repeat(63));
    let namespaced = ModelEntry { namespace: Some("team".into()), ..entry() };
    for node in [NODE, "a.b.c", &long] {
        for entry in [entry(), entry_of(&"m".repeat(63), URI), namespaced.clone()] {
            for containers in [vec![hf_hub()], Vec::new()] {
                let job = made(node, &entry, &containers);
                assert_eq!(creates(node, job.clone()), None, "{job:#}");
                let refused = creates("another", job).unwrap();
                assert!(refused.contains("may not make or delete Job"), "{refused}");
            }
        }
    }
    let near = format!("{}.{}", "n".repeat(63), "o".repeat(63));
    let refused = creates(&near, made(&long, &entry(), &[])).unwrap();
    assert_eq!(refused, format!("the Job has to run on node {near}, by node affinity to metadata.name"));
}

#[test]
fn a_job_that_is_no_download_of_the_node_is_refused() {
    let pod = "/spec/template/spec";
    let terms = "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let owner = |name: &str| json!([{"kind": "LocalModelNode", "name": name}]);
    let fields = |operator: &str, nodes: &[&str]| json!([{"matchFields": [{"key": "metadata.name", "operator": operator, "values": nodes}]}]);
    let any = json!([
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [NODE]}]},
        {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
    ]);
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([container])
    };
    let token = json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
    for (place, field, value, words) in [
        (
            "/metadata/labels",
            "node",
            json!("another"),
            "of node another: only those with label node=kind-worker",
        ),
        ("/spec/template/metadata/labels", "node", json!("another"), "the label node of its Job"),
        ("/metadata", "ownerReferences", owner("another"), "no owner but the LocalModelNode of its node"),
        ("/metadata", "finalizers", json!(["a/b"]), "no finalizer"),
        (pod, "affinity", json!({}), "has to run on node kind-worker"),
        (pod, "nodeName", json!("another"), "has to run on node kind-worker"),
        (terms, "", fields("In", &["another"]), "has to run on node kind-worker"),
        (terms, "", fields("In", &[NODE, "another"]), "has to run on node kind-worker"),
        (terms, "", fields("NotIn", &[NODE]), "has to run on node kind-worker"),
        (terms, "", any, "has to run on node kind-worker"),
        (pod, "automountServiceAccountToken", json!(true), "has to be false"),
        (pod, "automountServiceAccountToken", Value::Null, "has to be false"),
        (pod, "volumes", token, "nothing of the node"),
        (pod, "volumes", json!([{"name": "h", "hostPath": {"path": "/"}}]), "nothing of the node"),
        (pod, "volumes", json!([{"name": "c", "csi": {"driver": "d"}}]), "nothing of the node"),
        (pod, "hostNetwork", json!(true), "of its host"),
        (pod, "hostPID", json!(true), "of its host"),
        (pod, "hostIPC", json!(true), "of its host"),
        (
            pod,
            "containers",
            container(json!({"ports": [{"containerPort": 1, "hostPort": 1}]})),
            "of its host",
        ),
        (pod, "containers", container(json!({"securityContext": {"privileged": true}})), "is not privileged"),
        (
            pod,
            "initContainers",
            container(json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}})),
            "is not privileged",
        ),
    ] {
        let mut job = made(NODE, &entry(), &[]);
        let at = job.pointer_mut(place).unwrap();
        match (field, value.is_null()) {
            ("", _) => *at = value.clone(),
            (field, true) => drop(at.as_object_mut().unwrap().remove(field)),
            (field, false) => at[field] = value.clone(),
        }
        let refused = creates(NODE, job).unwrap_or_default();
        assert!(refused.contains(words), "{place} {field} {value}: {refused:?}");
    }
}

#[test]
fn an_agent_deletes_the_jobs_of_its_node_kserves_too_and_changes_none() {
    let asks = |operation, subresource, job: &Value| {
        let old = if operation == "CREATE" { Value::Null } else { job.clone() };
        let request = by_agent(NODE, operation, subresource, "j");
        refusal(&jobs(), &Asked { request, object: job.clone(), old, ..Asked::default() })
    };
    let ours = made(NODE, &entry(), &[]);
    let another = made("another", &entry(), &[]);
    let kserves = json!({
        "metadata": {"labels": {"node": NODE, "model": "m"}},
        "spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": NODE}, "containers": []}}},
    });
    let somebodys = json!({"metadata": {}, "spec": {"template": {"spec": {"containers": []}}}});
    assert_eq!(asks("DELETE", "", &ours), None);
    assert_eq!(asks("DELETE", "", &kserves), None);
    for job in [another, somebodys] {
        let refused = asks("DELETE", "", &job).unwrap();
        assert!(refused.contains("only those with label node=kind-worker"), "{refused}");
    }
    for (operation, subresource) in [("UPDATE", ""), ("UPDATE", "status"), ("CREATE", "status")] {
        let refused = asks(operation, subresource, &ours).unwrap();
        assert_eq!(refused, "an agent makes and deletes Jobs, and changes none");
    }
}

#[test]
fn an_agent_writes_the_status_of_its_own_node_and_nothing_else_of_any() {
    let asks = |operation, subresource, name| {
        let request = by_agent(NODE, operation, subresource, name);
        refusal(&nodes(), &Asked { request, ..Asked::default() })
    };
    assert_eq!(asks("UPDATE", "status", NODE), None);
    let refused = asks("UPDATE", "status", "another").unwrap();
    assert_eq!(
        refused,
        "the agent of node kind-worker may not write LocalModelNode another: only the one of its own node"
    );
    for (operation, subresource) in [("UPDATE", ""), ("CREATE", ""), ("DELETE", "")] {
        let refused = asks(operation, subresource, NODE).unwrap();
        assert!(refused.starts_with("an agent writes the status"), "{refused}");
    }
}

#[test]
fn a_token_that_names_no_node_may_do_nothing_and_other_accounts_are_not_asked() {
    for extra in [None, Some(json!({})), Some(json!({"another": ["kind-worker"]}))] {
        let mut request = by_agent(NODE, "UPDATE", "status", NODE);
        request["userInfo"].as_object_mut().unwrap().remove("extra");
        if let Some(extra) = extra {
            request["userInfo"]["extra"] = extra;
        }
        let refused = refusal(&nodes(), &Asked { request: request.clone(), ..Asked::default() }).unwrap();
        assert!(refused.contains("names no node"), "{refused}");
        request["operation"] = json!("CREATE");
        let object = made(NODE, &entry(), &[]);
        let asked = Asked { request, object, ..Asked::default() };
        assert!(refusal(&jobs(), &asked).unwrap().contains("names no node"));
    }
    let mut request = by_agent("another", "DELETE", "", NODE);
    request["userInfo"]["username"] = json!("system:serviceaccount:kserve:localmodel-operator");
    let asked = Asked { request, old: made(NODE, &entry(), &[]), ..Asked::default() };
    assert_eq!(refusal(&nodes(), &asked), None);
    assert_eq!(refusal(&jobs(), &asked), None);
}
