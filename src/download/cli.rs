//! `localmodel download`: KServe's storage-initializer contract on the command line (F1).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use indicatif::MultiProgress;
use tokio::signal::unix::{SignalKind, signal};

use super::budget::{Allowance, MOST_FILES};
use super::error::{Error, Failure, Result};
use super::job::download;
use super::limits::Limits;
use super::pairs::{self, Pair};
use super::settings::Settings;
use super::source::without_secrets;
use super::variables::Variables;

/// Downloads models: each source into the folder that follows it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A source, and the folder that its files are put into; as many pairs as are wanted
    ///
    /// Sources look like `hf://owner/model[:revision]`, `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `https://account.blob.core.windows.net/container/prefix`, `https://host/file` or `file:///path`.
    #[arg(required = true, num_args = 2.., value_names = ["SRC", "DEST"])]
    pairs: Vec<String>,

    /// Files that are fetched at the same time
    #[arg(long, env = "LOCALMODEL_STREAMS", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=32))]
    streams: u8,

    /// Seconds without a byte after which a connection is given up
    #[arg(long, env = "LOCALMODEL_STALL_SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    stall_seconds: u64,

    /// MiB of memory for bytes on their way to the disk; the whole process takes about 30 more
    #[arg(long, env = "LOCALMODEL_MEMORY_MIB", default_value_t = 48)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    memory_mib: u16,

    /// The most bytes of a source, unpacked archives included [default: no limit]
    #[arg(long, env = "LOCALMODEL_MAX_BYTES")]
    max_bytes: Option<u64>,

    /// The most files of a source
    #[arg(long, env = "LOCALMODEL_MAX_FILES", default_value_t = MOST_FILES)]
    max_files: usize,

    /// Where the reason of a failure is written for Kubernetes, if that file exists
    #[arg(long, env = "TERMINATION_LOG", default_value = "/dev/termination-log", hide = true)]
    termination_log: PathBuf,
}

/// Runs the subcommand, with progress bars on a terminal. The process-wide TLS provider and the subscriber for
/// logs are its caller's.
pub async fn run(args: Args, bars: Option<MultiProgress>) -> ExitCode {
    let (pairs, rest) = args.pairs.as_chunks::<2>();
    if let [source] = rest {
        let source = without_secrets(source);
        return usage(
            ErrorKind::WrongNumberOfValues,
            format!("{source:?} has no folder to go to: sources and folders come in pairs"),
        );
    }
    let pairs = match pairs::pairs(pairs) {
        Ok(pairs) => pairs,
        Err(why) => return usage(ErrorKind::ArgumentConflict, why),
    };
    let done = tokio::select! {
        done = download_all(&args, &pairs, bars) => done,
        signal = terminated() => Err(Error::Interrupted { signal }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Failure::from(&error).tell(&args.termination_log);
            ExitCode::FAILURE
        }
    }
}

async fn download_all(args: &Args, pairs: &[Pair], bars: Option<MultiProgress>) -> Result<()> {
    let settings = Settings {
        streams: args.streams.into(),
        limits: Limits { stall: Duration::from_secs(args.stall_seconds), ..Limits::default() },
        allowance: Allowance { bytes: args.max_bytes.unwrap_or(u64::MAX), files: args.max_files },
        bars,
        ..Settings::from_env(Variables::of_process()?)?
    }
    .with_memory(usize::from(args.memory_mib) << 20);
    for Pair { source, dest, reserved } in pairs {
        let settings = Settings { reserved: reserved.clone(), ..settings.clone() };
        download(&settings, source, dest).await?;
    }
    Ok(())
}

fn usage(kind: ErrorKind, message: String) -> ExitCode {
    let command = <Args as clap::Args>::augment_args(clap::Command::new("localmodel download"));
    // Where standard error is closed there is nobody to tell.
    let _ = command.clone().error(kind, message).print();
    ExitCode::from(2)
}

/// Returns at SIGTERM or SIGINT, which a container's first process has to ask for.
async fn terminated() -> &'static str {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
