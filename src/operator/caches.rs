//! Caches of both kinds: the status and the end of each (C10, N4 to N6, D1).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use serde_json::json;

use super::cache_kind::CacheKind;
use super::cache_volumes::{self, ignore_missing};
use super::context::{Context, RECHECK, retry};
use super::credentials;
use super::news::Touched;
use super::serving::Served;
use super::stores::{Stores, all};
use super::{apply, controller_config};
use crate::api::LocalModelNode;
use crate::api::cache::NodeStatus;
use crate::error::{Doing, Error};
use crate::plan::admission;
use crate::plan::cache::{self, CREDENTIALS_NOT_READY, DELETION_WAITS, View};
use crate::plan::capacity;
use crate::plan::conditions::Statement;
use crate::plan::copies::Copy;
use crate::plan::entries::{self, Place};
use crate::plan::list_budget;
use crate::plan::names::{self, CacheKey, MANAGER};
use crate::plan::serving;
use crate::plan::users::User;

pub(super) async fn run<C: CacheKind>(context: Arc<Context>) {
    let stores = &context.stores;
    Controller::for_stream(stream::pending(), C::store(stores).clone())
        .with_config(controller_config())
        .reconcile_on(stores.triggers(touched))
        .run(
            measured,
            |cache: Arc<C>, error, _| retry(error, &C::kind(&()), &cache.key().to_string()),
            context.clone(),
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

fn touched<C: CacheKind>(stores: &Stores, touched: &Touched) -> Vec<ObjectRef<C>> {
    let those = |of: &dyn Fn(&C) -> bool| {
        let found = C::store(stores).state_filter(of);
        found.iter().map(|cache| ObjectRef::from_obj(&**cache)).collect()
    };
    match touched {
        Touched::All | Touched::Group(_) | Touched::Node(_) => all(C::store(stores)),
        // Another cache that goes, or becomes smaller, makes room; and so does an entry that goes.
        Touched::Cache(key) => those(&|cache| cache.key() == *key || is_waiting(cache)),
        Touched::LocalNode(_) => those(&is_waiting),
        Touched::Own(key) | Touched::Copy(key) => those(&|cache| cache.key() == *key),
        Touched::Owned { cache: Some(label), namespace, .. } => {
            let is_of = |of: &CacheKey| of.namespace == *namespace && names::label_value(&of.name) == *label;
            those(&|cache| is_of(&cache.key()))
        }
        Touched::Agents(group) => those(&|cache| {
            let is_of = |of: &String| group.as_ref().is_none_or(|label| names::label_value(of) == *label);
            waits_for_agents(cache) && cache.spec().node_groups.iter().any(is_of)
        }),
        Touched::Owned { cache: None, .. } => Vec::new(),
    }
}

/// Whether a cache waits for room that others take.
fn is_waiting<C: CacheKind>(cache: &C) -> bool {
    let conditions = cache.status().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|condition| capacity::WAITING.contains(&condition.type_.as_str()))
}

/// Whether a cache has copies that an agent has still to bring about, or waits for one.
fn waits_for_agents<C: CacheKind>(cache: &C) -> bool {
    let Some(status) = cache.status() else { return true };
    // One that is on no node yet is about to be on some.
    status.node_status.is_empty()
        || status.node_status.values().any(|phase| !matches!(phase, NodeStatus::NodeDownloaded))
}

async fn measured<C: CacheKind>(cache: Arc<C>, context: Arc<Context>) -> Result<Action, Error> {
    context.clone().metrics.reconcile(&C::kind(&()), Box::pin(reconcile(cache, context))).await
}

async fn reconcile<C: CacheKind>(cache: Arc<C>, context: Arc<Context>) -> Result<Action, Error> {
    if cache.meta().deletion_timestamp.is_some() {
        return end(&*cache, &context).await;
    }
    if !has_finalizer(&*cache) {
        let with_ours = cache.finalizers().iter().map(String::as_str).chain([C::FINALIZER]).collect();
        set_finalizers(&*cache, &context, with_ours).await?;
        return Ok(Action::await_change()); // the write's event brings the next look
    }
    let mut problems = Vec::new();
    let users = context.stores.users();
    let credentials = credentials::keep(&*cache, &context, &mut problems).await;
    let volumes = cache_volumes::keep(&*cache, &context, &mut problems).await;
    let places = places(&*cache, &context, context.stores.config().enabled);
    let serving = match cache.controller_owner_ref(&()) {
        None => Ok(None),
        Some(owner) => {
            let (key, spec) = (&cache.key(), cache.spec());
            let created = cache.creation_timestamp().map(|time| time.0);
            let waits_until = serving::waits_until(key, created, &places.copies(), Timestamp::now());
            Served { context: &context, key, spec, owner, waits_until, users: &users }
                .advance(&mut problems)
                .await
        }
    };
    let blocked = !problems.is_empty();
    if let Err(error) = &credentials {
        problems.push(Statement::problem(CREDENTIALS_NOT_READY, error.to_string()));
    }
    for error in [volumes.as_ref().err(), serving.as_ref().err()].into_iter().flatten() {
        problems.push(Statement::problem("VolumesFailed", error.to_string()));
    }
    status(&*cache, &context, &users, &places, problems).await?;
    volumes?;
    let credentials = credentials?;
    // What stands in the way may be somebody else's, whose end no watch of ours tells.
    Ok(match serving? {
        _ if blocked => Action::requeue(RECHECK),
        Some(at) => {
            let until = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
            Action::requeue(credentials.map_or(until, |again| again.min(until)))
        }
        None => credentials.map_or_else(Action::await_change, Action::requeue),
    })
}

async fn status<C: CacheKind>(
    cache: &C,
    context: &Context,
    users: &[User],
    places: &Places,
    mut problems: Vec<Statement>,
) -> Result<(), Error> {
    problems.extend(places.short.iter().cloned());
    let stuck = stuck_agents(cache, context);
    let before = cache.status().cloned().unwrap_or_default();
    let mut wanted = cache::status(&View {
        key: &cache.key(),
        generation: cache.meta().generation,
        before: &before,
        enabled: context.stores.config().enabled,
        copies: &places.copies(),
        users,
        problems,
        lacking: places.lacking,
        stuck: &stuck,
        now: Timestamp::now(),
    });
    if C::plain(context).get() {
        wanted = wanted.without_ours();
    }
    let api = cache.api(&context.client);
    let Some(kept) = apply::patch_status(&api, cache, &before, &wanted).await? else { return Ok(()) };
    if !wanted.conditions.is_empty() && kept["conditions"].is_null() {
        C::plain(context).set(&C::kind(&()));
    }
    for happening in cache::happenings(&before, &wanted) {
        context.events.publish(cache.object_ref(&()), happening).await;
    }
    Ok(())
}

/// Where a cache is.
#[derive(Default)]
struct Places {
    /// The nodes that keep it, or will.
    nodes: Vec<(Arc<Node>, Option<Arc<LocalModelNode>>)>,
    /// How many nodes that are ready have no room for it.
    lacking: usize,
    /// What is told of the nodes that have no room for it (C8).
    short: Vec<Statement>,
}

impl Places {
    fn copies(&self) -> Vec<Copy<'_>> {
        self.nodes.iter().map(|(node, local)| Copy { node, local: local.as_deref() }).collect()
    }
}

