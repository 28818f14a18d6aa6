//! Serving volumes: through which the users of each namespace read a cache (S6 to S8).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::cache_volumes::{exactly, ignore_missing};
use super::context::Context;
use super::volumes::{Obstacle, advance};
use crate::api::CacheSpec;
use crate::error::{Doing, Error};
use crate::plan::cache::NAME_CONFLICT;
use crate::plan::conditions::Statement;
use crate::plan::mounts::{self, SERVING_CLAIM_TOO_WIDE};
use crate::plan::names::{self, CacheKey, MANAGER, NODE_GROUP, SERVES, UNUSED_SINCE};
use crate::plan::serving::{self, Claim};
use crate::plan::users::User;
use crate::plan::volumes::Pair;
use crate::plan::{agent, capacity, volumes};

/// A cache whose serving volumes are looked after.
pub(super) struct Served<'a> {
    pub(super) context: &'a Context,
    pub(super) key: &'a CacheKey,
    pub(super) spec: &'a CacheSpec,
    pub(super) owner: OwnerReference,
    /// Until when no volume is made for it, if it has to wait.
    pub(super) waits_until: Option<Timestamp>,
    /// Everything that uses any cache.
    pub(super) users: &'a [User],
}

impl Served<'_> {
    /// One step for each pair of volume and claim: towards it where it is in use, away from it where its
    /// time is over. Returns when to look again at the latest.
    pub(super) async fn advance(&self, problems: &mut Vec<Statement>) -> Result<Option<Timestamp>, Error> {
        let config = self.context.stores.config();
        if config.disable_volume_management {
            return Ok(None);
        }
        let in_use = serving::in_use(self.key, self.spec, self.users);
        let mut result = Ok(());
        if config.enabled && self.waits_until.is_none() {
            for (namespace, group) in &in_use {
                if let Err(error) = self.towards(namespace, group, problems).await {
                    result = Err(error);
                }
            }
        }
        let wanted: Vec<_> =
            in_use.iter().map(|(ns, group)| (ns.clone(), names::label_value(group))).collect();
        let again = self.claims(&wanted).await?;
        self.volumes_without_claim(&wanted).await?;
        let begins = self.waits_until.filter(|_| !in_use.is_empty());
        result.map(|()| again.into_iter().chain(begins).min())
    }

    async fn towards(
        &self,
        namespace: &str,
        group: &str,
        problems: &mut Vec<Statement>,
    ) -> Result<(), Error> {
        // A group that is gone or lacks something is told where the download volumes are planned (C5, G5, G7).
        let Some(group) = self.context.stores.groups.store.get(&ObjectRef::new(group)) else { return Ok(()) };
        if capacity::asked(self.spec).is_none() || !agent::problems(&group).is_empty() {
            return Ok(());
        }
        if namespace == self.context.stores.config().job_namespace {
            problems.push(Statement::problem(
                NAME_CONFLICT,
                format!(
                    "namespace {namespace} is that of download Jobs, whose claims have the same names: let services run in another namespace"
                ),
            ));
            return Ok(());
        }
        let pair = volumes::serving(self.key, self.spec, self.owner.clone(), &group, namespace);
        match advance(self.context, &pair).await {
            Ok(None) => {}
            Ok(Some(Obstacle::Wide(_))) => self.narrow(&pair, problems).await?,
            Ok(Some(obstacle)) => problems.push(obstacle.problem()),
            Err(error) if error.code() == Some(403) && error.to_string().contains("being terminated") => {
                tracing::info!(namespace, "no serving volumes: the namespace is being deleted");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes a claim away that shows more than one model, unless a pod uses it: a claim in deletion refuses new
    /// pods, those of a Deployment that goes on included.
    async fn narrow(&self, pair: &Pair, problems: &mut Vec<Statement>) -> Result<(), Error> {
        let (name, namespace) = (pair.claim.name_any(), pair.claim.namespace().unwrap_or_default());
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), &namespace);
        let doing = || format!("replacing PersistentVolumeClaim {namespace}/{name}");
        // The claim before the pods: one that uses it since was made before the deletion that is tried.
        let Some(claim) = claims.get_opt(&name).await.doing(doing)? else { return Ok(()) };
        if let Some(message) = mounts::in_the_way(&self.pods(&namespace).await?, &name) {
            problems.push(Statement::problem(SERVING_CLAIM_TOO_WIDE, message));
            return Ok(());
        }
        let this_one = Preconditions { uid: claim.uid(), resource_version: claim.resource_version() };
        let deleted = claims.delete(&name, &DeleteParams::default().preconditions(this_one)).await.map(drop);
        ignore_missing(deleted).doing(doing)?;
        tracing::info!(claim = name, namespace, "a claim that shows more than one model is replaced");
        Ok(())
    }

    async fn pods(&self, namespace: &str) -> Result<Vec<Pod>, Error> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        let found =
            pods.list(&ListParams::default()).await.doing(|| format!("listing the pods of {namespace}"))?;
        Ok(found.items)
    }

    async fn claims(&self, wanted: &[(String, String)]) -> Result<Option<Timestamp>, Error> {
        let now = Timestamp::now();
        let mut again = None;
        let serving = |claim: &PersistentVolumeClaim| self.is_serving(&claim.metadata);
        for claim in self.context.stores.claims.store.state_filter(serving) {
            let namespace = claim.namespace().unwrap_or_default();
            let is_wanted = wanted.contains(&(namespace, label(&claim.metadata, NODE_GROUP)));
            match serving::claim(&claim, is_wanted, now) {
                Claim::Keep => {}
                Claim::Unmark => self.note(&claim, Value::Null).await?,
                Claim::Mark => self.note(&claim, json!(now.to_string())).await?,
                Claim::Until(at) => again = Some(again.map_or(at, |earlier: Timestamp| earlier.min(at))),
                Claim::DeleteIfUnmounted => self.delete_if_unmounted(&claim, now).await?,
            }
        }
        Ok(again)
    }

    /// Writes since when a claim is unused; the write's event brings the next look.
    async fn note(&self, claim: &PersistentVolumeClaim, since: Value) -> Result<(), Error> {
        let name = claim.name_any();
        let body = json!({"metadata": {
            "resourceVersion": claim.resource_version(), "annotations": {UNUSED_SINCE: since},
        }});
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patched = self.api(claim).patch_metadata(&name, &params, &Patch::Merge(&body)).await.map(drop);
        ignore_missing(patched).doing(|| format!("noting the use of PersistentVolumeClaim {name}"))
    }

    /// A claim in deletion refuses new pods and waits for old ones, so that it is looked for those that
    /// nobody labelled before.
    async fn delete_if_unmounted(&self, claim: &PersistentVolumeClaim, now: Timestamp) -> Result<(), Error> {
        let (name, namespace) = (claim.name_any(), claim.namespace().unwrap_or_default());
        let pods = self.pods(&namespace).await?;
        if let Some(pod) = pods.iter().find(|pod| mounts::mounts(pod, &name)) {
            tracing::info!(
                claim = name,
                namespace,
                pod = pod.name_any(),
                "no service uses it, but a pod does"
            );
            return self.note(claim, json!(now.to_string())).await;
        }
        let this_one = Preconditions { uid: claim.uid(), resource_version: claim.resource_version() };
        let deleted =
            self.api(claim).delete(&name, &DeleteParams::default().preconditions(this_one)).await.map(drop);
        ignore_missing(deleted).doing(|| format!("deleting PersistentVolumeClaim {namespace}/{name}"))?;
        tracing::info!(claim = name, namespace, "unused serving claim deleted");
        Ok(())
    }

    /// The claim goes first and its volume after it: the other way round the claim would be lost, and
    /// block the next pair.
    async fn volumes_without_claim(&self, wanted: &[(String, String)]) -> Result<(), Error> {
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let serving = |volume: &PersistentVolume| {
            self.is_serving(&volume.metadata) && volume.metadata.deletion_timestamp.is_none()
        };
        for volume in self.context.stores.volumes.store.state_filter(serving) {
            let group = label(&volume.metadata, NODE_GROUP);
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            let claim = claim.and_then(|claim| Some((claim.namespace.clone()?, claim.name.clone()?)));
            let Some((namespace, claim)) = claim else { continue };
            if wanted.contains(&(namespace.clone(), group)) {
                continue;
            }
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), &namespace);
            let of_volume = ObjectRef::new(&claim).within(&namespace);
            // The store may lag behind a claim that was made a moment ago.
            if self.context.stores.claims.store.get(&of_volume).is_some()
                || claims
                    .get_opt(&claim)
                    .await
                    .doing(|| format!("reading PersistentVolumeClaim {namespace}/{claim}"))?
                    .is_some()
            {
                continue;
            }
            let name = volume.name_any();
            ignore_missing(api.delete(&name, &exactly(&*volume)).await.map(drop))
                .doing(|| format!("deleting PersistentVolume {name}"))?;
            tracing::info!(volume = name, "unused serving volume deleted");
        }
        Ok(())
    }

    fn is_serving(&self, meta: &ObjectMeta) -> bool {
        meta.labels.as_ref().is_some_and(|labels| labels.contains_key(SERVES))
            && volumes::belongs(meta, &self.owner.uid)
    }

    fn api(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.context.client.clone(), &claim.namespace().unwrap_or_default())
    }
}

fn label(meta: &ObjectMeta, key: &str) -> String {
    meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default()
}
