//! The server as the API server meets it: over HTTPS, with a world that stands still.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::config::EgressSettings;
use crate::plan::certificates::{Pair, server_names};

mod answers;
mod api_server;
mod measured;
mod rotation;

/// What a test's webhooks know; what `made_now` holds only the API server knows yet.
#[derive(Default)]
struct Known {
    caches: Vec<Arc<LocalModelCache>>,
    namespace_caches: Vec<Arc<LocalModelNamespaceCache>>,
    groups: Vec<Arc<LocalModelNodeGroup>>,
    users: Vec<User>,
    /// After so many looks the users have gone; none for 0.
    users_go_after: usize,
    looks: AtomicUsize,
    standing_back: Option<String>,
    caches_made_now: Mutex<Vec<Arc<LocalModelCache>>>,
    groups_made_now: Mutex<Vec<String>>,
    gone_now: Vec<CacheKey>,
}

impl World for Known {
    fn cache(&self, name: &str) -> Option<Arc<LocalModelCache>> {
        assert_ne!(name, "panic", "a test wants to see what a fault does");
        self.caches.iter().find(|cache| cache.name_any() == name).cloned()
    }

    fn namespace_cache(&self, namespace: &str, name: &str) -> Option<Arc<LocalModelNamespaceCache>> {
        let is = |cache: &LocalModelNamespaceCache| {
            cache.name_any() == name && cache.namespace().as_deref() == Some(namespace)
        };
        self.namespace_caches.iter().find(|cache| is(cache)).cloned()
    }

    fn group(&self, name: &str) -> Option<Arc<LocalModelNodeGroup>> {
        self.groups.iter().find(|group| group.name_any() == name).cloned()
    }

    fn caches(&self) -> Vec<Arc<LocalModelCache>> {
        self.caches.clone()
    }

    fn namespace_caches(&self) -> Vec<Arc<LocalModelNamespaceCache>> {
        self.namespace_caches.clone()
    }

    fn containers(&self) -> Vec<Arc<ClusterStorageContainer>> {
        Vec::new()
    }

    fn egress(&self) -> EgressSettings {
        EgressSettings::default()
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        Vec::new()
    }

    fn image(&self) -> &'static str {
        "localmodel:1"
    }

    fn standing_back(&self) -> Option<String> {
        self.standing_back.clone()
    }

    async fn cache_now(&self, name: &str) -> Option<Arc<LocalModelCache>> {
        self.caches_made_now.lock().unwrap().iter().find(|cache| cache.name_any() == name).cloned()
    }

    async fn namespace_cache_now(&self, _: &str, _: &str) -> Option<Arc<LocalModelNamespaceCache>> {
        None
    }

    async fn caches_now(&self) -> Option<Vec<Arc<LocalModelCache>>> {
        let new = self.caches_made_now.lock().unwrap();
        Some(self.caches.iter().chain(&*new).cloned().collect())
    }

    async fn users_now(&self, _: &CacheKey) -> Vec<User> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let gone = self.users_go_after > 0 && looks >= self.users_go_after;
        if gone { Vec::new() } else { self.users.clone() }
    }

    async fn is_gone_now(&self, cache: &CacheKey) -> bool {
        self.gone_now.contains(cache)
    }

    async fn has_group_now(&self, name: &str) -> bool {
        self.groups_made_now.lock().unwrap().iter().any(|group| group == name)
    }
}

/// A server on a port of its own; it stops with this value.
struct Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Server {
    async fn start(known: Known, identity: Arc<Identity>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(serve(
            listener,
            Clients::new(identity, None).unwrap(),
            router(Arc::new(known)),
            stopped,
        ));
        Self { address, _stop: stop }
    }

    /// A client that trusts these authorities and nobody else, on new connections.
    fn client(&self, bundle: &str) -> Client {
        let authorities = Certificate::from_pem_bundle(bundle.as_bytes()).unwrap();
        // An error only says that a provider is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let [name, _] = server_names("kserve");
        Client::builder().tls_certs_only(authorities).resolve(&name, self.address).build().unwrap()
    }

    async fn post(&self, client: &Client, path: &str, body: String) -> reqwest::Result<reqwest::Response> {
        let [name, _] = server_names("kserve");
        client.post(format!("https://{name}:{}{path}", self.address.port())).body(body).send().await
    }
}

fn pair() -> Pair {
    authority::make("kserve", Timestamp::now()).unwrap()
}

/// The API server's question about an object.
fn review(operation: &str, kind: &str, object: &Value) -> Value {
    let gone = operation == "DELETE";
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "question",
            "kind": {"group": "", "version": "v1", "kind": kind},
            "resource": {"group": "", "version": "v1", "resource": "any"},
            "name": object["metadata"]["name"].as_str().unwrap_or_default(),
            "namespace": "team",
            "operation": operation,
            "userInfo": {},
            "object": if gone { &Value::Null } else { object },
            "oldObject": if gone { object } else { &Value::Null },
        },
    })
}
