//! Logs, health checks and metrics of the long-running commands.

mod logfmt;
pub mod metrics;

use std::net::{Ipv6Addr, SocketAddr};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::download::progress::Above;
use crate::error::{Doing, Error};
use crate::plan::agent::METRICS_PATH;
use crate::server::{self, Limits};

/// Kubelets, Prometheus and people ask, without a body.
const LIMITS: Limits = Limits { connections: 64, body: 1 << 10, all_bodies: 64 << 10, answered: 64 };

/// Starts logging to standard error: for people on a terminal, JSON with `LOG_FORMAT=json`, else logfmt. `RUST_LOG` sets the level; `info` without it.
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
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    if std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().flatten_event(true).init();
    } else if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        builder.init();
    } else {
        builder.event_format(logfmt::Logfmt).init();
    }
}

/// What is logged. The client of the API server logs whole answers that it cannot read, and these may be
/// Secrets: below errors it is heard only when it is asked for by its name.
fn filter(asked: Option<&str>) -> EnvFilter {
    let asked = asked.filter(|asked| !asked.trim().is_empty());
    let wanted = match asked {
        None => "info,kube_client=error,kube_runtime=error".to_owned(),
        Some(asked) if asked.contains("kube_client") => asked.to_owned(),
        Some(asked) => format!("{asked},kube_client=error"),
    };
    EnvFilter::try_new(wanted).unwrap_or_else(|_| filter(None))
}

/// Serves [`router`] on this port; ends only with an error.
pub async fn serve(port: u16, router: Router) -> Result<(), Error> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener =
        tokio::net::TcpListener::bind(address).await.doing(|| format!("listening on {address}"))?;
    let secure = |stream| std::future::ready(Ok::<_, std::io::Error>(stream));
    // Without a sender it would stop at once.
    let (_stop, stopped) = watch::channel(false);
    server::serve(listener, secure, router, LIMITS, stopped).await;
    Ok(())
}

/// Answers `/healthz` while `is_well`, `/readyz` once `waiting_for` has nothing to name, until when it says what it is
/// waiting for, and `/metrics` with what `metrics` says (O2).
pub fn router<H, W, M>(is_well: H, waiting_for: W, metrics: M) -> Router
where
    H: Fn() -> bool + Clone + Send + Sync + 'static,
    W: Fn() -> Vec<String> + Clone + Send + Sync + 'static,
    M: Fn() -> String + Clone + Send + Sync + 'static,
{
    let ready = move || async move {
        let missing = waiting_for();
        if missing.is_empty() {
            (StatusCode::OK, "ok\n".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", ")))
        }
    };
    let metrics = move || async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics()) };
    let health = move || async move {
        if is_well() {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the disk does not respond\n")
        }
    };
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route(METRICS_PATH, get(metrics))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn the_client_of_the_api_server_keeps_what_it_reads_to_itself_unless_it_is_asked_by_name() {
        for (asked, quiet) in [
            (None, true),
            (Some(""), true),
            (Some("debug"), true),
            (Some("localmodel=trace"), true),
            (Some("not=a=filter"), true),
            (Some("info,kube_client=debug"), false),
        ] {
            assert_eq!(filter(asked).to_string().contains("kube_client=error"), quiet, "{asked:?}");
        }
    }

    #[tokio::test]
    async fn readiness_says_what_it_waits_for_and_metrics_come_in_prometheus_format() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (waits, well) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let lives = well.clone();
        let asked = waits.clone();
        let missing = move || {
            if asked.load(Ordering::Relaxed) {
                vec!["nodes".to_owned(), "webhook".to_owned()]
            } else {
                vec![]
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            axum::serve(
                listener,
                router(move || lives.load(Ordering::Relaxed), missing, || "a 1\n".to_owned()),
            )
            .await
        });
        let get = async |path: &str| reqwest::get(format!("http://{address}{path}")).await.unwrap();
        assert_eq!(get("/healthz").await.status(), 200);
        well.store(false, Ordering::Relaxed);
        assert_eq!(get("/healthz").await.status(), 503);
        let ready = get("/readyz").await;
        assert_eq!(
            (ready.status().as_u16(), &*ready.text().await.unwrap()),
            (503, "waiting for nodes, webhook\n")
        );
        waits.store(false, Ordering::Relaxed);
        assert_eq!(get("/readyz").await.status(), 200);
        let metrics = get("/metrics").await;
        assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(metrics.text().await.unwrap(), "a 1\n");
    }
}
