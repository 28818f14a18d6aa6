//! What the metrics say of the fleet, from the stores, whenever they are asked.

use std::sync::Arc;

use super::cache_kind::CacheKind;
use super::context::Context;
use super::leader::Fence;
use crate::api::LocalModelNode;
use crate::plan::fleet::{self, CacheCount, Fleet};
use crate::telemetry::metrics::Situation;

/// All metrics as text. The operator that leads tells of the fleet, so that a sum over several operators
/// counts nothing twice.
pub(super) fn text(context: &Context, fence: &Fence) -> String {
    let stores = &context.stores;
    let leads = fence.is_open();
    context.metrics.text(&Situation {
        leads,
        standing_back: stores.standing_back().is_some(),
        invalid_key: stores.config_problem().map(|(_, error)| error.key),
        fleet: (leads && stores.missing().is_empty()).then(|| fleet(context)),
    })
}

fn fleet(context: &Context) -> Fleet {
    let stores = &context.stores;
    let wanted = stores.wanted();
    let nodes = stores.local_nodes.store.state();
    let nodes: Vec<&LocalModelNode> = nodes.iter().map(|node| &**node).collect();
    let caches = wanted.caches();
    Fleet {
        caches: counts(stores.caches.store.state())
            .chain(counts(stores.namespace_caches.store.state()))
            .collect(),
        groups: wanted.groups().into_iter().map(|group| fleet::group(group, &nodes, &caches)).collect(),
    }
}

fn counts<C: CacheKind>(caches: Vec<Arc<C>>) -> impl Iterator<Item = CacheCount> {
    caches.into_iter().map(|cache| fleet::cache(&cache.key(), cache.status()))
}
