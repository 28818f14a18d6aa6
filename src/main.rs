//! The `localmodel` command: arguments and wiring.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use indicatif::MultiProgress;
use localmodel::download::progress::Above;
use localmodel::error::{Doing, Error};
use localmodel::plan::agent::HEALTH_PORT;
use localmodel::plan::names::MOUNT_PATH;
use localmodel::{agent, api, download, operator, status, telemetry, uninstall, wait};

/// Keeps LLM weights warm on the local disks of Kubernetes nodes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plan which node keeps which model, and make their volumes and agents.
    Operator {
        /// The operator's own namespace.
        #[arg(long, env = "POD_NAMESPACE", default_value = "kserve")]
        namespace: String,
        /// The image of agents and Jobs; without it, that of the operator's own pod.
        #[arg(long, env = "OWN_IMAGE")]
        image: Option<String>,
        /// The operator's own pod.
        #[arg(long, env = "POD_NAME")]
        pod: Option<String>,
        /// The port of /healthz, /readyz and /metrics.
        #[arg(long, default_value_t = HEALTH_PORT)]
        health_port: u16,
        /// The port of the webhooks.
        #[arg(long, default_value_t = 9443)]
        webhook_port: u16,
        /// A file of certificate authorities in PEM; the webhooks then answer only clients with a certificate of one.
        #[arg(long, env = "WEBHOOK_CLIENT_CA")]
        webhook_client_ca: Option<PathBuf>,
    },
    /// Keep the models of one node group on one node.
    Agent {
        /// The node group.
        #[arg(long)]
        node_group: String,
        /// The node.
        #[arg(long, env = "NODE_NAME")]
        node: String,
        /// The operator's namespace.
        #[arg(long, env = "POD_NAMESPACE", default_value = "kserve")]
        namespace: String,
        /// The agent's own image, for Jobs that name no other.
        #[arg(long, env = "OWN_IMAGE")]
        image: String,
        /// Where the node group's disk is mounted.
        #[arg(long, default_value = MOUNT_PATH)]
        root: PathBuf,
        /// Where that is on the node, for messages.
        #[arg(long, env = "DISK_PATH")]
        path: Option<String>,
        /// The port of /healthz, /readyz and /metrics.
        #[arg(long, default_value_t = HEALTH_PORT)]
        health_port: u16,
    },
    /// Fetch models into folders, verified. `localmodel SRC DEST` is the same.
    Download(download::Args),
    Verify(download::verify::Args),
    Status(status::Args),
    /// Hold a pod back until the copy that it uses is complete.
    Wait(wait::Args),
    /// Stop the operator and take agents, their volumes, warm labels and webhooks away; files, caches and
    /// all other volumes stay.
    Uninstall {
        /// The operator's namespace.
        #[arg(long, env = "POD_NAMESPACE", default_value = "kserve")]
        namespace: String,
        /// How many seconds it may take.
        #[arg(long, value_name = "SECONDS", default_value_t = 240)]
        limit: u64,
    },
    /// Print the custom resource definitions, or write each into a file of a folder.
    Crds {
        /// The folder.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads to run on: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run());
    // A thread that waits for a disk which hangs keeps no agent from ending.
    runtime.shutdown_background();
    code
}

async fn run() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let cli = cli(with_download(std::env::args().collect()));
    let bars = bars(&cli.command);
    match &bars {
        Some(bars) => telemetry::init_above(Above(bars.clone())),
        None => telemetry::init(),
    }
    let result = match cli.command {
        Command::Download(args) => return download::run(args, bars).await,
        Command::Verify(args) => return download::verify::run(args).await,
        Command::Wait(args) => return wait::run(args).await,
        Command::Crds { out } => crds(out.as_deref()),
        Command::Status(args) => status::run(args).await,
        Command::Operator { namespace, image, pod, health_port, webhook_port, webhook_client_ca } => {
            run_operator(operator::Settings {
                namespace,
                image,
                pod,
                health_port,
                webhook_port,
                webhook_client_ca,
            })
            .await
        }
        Command::Agent { node_group: group, node, namespace, image, root, path, health_port } => {
            run_agent(agent::Settings { node, group, namespace, image, root, path, health_port }).await
        }
        Command::Uninstall { namespace, limit } => {
            run_uninstall(uninstall::Settings { namespace, limit: Duration::from_secs(limit) }).await
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The command line. On the PATH as `kubectl-localmodel` it is a plugin of kubectl, and its help says how
/// it is called then.
fn cli(arguments: Vec<String>) -> Cli {
    let name = arguments.first().and_then(|first| Path::new(first).file_stem()?.to_str());
    let mut command = Cli::command();
    if name == Some("kubectl-localmodel") {
        command = command.bin_name("kubectl localmodel");
    }
    Cli::from_arg_matches(&command.get_matches_from(arguments)).unwrap_or_else(|error| error.exit())
}

/// Where a download draws its progress, if a person looks.
fn bars(command: &Command) -> Option<MultiProgress> {
    let looked_at = matches!(command, Command::Download(_)) && std::io::stderr().is_terminal();
    looked_at.then(MultiProgress::new)
}

/// A storage initializer is started with source and destination alone; that is `download`.
fn with_download(mut arguments: Vec<String>) -> Vec<String> {
    if arguments.get(1).is_some_and(|first| first.contains("://")) {
        arguments.insert(1, "download".into());
    }
    arguments
}

async fn run_operator(settings: operator::Settings) -> Result<(), Error> {
    let config = kube::Config::infer().await.map_err(kube::Error::InferConfig);
    let config = config.doing(|| "finding the cluster".into())?;
    let fence = operator::Fence::default();
    let client = fence.client(config).doing(|| "connecting to the cluster".into())?;
    // It is large, and made once.
    Box::pin(operator::run(client, fence, settings)).await
}

async fn run_agent(settings: agent::Settings) -> Result<(), Error> {
    let client = kube::Client::try_default().await.doing(|| "connecting to the cluster".into())?;
    agent::run(client, settings).await
}

async fn run_uninstall(settings: uninstall::Settings) -> Result<(), Error> {
    let client = kube::Client::try_default().await.doing(|| "connecting to the cluster".into())?;
    uninstall::run(client, &settings, |line| println!("{line}")).await
}

fn crds(out: Option<&Path>) -> Result<(), Error> {
    for crd in api::crds() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let yaml =
            api::crd_yaml(&crd).map_err(|error| Error::Setup(format!("definition {name}: {error}")))?;
        match out {
            None => println!("---\n{yaml}"),
            Some(folder) => {
                let path = folder.join(format!("{name}.yaml"));
                std::fs::write(&path, yaml).doing(|| format!("writing {}", path.display()))?;
            }
        }
    }
    Ok(())
}
