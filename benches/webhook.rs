//! How long the webhook server takes for a pod, over HTTPS on connections that stay open, as the API server
//! keeps them: 1,000 caches of two groups each, 1,000 nodes.
//!
//!     just bench-webhook

#![allow(clippy::unwrap_used, missing_docs)] // it measures, or it ends

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use localmodel::api::{
    ClusterStorageContainer, LocalModelCache, LocalModelNamespaceCache, LocalModelNodeGroup,
};
use localmodel::config::EgressSettings;
use localmodel::plan::certificates::server_names;
use localmodel::plan::names::CacheKey;
use localmodel::plan::users::User;
use localmodel::plan::webhooks::PODS_PATH;
use localmodel::webhook::{Clients, Identity, World, authority, router, serve};
use reqwest::{Certificate, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const CACHES: usize = 1000;
const NODES: usize = 1000;
const REQUESTS: usize = 10_000;

struct Known {
    caches: Store<LocalModelCache>,
    namespace_caches: Store<LocalModelNamespaceCache>,
    groups: Store<LocalModelNodeGroup>,
    nodes: Store<Node>,
}

/// A store as a watch fills it.
fn store<K>(objects: impl Iterator<Item = Value>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    writer.apply_watcher_event(&Event::InitDone);
    store
}

impl World for Known {
    fn cache(&self, name: &str) -> Option<Arc<LocalModelCache>> {
        self.caches.get(&ObjectRef::new(name))
    }
    fn namespace_cache(&self, namespace: &str, name: &str) -> Option<Arc<LocalModelNamespaceCache>> {
        self.namespace_caches.get(&ObjectRef::new(name).within(namespace))
    }
    fn group(&self, name: &str) -> Option<Arc<LocalModelNodeGroup>> {
        self.groups.get(&ObjectRef::new(name))
    }
    fn caches(&self) -> Vec<Arc<LocalModelCache>> {
        self.caches.state()
    }
    fn namespace_caches(&self) -> Vec<Arc<LocalModelNamespaceCache>> {
        self.namespace_caches.state()
    }
    fn containers(&self) -> Vec<Arc<ClusterStorageContainer>> {
        Vec::new()
    }

    fn egress(&self) -> EgressSettings {
        EgressSettings::default()
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.state()
    }
    async fn users_now(&self, _: &CacheKey) -> Vec<User> {
        Vec::new()
    }
    fn image(&self) -> &'static str {
        "localmodel:1"
    }
    fn standing_back(&self) -> Option<String> {
        None
    }
    async fn cache_now(&self, _: &str) -> Option<Arc<LocalModelCache>> {
        None
    }
    async fn namespace_cache_now(&self, _: &str, _: &str) -> Option<Arc<LocalModelNamespaceCache>> {
        None
    }
    async fn caches_now(&self) -> Option<Vec<Arc<LocalModelCache>>> {
        None
    }
    async fn is_gone_now(&self, _: &CacheKey) -> bool {
        false
    }
    async fn has_group_now(&self, _: &str) -> bool {
        false
    }
}

