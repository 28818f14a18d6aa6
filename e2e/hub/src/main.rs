//! The mock hub as a server of its own, for a cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use localmodel_hub::{Access, Addresses, Hub, Model, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A mock Hugging Face hub over generated models.
#[derive(Parser)]
#[command(name = "localmodel-hub", version)]
struct Args {
    /// Where the hub listens: repositories, revisions, small files
    #[arg(long, default_value = "0.0.0.0:8080")]
    hub: SocketAddr,
    /// Where the CDN listens: large files by signed URL
    #[arg(long, default_value = "0.0.0.0:8081")]
    cdn: SocketAddr,
    /// Where tests add models and faults
    #[arg(long, default_value = "0.0.0.0:8082")]
    control: SocketAddr,
    /// The CDN's origin in signed URLs, if clients reach it by another name than its address
    #[arg(long, value_name = "URL")]
    public_cdn: Option<String>,
}

/// The models that are there from the start; the control port adds others.
fn catalogue() -> Vec<Model> {
    vec![
        Model::llama("meta-llama/meta-llama-3-8b-instruct").size(8 << 20).shards(4).access(Access::Gated),
        Model::llama("acme/tiny").size(1 << 20).shards(1),
        Model::llama("acme/other").size(2 << 20).shards(2),
    ]
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // As process 1 of a container it has no default handlers: without these it could only be killed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let args = Args::parse();
    let addresses = Addresses { hub: args.hub, cdn: args.cdn, public_cdn: args.public_cdn };
    let control = TcpListener::bind(args.control)
        .await
        .with_context(|| format!("cannot listen on {} (--control)", args.control))?;
    let hub = Hub::listen(addresses, catalogue())
        .await
        .with_context(|| format!("cannot listen on {} (--hub) and {} (--cdn)", args.hub, args.cdn))?;
    println!("hub {}, CDN {}, control http://{}", hub.endpoint(), hub.cdn(), control.local_addr()?);
    tokio::select! {
        ended = serve(control, Arc::new(hub)) => Ok(ended?),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
