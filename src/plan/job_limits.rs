//! What a download Job may take: time, and processors and memory where its container names none.

use serde_json::{Map, Value, json};

use crate::api::quantity;
use crate::config::JobResources;

/// What any Job may take, for its image, its start and a source that answers late.
const BASE_SECONDS: u64 = 30 * 60;
/// The slowest download that is waited for, in bytes per second.
const SLOWEST: u64 = 1 << 20;
/// The most that any Job may take: 30 days.
pub const LONGEST_SECONDS: u64 = 30 * 24 * 3600;
/// What a Job may take of whose model no size is known: a day.
const UNKNOWN_SECONDS: u64 = 24 * 3600;

/// The variable by which our downloader learns how many bytes it may take.
pub const MOST_BYTES: &str = "LOCALMODEL_MAX_BYTES";
/// Bytes that any model may have beyond its size: what is beside the weights counts little in those of small ones.
const BASE_BYTES: u64 = 16 << 20;

/// The most bytes that a download may take: a tenth more than the model has by its cache, and 16 MiB.
pub fn most_bytes(model_size: u64) -> u64 {
    model_size.saturating_add(model_size / 10).saturating_add(BASE_BYTES)
}

/// The seconds after which Kubernetes ends a Job: half an hour, and one for each MiB that the model has.
pub fn deadline(model_size: Option<u64>) -> u64 {
    let by_size = |size: u64| BASE_SECONDS.saturating_add(size.div_ceil(SLOWEST)).min(LONGEST_SECONDS);
    model_size.map_or(UNKNOWN_SECONDS, by_size)
}

/// Gives a container the requests and limits that it does not name itself, none of which contradicts those that it
/// does.
pub fn complete(container: &mut Value, defaults: &JobResources) {
    let named = |kind: &str, of: &str| {
        let value = &container["resources"][kind][of];
        value.as_str().map(Into::into).or_else(|| value.as_number().map(ToString::to_string))
    };
    let mut added: Map<String, Value> = Map::new();
    for (of, [request, limit]) in [("cpu", &defaults.cpu), ("memory", &defaults.memory)] {
        let (own_request, own_limit) = (named("requests", of), named("limits", of));
        let wanted = own_request.as_deref().unwrap_or(request);
        if own_limit.is_none() {
            added.entry("limits").or_insert(json!({}))[of] = json!(quantity::larger(limit, wanted));
        }
        // Without a request Kubernetes takes the container's own limit for one.
        if own_request.is_none() && own_limit.is_none() {
            added.entry("requests").or_insert(json!({}))[of] = json!(request);
        }
    }
    for (kind, values) in added {
        for (of, value) in values.as_object().into_iter().flatten() {
            container["resources"][&kind][of] = value.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_may_take_a_tenth_more_than_its_cache_says() {
        for (size, expected) in [(0, 16 << 20), (10 << 30, 11_827_937_280), (u64::MAX, u64::MAX)] {
            assert_eq!(most_bytes(size), expected);
        }
    }

    #[test]
    fn a_jobs_time_grows_with_its_model_and_has_an_end_whatever_size_is_said() {
        for (size, expected) in [
            (Some(0), 1800),
            (Some(1), 1801),
            (Some(10 << 30), 1800 + 10_240),
            (Some(140_000_000_000), 1800 + 133_515),
            (Some(u64::MAX), LONGEST_SECONDS),
            (None, 86_400),
        ] {
            assert_eq!(deadline(size), expected, "{size:?}");
        }
    }

    fn completed(resources: &Value) -> Value {
        let mut container = json!({"name": "c", "resources": resources});
        if container["resources"].is_null() {
            container.as_object_mut().unwrap().remove("resources");
        }
        complete(&mut container, &JobResources::default());
        container["resources"].clone()
    }

    #[test]
    fn a_container_without_requests_and_limits_has_the_default_ones() {
        let defaults = json!({
            "limits": {"cpu": "1", "memory": "1Gi"},
            "requests": {"cpu": "100m", "memory": "100Mi"},
        });
        for none in [Value::Null, json!({}), json!({"limits": {}, "requests": null})] {
            assert_eq!(completed(&none), defaults, "{none}");
        }
    }

    #[test]
    fn what_a_container_names_stays_and_contradicts_nothing_that_is_added() {
        let large = json!({"requests": {"memory": "4Gi", "cpu": 2}});
        let completed_large = json!({
            "requests": {"memory": "4Gi", "cpu": 2}, "limits": {"memory": "4Gi", "cpu": "2"},
        });
        assert_eq!(completed(&large), completed_large);
        let small = json!({"limits": {"memory": "50Mi", "nvidia.com/gpu": "1"}});
        let completed_small = json!({
            "limits": {"memory": "50Mi", "nvidia.com/gpu": "1", "cpu": "1"}, "requests": {"cpu": "100m"},
        });
        assert_eq!(completed(&small), completed_small);
        let whole =
            json!({"limits": {"cpu": "3", "memory": "3Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(completed(&whole), whole);
    }
}
