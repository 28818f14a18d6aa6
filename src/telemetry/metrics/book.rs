//! What every metric is made of: its name, its labels with the values they may have, and its help stand
//! in one place, from which the registry and the reference are filled.

use std::borrow::Cow;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::process::Process;

/// What the names of all metrics begin with.
pub const PREFIX: &str = "localmodel";

/// A label and what it may say: there is never free text in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// All its values; none where they are the names of objects.
    pub values: &'static [&'static str],
    /// What it stands for.
    pub meaning: &'static str,
}

/// A metric as the reference describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, as Prometheus has it.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: Vec<Label>,
    /// What it says, without a full stop.
    pub help: &'static str,
}

/// The values of a metric's labels, beside their names.
type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// A registry that remembers how its metrics are defined.
#[derive(Debug)]
pub(super) struct Book {
    registry: Registry,
    /// What Prometheus' own libraries tell of every process.
    process: Registry,
    definitions: Vec<Definition>,
}

impl Book {
    /// `everywhere` are labels that all of its metrics have, with their values.
    pub(super) fn new(everywhere: Vec<(&'static str, String)>) -> Self {
        let labels = everywhere.into_iter().map(|(name, value)| (name.into(), value.into()));
        let mut process = Registry::default();
        process.register_collector(Box::new(Process));
        Self { registry: Registry::with_prefix_and_labels(PREFIX, labels), process, definitions: Vec::new() }
    }

    pub(super) fn counter<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Label; N],
    ) -> Counters<N> {
        let family = Family::default();
        self.define(format!("{PREFIX}_{name}_total"), "counter", &labels, help);
        self.register(name, help, family.clone());
        let counters = Counters { family, names: labels.map(|label| label.name) };
        // A counter that is not there before it counts hides its first step from `increase()`.
        for values in combinations(&labels) {
            counters.add(values, 0);
        }
        counters
    }

    pub(super) fn gauge<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Label; N],
    ) -> Gauges<N> {
        let family = Family::default();
        self.define(format!("{PREFIX}_{name}"), "gauge", &labels, help);
        self.register(name, help, family.clone());
        Gauges { family, names: labels.map(|label| label.name) }
    }

    /// `buckets` makes an empty histogram.
    pub(super) fn histogram<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Label; N],
        buckets: fn() -> Histogram,
    ) -> Histograms<N> {
        let family = Family::new_with_constructor(buckets);
        self.define(format!("{PREFIX}_{name}"), "histogram", &labels, help);
        self.register(name, help, family.clone());
        let histograms = Histograms { family, names: labels.map(|label| label.name) };
        for values in combinations(&labels) {
            drop(histograms.family.get_or_create(&named(histograms.names, values)));
        }
        histograms
    }

    /// How the metrics are defined, in the order of their registration.
    pub(super) fn definitions(&self) -> Vec<Definition> {
        self.definitions.clone()
    }

    /// All metrics in Prometheus' text format.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for registry in [&self.registry, &self.process] {
            prometheus_text::encode(&mut text, registry).expect("writing to a string cannot fail");
        }
        text
    }

    fn define(&mut self, name: String, kind: &'static str, labels: &[Label], help: &'static str) {
        self.definitions.push(Definition { name, kind, labels: labels.to_vec(), help });
    }

    fn register(&mut self, name: &'static str, help: &'static str, metric: impl Metric) {
        self.registry.register(name, help, metric);
    }
}

/// A counter for each combination of its labels' values.
#[derive(Clone, Debug)]
pub(super) struct Counters<const N: usize> {
    family: Family<Labels<N>, Counter>,
    names: [&'static str; N],
}

impl<const N: usize> Counters<N> {
    pub(super) fn add(&self, values: [&'static str; N], by: u64) {
        self.family.get_or_create(&named(self.names, values)).inc_by(by);
    }
}

/// A number for each combination of its labels' values, which may be names of objects.
#[derive(Clone, Debug)]
pub(super) struct Gauges<const N: usize> {
    family: Family<Labels<N>, Gauge>,
    names: [&'static str; N],
}

impl<const N: usize> Gauges<N> {
    pub(super) fn set<V: Into<Cow<'static, str>>>(&self, values: [V; N], to: i64) {
        self.family.get_or_create(&named(self.names, values)).set(to);
    }

    /// Forgets all values: those of objects that are gone must not stay.
    pub(super) fn clear(&self) {
        self.family.clear();
    }
}

/// A distribution for each combination of its labels' values.
#[derive(Clone, Debug)]
pub(super) struct Histograms<const N: usize> {
    family: Family<Labels<N>, Histogram, fn() -> Histogram>,
    names: [&'static str; N],
}

impl<const N: usize> Histograms<N> {
    pub(super) fn observe(&self, values: [&'static str; N], value: f64) {
        self.family.get_or_create(&named(self.names, values)).observe(value);
    }
}

fn named<const N: usize, V: Into<Cow<'static, str>>>(names: [&'static str; N], values: [V; N]) -> Labels<N> {
    let mut values = values.into_iter();
    names.map(|name| (name, values.next().map(Into::into).unwrap_or_default()))
}

/// Every combination of the labels' values; none where one of them has names of objects.
fn combinations<const N: usize>(labels: &[Label; N]) -> Vec<[&'static str; N]> {
    let mut all = vec![[""; N]];
    for (at, label) in labels.iter().enumerate() {
        let with = |values: [&'static str; N]| {
            label.values.iter().map(move |value| {
                let mut values = values;
                values[at] = value;
                values
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all
}
