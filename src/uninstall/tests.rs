//! The command against an API server that keeps objects in a map.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use crate::plan::names;
use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};

const AGENT: &str = "/apis/apps/v1/namespaces/kserve/daemonsets/workers-agent";
const CLAIM: &str = "/api/v1/namespaces/kserve/persistentvolumeclaims/workers-agent";
const VOLUME: &str = "/api/v1/persistentvolumes/workers-agent";
const CACHE_VOLUME: &str = "/api/v1/persistentvolumes/m-download";
const CACHE: &str = "/apis/serving.kserve.io/v1alpha1/localmodelcaches/m";
const GROUP: &str = "/apis/serving.kserve.io/v1alpha1/localmodelnodegroups/workers";
const NODE: &str = "/api/v1/nodes/kind-worker";
const OPERATORS_POD: &str = "/api/v1/namespaces/kserve/pods/localmodel-operator-0";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/kserve/deployments/localmodel-operator";
const OUR_WEBHOOKS: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/localmodel.serving.kserve.io";
const WEBHOOKS: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/localmodelcache.serving.kserve.io";

/// An API server: its objects by path, and the writes that were asked of it.
struct Server {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    /// Whether an operator that is scaled to 0 ends.
    operator_ends: bool,
    /// Whether our kinds are defined.
    defined: bool,
}

