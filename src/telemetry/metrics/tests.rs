use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::*;
use crate::api::ModelStatus;
use crate::api::node::ModelDetail;
use crate::plan::fleet::{CacheCount, Fleet, GroupCount};
use crate::plan::local_status::Usage;
use crate::plan::transfers::{Ended, Fetched};
use crate::plan::webhooks;

fn assert_holds(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line} is not in\n{text}");
    }
}

fn fleet() -> Fleet {
    let warm = CacheCount {
        namespace: String::new(),
        name: "llama".into(),
        not_ready: None,
        degraded: None,
        copies: [0, 0, 0, 2, 0],
        failed: BTreeMap::new(),
    };
    let failed = CacheCount {
        namespace: "team".into(),
        name: "own".into(),
        not_ready: Some("TokenMissing"),
        degraded: Some("TokenMissing"),
        copies: [0, 1, 0, 0, 2],
        failed: BTreeMap::from([("TokenMissing", 2)]),
    };
    let groups = vec![GroupCount {
        name: "workers".into(),
        used: 16,
        limit: Some(100),
        not_ready: Some("AgentNotRunning"),
        problems: BTreeSet::from(["AgentNotRunning", "StorageLimitTooLarge"]),
    }];
    Fleet { caches: vec![warm, failed], groups }
}

