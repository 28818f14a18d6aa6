//! How fast downloads are: over the last seconds where somebody watches, else since they began.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::objects::Cache;
use crate::api::cache::{NodeCopy, NodeStatus};
use crate::plan::names::CacheKey;

/// The time over which a pace is taken. A node tells its bytes every 5 seconds at most (A8).
const SPAN: SignedDuration = SignedDuration::from_secs(30);
/// The shortest time that says something.
const SHORTEST: SignedDuration = SignedDuration::from_secs(8);

/// The bytes of one copy at earlier looks, the oldest first.
type Samples = VecDeque<(Timestamp, i64)>;

/// What earlier looks saw of the downloads that are under way.
#[derive(Clone, Debug, Default)]
pub struct History(BTreeMap<CacheKey, BTreeMap<String, Samples>>);

impl History {
    /// Keeps what this look sees. A download that began anew has no earlier pace.
    pub fn see(&mut self, caches: &[Cache], now: Timestamp) {
        let mut before = std::mem::take(&mut self.0);
        for cache in caches {
            let key = cache.key();
            let mut of_cache = before.remove(&key).unwrap_or_default();
            let status = cache.status.iter().flat_map(|status| &status.nodes);
            let moving = status.filter(|(_, copy)| copy.phase == NodeStatus::NodeDownloading);
            let kept = moving.map(|(node, copy)| {
                let samples = of_cache.remove(node).unwrap_or_default();
                (node.clone(), with(samples, copy.bytes_done.unwrap_or(0), now))
            });
            let kept: BTreeMap<String, Samples> = kept.collect();
            if !kept.is_empty() {
                self.0.insert(key, kept);
            }
        }
    }

    /// Bytes in a second; `None` where nothing can be said.
    pub fn pace(&self, cache: &CacheKey, node: &str, copy: &NodeCopy, now: Timestamp) -> Option<u64> {
        let done = copy.bytes_done?;
        let first = self.0.get(cache).and_then(|nodes| nodes.get(node)).and_then(VecDeque::front);
        let recent = first.filter(|(at, _)| now.duration_since(*at) >= SHORTEST);
        let (at, before) = match recent {
            Some(sample) => *sample,
            None => (copy.started.as_ref()?.0, 0),
        };
        let millis =
            u64::try_from(now.duration_since(at).as_millis()).ok().filter(|millis| *millis >= 1000)?;
        let bytes = u64::try_from(done.saturating_sub(before)).ok()?;
        u64::try_from(u128::from(bytes) * 1000 / u128::from(millis)).ok()
    }
}

fn with(mut samples: Samples, bytes: i64, now: Timestamp) -> Samples {
    if samples.back().is_some_and(|(_, before)| *before > bytes) {
        samples.clear();
    }
    // One that is older than the span stays until the next one is, so that the span is always filled.
    while samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= SPAN) {
        samples.pop_front();
    }
    samples.push_back((now, bytes));
    samples
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::status::samples::{at, from};

    const MIB: i64 = 1 << 20;

    fn copy(bytes: i64) -> Value {
        json!({"phase": "NodeDownloading", "bytesDone": bytes, "started": "1970-01-01T00:00:00Z"})
    }

    fn pace_after(looks: &[(i64, i64)], done: i64, now: i64) -> Option<u64> {
        let mut history = History::default();
        for (second, bytes) in looks {
            let cache = json!({"metadata": {"name": "m"}, "status": {"nodes": {"n": copy(*bytes)}}});
            history.see(&[from(cache)], at(*second));
        }
        history.pace(&CacheKey::cluster("m"), "n", &from(copy(done)), at(now))
    }

    #[test]
    fn the_first_look_says_the_pace_since_the_download_began() {
        assert_eq!(pace_after(&[], 100 * MIB, 50), Some(2 << 20));
        assert_eq!(pace_after(&[], 100 * MIB, 0), None, "a clock that is behind says nothing");
    }

    #[test]
    fn who_watches_sees_the_pace_of_the_last_seconds() {
        assert_eq!(pace_after(&[(100, 0), (110, 50 * MIB)], 100 * MIB, 120), Some(5 << 20));
        let stalled = [(100, MIB), (140, MIB), (180, MIB)];
        assert_eq!(pace_after(&stalled, MIB, 181), Some(0), "a download that stands still says so");
    }

    #[test]
    fn a_download_that_began_anew_has_no_earlier_pace() {
        assert_eq!(pace_after(&[(90, 90 * MIB), (100, 0)], 20 * MIB, 110), Some(2 << 20));
    }

    #[test]
    fn looks_of_long_ago_are_forgotten() {
        let mut history = History::default();
        for second in 0..500 {
            let cache = json!({"metadata": {"name": "m"}, "status": {"nodes": {"n": copy(second)}}});
            history.see(&[from(cache)], at(second));
        }
        assert_eq!(history.0[&CacheKey::cluster("m")]["n"].len(), 31);
        history.see(&[], at(501));
        assert!(history.0.is_empty());
    }
}
