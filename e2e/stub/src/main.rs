//! A stand-in for an inference server: it reads the model that is mounted, every byte of it, and answers
//! every request with what it read. Where that is not a whole model it ends at once, and loudly.

mod model;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use axum::{Json, Router};
use clap::Parser;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::model::Model;

/// A model server that answers with what it read
#[derive(Parser)]
#[command(name = "localmodel-stub", version)]
struct Args {
    /// The folder of the model
    #[arg(long, env = "MODEL_DIR", default_value = "/mnt/models")]
    model_dir: PathBuf,
    /// The name under which it is served; the last one counts, as with the real server
    #[arg(long = "model_name", default_value = "model", overrides_with = "model_name")]
    model_name: String,
    /// Where it listens
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

/// Where Kubernetes reads why a container ended.
const TERMINATION_LOG: &str = "/dev/termination-log";

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let said = format!("the model cannot be served: {error:#}");
            eprintln!("{said}");
            // Outside a container there is no such file.
            drop(std::fs::write(TERMINATION_LOG, said));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    // As process 1 of a container it has no default handlers: without this it could only be killed.
    let mut terminate = signal(SignalKind::terminate())?;
    let since = Instant::now();
    let model = Model::read(&args.model_dir)?;
    println!("read {} files of {} in {:?}", model.files.len(), model.source, since.elapsed());
    let answer = json!({"model": args.model_name, "source": model.source, "files": model.files});
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let every = move || async move { Json::<Value>(answer) };
    let app = Router::new().fallback(every);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await
        .context("serving")
}
