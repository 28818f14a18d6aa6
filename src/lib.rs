//! Keeps LLM weights warm on the local disks of Kubernetes nodes: KServe's local-model API, an
//! operator that plans, an agent on each node that carries out, and a verified download.

pub mod agent;
pub mod api;
pub mod config;
pub mod credentials;
mod definitions;
pub mod download;
pub mod error;
pub mod live_config;
pub mod operator;
pub mod plan;
pub mod server;
pub mod status;
pub mod telemetry;
pub mod uninstall;
pub mod wait;
pub mod watch;
pub mod webhook;

/// Ends when the process is asked to stop (SIGTERM or SIGINT).
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Without a handler the signal ends the process by itself.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}
