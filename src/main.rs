//! The `localmodel` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use localmodel::download;
use tracing_subscriber::EnvFilter;

/// Keeps LLM weights warm on the local disks of Kubernetes nodes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Download(download::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing has installed a provider before main");
    match Cli::parse().command {
        Command::Download(args) => download::run(args).await,
    }
}
