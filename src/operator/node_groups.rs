//! Node groups: the volumes and the agents of each (G1 to G3), and its status (G5 to G7).

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};

use super::context::{Context, RECHECK, retry};
use super::news::Touched;
use super::stores::{Stores, all};
use super::volumes::advance;
use super::{apply, controller_config};
use crate::api::{LocalModelNode, LocalModelNodeGroup};
use crate::config::agent_image;
use crate::error::{Doing, Error};
use crate::plan::agent_pods::Stuck;
use crate::plan::conditions::Statement;
use crate::plan::names::{MANAGED_BY, MANAGER};
use crate::plan::node_group::{self, View};
use crate::plan::{agent, cache, names, volumes};

pub(super) async fn run(context: Arc<Context>) {
    let stores = &context.stores;
    Controller::for_stream(stream::pending(), stores.groups.store.clone())
        .with_config(controller_config())
        .reconcile_on(stores.triggers(touched))
        .run(
            measured,
            |group, error, _| retry(error, "LocalModelNodeGroup", &group.name_any()),
            context.clone(),
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

fn touched(stores: &Stores, touched: &Touched) -> Vec<ObjectRef<LocalModelNodeGroup>> {
    match touched {
        // How full its nodes are planned follows from their lists and from the caches' sizes.
        Touched::All
        | Touched::Cache(_)
        | Touched::LocalNode(_)
        | Touched::Node(_)
        | Touched::Agents(None) => all(&stores.groups.store),
        Touched::Group(name) => vec![ObjectRef::new(name)],
        Touched::Agents(Some(label)) | Touched::Owned { cache: None, group: Some(label), .. } => {
            of_label(stores, label)
        }
        Touched::Owned { .. } | Touched::Own(_) | Touched::Copy(_) => Vec::new(),
    }
}

fn of_label(stores: &Stores, label: &str) -> Vec<ObjectRef<LocalModelNodeGroup>> {
    let of = |group: &LocalModelNodeGroup| names::label_value(&group.name_any()) == label;
    stores.groups.store.state_filter(of).iter().map(|group| ObjectRef::from_obj(&**group)).collect()
}

async fn measured(group: Arc<LocalModelNodeGroup>, context: Arc<Context>) -> Result<Action, Error> {
    context.clone().metrics.reconcile("LocalModelNodeGroup", Box::pin(reconcile(group, context))).await
}

async fn reconcile(group: Arc<LocalModelNodeGroup>, context: Arc<Context>) -> Result<Action, Error> {
    if group.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change()); // what it owns goes with it
    }
    let mut problems = agent::problems(&group);
    let result = if problems.is_empty() { agents(&group, &context, &mut problems).await } else { Ok(()) };
    let blocked = !problems.is_empty();
    if let Err(error) = &result {
        problems.push(Statement::problem("AgentNotApplied", error.to_string()));
    }
    let stuck = context.stores.stuck_agents(&group);
    status(&group, &context, problems, &stuck).await?;
    let settles = stuck.settled.and_then(|at| Duration::try_from(at.duration_since(Timestamp::now())).ok());
    // What stands in the way may be somebody else's, whose end no watch of ours tells.
    let again = if blocked { Some(RECHECK) } else { settles };
    result.map(|()| again.map_or_else(Action::await_change, Action::requeue))
}

/// The agents' volumes and their `DaemonSet`.
async fn agents(
    group: &LocalModelNodeGroup,
    context: &Context,
    problems: &mut Vec<Statement>,
) -> Result<(), Error> {
    let config = context.stores.config();
    let Some(owner) = group.controller_owner_ref(&()) else { return Ok(()) };
    let pair = volumes::agent(group, owner.clone(), &context.namespace);
    problems.extend(advance(context, &pair).await?.map(|obstacle| obstacle.problem()));
    let wanted = agent::daemon_set(group, &owner, &config, &context.namespace, &context.image)
        .map_err(|error| Error::Manifest(names::agent(&group.name_any()), error))?;
    let api: Api<DaemonSet> = Api::namespaced(context.client.clone(), &context.namespace);
    let key = ObjectRef::new(&wanted.name_any()).within(&context.namespace);
    let live = context.stores.daemon_sets.store.get(&key);
    if live.is_none() && is_somebody_elses(&api, &key.name).await? {
        let message =
            format!("DaemonSet {} exists and is somebody else's: remove it or rename this object", key.name);
        problems.push(Statement::problem(cache::NAME_CONFLICT, message));
        return Ok(());
    }
    let written = apply::apply(&api, &wanted, live.as_deref()).await?;
    if let (image, Some(replaced)) = agent_image(&config, &context.image)
        && written
    {
        let note =
            format!("localModelAgentImage {replaced} cannot run as this agent: {image} takes its place");
        context.events.warn(group.object_ref(&()), "AgentImageReplaced", note).await;
    }
    Ok(())
}

/// The store holds only objects of ours: somebody else's may have the name.
async fn is_somebody_elses(api: &Api<DaemonSet>, name: &str) -> Result<bool, Error> {
    let there = api.get_opt(name).await.doing(|| format!("reading DaemonSet {name}"))?;
    Ok(there.is_some_and(|there| there.labels().get(MANAGED_BY).is_none_or(|by| by != MANAGER)))
}

async fn status(
    group: &LocalModelNodeGroup,
    context: &Context,
    problems: Vec<Statement>,
    agents: &Stuck,
) -> Result<(), Error> {
    if context.plain_groups.get() {
        return Ok(());
    }
    let before = group.status.clone().unwrap_or_default();
    let locals = context.stores.local_nodes.store.state();
    let locals: Vec<&LocalModelNode> = locals.iter().map(|node| &**node).collect();
    let usage = node_group::usage(&group.name_any(), &locals, &context.stores.wanted().caches());
    let nodes = context.stores.nodes.store.state();
    let view = View {
        group,
        nodes: &nodes.iter().map(|node| &**node).collect::<Vec<_>>(),
        usage: &usage,
        disks: &node_group::disks(&group.name_any(), &locals),
        problems,
        agents,
        now: Timestamp::now(),
    };
    let wanted = node_group::status(&view);
    let api: Api<LocalModelNodeGroup> = Api::all(context.client.clone());
    match apply::patch_status(&api, group, &before, &wanted).await {
        Ok(Some(kept)) if kept["conditions"].is_null() => context.plain_groups.set("LocalModelNodeGroup"),
        // KServe's definition of groups has no status subresource.
        Err(error) if error.code() == Some(404) => {
            let name = group.name_any();
            let there = api.get_opt(&name).await.doing(|| format!("reading LocalModelNodeGroup {name}"))?;
            if there.is_some_and(|there| there.metadata.uid == group.metadata.uid) {
                context.plain_groups.set("LocalModelNodeGroup");
            }
        }
        Err(error) => return Err(error),
        Ok(Some(_)) => {
            for happening in cache::new_problems(&before.conditions, &wanted.conditions) {
                context.events.publish(group.object_ref(&()), happening).await;
            }
        }
        Ok(None) => {}
    }
    Ok(())
}
