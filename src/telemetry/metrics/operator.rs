//! What the operator measures: its own work at the moment, and the fleet whenever it is asked.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::book::{Book, Counters, Definition, Gauges, Histograms, Label};
use super::{CACHE, ERROR, OUTCOME, REASON, outcome, quick};
use crate::error::Error;
use crate::plan::fleet::{Fleet, PHASES};

/// The kinds that are reconciled.
const CONTROLLERS: &[&str] = &["LocalModelNodeGroup", "Node", "LocalModelCache", "LocalModelNamespaceCache"];
/// The webhooks, by the last part of their paths.
pub const WEBHOOKS: &[&str] = &[
    "mutate-pods",
    "mutate-kserve-pods",
    "validate-caches",
    "validate-namespace-caches",
    "validate-node-groups",
];
/// What a webhook answers.
const VERDICTS: &[&str] = &["allowed", "denied", "failed"];
/// What stands for a word that is in no list.
const OTHER: &str = "Other";

const CONTROLLER: Label =
    Label { name: "controller", values: CONTROLLERS, meaning: "the kind of the object that is looked at" };
const WEBHOOK: Label = Label { name: "webhook", values: WEBHOOKS, meaning: "the path that was asked" };
const VERDICT: Label = Label {
    name: "outcome",
    values: VERDICTS,
    meaning: "`failed`: the request could not be read, or a fault of localmodel's own",
};
const PHASE: Label = Label { name: "phase", values: PHASES, meaning: "as in a cache's `status.nodeStatus`" };
const GROUP: Label = Label { name: "node_group", values: &[], meaning: "the LocalModelNodeGroup" };
const KEY: Label = Label { name: "key", values: &[], meaning: "the key of the ConfigMap" };
const VERSION: Label = Label { name: "version", values: &[], meaning: "the version of localmodel" };

/// What the operator tells when it is asked.
#[derive(Debug, Default)]
pub struct Situation {
    /// Whether this process leads.
    pub leads: bool,
    /// Whether KServe's own controller keeps it from working (O1).
    pub standing_back: bool,
    /// The key of the ConfigMap that cannot be read.
    pub invalid_key: Option<&'static str>,
    /// The caches and groups; none where another operator tells of them.
    pub fleet: Option<Fleet>,
}

/// The operator's metrics.
#[derive(Debug)]
pub struct OperatorMetrics {
    /// Behind a lock, so that nobody reads between two values of one look.
    book: Mutex<Book>,
    reconciles: Counters<2>,
    reconcile_duration: Histograms<1>,
    reconcile_errors: Counters<2>,
    webhook_requests: Counters<2>,
    webhook_duration: Histograms<1>,
    events_failed: Counters<0>,
    leader: Gauges<0>,
    standing_back: Gauges<0>,
    config_invalid: Gauges<1>,
    fleet: FleetMetrics,
}

/// What the fleet looks like.
#[derive(Debug)]
struct FleetMetrics {
    ready: Gauges<1>,
    not_ready: Gauges<2>,
    copies: Gauges<2>,
    failed: Gauges<2>,
    used: Gauges<1>,
    limit: Gauges<1>,
}

impl Default for OperatorMetrics {
    fn default() -> Self {
        let mut book = Book::new(Vec::new());
        let b = &mut book;
        let build = b.gauge("operator_build_info", "1; the label says which version runs", [VERSION]);
        build.set([env!("CARGO_PKG_VERSION")], 1);
        Self {
            reconciles: b.counter("reconciles", "Looks at one object, by how they ended", [CONTROLLER, OUTCOME]),
            reconcile_duration: b.histogram(
                "reconcile_duration_seconds",
                "How long a look at one object took",
                [CONTROLLER],
                quick,
            ),
            reconcile_errors: b.counter(
                "reconcile_errors",
                "Looks that failed, conflicts included, by what refused",
                [CONTROLLER, ERROR],
            ),
            webhook_requests: b.counter("webhook_requests", "Admission requests answered", [WEBHOOK, VERDICT]),
            webhook_duration: b.histogram(
                "webhook_duration_seconds",
                "How long an answer to an admission request took",
                [WEBHOOK],
                quick,
            ),
            events_failed: b.counter("events_failed", "Events that the API server did not take", []),
            leader: b.gauge("leader", "1 while this operator leads, else 0", []),
            standing_back: b.gauge(
                "standing_back",
                "1 while KServe's own local-model controller runs and nothing is written, else 0",
                [],
            ),
            config_invalid: b.gauge(
                "config_invalid",
                "1 for a key of ConfigMap inferenceservice-config that cannot be read; the last good settings \
                 stay in force",
                [KEY],
            ),
            fleet: FleetMetrics::new(b),
            book: Mutex::new(book),
        }
    }
}

