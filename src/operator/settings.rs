//! The settings: says on the ConfigMap when they cannot be read.

use std::sync::Arc;

use kube::Resource;

use super::context::Context;

pub(super) async fn run(context: Arc<Context>) {
    let mut told = None;
    loop {
        let problem = context.stores.config_problem();
        if let Some((map, error)) = problem.as_ref().filter(|_| problem != told) {
            let note = format!("{error}; the last good settings stay in force");
            context.events.warn(map.object_ref(&()), "InvalidSettings", note).await;
        }
        told = problem;
        context.stores.changed().await;
    }
}
