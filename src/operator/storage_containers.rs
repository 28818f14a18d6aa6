//! Storage containers: says on each which of its expressions count for nothing (K1).

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Resource, ResourceExt};

use super::context::Context;
use crate::plan::job::invalid_formats;

pub(super) async fn run(context: Arc<Context>) {
    let mut told = BTreeMap::new();
    loop {
        let mut found = BTreeMap::new();
        for container in context.stores.containers.store.state() {
            let (name, invalid) = (container.name_any(), invalid_formats(&container).join("; "));
            if !invalid.is_empty() && told.get(&name) != Some(&invalid) {
                let on = container.object_ref(&());
                context.events.warn(on, "InvalidExpression", invalid.clone()).await;
            }
            found.insert(name, invalid);
        }
        told = found;
        context.stores.changed().await;
    }
}
