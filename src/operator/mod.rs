//! The operator: controllers that read stores, ask the plan, and carry out what it says.
//!
//! One watch per kind fills a store and wakes the controllers; an event never carries news itself.

mod apply;
mod caches;
mod context;
mod events;
mod node_groups;
mod nodes;
mod serving;
mod settings;
mod stores;
mod users;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller;
use kube::{Client, Resource};

use crate::error::Error;
use crate::telemetry;
pub use context::Settings;
use context::{Context, own_image};
use stores::Stores;

/// Reconciles of one kind that may run at once.
const CONCURRENCY: u16 = 4;
/// Events that come this close together cause one look.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Runs until a signal ends the process.
pub async fn run(client: Client, settings: Settings) -> Result<(), Error> {
    let image = own_image(&client, &settings).await?;
    tracing::info!(namespace = settings.namespace, image, "operator starts");
    let stores = Arc::new(Stores::start(&client, &settings.namespace));
    let waiting = stores.clone();
    let health = telemetry::serve_health(settings.health_port, move || waiting.missing());
    let context = Arc::new(Context::new(client, &settings, image, stores));
    let controllers = async {
        context.stores.ready().await;
        futures::join!(unless_standing_back(&context), settings::run(context.clone()));
        Ok(())
    };
    tokio::select! {
        result = health => result,
        result = controllers => result,
        () = crate::shutdown_signal() => {
            tracing::info!("operator stops");
            Ok(())
        }
    }
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
                caches::run(context.clone()),
            )
        };
        tokio::select! {
            _ = controllers => return,
            () = stores.until(|| stores.standing_back().is_some()) => {}
        }
    }
}

fn controller_config() -> controller::Config {
    controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE)
}
