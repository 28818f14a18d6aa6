//! Caches: the download volumes, the status and the end of each (C1 to C5, N4 to N6, D1).

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::context::{Context, RECHECK, retry};
use super::serving::Served;
use super::stores::{Stores, Touched, all};
use super::volumes::{Obstacle, advance};
use super::{apply, controller_config};
use crate::api::{LocalModelCache, LocalModelNode, LocalModelNodeGroup};
use crate::error::{Doing, Error};
use crate::plan::cache::{self, NAME_CONFLICT, NODE_GROUP_NOT_FOUND, VOLUMES_TERMINATING, View};
use crate::plan::conditions::Statement;
use crate::plan::copies::Copy;
use crate::plan::entries::group_of;
use crate::plan::names::{self, CacheKey, FINALIZER, JOB_MODEL, JOB_NAMESPACE, MANAGER};
use crate::plan::users::User;
use crate::plan::volumes;

pub(super) async fn run(context: Arc<Context>) {
    let stores = &context.stores;
    Controller::for_stream(stream::pending(), stores.caches.store.clone())
        .with_config(controller_config())
        .reconcile_on(stores.triggers(touched))
        .run(reconcile, |cache, error, _| retry(error, &cache.name_any()), context.clone())
        .for_each(|_| std::future::ready(()))
        .await;
}

fn touched(stores: &Stores, touched: &Touched) -> Vec<ObjectRef<LocalModelCache>> {
    match touched {
        Touched::All | Touched::Group(_) | Touched::Node(_) | Touched::LocalNode(_) => {
            all(&stores.caches.store)
        }
        Touched::Cache(CacheKey { namespace: None, name }) => vec![ObjectRef::new(name)],
        Touched::Owned { cache: Some(label), .. } => {
            let of = |cache: &LocalModelCache| names::label_value(&cache.name_any()) == *label;
            stores.caches.store.state_filter(of).iter().map(|cache| ObjectRef::from_obj(&**cache)).collect()
        }
        Touched::Cache(_) | Touched::Owned { cache: None, .. } => Vec::new(),
    }
}

async fn reconcile(cache: Arc<LocalModelCache>, context: Arc<Context>) -> Result<Action, Error> {
    if cache.metadata.deletion_timestamp.is_some() {
        end(&cache, &context).await?;
        return Ok(Action::await_change());
    }
    if !cache.finalizers().iter().any(|f| f == FINALIZER) {
        let with_ours = cache.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        set_finalizers(&cache, &context, with_ours).await?;
        return Ok(Action::await_change()); // the write's event brings the next look
    }
    let mut problems = Vec::new();
    let users = context.stores.users();
    let volumes = volumes(&cache, &context, &mut problems).await;
    let serving = serving_volumes(&cache, &context, &users, &mut problems).await;
    let blocked = !problems.is_empty();
    for error in [volumes.as_ref().err(), serving.as_ref().err()].into_iter().flatten() {
        problems.push(Statement::problem("VolumesFailed", error.to_string()));
    }
    status(&cache, &context, &users, problems).await?;
    volumes?;
    // What stands in the way may be somebody else's, whose end no watch of ours tells.
    Ok(match serving? {
        _ if blocked => Action::requeue(RECHECK),
        Some(at) => {
            Action::requeue(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default())
        }
        None => Action::await_change(),
    })
}

async fn serving_volumes(
    cache: &LocalModelCache,
    context: &Context,
    users: &[User],
    problems: &mut Vec<Statement>,
) -> Result<Option<Timestamp>, Error> {
    let Some(owner) = cache.controller_owner_ref(&()) else { return Ok(None) };
    let key = CacheKey::cluster(cache.name_any());
    Served { context, key: &key, spec: &cache.spec, owner, users }.advance(problems).await
}

/// The download volumes in each group that exists; a group that does not is a problem of its own (C5).
async fn volumes(
    cache: &LocalModelCache,
    context: &Context,
    problems: &mut Vec<Statement>,
) -> Result<(), Error> {
    let config = context.stores.config();
    let Some(owner) = cache.controller_owner_ref(&()).filter(|_| config.enabled) else { return Ok(()) };
    let key = CacheKey::cluster(cache.name_any());
    let mut result = Ok(());
    for name in &cache.spec.node_groups {
        let Some(group) = context.stores.groups.store.get(&ObjectRef::new(name)) else {
            let message =
                format!("LocalModelNodeGroup {name} does not exist: make it, or take it out of nodeGroups");
            problems.push(Statement::problem(NODE_GROUP_NOT_FOUND, message));
            continue;
        };
        let pair = volumes::download(&key, &cache.spec, owner.clone(), &group, &config.job_namespace);
        match advance(context, &pair).await {
            Ok(None) => {}
            Ok(Some(Obstacle::Conflict(message))) => {
                problems.push(Statement::problem(NAME_CONFLICT, message));
            }
            Ok(Some(Obstacle::Terminating(message))) => {
                problems.push(Statement::problem(VOLUMES_TERMINATING, message));
                // A claim in deletion waits for every pod that names it, also for those that are done.
                delete_jobs(cache, context, Some("status.successful=1")).await?;
            }
            Err(error) => result = Err(error),
        }
    }
    result
}