/// 1,000 caches, of groups `a` and `b`. All nodes but the last belong to `a`, and the last to `b`.
fn known() -> Known {
    let cache = |n: usize| {
        json!({
            "metadata": {"name": format!("model-{n}")},
            "spec": {"sourceModelUri": format!("hf://acme/model-{n}"), "modelSize": "10Gi", "nodeGroups": ["a", "b"]},
        })
    };
    let own = |n: usize| {
        let mut own = cache(n);
        own["metadata"]["namespace"] = json!(format!("team-{}", n % 50));
        own
    };
    let group = |name: &str| {
        let mut group: Value =
            serde_saphyr::from_str(include_str!("../fixtures/walkthrough/local-model-node-group.yaml"))
                .unwrap();
        group["metadata"]["name"] = json!(name);
        group["spec"]["persistentVolumeSpec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] =
            json!([{"matchExpressions": [{"key": "group", "operator": "In", "values": [name]}]}]);
        group
    };
    let node = |n: usize| {
        let group = if n + 1 == NODES { "b" } else { "a" };
        json!({"metadata": {"name": format!("node-{n}"), "labels": {"group": group, "kubernetes.io/os": "linux"}}})
    };
    Known {
        caches: store((0..CACHES).map(cache)),
        namespace_caches: store((CACHES..CACHES + 100).map(own)),
        groups: store(["a", "b"].into_iter().map(group)),
        nodes: store((0..NODES).map(node)),
    }
}

/// A pod as a Deployment of vLLM makes it. Its selector leaves all of the first group out, so that every node
/// is looked at.
fn question(n: usize) -> String {
    let labels = json!({"app": "vllm", "localmodel.kserve.io/model": format!("model-{}", n % CACHES)});
    let environment: Vec<_> = (0..30).map(|n| json!({"name": format!("VLLM_{n}"), "value": "x"})).collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "vllm-", "labels": labels},
        "spec": {
            "nodeSelector": {"group": "b"},
            "containers": [
                {"name": "vllm", "image": "vllm/vllm-openai", "env": environment, "args": ["--model", "/mnt/models"]},
                {"name": "proxy", "image": "proxy", "volumeMounts": [{"name": "config", "mountPath": "/etc/proxy"}]},
            ],
            "volumes": [{"name": "config", "configMap": {"name": "proxy"}}],
        },
    });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": format!("question-{n}"), "namespace": "team-7", "operation": "CREATE", "userInfo": {},
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": pod, "oldObject": null,
        },
    })
    .to_string()
}

/// Asks one request after the other on each connection, or so many a second in all.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small numbers
async fn measure(client: &Client, url: &str, connections: u32, rate: Option<u32>) {
    let of_one = REQUESTS / connections as usize;
    let pause = rate.map(|rate| Duration::from_secs(1) * connections / rate);
    let clients = (0..connections as usize).map(|connection| async move {
        let mut times = Vec::with_capacity(of_one);
        // One connection after the other, as pods come.
        let turn =
            |pause: Duration| Instant::now() + pause.mul_f64(connection as f64 / f64::from(connections));
        let mut pace = pause.map(|pause| tokio::time::interval_at(turn(pause).into(), pause));
        for n in 0..of_one {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            let body = question(connection * of_one + n);
            let start = Instant::now();
            let answer = client.post(url).body(body).send().await.unwrap().text().await.unwrap();
            times.push(start.elapsed());
            assert!(answer.contains("JSONPatch"), "{answer}");
        }
        times
    });
    let mut times: Vec<Duration> = futures::future::join_all(clients).await.into_iter().flatten().collect();
    times.sort();
    let at = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        format!("{:.2} ms", times[place.min(times.len() - 1)].as_secs_f64() * 1000.0)
    };
    let pace = rate.map_or("back to back".into(), |rate| format!("{rate} a second"));
    println!(
        "{connections} connection(s), {pace}: p50 {}, p99 {}, longest {} of {} requests",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
}

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let pair = authority::make("kserve", Timestamp::now()).unwrap();
    let (identity, known) = (Arc::new(Identity::default()), Arc::new(known()));
    identity.set(pair.clone()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (_stop, stopped) = oneshot::channel();
    tokio::spawn(serve(listener, Clients::new(identity, None).unwrap(), router(known), stopped));

    let [name, _] = server_names("kserve");
    let authorities = Certificate::from_pem_bundle(pair.ca.as_bytes()).unwrap();
    let client = Client::builder().tls_certs_only(authorities).resolve(&name, address).build().unwrap();
    let url = format!("https://{name}:{}{PODS_PATH}", address.port());
    println!(
        "pod webhook, {CACHES} caches, {NODES} nodes, server and client in one process (cargo bench --bench webhook)"
    );
    measure(&client, &url, 1, None).await;
    measure(&client, &url, 8, Some(500)).await;
}
