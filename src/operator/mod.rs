//! The operator: controllers that read stores, ask the plan, and carry out what it says.
//!
//! One watch per kind fills a store and wakes the controllers; an event never carries news itself.

mod apply;
mod cache_kind;
mod cache_volumes;
mod caches;
mod context;
mod credentials;
mod events;
mod job_namespace;
mod leader;
mod measures;
mod news;
mod node_groups;
mod nodes;
mod retired;
mod serving;
mod settings;
mod storage_containers;
mod stores;
mod users;
mod volumes;
mod webhooks;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use kube::runtime::controller;
use kube::{Client, Resource};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::api::{LocalModelCache, LocalModelNamespaceCache};
use crate::error::{Doing, Error};
use crate::telemetry;
use crate::webhook::{self, Clients, Identity, Keeper, SETTLE};
pub use context::Settings;
use context::{Context, own_image};
use leader::Candidate;
pub use leader::Fence;
use stores::Stores;

/// Reconciles of one kind that may run at once.
const CONCURRENCY: u16 = 4;
/// How long the webhooks may take to answer what was asked before the end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Runs until a signal ends the process, or it leads no longer. The client's writes are kept back by the
/// fence, which is open while this operator leads.
pub async fn run(client: Client, fence: Fence, settings: Settings) -> Result<(), Error> {
    let me = settings.pod.clone().unwrap_or_else(|| format!("process-{}", std::process::id()));
    let candidate = Candidate::new(&client, &settings.namespace, me, fence.clone());
    let image = own_image(&client, &settings).await?;
    tracing::info!(namespace = settings.namespace, image, "operator starts");
    let stores = Arc::new(Stores::start(&client, &settings.namespace));
    let identity = Arc::new(Identity::default());
    let keeper = Arc::new(Keeper::start(&client, &settings.namespace, SETTLE, identity.clone()));
    let context = Arc::new(Context::new(client, &settings, image, stores));
    let health = telemetry::serve(settings.health_port, health(&context, &keeper, fence));
    let (stop, stopped) = oneshot::channel();
    let clients = Clients::new(identity, settings.webhook_client_ca)?;
    let mut webhooks = tokio::spawn(webhooks(context.clone(), settings.webhook_port, clients, stopped));
    let controllers = async {
        context.stores.ready().await;
        candidate.elected().await;
        // Certificates are kept also while standing back: admission goes on.
        keeper.lead();
        retired::remove(&context.client).await;
        let work = async {
            futures::join!(
                unless_standing_back(&context),
                settings::run(context.clone()),
                storage_containers::run(context.clone()),
                job_namespace::run(context.clone()),
            )
        };
        tokio::select! {
            lost = candidate.lead() => Err(lost),
            _ = work => Ok(()),
        }
    };
    tokio::select! {
        result = health => result,
        result = controllers => result,
        () = keeper.run() => Ok(()),
        result = &mut webhooks => result.unwrap_or_else(|error| Err(Error::Setup(error.to_string()))),
        () = crate::shutdown_signal() => {
            tracing::info!("operator stops");
            candidate.leave().await;
            drop(stop);
            // What was asked is answered, as far as that is a matter of moments.
            let _ = tokio::time::timeout(LAST_ANSWERS, webhooks).await;
            Ok(())
        }
    }
}

/// What is asked whether the operator lives, is ready, and how it fares (O2).
fn health(context: &Arc<Context>, keeper: &Arc<Keeper>, fence: Fence) -> Router {
    let (waiting, kept, measured) = (context.clone(), keeper.clone(), context.clone());
    let missing = move || {
        let missing = waiting.stores.missing();
        missing.into_iter().chain(kept.missing().map(Into::into)).collect()
    };
    telemetry::router(|| true, missing, move || measures::text(&measured, &fence))
}

/// Runs the controllers for as long as KServe's own does not: two writers would undo each other for ever
/// (O1). Each change is looked at anew, so that neither start nor end depends on an event that was missed.
async fn unless_standing_back(context: &Arc<Context>) {
    let stores = &context.stores;
    loop {
        if let (Some(why), Some(rival)) = (stores.standing_back(), stores.rival()) {
            tracing::warn!(why, "standing back");
            context.events.warn(rival.object_ref(&()), "StandingBack", why).await;
            stores.until(|| stores.standing_back().is_none()).await;
        }
        tracing::info!("stores are in step, controllers start");
        let controllers = async {
            futures::join!(
                node_groups::run(context.clone()),
                nodes::run(context.clone()),
                caches::run::<LocalModelCache>(context.clone()),
                caches::run::<LocalModelNamespaceCache>(context.clone()),
            )
        };
        tokio::select! {
            _ = controllers => return,
            () = stores.until(|| stores.standing_back().is_some()) => {}
        }
    }
}

/// Serves the webhooks once the stores are in step, until it is told to stop.
async fn webhooks(
    context: Arc<Context>,
    port: u16,
    clients: Clients,
    stop: oneshot::Receiver<()>,
) -> Result<(), Error> {
    context.stores.ready().await;
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address).await.doing(|| format!("listening on {address}"))?;
    let metrics = context.metrics.clone();
    let measure = move |path: &str, denied, took| metrics.webhook(path, denied, took);
    let router = webhook::measured(webhook::router(context), measure);
    webhook::serve(listener, clients, router, stop).await;
    Ok(())
}

fn controller_config() -> controller::Config {
    controller::Config::default().concurrency(CONCURRENCY)
}
