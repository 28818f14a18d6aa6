//! Writes the agent's part of its node's status, only when it differs.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Agent, Look, sources};
use crate::api::LocalModelNode;
use crate::error::{Doing, Error};
use crate::plan::disk::CopyKey;
use crate::plan::local_status::DiskView;
use crate::plan::names::MANAGER;
use crate::plan::pass::Outcome;
use crate::plan::{local_status, patch, scrub};

/// How often in a row the agents of other groups may be faster with the same node's status.
const TRIES: usize = 8;

impl Agent {
    /// Writes the status as it is to be. What others wrote since the look is kept: on a node of many groups
    /// there is always somebody who was faster. Another list of models is for another look.
    pub(super) async fn write_status(
        &mut self,
        local: &LocalModelNode,
        outcome: &Outcome,
        look: &Look,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut latest = local.clone();
        for _ in 1..TRIES {
            match self.try_to_write(&latest, outcome, look, now).await {
                Err(error) if error.is_conflict() => {
                    let found = sources::local_node_now(&self.client, &self.settings.node).await?;
                    let is_same = |found: &LocalModelNode| {
                        found.uid() == local.uid() && found.spec.local_models == local.spec.local_models
                    };
                    let Some(found) = found.filter(is_same) else { return Err(error) };
                    latest = found;
                }
                other => return other,
            }
        }
        self.try_to_write(&latest, outcome, look, now).await
    }

    async fn try_to_write(
        &mut self,
        local: &LocalModelNode,
        outcome: &Outcome,
        look: &Look,
        now: Timestamp,
    ) -> Result<(), Error> {
        let name = local.name_any();
        let before = local.status.clone().unwrap_or_default();
        let not_ours: Vec<String> = look.scan.strangers.iter().cloned().collect();
        let own = |copy: &CopyKey| self.scrubbed.borrow().contains(copy);
        let of_own = look.scan.inventory.scrubbed.iter().filter(|(copy, _)| own(copy));
        let problem = look.unwritable.get(&None).or(look.full.as_ref());
        self.metrics.disk(look.usage, problem.or(look.unanswered.as_ref()).is_none());
        let disk = match &look.unanswered {
            Some(problem) => local_status::unanswered(before.disks.get(&self.settings.group), problem),
            None => local_status::disk(&DiskView {
                usage: look.usage,
                problem,
                scrub: scrub::summary(of_own.map(|(_, scrubbed)| scrubbed), now),
                not_ours: &not_ours,
            }),
        };
        if let Some(last) = &disk.last_scrub {
            self.metrics.scrub_completed(last.0);
        }
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
                    let (phase, reason) = (phase.as_str(), &detail.reason);
                    tracing::info!(model, phase, reason, said = detail.message, "status changed");
                }
            }
        }
        self.said = Some(outcome.status.clone());
        Ok(())
    }
}
