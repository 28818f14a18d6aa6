//! A cache's download volumes and Jobs: made while it lives, taken away when it goes (C1 to C5, D1, D3).

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};

use super::cache_kind::CacheKind;
use super::context::Context;
use super::volumes::{Obstacle, advance};
use crate::error::{Doing, Error};
use crate::plan::cache::NODE_GROUP_NOT_FOUND;
use crate::plan::conditions::Statement;
use crate::plan::names::{self, CacheKey, JOB_MODEL, JOB_NAMESPACE, MANAGED_BY, MANAGER};
use crate::plan::volumes::{self, Pair};
use crate::plan::{agent, capacity, source, takeover};

/// Takes the next step towards the download volumes in each group that exists; a group that does not is a
/// problem of its own (C5).
pub(super) async fn keep<C: CacheKind>(
    cache: &C,
    context: &Context,
    problems: &mut Vec<Statement>,
) -> Result<(), Error> {
    let config = context.stores.config();
    let Some(owner) = cache.controller_owner_ref(&()).filter(|_| config.enabled) else { return Ok(()) };
    if capacity::asked(cache.spec()).is_none() {
        return Ok(()); // told with the cache's other problems (G7)
    }
    let wanted = context.stores.wanted();
    let (key, uri) = (cache.key(), &cache.spec().source_model_uri);
    if let Some(problem) = source::problem(&key, uri, &wanted.containers(), &config.egress) {
        problems.push(problem);
        return Ok(());
    }
    let mut result = Ok(());
    for name in &cache.spec().node_groups {
        let Some(group) = context.stores.groups.store.get(&ObjectRef::new(name)) else {
            let message =
                format!("LocalModelNodeGroup {name} does not exist: make it, or take it out of nodeGroups");
            problems.push(Statement::problem(NODE_GROUP_NOT_FOUND, message));
            continue;
        };
        let of_group = agent::problems_of_cache(&group);
        if !of_group.is_empty() {
            problems.extend(of_group);
            continue;
        }
        let pair = volumes::download(&key, cache.spec(), owner.clone(), &group, &config.job_namespace);
        match advance(context, &pair).await {
            Ok(None) => {}
            Ok(Some(obstacle)) => {
                problems.push(obstacle.problem());
                match obstacle {
                    // A claim in deletion waits for every pod that names it, also for those that are done.
                    Obstacle::Terminating(_) => {
                        delete_jobs(&key, context, "", Some("status.successful=1")).await?;
                    }
                    Obstacle::Theirs(_) => result = result.and(replace(&key, context, &pair).await),
                    Obstacle::Conflict(_) | Obstacle::Outdated(_) | Obstacle::Wide(_) => {}
                }
            }
            Err(error) => result = Err(error),
        }
    }
    result
}

/// Takes away the claim that KServe made at the root of the disk, and the failed Jobs whose pods hold it
/// (D6). Jobs that run have to end first, and agents to take what those fetched that ended well.
async fn replace(key: &CacheKey, context: &Context, pair: &Pair) -> Result<(), Error> {
    let of_cache = ListParams::default().labels(&selector(key));
    let found = jobs(context).list(&of_cache).await.doing(|| format!("listing the Jobs of {key}"))?;
    let name = pair.claim.name_any();
    if let Some(job) = takeover::replacing_waits_for(&found.items) {
        tracing::info!(claim = name, job, "KServe's claim is replaced later: its Job is not done");
        return Ok(());
    }
    delete_jobs(key, context, &format!(",!{MANAGED_BY}"), None).await?;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(context.client.clone(), &pair.claim.namespace().unwrap_or_default());
    ignore_missing(claims.delete(&name, &DeleteParams::default()).await.map(drop))
        .doing(|| format!("replacing PersistentVolumeClaim {name}"))?;
    tracing::info!(claim = name, "KServe's claim is replaced");
    Ok(())
}

/// Takes all of a cache's Jobs and volumes away, without waiting for any of them (D1).
pub(super) async fn remove<C: CacheKind>(cache: &C, context: &Context) -> Result<(), Error> {
    delete_jobs(&cache.key(), context, "", None).await?;
    let uid = cache.uid().unwrap_or_default();
    // From the API server: the stores may lag behind a volume that was made a moment ago, and nothing would
    // take away later what a namespace cache cannot own.
    let of_cache =
        format!("{MANAGED_BY}={MANAGER},{}={}", names::CACHE, names::label_value(&cache.name_any()));
    let of_cache = ListParams::default().labels(&of_cache);
    let claims: Api<PersistentVolumeClaim> = Api::all(context.client.clone());
    let claims = claims.list(&of_cache).await.doing(|| format!("listing the claims of {}", cache.key()))?;
    for claim in claims.iter().filter(|claim| volumes::belongs(&claim.metadata, &uid)) {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(context.client.clone(), &claim.namespace().unwrap_or_default());
        ignore_missing(api.delete(&claim.name_any(), &exactly(claim)).await.map(drop))
            .doing(|| format!("deleting PersistentVolumeClaim {}", claim.name_any()))?;
    }
    let api: Api<PersistentVolume> = Api::all(context.client.clone());
    let found = api.list(&of_cache).await.doing(|| format!("listing the volumes of {}", cache.key()))?;
    for volume in found.iter().filter(|volume| volumes::belongs(&volume.metadata, &uid)) {
        ignore_missing(api.delete(&volume.name_any(), &exactly(volume)).await.map(drop))
            .doing(|| format!("deleting PersistentVolume {}", volume.name_any()))?;
    }
    Ok(())
}

fn jobs(context: &Context) -> Api<Job> {
    Api::namespaced(context.client.clone(), &context.stores.config().job_namespace)
}

/// Finds the Jobs of a cache, ours and KServe's.
fn selector(key: &CacheKey) -> String {
    let model = names::label_value(&key.name);
    match &key.namespace {
        None => format!("{JOB_MODEL}={model},!{JOB_NAMESPACE}"),
        Some(namespace) => format!("{JOB_MODEL}={model},{JOB_NAMESPACE}={namespace}"),
    }
}

/// Deletes the cache's Jobs, all or those that more labels or a field select.
async fn delete_jobs(
    key: &CacheKey,
    context: &Context,
    labels: &str,
    fields: Option<&str>,
) -> Result<(), Error> {
    let mut of_cache = ListParams::default().labels(&(selector(key) + labels));
    of_cache.field_selector = fields.map(Into::into);
    let deleted = jobs(context).delete_collection(&DeleteParams::foreground(), &of_cache).await;
    ignore_missing(deleted.map(drop)).doing(|| format!("deleting the Jobs of {key}"))
}

/// This very object, not a later one of the same name.
pub(super) fn exactly<K: Resource>(object: &K) -> DeleteParams {
    let this_one = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
    DeleteParams::default().preconditions(this_one)
}

/// What is gone already is as good as deleted.
pub(super) fn ignore_missing(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
