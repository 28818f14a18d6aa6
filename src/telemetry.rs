//! Logs and health checks of the long-running commands.

use std::net::{Ipv6Addr, SocketAddr};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::download::progress::Above;
use crate::error::{Doing, Error};

/// Starts logging to standard error: text on a terminal or with `LOG_FORMAT=text`, else JSON with
/// `LOG_FORMAT=json`. `RUST_LOG` sets the level; `info` without it.
pub fn init() {
    init_to(std::io::stderr);
}

/// The same, above the progress bars of a download.
pub fn init_above(bars: Above) {
    init_to(move || bars.clone());
}

fn init_to<W>(writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=error,kube_runtime=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    if std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().flatten_event(true).init();
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(terminal).init();
    }
}

/// Answers `/healthz` always and `/readyz` once `waiting_for` has nothing to name; until then it says
/// what it is waiting for (O2). Ends only with an error.
pub async fn serve_health<F>(port: u16, waiting_for: F) -> Result<(), Error>
where
    F: Fn() -> Vec<String> + Clone + Send + Sync + 'static,
{
    let ready = move || async move {
        let missing = waiting_for();
        if missing.is_empty() {
            (StatusCode::OK, "ok\n".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", ")))
        }
    };
    let app = Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready));
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener =
        tokio::net::TcpListener::bind(address).await.doing(|| format!("listening on {address}"))?;
    axum::serve(listener, app).await.doing(|| "serving health checks".into())
}
