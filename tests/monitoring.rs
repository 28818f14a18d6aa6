//! Dashboard, alerts and scraping, with the real Prometheus: `hack/just monitoring` sees to it.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside the tests

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use localmodel::plan::fleet::{CacheCount, Fleet, GroupCount};
use localmodel::telemetry;
use localmodel::telemetry::metrics::{AgentMetrics, Definition, OperatorMetrics, Situation};
use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring");

/// The address to be replaced by that of one's own copy of the pages.
const DOCS: &str = "https://docs.example.com/localmodel";

fn read(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}")).unwrap()
}

/// The alerts as they stand in the rules.
fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&read("alerts.yaml")).unwrap();
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

/// Every query of the dashboard and the alerts.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    assert!(queries.len() > 20, "the dashboard's queries are found");
    queries.extend(alerts().iter().map(|alert| alert["expr"].as_str().unwrap().to_owned()));
    queries
}

/// What can be asked for, by name: each metric's labels and the values that they may have.
fn known() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut known = BTreeMap::new();
    let mut add = |metric: Definition, everywhere: &[&str]| {
        let named = |label: &&str| ((*label).to_owned(), BTreeSet::new());
        let mut labels: BTreeMap<String, BTreeSet<String>> = everywhere.iter().map(named).collect();
        for label in &metric.labels {
            let values = label.values.iter().map(|value| (*value).to_owned()).collect();
            labels.insert(label.name.to_owned(), values);
        }
        let suffixes: &[&str] =
            if metric.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for suffix in suffixes {
            known.insert(format!("{}{suffix}", metric.name), labels.clone());
        }
    };
    for metric in OperatorMetrics::default().definitions() {
        add(metric, &[]);
    }
    for metric in AgentMetrics::new("node", "group").definitions() {
        add(metric, &["node", "node_group"]);
    }
    let job = ["localmodel-operator", "localmodel-agent"].map(String::from).into();
    known.insert("up".to_owned(), BTreeMap::from([("job".to_owned(), job)]));
    known
}

