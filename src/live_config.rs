//! The settings as they are now: a change takes effect without a restart, and one that cannot be read
//! leaves the last good settings in force.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};

use crate::config::{Config, ConfigError};
use crate::plan::names::CONFIG_MAP;
use crate::watch::{Change, Watch, watch};

/// The watched ConfigMap and what was last read from it.
#[derive(Debug)]
pub struct LiveConfig {
    /// The watch, for readiness checks.
    pub maps: Watch<ConfigMap>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    version: Option<String>,
    config: Arc<Config>,
    problem: Option<ConfigError>,
}

impl LiveConfig {
    /// Starts to watch the ConfigMap in this namespace.
    pub fn start(
        client: &Client,
        namespace: &str,
        on: impl FnMut(Change<ConfigMap>) + Send + 'static,
    ) -> Self {
        let selector = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
        let maps = watch(Api::namespaced(client.clone(), namespace), selector, on);
        Self { maps, last: Mutex::default() }
    }

    /// Waits until it is known whether there is a ConfigMap.
    pub async fn ready(&self) {
        // An error means that the watch has ended, which it does with this value alone.
        let _ = self.maps.store.wait_until_ready().await;
    }

    /// The settings in force. No ConfigMap means the defaults.
    pub fn get(&self) -> Arc<Config> {
        let map = self.maps.store.state().into_iter().next();
        let version = map.as_ref().and_then(|map| map.resource_version());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.version != version {
            last.version = version;
            match Config::read(map.as_deref()) {
                Ok(config) => (last.config, last.problem) = (Arc::new(config), None),
                Err(error) => {
                    tracing::warn!(key = error.key, %error, "settings cannot be read, the last good ones stay");
                    last.problem = Some(error);
                }
            }
        }
        last.config.clone()
    }

    /// The ConfigMap and what is wrong with it, where it cannot be read.
    pub fn problem(&self) -> Option<(Arc<ConfigMap>, ConfigError)> {
        self.get(); // looks at what is there now
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Some((self.maps.store.state().into_iter().next()?, last.problem.clone()?))
    }
}