impl Server {
    fn answer(&mut self, method: &Method, uri: &Uri, body: &str) -> Option<Value> {
        let path = uri.path();
        if method != Method::GET {
            self.writes.push(format!("{method} {path}"));
        }
        match *method {
            Method::GET if self.objects.contains_key(path) => self.objects.get(path).cloned(),
            // The last segment of an object's path is the only one with a dash or a dot in these tests.
            Method::GET if path.rsplit('/').next()?.contains(['-', '.']) => None,
            Method::GET => self.list(path, uri.query().unwrap_or_default()),
            Method::DELETE => self
                .objects
                .remove(path)
                .map(|_| json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
            _ => self.patch(path, &serde_json::from_str(body).unwrap()),
        }
    }

    fn list(&self, path: &str, query: &str) -> Option<Value> {
        if path.starts_with("/apis/serving") && !self.defined {
            return None;
        }
        let of_us = query.contains("managed-by");
        let items = self.objects.iter().filter(|(at, _)| at.starts_with(&format!("{path}/")));
        let items = items.filter(|(_, object)| !of_us || object["metadata"]["labels"][MANAGED_BY] == MANAGER);
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        let kind = "PartialObjectMetadataList";
        Some(json!({"apiVersion": "meta.k8s.io/v1", "kind": kind, "metadata": {}, "items": items}))
    }

    fn patch(&mut self, at: &str, patch: &Value) -> Option<Value> {
        if let Some(deployment) = at.strip_suffix("/scale") {
            assert_eq!(*patch, json!({"spec": {"replicas": 0}}));
            self.objects.get(deployment)?;
            if self.operator_ends {
                self.objects.remove(OPERATORS_POD);
            }
            return Some(json!({"metadata": {}, "spec": {"replicas": 0}}));
        }
        let object = self.objects.get_mut(at)?;
        for (label, value) in patch["metadata"]["labels"].as_object().into_iter().flatten() {
            assert!(value.is_null(), "{label} is not taken away");
            object["metadata"]["labels"].as_object_mut()?.remove(label);
        }
        if !patch["webhooks"].is_null() {
            object["webhooks"] = patch["webhooks"].clone();
        }
        Some(object.clone())
    }
}

/// A cluster with a warm node, whose operator runs.
fn warm() -> Server {
    let labelled = |labels: Value| json!({"metadata": {"labels": labels}});
    let of_agents = labelled(json!({MANAGED_BY: MANAGER, names::NODE_GROUP: "workers"}));
    let of_cache = labelled(json!({MANAGED_BY: MANAGER, names::NODE_GROUP: "workers", names::CACHE: "m"}));
    let node = json!({"kubernetes.io/os": "linux", names::warm_label("c277d78a31bc6624", None): "workers"});
    let entry = |service: &str| {
        let service = json!({"name": service, "namespace": "kserve"});
        json!({"name": "an.example.com", "clientConfig": {"service": service}})
    };
    let (ours, theirs) = (entry(names::WEBHOOK_SERVICE), entry("theirs"));
    let objects = [
        (DEPLOYMENT, json!({})),
        (OPERATORS_POD, labelled(json!({"app.kubernetes.io/name": OPERATOR}))),
        (WEBHOOKS, json!({"webhooks": [ours, theirs]})),
        (OUR_WEBHOOKS, json!({"webhooks": [ours]})),
        (AGENT, of_agents.clone()),
        (CLAIM, of_agents.clone()),
        (VOLUME, of_agents),
        (CACHE_VOLUME, of_cache),
        (NODE, labelled(node)),
        (CACHE, json!({})),
        (GROUP, json!({})),
    ];
    let named = |(path, mut object): (&str, Value)| {
        object["metadata"]["name"] = json!(path.rsplit('/').next());
        object["apiVersion"] = json!("meta.k8s.io/v1");
        object["kind"] = json!("PartialObjectMetadata");
        (path.to_owned(), object)
    };
    let objects = objects.into_iter().map(named).collect();
    Server { objects, writes: Vec::new(), operator_ends: true, defined: true }
}

type Shared = State<Arc<Mutex<Server>>>;

/// Runs the command; returns how it ended, what it said, and the server afterwards.
async fn uninstalled(server: Server, limit: Duration) -> (Result<(), Error>, Vec<String>, Server) {
    let server = Arc::new(Mutex::new(server));
    let answer = |State(server): Shared, method: Method, uri: Uri, body: String| async move {
        let missing = json!({"status": "Failure", "reason": "NotFound", "code": 404});
        match server.lock().unwrap().answer(&method, &uri, &body) {
            Some(object) => (StatusCode::OK, object.to_string()),
            None => (StatusCode::NOT_FOUND, missing.to_string()),
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let app = Router::new().fallback(answer).with_state(server.clone());
    let serving = tokio::spawn(async { axum::serve(listener, app).await });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(kube::Config::new(url)).unwrap();
    let settings = Settings { namespace: "kserve".into(), limit };
    let said = Mutex::new(Vec::new());
    let result = run(client, &settings, |line| said.lock().unwrap().push(line)).await;
    serving.abort();
    let _ = serving.await;
    let server = std::mem::replace(&mut *server.lock().unwrap(), warm());
    (result, said.into_inner().unwrap(), server)
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_operator_ends_first_then_all_goes_that_is_not_the_caches() {
    let (result, said, server) = uninstalled(warm(), LONG).await;
    result.unwrap();
    insta::assert_snapshot!(said.join("\n"));
    assert_eq!(server.writes.first(), Some(&format!("PATCH {DEPLOYMENT}/scale")));
    let left: Vec<&str> = server.objects.keys().map(String::as_str).collect();
    assert_eq!(left, [NODE, CACHE_VOLUME, WEBHOOKS, DEPLOYMENT, CACHE, GROUP]);
    assert_eq!(server.objects[NODE]["metadata"]["labels"], json!({"kubernetes.io/os": "linux"}));
    assert_eq!(server.objects[WEBHOOKS]["webhooks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_second_time_nothing_is_taken_away_whether_or_not_the_deployment_is_there() {
    let (_, _, mut server) = uninstalled(warm(), LONG).await;
    server.writes.clear();
    server.objects.remove(DEPLOYMENT);
    let (result, said, server) = uninstalled(server, LONG).await;
    result.unwrap();
    assert_eq!(server.writes, [format!("PATCH {DEPLOYMENT}/scale")]);
    assert!(said.iter().all(|line| !line.starts_with("took away")), "{said:?}");
}

#[tokio::test]
async fn where_our_kinds_are_not_defined_there_are_simply_none() {
    let server = Server { defined: false, ..warm() };
    let (result, said, _) = uninstalled(server, LONG).await;
    result.unwrap();
    assert!(said.contains(&"left        caches: 0".to_owned()), "{said:?}");
}

#[tokio::test]
async fn an_operator_that_does_not_end_is_named_and_nothing_is_taken_away() {
    let server = Server { operator_ends: false, ..warm() };
    let (result, _, server) = uninstalled(server, Duration::ZERO).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("Pod localmodel-operator-0"), "{error}");
    assert_eq!(server.writes, [format!("PATCH {DEPLOYMENT}/scale")]);
}
