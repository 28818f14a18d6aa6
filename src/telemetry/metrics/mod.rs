//! The metrics of the operator and of the agents (O2). Each is defined here and nowhere else; its values
//! are handed around with the process's context, and its labels are bounded: words of the lists below, or
//! names of objects of ours.
//!
//! No label is named as those that Prometheus gives to a target (`namespace`, `pod`, `instance`, `job`), so
//! that none is renamed when it is scraped.

mod agent;
mod book;
mod operator;
mod process;

use prometheus_client::metrics::histogram::Histogram;

pub use agent::AgentMetrics;
pub use book::{Definition, Label, PREFIX};
pub use operator::{OperatorMetrics, Situation, WEBHOOKS};

use crate::error::Error;

/// How a reconcile or a pass ended.
const OUTCOMES: &[&str] = &["ok", "conflict", "error"];

const OUTCOME: Label = Label {
    name: "outcome",
    values: OUTCOMES,
    meaning: "`conflict`: another write came between, which the next reconciliation settles; `error`: it is tried again",
};
const ERROR: Label = Label {
    name: "error",
    values: Error::LABELS,
    meaning: "what refused: the API server with one of its answers, or the disk",
};
const CACHE: Label =
    Label { name: "cache", values: &[], meaning: "the LocalModelCache or LocalModelNamespaceCache" };
const CACHE_NAMESPACE: Label = Label {
    name: "cache_namespace",
    values: &[],
    meaning: "the namespace of a LocalModelNamespaceCache, else empty",
};
const REASON: Label =
    Label { name: "reason", values: &[], meaning: "a word of the tables of reasons, or `Other`" };

/// The end of a reconcile or a pass, as labels have it.
fn outcome<T>(result: &Result<T, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) if error.is_conflict() => "conflict",
        Err(_) => "error",
    }
}

/// From a millisecond to half a minute: what talks to the API server.
fn quick() -> Histogram {
    Histogram::new([0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0])
}

/// From seconds to hours: downloads.
fn slow() -> Histogram {
    Histogram::new([5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0])
}

/// From 1 MB/s to 10 GB/s.
fn rates() -> Histogram {
    Histogram::new([1e6, 5e6, 2e7, 5e7, 1e8, 2e8, 5e8, 1e9, 2e9, 5e9, 1e10])
}

#[cfg(test)]
mod tests;
