use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::api::cache::StorageSpec;
use crate::api::node::{Damage, DiskStatus, LocalModelNodeStatus, ModelDetail};
use crate::plan::entries::{PlannedCache, entries, local_model_node};
use crate::plan::samples::{at, cache_named, group, node};
use crate::plan::text::{MESSAGE_MAX, REASON_MAX};
use crate::plan::{local_status, pass, sizes};

fn with_parameters(count: usize, bytes: usize) -> CacheSpec {
    let parameters = (0..count).map(|at| (format!("p{at:03}"), "x".repeat(bytes))).collect();
    let storage = StorageSpec { key: Some("k".into()), parameters: Some(parameters) };
    CacheSpec { storage: Some(storage), ..cache_named("m", "hf://o/m", &["workers"]).spec.0 }
}

#[test]
fn a_cache_whose_entry_would_be_too_large_is_told_the_field_its_size_and_the_limit() {
    let key = CacheKey::namespaced("team", "m");
    assert_eq!(too_large(&key, &with_parameters(32, 100)), None);
    let told = too_large(&key, &with_parameters(1, 900_000)).unwrap();
    assert_eq!(told.kind, SPEC_TOO_LARGE);
    assert_eq!(
        told.message,
        "storage.parameters has 878.9 KiB, and all that nodes are told of a cache may have 8 KiB: shorten it; until then the cache is kept nowhere"
    );
    let long = cache_named("m", &format!("hf://o/{}", "m".repeat(9000)), &["workers"]).spec.0;
    let told = too_large(&key, &long).unwrap().message;
    assert!(
        told.starts_with("sourceModelUri has 8.7 KiB") && told.contains("make a cache with a shorter one"),
        "{told}"
    );
}

#[test]
fn whatever_the_schema_lets_through_fits_into_an_entry() {
    let mut spec = with_parameters(32, 118);
    spec.source_model_uri = format!("hf://{}", "u".repeat(2043));
    spec.service_account_name = Some("s".repeat(253));
    spec.storage.as_mut().unwrap().key = Some("k".repeat(253));
    spec.node_groups = vec!["g".repeat(253); 16];
    assert_eq!(too_large(&CacheKey::namespaced("n".repeat(63), "m".repeat(63)), &spec), None);
}

#[test]
fn escaped_characters_count_as_what_they_become() {
    for (text_of, expected) in [("ab", 2), ("a\"\\", 5), ("\n\u{1}", 12), ("ü", 2)] {
        assert_eq!(text(text_of), expected, "{text_of:?}");
        let json = serde_json::json!(text_of).to_string().len() - 2;
        assert!(json <= expected, "{text_of:?}");
    }
}

/// What an agent may say of a copy at the most.
fn longest_word() -> pass::Said {
    let long = "\"".repeat(100_000);
    let detail = ModelDetail {
        bytes_done: Some(i64::MAX),
        bytes_total: Some(i64::MAX),
        files_done: Some(i64::MAX),
        files_total: Some(i64::MAX),
        reason: Some("r".repeat(100_000)),
        message: Some("m".repeat(100_000)),
        attempts: Some(i32::MAX),
        next_try: Some(Time(at(1_800_000_000))),
        started: Some(Time(at(1_800_000_000))),
        finished: Some(Time(at(1_800_000_000))),
        last_damage: Some(Damage {
            time: Time(at(1_800_000_000)),
            reason: long,
            message: "d".repeat(100_000),
        }),
    };
    (crate::api::ModelStatus::ModelDownloadPending, detail)
}

#[test]
fn a_full_list_with_all_that_an_agent_says_of_it_fits_into_etcd() {
    for uri in [1, 2000] {
        let cache = |at: usize| {
            let source = format!("hf://o/{at}{}", "u".repeat(uri));
            let mut cache = cache_named(&format!("{at:0>63}"), &source, &["workers"]);
            cache.spec.0.model_size = Quantity("1".into());
            cache
        };
        let caches: Vec<_> = (0..2000).map(cache).collect();
        let planned: Vec<PlannedCache> = caches.iter().map(PlannedCache::from).collect();
        let plan = entries(&node("n"), &[&group()], &planned, &[], true);
        assert!(plan.entries.len() > 250 && plan.entries.len() < 2000, "{}", plan.entries.len());
        assert_eq!(plan.waiting.len(), 2000 - plan.entries.len());
        let sizes = sizes::annotation(&plan.sizes);
        let mut local = local_model_node(&node("n"), plan.entries.clone(), &[]);
        let said: BTreeMap<_, _> =
            plan.entries.iter().map(|entry| (entry.status_key(), longest_word())).collect();
        let status = local_status::status(
            &LocalModelNodeStatus::default(),
            &plan.entries,
            "workers",
            &said,
            DiskStatus::default(),
        );
        assert!(status.models.values().all(|detail| {
            let damage = detail.last_damage.as_ref().unwrap();
            detail.message.as_ref().unwrap().len() <= MESSAGE_MAX
                && detail.reason.as_ref().unwrap().len() <= REASON_MAX
                && damage.message.len() <= MESSAGE_MAX
                && damage.reason.len() <= REASON_MAX
        }));
        local.status = Some(status);
        let bytes = serde_json::to_vec(&local).unwrap().len() + sizes.len();
        assert!(bytes < LIST_MAX + (1 << 18), "{bytes} bytes with {} entries", plan.entries.len());
    }
}

#[test]
fn one_namespace_takes_a_quarter_of_a_list_and_no_more() {
    let mut ledger = ListLedger::default();
    ledger.keep(Some("a"), NAMESPACE_MAX);
    assert_eq!(
        ledger.fits(Some("a"), 1),
        Err(Full { of_namespace: true, used: NAMESPACE_MAX, allowed: NAMESPACE_MAX })
    );
    assert_eq!(ledger.fits(Some("b"), NAMESPACE_MAX), Ok(()));
    assert_eq!(ledger.fits(None, LIST_MAX - NAMESPACE_MAX), Ok(()));
    let full = Full { of_namespace: false, used: NAMESPACE_MAX, allowed: LIST_MAX };
    assert_eq!(ledger.fits(None, LIST_MAX - NAMESPACE_MAX + 1), Err(full));
}
