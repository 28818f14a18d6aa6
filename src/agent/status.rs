//! Writes the agent's part of its node's status, only when it differs.

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::Agent;
use crate::api::LocalModelNode;
use crate::error::{Doing, Error};
use crate::plan::names::MANAGER;
use crate::plan::pass::{Outcome, Problem};
use crate::plan::{local_status, patch};

impl Agent {
    pub(super) async fn write_status(
        &mut self,
        local: &LocalModelNode,
        outcome: &Outcome,
        unwritable: Option<&Problem>,
    ) -> Result<(), Error> {
        let name = local.name_any();
        let before = local.status.clone().unwrap_or_default();
        let usage = self.disk.usage();
        self.metrics.disk(usage, unwritable.is_none());
        let disk = local_status::disk(usage, unwritable);
        let mut wanted = local_status::status(
            &before,
            &local.spec.local_models,
            &self.settings.group,
            &outcome.status,
            disk,
        );
        if self.plain {
            wanted = wanted.without_ours();
        }
        let failed = |error| Error::Manifest(name.clone(), error);
        let (from, to) =
            (serde_json::to_value(&before).map_err(failed)?, serde_json::to_value(&wanted).map_err(failed)?);
        if let Some(changes) = patch::merge(&from, &to) {
            let body = json!({"metadata": {"resourceVersion": local.resource_version()}, "status": changes});
            let api: Api<LocalModelNode> = Api::all(self.client.clone());
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            let kept = api
                .patch_status(&name, &params, &Patch::Merge(&body))
                .await
                .doing(|| format!("writing the status of LocalModelNode {name}"))?;
            if !wanted.disks.is_empty() && kept.status.is_none_or(|status| status.disks.is_empty()) {
                tracing::info!(
                    "the definition of LocalModelNode keeps no detail: only KServe's own status is written"
                );
                self.plain = true;
            }
            for (model, (phase, detail)) in &outcome.status {
                if before.model_status.get(model) != Some(phase) {
                    tracing::info!(model, ?phase, reason = detail.reason, message = detail.message, "status");
                }
            }
        }
        self.said = Some(outcome.status.clone());
        Ok(())
    }
}
