//! What the operator measures: its own work at the moment, and the fleet whenever it is asked.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::book::{Book, Counters, Definition, Gauges, Histograms, Label};
use super::{CACHE, CACHE_NAMESPACE, ERROR, OUTCOME, REASON, outcome, quick};
use crate::error::Error;
use crate::plan::fleet::{Fleet, GroupCount, PHASES};

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
    Label { name: "controller", values: CONTROLLERS, meaning: "the kind of the object that is reconciled" };
const WEBHOOK: Label = Label { name: "webhook", values: WEBHOOKS, meaning: "the path that was asked" };
const VERDICT: Label = Label {
    name: "outcome",
    values: VERDICTS,
    meaning: "`failed`: the request could not be read, or a fault of localmodel's own",
};
const PHASE: Label = Label { name: "phase", values: PHASES, meaning: "as in a cache's `status.nodeStatus`" };
const GROUP: Label = Label { name: "node_group", values: &[], meaning: "the LocalModelNodeGroup" };
const CONDITION: Label = Label { name: "condition", values: &[], meaning: "the type of the condition" };
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
    ready: Gauges<2>,
    not_ready: Gauges<3>,
    degraded: Gauges<3>,
    copies: Gauges<3>,
    failed: Gauges<3>,
    used: Gauges<1>,
    limit: Gauges<1>,
    group_ready: Gauges<1>,
    group_not_ready: Gauges<2>,
    group_problem: Gauges<2>,
}

impl Default for OperatorMetrics {
    fn default() -> Self {
        let mut book = Book::new(Vec::new());
        let b = &mut book;
        let build = b.gauge("operator_build_info", "The version that runs, always 1", [VERSION]);
        build.set([env!("CARGO_PKG_VERSION")], 1);
        Self {
            reconciles: b.counter("reconciles", "Total number of reconciliations, by controller and outcome", [CONTROLLER, OUTCOME]),
            reconcile_duration: b.histogram(
                "reconcile_duration_seconds",
                "Duration of reconciliations in seconds, by controller",
                [CONTROLLER],
                quick,
            ),
            reconcile_errors: b.counter(
                "reconcile_errors",
                "Total number of failed reconciliations, conflicts included, by controller and error",
                [CONTROLLER, ERROR],
            ),
            webhook_requests: b.counter("webhook_requests", "Total number of admission requests answered, by webhook and outcome", [WEBHOOK, VERDICT]),
            webhook_duration: b.histogram(
                "webhook_duration_seconds",
                "Duration of answers to admission requests in seconds, by webhook",
                [WEBHOOK],
                quick,
            ),
            events_failed: b.counter("events_failed", "Total number of Events that the API server rejected", []),
            leader: b.gauge("leader", "Whether this operator is the leader (1), or not (0)", []),
            standing_back: b.gauge(
                "standing_back",
                "Whether the operator is inactive because KServe's own local-model controller runs (1), or not (0)",
                [],
            ),
            config_invalid: b.gauge(
                "config_invalid",
                "Keys of ConfigMap inferenceservice-config that are invalid, always 1; the last good settings stay in \
                 force",
                [KEY],
            ),
            fleet: FleetMetrics::new(b),
            book: Mutex::new(book),
        }
    }
}

impl FleetMetrics {
    fn new(book: &mut Book) -> Self {
        let cache = [CACHE_NAMESPACE, CACHE];
        let with = |label| [CACHE_NAMESPACE, CACHE, label];
        Self {
            ready: book.gauge(
                "cache_ready",
                "Whether at least one copy is available and no ready node lacks its copy (1), or not (0)",
                cache,
            ),
            not_ready: book.gauge(
                "cache_not_ready_reason",
                "The reason of condition Ready while a cache is not ready, always 1",
                with(REASON),
            ),
            degraded: book.gauge(
                "cache_degraded_reason",
                "The reason of condition Degraded while a cache is degraded, always 1",
                with(REASON),
            ),
            copies: book.gauge("cache_copies", "Number of copies of the cache, by phase", with(PHASE)),
            failed: book.gauge(
                "cache_failed_copies",
                "Number of copies of the cache whose download failed, by reason",
                with(REASON),
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
            group_ready: book.gauge(
                "node_group_ready",
                "Whether all agents on ready nodes run and can use their disks (1), or not (0)",
                [GROUP],
            ),
            group_not_ready: book.gauge(
                "node_group_not_ready_reason",
                "The reason of condition Ready while a node group is not ready, always 1",
                [GROUP, REASON],
            ),
            group_problem: book.gauge(
                "node_group_condition",
                "Conditions of the node group that are true, except Ready, always 1",
                [GROUP, CONDITION],
            ),
        }
    }

    /// Says what the fleet looks like and nothing else: what is gone leaves no value behind.
    fn tell(&self, fleet: &Fleet) {
        self.clear();
        for cache in &fleet.caches {
            let name = || [Cow::from(cache.namespace.clone()), Cow::from(cache.name.clone())];
            let with = |value: &'static str| {
                let [namespace, name] = name();
                [namespace, name, value.into()]
            };
            self.ready.set(name(), i64::from(cache.not_ready.is_none()));
            if let Some(reason) = cache.not_ready {
                self.not_ready.set(with(reason), 1);
            }
            if let Some(reason) = cache.degraded {
                self.degraded.set(with(reason), 1);
            }
            for (phase, count) in PHASES.iter().zip(cache.copies) {
                self.copies.set(with(phase), count);
            }
            for (reason, count) in &cache.failed {
                self.failed.set(with(reason), *count);
            }
        }
        fleet.groups.iter().for_each(|group| self.tell_of_group(group));
    }

    fn tell_of_group(&self, group: &GroupCount) {
        let with = |value: &'static str| [Cow::from(group.name.clone()), value.into()];
        self.used.set([group.name.clone()], group.used);
        if let Some(limit) = group.limit {
            self.limit.set([group.name.clone()], limit);
        }
        self.group_ready.set([group.name.clone()], i64::from(group.not_ready.is_none()));
        if let Some(reason) = group.not_ready {
            self.group_not_ready.set(with(reason), 1);
        }
        for condition in &group.problems {
            self.group_problem.set(with(condition), 1);
        }
    }

    fn clear(&self) {
        self.ready.clear();
        self.not_ready.clear();
        self.degraded.clear();
        self.copies.clear();
        self.failed.clear();
        self.used.clear();
        self.limit.clear();
        self.group_ready.clear();
        self.group_not_ready.clear();
        self.group_problem.clear();
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
