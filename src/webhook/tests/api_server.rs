//! As much of an API server as a keeper needs: one Secret, two webhook configurations, lists, watches and
//! writes with preconditions.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures::stream;
use tokio::sync::watch;

use super::*;
use crate::plan::names::{MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, WEBHOOK_SECRET};

/// The state, and all that happened: the position in the list is the resource version.
#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Value>,
    events: Vec<(String, Value)>,
    writes: Vec<String>,
}

pub(super) struct ApiServer {
    state: Mutex<Inner>,
    happened: watch::Sender<usize>,
}

pub(super) const SECRETS: &str = "secrets";
pub(super) const VALIDATING: &str = "validatingwebhookconfigurations";
pub(super) const MUTATING: &str = "mutatingwebhookconfigurations";

impl ApiServer {
    /// Starts with these objects and returns a client of it.
    pub(super) async fn start(objects: &[(&str, Value)]) -> (Arc<Self>, kube::Client) {
        let server = Arc::new(Self { state: Mutex::default(), happened: watch::Sender::new(0) });
        for (resource, object) in objects {
            server.put(resource, object.clone());
        }
        let router = Router::new()
            .route("/api/v1/namespaces/kserve/{resource}", any(collection))
            .route("/api/v1/namespaces/kserve/{resource}/{name}", any(object))
            .route("/apis/admissionregistration.k8s.io/v1/{resource}", any(collection))
            .route("/apis/admissionregistration.k8s.io/v1/{resource}/{name}", any(object))
            .with_state(server.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        (server, client)
    }

    /// The two configurations as they are installed.
    pub(super) fn installed() -> Vec<(&'static str, Value)> {
        vec![
            (VALIDATING, json!(webhooks::validating("kserve", None).unwrap())),
            (MUTATING, json!(webhooks::mutating("kserve", None).unwrap())),
        ]
    }

    /// The one object of a resource.
    pub(super) fn get(&self, resource: &str) -> Option<Value> {
        self.state().objects.get(resource).cloned()
    }

    /// What was written through the API, oldest first.
    pub(super) fn writes(&self) -> Vec<String> {
        self.state().writes.clone()
    }

    /// Makes or changes an object behind everybody's back.
    pub(super) fn put(&self, resource: &str, mut object: Value) {
        let mut state = self.state();
        let kind = if state.objects.contains_key(resource) { "MODIFIED" } else { "ADDED" };
        object["metadata"]["resourceVersion"] = json!((state.events.len() + 1).to_string());
        state.events.push((resource.to_owned(), json!({"type": kind, "object": object})));
        state.objects.insert(resource.to_owned(), object);
        self.happened.send_replace(state.events.len());
    }

    pub(super) fn delete(&self, resource: &str) {
        let mut state = self.state();
        if let Some(mut object) = state.objects.remove(resource) {
            object["metadata"]["resourceVersion"] = json!((state.events.len() + 1).to_string());
            state.events.push((resource.to_owned(), json!({"type": "DELETED", "object": object})));
        }
        self.happened.send_replace(state.events.len());
    }

    /// Waits until this holds.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        let all = async {
            while !holds(self) {
                look.tick().await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_mins(1), all).await;
        assert!(ended.is_ok(), "waited a minute for {what}; writes: {:?}", self.writes());
    }

    fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, resource: &str) -> Value {
        let state = self.state();
        json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": state.events.len().to_string()},
            "items": state.objects.get(resource).into_iter().collect::<Vec<_>>(),
        })
    }

    /// All events of a resource after a position, and those that come.
    fn events(self: Arc<Self>, resource: String, after: usize) -> Body {
        let happened = self.happened.subscribe();
        Body::from_stream(stream::unfold((after, happened), move |(mut at, mut happened)| {
            let (server, resource) = (self.clone(), resource.clone());
            async move {
                loop {
                    let event = server.state().events.get(at).cloned();
                    match event {
                        Some((of, event)) => {
                            at += 1;
                            if of == resource {
                                return Some((Ok::<_, std::io::Error>(format!("{event}\n")), (at, happened)));
                            }
                        }
                        None => happened.changed().await.ok()?,
                    }
                }
            }
        }))
    }
}

async fn collection(
    State(server): State<Arc<ApiServer>>,
    Path(resource): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    method: Method,
    body: Bytes,
) -> Response {
    if method == Method::POST {
        if server.get(&resource).is_some() {
            return refused(StatusCode::CONFLICT);
        }
        server.state().writes.push(format!("POST {resource}"));
        let mut object: Value = serde_json::from_slice(&body).unwrap();
        object["metadata"]["namespace"] = json!("kserve");
        object["metadata"]["uid"] = json!(format!("uid-{}", server.state().events.len()));
        server.put(&resource, object);
        return answered(&server.get(&resource).unwrap_or_default());
    }
    let names = [(SECRETS, WEBHOOK_SECRET), (VALIDATING, VALIDATING_WEBHOOKS), (MUTATING, MUTATING_WEBHOOKS)];
    let name = names.iter().find(|(of, _)| *of == resource).unwrap().1;
    assert_eq!(
        query.get("fieldSelector"),
        Some(&format!("metadata.name={name}")),
        "the rights end at this name"
    );
    if query.get("watch").is_some_and(|watch| watch == "true") {
        let after = query["resourceVersion"].parse().unwrap();
        return server.events(resource, after).into_response();
    }
    answered(&server.list(&resource))
}

async fn object(
    State(server): State<Arc<ApiServer>>,
    Path((resource, _)): Path<(String, String)>,
    method: Method,
    body: Bytes,
) -> Response {
    let Some(mut live) = server.get(&resource) else { return refused(StatusCode::NOT_FOUND) };
    let body: Value = serde_json::from_slice(&body).unwrap();
    if method == Method::DELETE {
        assert_eq!(body["preconditions"]["uid"], live["metadata"]["uid"]);
        server.state().writes.push(format!("DELETE {resource}"));
        server.delete(&resource);
        return answered(&json!({"kind": "Status", "status": "Success"}));
    }
    assert_eq!(method, Method::PATCH);
    if body["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"] {
        return refused(StatusCode::CONFLICT);
    }
    assert_ne!(live["immutable"], json!(true), "an immutable Secret cannot be patched");
    server.state().writes.push(format!("PATCH {resource}"));
    json_patch::merge(&mut live, &body);
    server.put(&resource, live.clone());
    answered(&live)
}

fn answered(value: &Value) -> Response {
    value.to_string().into_response()
}

fn refused(code: StatusCode) -> Response {
    let status =
        json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "message": code.to_string()});
    (code, status.to_string()).into_response()
}
