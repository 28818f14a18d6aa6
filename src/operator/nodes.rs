//! Nodes: the `LocalModelNode` of each, and the labels that say which copies it holds (N1 to N3, D4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::context::{Context, retry};
use super::news::Touched;
use super::stores::{Stores, all};
use super::{apply, controller_config};
use crate::api::LocalModelNode;
use crate::error::{Doing, Error};
use crate::plan::entries;
use crate::plan::names::{MANAGED_BY, MANAGER};

/// When a node is looked at again whose object has not reached the store.
const LAGGING: Duration = Duration::from_secs(1);

pub(super) async fn run(context: Arc<Context>) {
    let stores = &context.stores;
    Controller::for_stream(stream::pending(), stores.nodes.store.clone())
        .with_config(controller_config())
        .reconcile_on(stores.triggers(touched))
        .run(measured, |node, error, _| retry(error, "Node", &node.name_any()), context.clone())
        .for_each(|_| std::future::ready(()))
        .await;
}

fn touched(stores: &Stores, touched: &Touched) -> Vec<ObjectRef<Node>> {
    match touched {
        Touched::All | Touched::Group(_) | Touched::Cache(_) => all(&stores.nodes.store),
        Touched::Node(name) | Touched::LocalNode(name) => vec![ObjectRef::new(name)],
        Touched::Own(_) | Touched::Copy(_) | Touched::Owned { .. } | Touched::Agents(_) => Vec::new(),
    }
}

async fn measured(node: Arc<Node>, context: Arc<Context>) -> Result<Action, Error> {
    context.clone().metrics.reconcile("Node", Box::pin(reconcile(node, context))).await
}

async fn reconcile(node: Arc<Node>, context: Arc<Context>) -> Result<Action, Error> {
    let stores = &context.stores;
    let wanted = stores.wanted();
    let (groups, caches) = (wanted.groups(), wanted.caches());
    let local = stores.local_nodes.store.get(&ObjectRef::new(&node.name_any()));
    let before = entries::planned_before(&node, &caches, local.as_deref());
    let enabled = stores.config().enabled;
    let entries = entries::entries(&node, &groups, &caches, &before, enabled).entries;
    let status = local.as_ref().and_then(|l| l.status.as_ref());
    let member_of = entries::groups_of_node(&node, &groups);
    let labels = if member_of.is_empty() {
        entries::labels_to_come_back_to(&node, &caches)
    } else {
        entries::warm_labels(&node, &caches, &entries, status)
    };

    let api: Api<LocalModelNode> = Api::all(context.client.clone());
    if !member_of.is_empty() {
        if local.is_none() && !enabled {
            // Nobody knows any more what was planned here, and an empty list would erase it (C9).
            return Ok(Action::await_change());
        }
        if local.is_none() && exists(&api, &node.name_any()).await? {
            return Ok(Action::requeue(LAGGING));
        }
        let mut wanted = entries::local_model_node(&node, entries, &member_of);
        // What is planned keeps its place (C8): a list that has changed meanwhile is looked at first.
        wanted.metadata.resource_version = local.as_ref().and_then(|local| local.resource_version());
        // The list holds what is wanted and nothing else, additions of others included.
        let same = local.as_deref().filter(|local| local.spec == wanted.spec);
        apply::apply(&api, &wanted, same).await?;
    } else if let Some(local) = local.as_deref().filter(|local| is_ours(local)) {
        delete(&api, local).await?;
    }
    label(&node, &context, &labels).await?;
    Ok(Action::await_change())
}

/// Whether a node has an object that the store does not know yet: its list says what keeps its place (C8).
async fn exists(api: &Api<LocalModelNode>, name: &str) -> Result<bool, Error> {
    let this_one = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = api.list_metadata(&this_one).await.doing(|| format!("looking for LocalModelNode {name}"))?;
    Ok(!found.items.is_empty())
}

fn is_ours(local: &LocalModelNode) -> bool {
    local.metadata.deletion_timestamp.is_none()
        && local.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGER)
}

/// The node has left its last group: Kubernetes ends the agent, and the files stay (N5).
async fn delete(api: &Api<LocalModelNode>, local: &LocalModelNode) -> Result<(), Error> {
    let name = local.name_any();
    let this_one = Preconditions { uid: local.uid(), resource_version: None };
    match api.delete(&name, &DeleteParams::default().preconditions(this_one)).await {
        Ok(_) => tracing::info!(node = name, "left its groups"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).doing(|| format!("deleting LocalModelNode {name}")),
    }
    Ok(())
}

async fn label(node: &Node, context: &Context, wanted: &BTreeMap<String, String>) -> Result<(), Error> {
    let changes = entries::label_changes(node, wanted);
    if changes.is_empty() {
        return Ok(());
    }
    let name = node.name_any();
    let nodes: Api<Node> = Api::all(context.client.clone());
    // A decision that comes late changes nothing.
    let meta = json!({"resourceVersion": node.resource_version(), "labels": changes});
    let body = Patch::Merge(json!({"metadata": meta}));
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    nodes.patch_metadata(&name, &params, &body).await.doing(|| format!("labelling Node {name}"))?;
    let (set, removed): (Vec<_>, Vec<_>) = changes.iter().partition(|(_, value)| value.is_some());
    let names = |labels: &[(&String, &Option<String>)]| {
        labels.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>().join(",")
    };
    tracing::info!(node = name, set = names(&set), removed = names(&removed), "warm labels written");
    Ok(())
}
