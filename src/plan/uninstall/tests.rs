use kube::{Resource, ResourceExt};
use serde_json::json;

use super::*;
use crate::api::{LocalModelCache, LocalModelNodeGroup};
use crate::config::Config;
use crate::plan::names::CacheKey;
use crate::plan::samples::{cache, from, group};
use crate::plan::{agent, volumes};

fn meta(value: Value) -> ObjectMeta {
    from(value)
}

fn webhooks(entries: &[Value]) -> Found {
    let metadata = meta(json!({"name": names::VALIDATING_WEBHOOKS, "resourceVersion": "7"}));
    let webhooks = Webhooks { kind: WebhookKind::Validating, metadata, entries: entries.to_vec() };
    Found { webhooks: vec![webhooks], ..Found::default() }
}

fn entry(name: &str, service: &str, namespace: &str) -> Value {
    json!({"name": name, "clientConfig": {"service": {"name": service, "namespace": namespace}}})
}

fn targets(found: &Found) -> Vec<String> {
    removals(found, "kserve").iter().map(|removal| removal.what.to_string()).collect()
}

/// Everything that the plans make for a group with one cache.
fn everything() -> Found {
    let (group, cache): (LocalModelNodeGroup, LocalModelCache) = (group(), cache());
    let owner = group.controller_owner_ref(&()).unwrap();
    let agents = agent::daemon_set(&group, &owner, &Config::default(), "kserve", "image").unwrap();
    let ours = volumes::agent(&group, owner, "kserve");
    let key = CacheKey::cluster(cache.name_any());
    // The operator's namespace may also be that of Jobs or of services.
    let caches =
        volumes::download(&key, &cache.spec, cache.controller_owner_ref(&()).unwrap(), &group, "kserve");
    Found {
        daemon_sets: vec![agents.metadata],
        claims: vec![ours.claim.metadata, caches.claim.metadata],
        volumes: vec![ours.volume.metadata, caches.volume.metadata],
        ..Found::default()
    }
}

#[test]
fn agents_and_their_volumes_go_and_the_volumes_of_caches_stay() {
    let found = everything();
    let agent = names::agent(&group().name_any());
    assert_eq!(
        targets(&found),
        [
            format!("DaemonSet {agent}"),
            format!("PersistentVolumeClaim {agent}"),
            format!("PersistentVolume {agent}")
        ]
    );
    assert_eq!(volumes_of_caches(&found), 1);
}

#[test]
fn what_somebody_else_made_stays_whatever_its_name() {
    let foreign = |name: &str| meta(json!({"name": name, "labels": {names::NODE_GROUP: "workers"}}));
    let found = Found {
        daemon_sets: vec![foreign("workers-agent")],
        claims: vec![foreign("workers-agent")],
        volumes: vec![foreign("workers-agent"), meta(json!({"name": "m", "labels": {names::CACHE: "m"}}))],
        ..Found::default()
    };
    assert_eq!(targets(&found), [""; 0]);
    assert_eq!(volumes_of_caches(&found), 0);
}

#[test]
fn what_is_in_deletion_is_waited_for_and_not_deleted_again() {
    let mut found = everything();
    let deleting = meta(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})).deletion_timestamp;
    found.claims[0].deletion_timestamp = deleting;
    let under_way: Vec<bool> = removals(&found, "kserve").iter().map(|removal| removal.under_way).collect();
    assert_eq!(under_way, [false, true, false]);
}

#[test]
fn warm_labels_of_both_kinds_go_and_no_other_label() {
    let node = |name: &str, labels: Value| meta(json!({"name": name, "labels": labels}));
    let found = Found {
        nodes: vec![
            node("cold", json!({"kubernetes.io/hostname": "cold", "localmodel.kserve.io/mine": "x"})),
            node(
                "warm",
                json!({
                    "kubernetes.io/hostname": "warm",
                    "localmodel.kserve.io/c277d78a31bc6624": "workers",
                    "localmodel.kserve.io/c277d78a31bc6624-0a1b2c3d": "workers",
                }),
            ),
        ],
        ..Found::default()
    };
    let labels = ["localmodel.kserve.io/c277d78a31bc6624", "localmodel.kserve.io/c277d78a31bc6624-0a1b2c3d"];
    let wanted = Target::Labels("warm".into(), labels.map(Into::into).to_vec());
    assert_eq!(removals(&found, "kserve"), [Removal { what: wanted, under_way: false }]);
}

#[test]
fn a_configuration_that_points_to_us_alone_goes_before_everything_else() {
    let found =
        Found { webhooks: webhooks(&[entry("a", "localmodel-webhook", "kserve")]).webhooks, ..everything() };
    let first = targets(&found).remove(0);
    assert_eq!(first, "ValidatingWebhookConfiguration localmodelcache.serving.kserve.io");
}

#[test]
fn a_configuration_of_kserves_under_the_same_name_stays() {
    let kserves = entry("a", "localmodel-webhook-server-service", "kserve");
    let another_operators = entry("b", "localmodel-webhook", "elsewhere");
    let by_url = json!({"name": "c", "clientConfig": {"url": "https://example.com"}});
    assert_eq!(targets(&webhooks(&[kserves, another_operators, by_url])), [""; 0]);
    assert_eq!(targets(&webhooks(&[])), [""; 0]);
}

#[test]
fn of_a_configuration_that_others_share_only_our_entries_go() {
    let (ours, kserves) = (entry("a", "localmodel-webhook", "kserve"), entry("b", "theirs", "kserve"));
    let found = webhooks(&[ours, kserves.clone()]);
    let Target::Entries(kept) = removals(&found, "kserve").remove(0).what else { panic!("entries") };
    assert_eq!(kept.entries, [kserves]);
    assert_eq!(kept.metadata.resource_version.as_deref(), Some("7"));
}