fn places<C: CacheKind>(cache: &C, context: &Context, enabled: bool) -> Places {
    let wanted = context.stores.wanted();
    let (groups, caches) = (wanted.groups(), wanted.caches());
    let key = cache.key();
    let Some(this) = caches.iter().find(|other| other.key == key) else { return Places::default() };
    let mut nodes = Vec::new();
    let mut waiting = BTreeMap::new();
    let mut lacking = 0;
    for node in context.stores.nodes.store.state() {
        let name = node.name_any();
        let local = context.stores.local_nodes.store.get(&ObjectRef::new(&name));
        match entries::place(this, &node, &groups, &caches, local.as_deref(), enabled) {
            Place::Planned => nodes.push((node, local)),
            Place::Outdated(waits) => {
                nodes.push((node, local));
                waiting.insert(name, waits);
            }
            Place::Waiting(waits) => {
                lacking += usize::from(entries::is_ready(&node));
                waiting.insert(name, waits);
            }
            Place::Nowhere => {}
        }
    }
    let of_cache = this.spec.node_groups.iter();
    let groups: Vec<_> =
        of_cache.filter_map(|name| groups.iter().copied().find(|group| group.name_any() == *name)).collect();
    let mut short = if enabled { capacity::problems(this.spec, &groups, &waiting) } else { Vec::new() };
    short.extend(capacity::too_small(this.spec, this.measured));
    short.extend(list_budget::too_large(&this.key, this.spec));
    Places { nodes, lacking, short }
}