/// The metrics of a query with the text between their braces.
fn metrics_of(query: &str) -> Vec<(String, String)> {
    let grouping = Regex::new(r"\b(by|without|on|ignoring)\s*\([^)]*\)").unwrap();
    let quoted = Regex::new(r#""[^"]*""#).unwrap();
    let name = Regex::new(r"[a-zA-Z_:][a-zA-Z0-9_:]*").unwrap();
    let bare = grouping.replace_all(query, " ");
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = name.find_at(&bare, at) {
        at = word.end();
        let rest = &bare[at..];
        // A digit before it makes it a unit of time, a parenthesis behind it a function.
        let is_unit = bare[..word.start()].ends_with(|before: char| before.is_ascii_digit());
        if is_unit
            || rest.trim_start().starts_with('(')
            || ["or", "and", "unless", "bool"].contains(&word.as_str())
        {
            continue;
        }
        let matchers = rest.strip_prefix('{').map(|inside| {
            let without = quoted.replace_all(inside, |text: &regex::Captures| "_".repeat(text[0].len()));
            inside[..without.find('}').expect("a brace that closes")].to_owned()
        });
        at += matchers.as_ref().map_or(0, |inside| inside.len() + 2);
        found.push((word.as_str().to_owned(), matchers.unwrap_or_default()));
    }
    found
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(FOLDER).output();
    let output =
        output.unwrap_or_else(|error| panic!("promtool: {error}; `hack/just monitoring` sees to it"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn the_rules_are_valid_and_fire_as_their_tests_say() {
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts.test.yaml"]);
    let tests = read("alerts.test.yaml");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no test");
    }
}

#[test]
fn every_query_names_metrics_labels_and_values_that_exist() {
    let known = known();
    let matcher = Regex::new(r#"([a-z_]+)\s*(!=|=~|!~|=)\s*"([^"]*)""#).unwrap();
    for query in queries() {
        let metrics = metrics_of(&query);
        assert!(!metrics.is_empty(), "{query}: no metric is found in it");
        for (name, matchers) in metrics {
            let Some(labels) = known.get(&name) else { panic!("{query}: there is no metric {name}") };
            for found in matcher.captures_iter(&matchers) {
                let Some(values) = labels.get(&found[1]) else {
                    panic!("{query}: {name} has no label {}", &found[1])
                };
                let is_exact = !found[2].contains('~') && !values.is_empty();
                assert!(
                    !is_exact || values.contains(&found[3]),
                    "{query}: {} is never {}",
                    &found[1],
                    &found[3]
                );
            }
        }
    }
}

#[test]
fn a_query_that_names_no_metric_of_ours_is_seen() {
    let names = |query| metrics_of(query).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let query = r#"sum by (cache) (rate(one{a="}",b="x"}[10m])) / on(z) two > 5 and not_ours or vector(0)"#;
    assert_eq!(names(query), ["one", "two", "not_ours"]);
    assert_eq!(metrics_of(query)[0].1, r#"a="}",b="x""#);
}

#[test]
fn every_alert_has_a_severity_and_its_paragraph() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/troubleshooting.md")).unwrap();
    let names: Vec<String> =
        page.lines().filter_map(|line| line.strip_prefix("## LocalModel")).map(str::to_lowercase).collect();
    let mut linked = Vec::new();
    for alert in alerts() {
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{alert}");
        let link = alert["annotations"]["runbook_url"].as_str().unwrap();
        let anchor = link.strip_prefix(&format!("{DOCS}/docs/troubleshooting.md#localmodel")).unwrap();
        assert!(names.iter().any(|name| name == anchor), "{link}: there is no such heading");
        linked.push(anchor.to_owned());
        // A pager shows the summary alone.
        let summary = alert["annotations"]["summary"].as_str().unwrap();
        let is_of_all = ["LocalModelOperatorDown", "LocalModelNoLeader", "LocalModelStandingBack"]
            .contains(&alert["alert"].as_str().unwrap());
        assert!(is_of_all || summary.contains("$labels."), "{summary}: it names no object");
    }
    assert_eq!(names, linked, "a paragraph without its alert");
}

/// The operator's endpoint while it leads a fleet of one cache.
fn operator() -> Router {
    let cache = CacheCount {
        namespace: String::new(),
        name: "llama".into(),
        not_ready: None,
        degraded: None,
        copies: [0, 0, 0, 2, 0],
        failed: BTreeMap::new(),
    };
    let group = GroupCount {
        name: "workers".into(),
        used: 10,
        limit: Some(100),
        not_ready: None,
        problems: BTreeSet::new(),
    };
    let now = Situation {
        leads: true,
        fleet: Some(Fleet { caches: vec![cache], groups: vec![group] }),
        ..Situation::default()
    };
    let (metrics, now) = (Arc::new(OperatorMetrics::default()), Arc::new(now));
    telemetry::router(|| true, Vec::new, move || metrics.text(&now))
}

/// An agent's.
fn agent() -> Router {
    let metrics = Arc::new(AgentMetrics::new("node-1", "workers"));
    metrics.models(&BTreeMap::new());
    telemetry::router(|| true, Vec::new, move || metrics.text())
}

/// Serves it on a free port and says where.
async fn served(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address.to_string()
}

/// A running Prometheus; it ends with this value.
struct Prometheus {
    process: Child,
    address: String,
    _folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    fn start(operator: &str, agent: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nrule_files: ['{FOLDER}/alerts.yaml']\nscrape_configs:\n\
             - {{job_name: localmodel-operator, static_configs: [{{targets: ['{operator}']}}]}}\n\
             - {{job_name: localmodel-agent, static_configs: [{{targets: ['{agent}']}}]}}\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let process = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process =
            process.unwrap_or_else(|error| panic!("prometheus: {error}; `hack/just monitoring` sees to it"));
        Self { process, address, _folder: folder }
    }

    /// The answer to a query: its series with their values. None while it does not answer.
    async fn ask(&self, query: &str) -> Option<Vec<Value>> {
        let mut url: reqwest::Url = format!("http://{}/api/v1/query", self.address).parse().unwrap();
        url.query_pairs_mut().append_pair("query", query);
        let answer = reqwest::get(url).await.ok()?;
        // It is 503 while it reads its storage.
        if answer.status() == 503 {
            return None;
        }
        let answer: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        Some(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a query has so many series.
    async fn until(&self, query: &str, series: usize) {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut again = tokio::time::interval(Duration::from_millis(200));
        loop {
            again.tick().await;
            let found = self.ask(query).await;
            if found.as_ref().is_some_and(|found| found.len() == series) {
                return;
            }
            assert!(Instant::now() < deadline, "{query}: {found:?}, not {series} series");
        }
    }
}

#[tokio::test]
async fn a_real_prometheus_scrapes_both_and_answers_every_query() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let prometheus = Prometheus::start(&served(operator()).await, &served(agent()).await);
    prometheus.until(r#"up{job=~"localmodel-.*"} == 1"#, 2).await;
    prometheus.until(r#"localmodel_cache_copies{cache="llama",phase="NodeDownloaded"} == 2"#, 1).await;
    prometheus.until(r#"localmodel_models{node="node-1",node_group="workers",instance!=""} == 0"#, 4).await;
    // Nothing was renamed or refused on the way.
    prometheus.until(r#"{__name__=~"localmodel_.*",exported_node!=""}"#, 0).await;
    for query in queries() {
        let query = query.replace("$node_group", ".*").replace("$cache", ".*");
        assert!(prometheus.ask(&query).await.is_some(), "{query}");
    }
}