#[test]
fn the_operator_that_leads_tells_of_the_fleet_and_of_nothing_that_is_gone() {
    let metrics = OperatorMetrics::default();
    let mut now = Situation { leads: true, fleet: Some(fleet()), ..Situation::default() };
    let text = metrics.text(&now);
    assert_holds(
        &text,
        &[
            "localmodel_leader 1",
            "localmodel_standing_back 0",
            r#"localmodel_cache_ready{cache_namespace="",cache="llama"} 1"#,
            r#"localmodel_cache_ready{cache_namespace="team",cache="own"} 0"#,
            r#"localmodel_cache_not_ready_reason{cache_namespace="team",cache="own",reason="TokenMissing"} 1"#,
            r#"localmodel_cache_copies{cache_namespace="",cache="llama",phase="NodeDownloaded"} 2"#,
            r#"localmodel_cache_copies{cache_namespace="",cache="llama",phase="NodeDownloadError"} 0"#,
            r#"localmodel_cache_failed_copies{cache_namespace="team",cache="own",reason="TokenMissing"} 2"#,
            r#"localmodel_node_group_used_bytes{node_group="workers"} 16"#,
            r#"localmodel_node_group_limit_bytes{node_group="workers"} 100"#,
            r#"localmodel_cache_degraded_reason{cache_namespace="team",cache="own",reason="TokenMissing"} 1"#,
            r#"localmodel_node_group_ready{node_group="workers"} 0"#,
            r#"localmodel_node_group_not_ready_reason{node_group="workers",reason="AgentNotRunning"} 1"#,
            r#"localmodel_node_group_condition{node_group="workers",condition="StorageLimitTooLarge"} 1"#,
        ],
    );
    now.fleet.as_mut().unwrap().caches.remove(0);
    let text = metrics.text(&now);
    assert!(!text.contains("llama") && text.contains(r#"cache="own""#), "{text}");
    let text = metrics.text(&Situation::default());
    assert_holds(&text, &["localmodel_leader 0"]);
    assert!(
        !text.contains(r#"cache="own""#) && !text.contains("workers"),
        "another one tells of them: {text}"
    );
}

#[tokio::test]
async fn reconciles_are_counted_by_kind_and_end_and_errors_by_their_label() {
    let metrics = OperatorMetrics::default();
    metrics.reconcile("Node", async { Ok(()) }).await.unwrap();
    let failed = metrics.reconcile("Node", async { Err::<(), _>(Error::Setup("a secret word".into())) });
    assert!(failed.await.is_err());
    let text = metrics.text(&Situation::default());
    assert_holds(
        &text,
        &[
            r#"localmodel_reconciles_total{controller="Node",outcome="ok"} 1"#,
            r#"localmodel_reconciles_total{controller="Node",outcome="error"} 1"#,
            r#"localmodel_reconciles_total{controller="LocalModelCache",outcome="error"} 0"#,
            r#"localmodel_reconcile_errors_total{controller="Node",error="setup"} 1"#,
            r#"localmodel_reconcile_duration_seconds_count{controller="Node"} 2"#,
        ],
    );
    assert!(!text.contains("secret word"), "{text}");
}

#[test]
fn webhooks_events_and_settings_are_counted() {
    let metrics = OperatorMetrics::default();
    metrics.webhook(webhooks::PODS_PATH, Some(true), Duration::from_millis(3));
    metrics.webhook(webhooks::PODS_PATH, None, Duration::from_millis(3));
    metrics.event_failed();
    let text = metrics.text(&Situation { invalid_key: Some("localModel"), ..Situation::default() });
    assert_holds(
        &text,
        &[
            r#"localmodel_webhook_requests_total{webhook="mutate-pods",outcome="allowed"} 0"#,
            r#"localmodel_webhook_requests_total{webhook="mutate-pods",outcome="denied"} 1"#,
            r#"localmodel_webhook_requests_total{webhook="mutate-pods",outcome="failed"} 1"#,
            r#"localmodel_webhook_duration_seconds_bucket{webhook="mutate-pods",le="0.005"} 2"#,
            "localmodel_events_failed_total 1",
            r#"localmodel_config_invalid{key="localModel"} 1"#,
        ],
    );
    assert!(!metrics.text(&Situation::default()).contains(r#"key="localModel""#), "it was mended");
}

#[test]
fn each_webhook_has_its_label() {
    let paths = [
        webhooks::PODS_PATH,
        webhooks::KSERVE_PODS_PATH,
        webhooks::CACHES_PATH,
        webhooks::NAMESPACE_CACHES_PATH,
        webhooks::GROUPS_PATH,
    ];
    assert_eq!(paths.map(|path| path.trim_start_matches('/')), *WEBHOOKS);
}

#[test]
fn an_agent_tells_of_its_models_downloads_disk_and_scrub() {
    let metrics = AgentMetrics::new("node-1", "workers");
    let said = |status| (status, ModelDetail::default());
    let models = [("a", ModelStatus::ModelDownloaded), ("b", ModelStatus::ModelDownloaded)];
    metrics.models(&models.into_iter().map(|(key, status)| (key.to_owned(), said(status))).collect());
    metrics.pass(Instant::now(), &Ok(()));
    let fetched = Some(Fetched { bytes: 4_000_000_000, seconds: 10.0 });
    metrics.download(&Ended::Done { seconds: 20.0, fetched });
    metrics.download(&Ended::Done { seconds: 20.0, fetched: None });
    metrics.download(&Ended::Failed { reason: "TokenMissing" });
    metrics.disk(Some(Usage { capacity: 100, free: 40 }), true);
    metrics.config(true);
    metrics.interval(60);
    metrics.scrub_checked(7);
    metrics.scrub_damaged(1);
    assert!(!metrics.text().contains("scrub_last_completion_timestamp_seconds{"), "it was never complete");
    metrics.scrub_completed(Timestamp::from_second(1_700_000_000).unwrap());
    // Every line has these two labels, first.
    let text = metrics.text().replace(r#"{node="node-1",node_group="workers"}"#, "");
    let text = text.replace(r#"{node="node-1",node_group="workers","#, "{");
    assert!(!text.contains("node-1"), "{text}");
    assert_holds(
        &text,
        &[
            r#"localmodel_models{phase="ModelDownloaded"} 2"#,
            r#"localmodel_models{phase="ModelDownloadError"} 0"#,
            r#"localmodel_passes_total{outcome="ok"} 1"#,
            r#"localmodel_pass_errors_total{error="disk"} 0"#,
            "localmodel_downloaded_bytes_total 4000000000",
            "localmodel_download_duration_seconds_count 2",
            r#"localmodel_download_rate_bytes_per_second_bucket{le="2e+08"} 0"#,
            r#"localmodel_download_rate_bytes_per_second_bucket{le="5e+08"} 1"#,
            r#"localmodel_download_failures_total{reason="TokenMissing"} 1"#,
            "localmodel_disk_capacity_bytes 100",
            "localmodel_disk_free_bytes 40",
            "localmodel_disk_usable 1",
            "localmodel_agent_config_invalid 1",
            "localmodel_pass_interval_seconds 60",
            "localmodel_scrub_checked_bytes_total 7",
            "localmodel_scrub_damaged_files_total 1",
            "localmodel_scrub_last_completion_timestamp_seconds 1700000000",
        ],
    );
}

#[test]
fn every_name_is_good_and_no_label_is_one_that_prometheus_gives_to_targets() {
    let operator = OperatorMetrics::default().definitions();
    let agent = AgentMetrics::new("n", "g").definitions();
    let mut names = BTreeSet::new();
    for metric in operator.iter().chain(&agent) {
        assert!(names.insert(metric.name.clone()), "{} stands twice", metric.name);
        assert!(metric.name.starts_with("localmodel_"), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == "counter", "{}", metric.name);
        assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}: the dot is added", metric.name);
        for label in &metric.labels {
            let of_target =
                ["namespace", "pod", "instance", "job", "container", "endpoint", "service", "node"];
            assert!(!of_target.contains(&label.name), "{} has label {}", metric.name, label.name);
        }
    }
}

#[test]
fn every_process_tells_of_itself_as_prometheus_knows_it() {
    for text in [OperatorMetrics::default().text(&Situation::default()), AgentMetrics::new("n", "g").text()] {
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            let value: f64 = value.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap();
            assert!(value >= 0.0, "{name} {value}");
        }
    }
}
