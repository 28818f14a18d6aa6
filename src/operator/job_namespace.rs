//! The namespace of download Jobs: says on it which priority class the settings give to Jobs. Admission holds agents
//! to that word, and a policy that read the settings themselves would depend on their being there.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::context::{Context, RECHECK};
use crate::error::{Doing, Error};
use crate::plan::names::{MANAGER, PRIORITY_CLASS};

/// How often it is looked whether somebody else has changed it.
const EVERY: Duration = Duration::from_mins(10);

pub(super) async fn run(context: Arc<Context>) {
    loop {
        let config = context.stores.config();
        let class = config.pod.priority_class_name.as_deref().unwrap_or_default();
        let wait = match keep(&context, &config.job_namespace, class).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(%error, "Jobs with a priority class are refused until it is written");
                RECHECK
            }
        };
        let is_same = || {
            let now = context.stores.config();
            (&now.pod.priority_class_name, &now.job_namespace)
                == (&config.pod.priority_class_name, &config.job_namespace)
        };
        // An error only says that the time is over.
        let _ = tokio::time::timeout(wait, context.stores.until(|| !is_same())).await;
    }
}

/// Writes the class where another one stands. A namespace that is not there needs none.
async fn keep(context: &Context, name: &str, class: &str) -> Result<(), Error> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    let found = api.get_metadata_opt(name).await.doing(|| format!("reading Namespace {name}"))?;
    let Some(found) = found else { return Ok(()) };
    if found.annotations().get(PRIORITY_CLASS).is_some_and(|written| written == class) {
        return Ok(());
    }
    let meta = json!({"resourceVersion": found.resource_version(), "annotations": {PRIORITY_CLASS: class}});
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    api.patch_metadata(name, &params, &Patch::Merge(json!({"metadata": meta})))
        .await
        .doing(|| format!("writing the priority class of Jobs on Namespace {name}"))?;
    tracing::info!(namespace = name, class, "priority class of Jobs written");
    Ok(())
}
