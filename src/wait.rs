//! `localmodel wait`: the gate of pods that use a cache. It ends when the copy on this node is complete,
//! and says meanwhile what it waits for (S11).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use crate::api::ModelStatus;
use crate::download::{Failure, rate};
use crate::plan::gate::GateStatus;
use crate::plan::names::{GATE_MODEL, GATE_NODE};

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two lines that tell nothing but progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// More than any status of ours has; what is longer is not one.
const LONGEST: u64 = 64 << 10;

/// Waits until the copy of a model on this node is complete.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file in which the node's agent says how the copy fares
    path: PathBuf,

    /// The cache, for people
    #[arg(long, env = GATE_MODEL, default_value = "")]
    model: String,

    /// The node, for people
    #[arg(long, env = GATE_NODE, default_value = "")]
    node: String,

    /// How long it waits while nothing moves, for example `30m`
    #[arg(long, default_value = "30m", value_parser = positive)]
    patience: SignedDuration,

    /// Where the reason for giving up is written for Kubernetes, if that file exists
    #[arg(long, env = "TERMINATION_LOG", default_value = "/dev/termination-log", hide = true)]
    termination_log: PathBuf,
}

fn positive(text: &str) -> Result<SignedDuration, String> {
    let patience: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    if patience.is_positive() { Ok(patience) } else { Err("it must be more than 0".into()) }
}

/// Runs the subcommand.
pub async fn run(args: Args) -> ExitCode {
    let patience = args.patience.unsigned_abs();
    let (path, patience_seconds) = (args.path.display(), patience.as_secs());
    let (model, node) = (args.model.as_str(), args.node.as_str());
    tracing::info!(model, node, %path, patience_seconds, "waiting until the copy on this node is complete");
    let begun = Instant::now();
    let mut watch = Watch::new(patience);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    // A container's first process has to ask for the signals that end it.
    let mut stop = std::pin::pin!(crate::shutdown_signal());
    loop {
        tokio::select! {
            biased; // signals are asked for before the first look
            () = &mut stop => return ExitCode::FAILURE,
            _ = looks.tick() => {}
        }
        match watch.decide(look(&args.path), begun.elapsed()) {
            Decision::Hold(None) => {}
            Decision::Hold(Some(line)) => {
                tracing::info!(model, node, state = line, "the copy is not complete yet");
            }
            Decision::Open => {
                tracing::info!(model, node, "the copy is complete");
                return ExitCode::SUCCESS;
            }
            Decision::GiveUp(failure) => {
                failure.tell(&args.termination_log);
                return ExitCode::FAILURE;
            }
        }
    }
}

/// What the file says; `None` where there is none, or none that can be read.
fn look(path: &Path) -> Option<GateStatus> {
    let is_short = std::fs::metadata(path).ok()?.len() <= LONGEST;
    serde_json::from_slice(&is_short.then(|| std::fs::read(path).ok())??).ok()
}

/// What to do after a look.
#[derive(Clone, Debug, PartialEq)]
enum Decision {
    /// Look again; the line tells people what is new.
    Hold(Option<String>),
    /// The copy is complete.
    Open,
    /// Nothing has moved for too long.
    GiveUp(Failure),
}

/// What was seen so far. Times are counted from the beginning.
#[derive(Debug)]
struct Watch {
    patience: Duration,
    last: Option<GateStatus>,
    /// Phases and reasons that were there already: one that comes back is no movement.
    known: HashSet<(ModelStatus, Option<String>)>,
    most_bytes: i64,
    moved: Duration,
    /// The bytes that the last line told, and when.
    told: (i64, Duration),
}

impl Watch {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            last: None,
            known: HashSet::new(),
            most_bytes: 0,
            moved: Duration::ZERO,
            told: (0, Duration::ZERO),
        }
    }

    /// One look at time `now`. A status that cannot be read is not yet known, whatever was there before.
    fn decide(&mut self, seen: Option<GateStatus>, now: Duration) -> Decision {
        let mut line = None;
        if let Some(seen) = seen {
            if seen.phase == ModelStatus::ModelDownloaded {
                return Decision::Open;
            }
            if self.has_moved(&seen) {
                self.moved = now;
            }
            line = self.line(&seen, now);
            self.last = Some(seen);
        }
        if now.saturating_sub(self.moved) >= self.patience {
            return Decision::GiveUp(self.failure());
        }
        Decision::Hold(line)
    }

    /// A download that fails and is tried again in circles does not move; one that has more bytes than
    /// ever does.
    fn has_moved(&mut self, seen: &GateStatus) -> bool {
        let bytes = seen.bytes_done.unwrap_or(0);
        let has_more = bytes > self.most_bytes;
        self.most_bytes = self.most_bytes.max(bytes);
        self.known.insert((seen.phase, seen.reason.clone())) || has_more
    }

    /// One line for each change; for one of bytes alone not too often.
    fn line(&mut self, seen: &GateStatus, now: Duration) -> Option<String> {
        let words = |status: &GateStatus| (status.phase, status.reason.clone(), status.message.clone());
        let same_words = self.last.as_ref().is_some_and(|last| words(last) == words(seen));
        let bytes = seen.bytes_done.unwrap_or(0);
        let (told, at) = self.told;
        let pause = now.saturating_sub(at);
        if same_words && (bytes == told || pause < PROGRESS_EVERY) {
            return None;
        }
        self.told = (bytes, now);
        let rate = rate(u64::try_from(bytes - told).unwrap_or(0), pause);
        Some(describe(seen) + &progress(seen, if same_words { rate } else { 0 }))
    }

    fn failure(&self) -> Failure {
        let waited = format!("nothing has moved for {:#}", rounded(self.patience));
        match &self.last {
            None => {
                let message = format!("no agent has said anything about this copy: {waited}");
                Failure::new("NoAgent", &message)
            }
            Some(last) => {
                let reason = last.reason.as_deref().unwrap_or("NoProgress");
                Failure::new(reason, &format!("{waited}: {}{}", describe(last), progress(last, 0)))
            }
        }
    }
}

fn rounded(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

fn describe(status: &GateStatus) -> String {
    let phase = match status.phase {
        ModelStatus::ModelDownloaded => "the copy is complete",
        ModelStatus::ModelDownloading => "the download is under way",
        ModelStatus::ModelDownloadError => "the download has failed",
        ModelStatus::ModelDownloadPending | ModelStatus::Unknown => "the download has not begun",
    };
    let detail = [&status.reason, &status.message].into_iter().flatten();
    [phase].into_iter().chain(detail.map(String::as_str)).collect::<Vec<_>>().join(": ")
}

fn progress(status: &GateStatus, bytes_per_second: u64) -> String {
    let (Some(done), Some(total @ 1..)) = (status.bytes_done, status.bytes_total) else {
        return String::new();
    };
    let percent = i128::from(done) * 100 / i128::from(total);
    let pace = if bytes_per_second > 0 { format!(", {bytes_per_second} bytes/s") } else { String::new() };
    format!(", {done} of {total} bytes ({percent} %){pace}")
}

#[cfg(test)]
mod tests;