impl FleetMetrics {
    fn new(book: &mut Book) -> Self {
        Self {
            ready: book.gauge("cache_ready", "1 when all copies of the cache are available, else 0", [CACHE]),
            not_ready: book.gauge(
                "cache_not_ready_reason",
                "1 for the reason that condition Ready gives while a cache is not ready",
                [CACHE, REASON],
            ),
            copies: book.gauge("cache_copies", "Copies of the cache, by phase", [CACHE, PHASE]),
            failed: book.gauge(
                "cache_failed_copies",
                "Copies of the cache whose download failed, by reason",
                [CACHE, REASON],
            ),
            used: book.gauge(
                "node_group_used_bytes",
                "Bytes planned on the fullest node of the group",
                [GROUP],
            ),
            limit: book.gauge(
                "node_group_limit_bytes",
                "Bytes that storageLimit allows on each node of the group",
                [GROUP],
            ),
        }
    }

    /// Says what the fleet looks like and nothing else: what is gone leaves no value behind.
    fn tell(&self, fleet: &Fleet) {
        self.clear();
        for cache in &fleet.caches {
            let name = || Cow::from(cache.name.clone());
            self.ready.set([name()], i64::from(cache.not_ready.is_none()));
            if let Some(reason) = cache.not_ready {
                self.not_ready.set([name(), reason.into()], 1);
            }
            for (phase, count) in PHASES.iter().zip(cache.copies) {
                self.copies.set([name(), (*phase).into()], count);
            }
            for (reason, count) in &cache.failed {
                self.failed.set([name(), (*reason).into()], *count);
            }
        }
        for group in &fleet.groups {
            self.used.set([group.name.clone()], group.used);
            if let Some(limit) = group.limit {
                self.limit.set([group.name.clone()], limit);
            }
        }
    }

    fn clear(&self) {
        self.ready.clear();
        self.not_ready.clear();
        self.copies.clear();
        self.failed.clear();
        self.used.clear();
        self.limit.clear();
    }
}

impl OperatorMetrics {
    /// A look at an object of this kind, from beginning to end.
    pub async fn reconcile<T>(
        &self,
        kind: &str,
        look: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let result = look.await;
        let controller = listed(CONTROLLERS, kind);
        self.reconciles.add([controller, outcome(&result)], 1);
        self.reconcile_duration.observe([controller], begun.elapsed().as_secs_f64());
        if let Err(error) = &result {
            self.reconcile_errors.add([controller, error.label()], 1);
        }
        result
    }

    /// A webhook has answered; `denied` is none where it failed.
    pub fn webhook(&self, path: &str, denied: Option<bool>, took: Duration) {
        let webhook = listed(WEBHOOKS, path.trim_start_matches('/'));
        let verdict = match denied {
            Some(false) => "allowed",
            Some(true) => "denied",
            None => "failed",
        };
        self.webhook_requests.add([webhook, verdict], 1);
        self.webhook_duration.observe([webhook], took.as_secs_f64());
    }

    /// An Event could not be sent.
    pub fn event_failed(&self) {
        self.events_failed.add([], 1);
    }

    /// All metrics in Prometheus' text format, as things are now.
    pub fn text(&self, now: &Situation) -> String {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        self.leader.set::<&str>([], i64::from(now.leads));
        self.standing_back.set::<&str>([], i64::from(now.standing_back));
        self.config_invalid.clear();
        if let Some(key) = now.invalid_key {
            self.config_invalid.set([key], 1);
        }
        match &now.fleet {
            Some(fleet) => self.fleet.tell(fleet),
            None => self.fleet.clear(),
        }
        book.text()
    }

    /// How the metrics are defined.
    pub fn definitions(&self) -> Vec<Definition> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).definitions()
    }
}

fn listed(list: &'static [&'static str], word: &str) -> &'static str {
    list.iter().copied().find(|listed| *listed == word).unwrap_or(OTHER)
}
