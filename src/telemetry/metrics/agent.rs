//! What an agent measures: its passes, its downloads, its disk, and the check of its copies.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;

use super::book::{Book, Counters, Definition, Gauges, Histograms, Label};
use super::{ERROR, OUTCOME, REASON, outcome, quick, rates, slow};
use crate::api::ModelStatus;
use crate::error::Error;
use crate::plan::local_status::Usage;
use crate::plan::pass::Said;
use crate::plan::transfers::Ended;

/// The phases of models on a node.
const PHASES: &[&str] =
    &["ModelDownloadPending", "ModelDownloading", "ModelDownloaded", "ModelDownloadError"];

const PHASE: Label = Label { name: "phase", values: PHASES, meaning: "as in `status.modelStatus`" };
const VERSION: Label = Label { name: "version", values: &[], meaning: "the version of localmodel" };

/// An agent's metrics. All of them have the labels `node` and `node_group`.
#[derive(Debug)]
pub struct AgentMetrics {
    book: Book,
    passes: Counters<1>,
    pass_duration: Histograms<0>,
    pass_errors: Counters<1>,
    pass_interval: Gauges<0>,
    models: Gauges<1>,
    downloaded_bytes: Counters<0>,
    download_duration: Histograms<0>,
    download_rate: Histograms<0>,
    download_failures: Counters<1>,
    disk_capacity: Gauges<0>,
    disk_free: Gauges<0>,
    disk_usable: Gauges<0>,
    config_invalid: Gauges<0>,
    scrubbed_bytes: Counters<0>,
    scrub_damaged: Counters<0>,
    scrub_completed: Gauges<0>,
}

impl AgentMetrics {
    /// The metrics of the agent of this group on this node.
    pub fn new(node: &str, group: &str) -> Self {
        let mut book = Book::new(vec![("node", node.to_owned()), ("node_group", group.to_owned())]);
        let b = &mut book;
        let build = b.gauge("agent_build_info", "The version that runs, always 1", [VERSION]);
        build.set([env!("CARGO_PKG_VERSION")], 1);
        Self {
            passes: b.counter("passes", "Total number of reconciliations of the node, by outcome", [OUTCOME]),
            pass_duration: b.histogram("pass_duration_seconds", "Duration of reconciliations of the node in seconds", [], quick),
            pass_errors: b.counter(
                "pass_errors",
                "Total number of failed reconciliations of the node, conflicts included, by error",
                [ERROR],
            ),
            pass_interval: b.gauge(
                "pass_interval_seconds",
                "Interval at which the node is reconciled when nothing happens, in seconds",
                [],
            ),
            models: b.gauge("models", "Number of models planned on the node, by phase", [PHASE]),
            downloaded_bytes: b.counter(
                "downloaded_bytes",
                "Total number of bytes fetched by finished downloads",
                [],
            ),
            download_duration: b.histogram(
                "download_duration_seconds",
                "Duration of successful downloads in seconds, from the start of the Job",
                [],
                slow,
            ),
            download_rate: b.histogram(
                "download_rate_bytes_per_second",
                "Rate of successful downloads in bytes per second",
                [],
                rates,
            ),
            download_failures: b.counter("download_failures", "Total number of failed download Jobs, by reason", [REASON]),
            disk_capacity: b.gauge("disk_capacity_bytes", "Size of the node group's disk in bytes", []),
            disk_free: b.gauge("disk_free_bytes", "Free space on the node group's disk in bytes", []),
            disk_usable: b.gauge("disk_usable", "Whether the agent can write to the disk (1), or not (0)", []),
            config_invalid: b.gauge(
                "agent_config_invalid",
                "Whether a key of ConfigMap inferenceservice-config is invalid and the last good settings stay in \
                 force (1), or not (0)",
                [],
            ),
            scrubbed_bytes: b.counter("scrub_checked_bytes", "Total number of bytes compared with their digests", []),
            scrub_damaged: b.counter(
                "scrub_damaged_files",
                "Total number of files found damaged",
                [],
            ),
            scrub_completed: b.gauge(
                "scrub_last_completion_timestamp_seconds",
                "Unix time when the last scrub of all copies ended; absent before the first",
                [],
            ),
            book,
        }
    }

    /// A pass, from beginning to end.
    pub fn pass<T>(&self, begun: Instant, result: &Result<T, Error>) {
        self.passes.add([outcome(result)], 1);
        self.pass_duration.observe([], begun.elapsed().as_secs_f64());
        if let Err(error) = result {
            self.pass_errors.add([error.label()], 1);
        }
    }

    /// The interval of passes while nothing happens.
    pub fn interval(&self, seconds: u64) {
        self.pass_interval.set::<&str>([], i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Whether the settings in force are older than those in the ConfigMap, which cannot be read.
    pub fn config(&self, is_invalid: bool) {
        self.config_invalid.set::<&str>([], i64::from(is_invalid));
    }

    /// What is said of each model, by its status key.
    pub fn models(&self, said: &BTreeMap<String, Said>) {
        for phase in PHASES {
            let count = said.values().filter(|(status, _)| name(*status) == Some(phase)).count();
            self.models.set([*phase], i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A download has ended.
    pub fn download(&self, ended: &Ended) {
        match ended {
            Ended::Failed { reason } => self.download_failures.add([reason], 1),
            Ended::Done { seconds, fetched } => {
                self.download_duration.observe([], *seconds);
                if let Some(fetched) = fetched {
                    self.downloaded_bytes.add([], fetched.bytes);
                    self.download_rate.observe([], fetched.bytes_per_second());
                }
            }
        }
    }

    /// The disk's size and room, where it can be asked, and whether it can be written.
    pub fn disk(&self, usage: Option<Usage>, is_usable: bool) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        if let Some(usage) = usage {
            self.disk_capacity.set::<&str>([], bytes(usage.capacity));
            self.disk_free.set::<&str>([], bytes(usage.free));
        } else {
            self.disk_capacity.clear();
            self.disk_free.clear();
        }
        self.disk_usable.set::<&str>([], i64::from(is_usable));
    }

    /// The scrub has compared so many bytes with their digests (A5).
    pub fn scrub_checked(&self, bytes: u64) {
        self.scrubbed_bytes.add([], bytes);
    }

    /// The scrub has found so many damaged files.
    pub fn scrub_damaged(&self, files: u64) {
        self.scrub_damaged.add([], files);
    }

    /// The scrub has been through all copies; also at the start, with the time that the status holds.
    pub fn scrub_completed(&self, at: Timestamp) {
        self.scrub_completed.set::<&str>([], at.as_second());
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        self.book.text()
    }

    /// How the metrics are defined.
    pub fn definitions(&self) -> Vec<Definition> {
        self.book.definitions()
    }
}

fn name(status: ModelStatus) -> Option<&'static &'static str> {
    let at = match status {
        ModelStatus::ModelDownloadPending => 0,
        ModelStatus::ModelDownloading => 1,
        ModelStatus::ModelDownloaded => 2,
        ModelStatus::ModelDownloadError => 3,
        ModelStatus::Unknown => return None,
    };
    PHASES.get(at)
}