async fn status(
    cache: &LocalModelCache,
    context: &Context,
    users: &[User],
    problems: Vec<Statement>,
) -> Result<(), Error> {
    let config = context.stores.config();
    let key = CacheKey::cluster(cache.name_any());
    let nodes = planned_nodes(cache, context, config.enabled);
    let copies: Vec<Copy> =
        nodes.iter().map(|(node, local)| Copy { node, local: local.as_deref() }).collect();
    let before = cache.status.clone().unwrap_or_default();
    let mut wanted = cache::status(&View {
        key: &key,
        generation: cache.metadata.generation,
        before: &before,
        enabled: config.enabled,
        copies: &copies,
        users,
        problems,
        now: Timestamp::now(),
    });
    if context.plain_caches.get() {
        wanted = wanted.without_ours();
    }
    let api: Api<LocalModelCache> = Api::all(context.client.clone());
    let Some(kept) = apply::patch_status(&api, cache, &before, &wanted).await? else { return Ok(()) };
    if !wanted.conditions.is_empty() && kept["conditions"].is_null() {
        context.plain_caches.set("LocalModelCache");
    }
    for happening in cache::happenings(&before, &wanted) {
        context.events.publish(cache.object_ref(&()), happening).await;
    }
    Ok(())
}

/// The nodes that keep this cache, or will: those of its groups; while caching is disabled, those where
/// it was planned before.
fn planned_nodes(
    cache: &LocalModelCache,
    context: &Context,
    enabled: bool,
) -> Vec<(Arc<Node>, Option<Arc<LocalModelNode>>)> {
    let groups = context.stores.groups.store.state();
    let groups: Vec<&LocalModelNodeGroup> = groups.iter().map(|group| &**group).collect();
    let name = cache.name_any();
    let nodes = context.stores.nodes.store.state().into_iter();
    nodes
        .filter(|node| group_of(node, &cache.spec, &groups).is_some())
        .map(|node| {
            let local = context.stores.local_nodes.store.get(&ObjectRef::new(&node.name_any()));
            (node, local)
        })
        .filter(|(_, local)| {
            let entries = local.iter().flat_map(|local| &local.spec.local_models);
            enabled || entries.into_iter().any(|entry| entry.status_key() == name)
        })
        .collect()
}

/// Takes the cache's Jobs and volumes away, then the finalizer, without waiting for any of them: it
/// needs neither the group, nor the nodes, nor an agent to exist (D1).
async fn end(cache: &LocalModelCache, context: &Context) -> Result<(), Error> {
    if !cache.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(());
    }
    delete_jobs(cache, context, None).await?;
    let belongs = |meta: &kube::core::ObjectMeta| {
        meta.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == cache.metadata.uid.as_ref())
    };
    for claim in context.stores.claims.store.state_filter(|c: &PersistentVolumeClaim| belongs(&c.metadata)) {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(context.client.clone(), &claim.namespace().unwrap_or_default());
        ignore_missing(api.delete(&claim.name_any(), &exactly(&*claim)).await.map(drop))
            .doing(|| format!("deleting PersistentVolumeClaim {}", claim.name_any()))?;
    }
    let api: Api<PersistentVolume> = Api::all(context.client.clone());
    for volume in context.stores.volumes.store.state_filter(|v: &PersistentVolume| belongs(&v.metadata)) {
        ignore_missing(api.delete(&volume.name_any(), &exactly(&*volume)).await.map(drop))
            .doing(|| format!("deleting PersistentVolume {}", volume.name_any()))?;
    }
    let others = cache.finalizers().iter().map(String::as_str).filter(|f| *f != FINALIZER).collect();
    set_finalizers(cache, context, others).await?;
    tracing::info!(cache = cache.name_any(), "deleted");
    Ok(())
}

/// Deletes the cache's Jobs, all or those that a field selector finds.
async fn delete_jobs(cache: &LocalModelCache, context: &Context, fields: Option<&str>) -> Result<(), Error> {
    let name = cache.name_any();
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &context.stores.config().job_namespace);
    let label = names::label_value(&name);
    let mut of_cache = ListParams::default().labels(&format!("{JOB_MODEL}={label},!{JOB_NAMESPACE}"));
    of_cache.field_selector = fields.map(Into::into);
    let deleted = jobs.delete_collection(&DeleteParams::foreground(), &of_cache).await;
    ignore_missing(deleted.map(drop)).doing(|| format!("deleting the Jobs of {name}"))
}

/// This very object, not a later one of the same name.
pub(super) fn exactly<K: Resource>(object: &K) -> DeleteParams {
    let this_one = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
    DeleteParams::default().preconditions(this_one)
}

pub(super) fn ignore_missing(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

async fn set_finalizers(
    cache: &LocalModelCache,
    context: &Context,
    finalizers: Vec<&str>,
) -> Result<(), Error> {
    let api: Api<LocalModelCache> = Api::all(context.client.clone());
    let body = json!({"metadata": {"resourceVersion": cache.resource_version(), "finalizers": finalizers}});
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let patched = api.patch_metadata(&cache.name_any(), &params, &Patch::Merge(&body)).await.map(drop);
    ignore_missing(patched)
        .doing(|| format!("writing the finalizers of LocalModelCache {}", cache.name_any()))
}