/// By node, a group of the cache's and why its agent does not run there (G8). A cache whose copies are all
/// there waits for none.
fn stuck_agents<C: CacheKind>(cache: &C, context: &Context) -> BTreeMap<String, (String, String)> {
    let mut all = BTreeMap::new();
    if !waits_for_agents(cache) {
        return all;
    }
    for name in &cache.spec().node_groups {
        let Some(group) = context.stores.groups.store.get(&ObjectRef::new(name)) else { continue };
        for (node, why) in context.stores.stuck_agents(&group).agents {
            all.entry(node).or_insert_with(|| (name.clone(), why));
        }
    }
    all
}

/// Once nothing uses the cache, takes its Jobs and volumes away, then the finalizer, without waiting for any of
/// them: it needs neither the group, nor the nodes, nor an agent to exist (D1).
async fn end<C: CacheKind>(cache: &C, context: &Context) -> Result<Action, Error> {
    let Some(deleted) = cache.meta().deletion_timestamp.as_ref().filter(|_| has_finalizer(cache)) else {
        return Ok(Action::await_change());
    };
    let users = context.stores.users();
    if let Some(message) = admission::deletion_waits_for(&cache.key(), &users) {
        let places = places(cache, context, context.stores.config().enabled);
        let waits = Statement::problem(DELETION_WAITS, message);
        status(cache, context, &users, &places, vec![waits]).await?;
        return Ok(Action::requeue(RECHECK));
    }
    let now = Timestamp::now();
    if let Some(until) = admission::last_pods(&cache.key(), &users, deleted.0, now) {
        tracing::info!(cache = %cache.key(), "the volumes go after the last pod of a service");
        return Ok(Action::requeue(Duration::try_from(until.duration_since(now)).unwrap_or_default()));
    }
    cache_volumes::remove(cache, context).await?;
    credentials::remove(cache, context).await?;
    let others = cache.finalizers().iter().map(String::as_str).filter(|f| *f != C::FINALIZER).collect();
    set_finalizers(cache, context, others).await?;
    tracing::info!(cache = %cache.key(), "deleted");
    Ok(Action::await_change())
}

fn has_finalizer<C: CacheKind>(cache: &C) -> bool {
    cache.finalizers().iter().any(|finalizer| finalizer == C::FINALIZER)
}

async fn set_finalizers<C: CacheKind>(
    cache: &C,
    context: &Context,
    finalizers: Vec<&str>,
) -> Result<(), Error> {
    let body = json!({"metadata": {"resourceVersion": cache.resource_version(), "finalizers": finalizers}});
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let api = cache.api(&context.client);
    let patched = api.patch_metadata(&cache.name_any(), &params, &Patch::Merge(&body)).await.map(drop);
    ignore_missing(patched).doing(|| format!("writing the finalizers of {} {}", C::kind(&()), cache.key()))
}
