//! Agents write the status of their own node and make and delete the download Jobs of their own node (O6).

use super::*;
use crate::api::{ClusterStorageContainer, ModelEntry};
use crate::plan::credentials::Injection;
use crate::plan::job::{Download, job};
use crate::plan::names::{self, CacheKey};
use crate::plan::recipe::Recipe;
use crate::plan::samples::{OWN_IMAGE, URI, at, config, entry, entry_of, from, hf_hub};

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
    creates_where("", node, job)
}

/// The same where the operator has written this priority class on the namespace.
fn creates_where(class: &str, node: &str, job: Value) -> Option<String> {
    let name = job["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let annotations = json!({names::PRIORITY_CLASS: class});
    let namespace = match class {
        "" => json!({"metadata": {"name": "jobs"}}),
        _ => json!({"metadata": {"name": "jobs", "annotations": annotations}}),
    };
    let asked =
        Asked { request: by_agent(node, "CREATE", "", &name), object: job, namespace, ..Asked::default() };
    refusal(&jobs(), &asked)
}

#[test]
fn whatever_name_an_agent_gives_to_a_job_of_its_node_is_let_through() {
    let long = format!("{}.{}", "n".repeat(63), "m".repeat(63));
    let caches = [
        CacheKey::cluster("m"),
        CacheKey::cluster("m".repeat(63)),
        CacheKey::namespaced("team".repeat(10), "m".repeat(20)),
    ];
    for node in [NODE, "a.b.c", &"n".repeat(43), &"n".repeat(44), &long] {
        for cache in &caches {
            let entry = ModelEntry { namespace: cache.namespace.clone(), ..entry_of(&cache.name, URI) };
            for name in [
                names::job(cache, node),
                names::job_aside(cache, node),
                names::job_unforeseen(cache, node, at(1)),
            ] {
                let mut job = made(node, &entry, &[]);
                job["metadata"]["name"] = json!(name);
                assert_eq!(creates(node, job), None, "{name}");
            }
        }
    }
}

#[test]
fn a_job_with_the_name_of_another_nodes_job_is_refused() {
    let other = format!("{}.{}", "o".repeat(63), "m".repeat(63));
    let long = format!("{}.{}", "n".repeat(63), "m".repeat(63));
    let cache = CacheKey::of(&entry());
    for (node, name) in [
        (NODE, names::job(&cache, "node-b")),
        (NODE, names::job_aside(&cache, "node-b")),
        (NODE, names::job_unforeseen(&cache, "node-b", at(1))),
        (NODE, names::job(&cache, &other)),
        (NODE, "m".to_owned()),
        (&long, names::job(&cache, &other)),
        (&long, names::job(&cache, "node-b")),
    ] {
        let mut job = made(node, &entry(), &[]);
        job["metadata"]["name"] = json!(name);
        let refused = creates(node, job).unwrap_or_default();
        assert!(refused.contains("has to end in -"), "{name}: {refused:?}");
    }
    let mut job = made(NODE, &entry(), &[]);
    job["metadata"]["generateName"] = json!("m-node-b-");
    assert!(creates(NODE, job.clone()).unwrap().contains("has to end in -"));
    job["metadata"].as_object_mut().unwrap().remove("name");
    assert!(creates(NODE, job).unwrap().contains("has to end in -"));
}

#[test]
fn a_job_has_the_priority_class_of_the_settings_and_no_other() {
    let with = |class: &str| {
        let mut job = made(NODE, &entry(), &[]);
        job["spec"]["template"]["spec"]["priorityClassName"] = json!(class);
        job
    };
    assert_eq!(creates_where("models", NODE, with("models")), None);
    assert_eq!(creates_where("models", NODE, made(NODE, &entry(), &[])), None);
    let refused = creates_where("models", NODE, with("system-cluster-critical")).unwrap();
    assert!(refused.contains("system-cluster-critical is not the one"), "{refused}");
    assert!(refused.ends_with(", models"), "{refused}");
    let refused = creates(NODE, with("system-node-critical")).unwrap();
    assert!(refused.ends_with(", which is none"), "{refused}");
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
    let holding_up = json!([{"kind": "LocalModelNode", "name": NODE, "blockOwnerDeletion": true}]);
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
        ("/metadata", "ownerReferences", holding_up, "does not hold up"),
        ("/spec/template/metadata", "finalizers", json!(["a/b"]), "no finalizer"),
        ("/spec", "parallelism", json!(100_000), "has one pod"),
        ("/spec", "parallelism", json!(0), "has one pod"),
        ("/spec", "completions", json!(2), "has one pod"),
        ("/spec", "completionMode", json!("Indexed"), "has one pod"),
        ("/spec", "backoffLimit", json!(1_000_000), "has one pod"),
        ("/spec", "backoffLimit", Value::Null, "has one pod"),
        (pod, "restartPolicy", json!("OnFailure"), "has one pod"),
        ("/spec", "activeDeadlineSeconds", Value::Null, "has an end"),
        ("/spec", "activeDeadlineSeconds", json!(2_592_001), "has an end"),
        ("/spec", "ttlSecondsAfterFinished", Value::Null, "has an end"),
        (pod, "terminationGracePeriodSeconds", json!(86_400), "has an end"),
        ("/spec", "suspend", json!(true), "by Kubernetes itself"),
        ("/spec", "manualSelector", json!(true), "by Kubernetes itself"),
        ("/spec", "managedBy", json!("example.com/another"), "by Kubernetes itself"),
        (pod, "priorityClassName", json!("system-cluster-critical"), "which is none"),
        (pod, "hostAliases", json!([{"ip": "10.0.0.1", "hostnames": ["hub"]}]), "name service"),
        (pod, "dnsConfig", json!({"nameservers": ["10.0.0.1"]}), "name service"),
        (pod, "dnsPolicy", json!("None"), "name service"),
        (pod, "schedulerName", json!("another"), "name service"),
        (pod, "runtimeClassName", json!("another"), "name service"),
        (pod, "resourceClaims", json!([{"name": "gpu"}]), "name service"),
        (pod, "schedulingGates", json!([{"name": "a/b"}]), "name service"),
        (pod, "serviceAccountName", json!("another"), "the account default"),
        (pod, "initContainers", container(json!({})), "one container"),
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
