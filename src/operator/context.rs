//! What every controller of the operator shares.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::{Api, Client};

use super::credentials::Looks;
use super::events::Events;
use super::stores::Stores;
use crate::error::{Doing, Error};
use crate::telemetry::metrics::OperatorMetrics;

/// How the operator is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's own namespace; agents run there too.
    pub namespace: String,
    /// The image for agents and Jobs; without it, that of the operator's own pod.
    pub image: Option<String>,
    /// The operator's own pod.
    pub pod: Option<String>,
    /// The port of the health checks.
    pub health_port: u16,
    /// The port of the webhook server.
    pub webhook_port: u16,
    /// The file of the authorities whose certificates the webhook server asks of its clients; without it, it asks for
    /// none.
    pub webhook_client_ca: Option<PathBuf>,
}

/// Client, stores, settings and metrics.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) image: String,
    pub(super) stores: Arc<Stores>,
    pub(super) events: Events,
    /// The last looks at the credentials of namespace caches.
    pub(super) looks: Looks,
    pub(super) metrics: Arc<OperatorMetrics>,
    /// Whether the cluster's definition of caches drops our own status fields.
    pub(super) plain_caches: Pruned,
    /// The same for namespace caches.
    pub(super) plain_namespace_caches: Pruned,
    /// The same for node groups.
    pub(super) plain_groups: Pruned,
}

/// Whether a kind's definition drops fields of ours: KServe's own definitions do. It shows in what a
/// write returns; from then on those fields are neither needed nor written.
#[derive(Debug, Default)]
pub(super) struct Pruned(AtomicBool);

impl Pruned {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, kind: &str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::info!(
                kind,
                "the definition of this kind keeps no conditions: only KServe's own status is written"
            );
        }
    }
}

impl Context {
    pub(super) fn new(client: Client, settings: &Settings, image: String, stores: Arc<Stores>) -> Self {
        let metrics = Arc::new(OperatorMetrics::default());
        Self {
            events: Events::new(client.clone(), settings.pod.clone(), metrics.clone()),
            metrics,
            client,
            namespace: settings.namespace.clone(),
            image,
            stores,
            looks: Looks::default(),
            plain_caches: Pruned::default(),
            plain_namespace_caches: Pruned::default(),
            plain_groups: Pruned::default(),
        }
    }
}

/// The image of the operator's own pod, so that agents and Jobs run what the operator runs.
pub(super) async fn own_image(client: &Client, settings: &Settings) -> Result<String, Error> {
    if let Some(image) = &settings.image {
        return Ok(image.clone());
    }
    let Some(name) = &settings.pod else {
        return Err(Error::Setup(
            "say which image agents and Jobs run: set OWN_IMAGE, or POD_NAME in a pod".into(),
        ));
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &settings.namespace);
    let pod = pods.get(name).await.doing(|| format!("reading the operator's own pod {name}"))?;
    let image = pod.spec.and_then(|spec| spec.containers.into_iter().find(|c| c.name == "operator")?.image);
    image.ok_or_else(|| Error::Setup(format!("pod {name} has no container named operator")))
}

/// When an object that something stands in the way of is looked at again.
pub(super) const RECHECK: Duration = Duration::from_secs(20);

/// When a failed reconcile is tried again: at once where another write came between, else later.
pub(super) fn retry(error: &Error, kind: &str, name: &str) -> Action {
    if error.is_conflict() {
        return Action::requeue(Duration::from_secs(1));
    }
    tracing::warn!(kind, name, %error, "reconcile failed, trying again");
    Action::requeue(Duration::from_secs(10))
}
