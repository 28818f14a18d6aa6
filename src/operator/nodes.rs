//! Nodes: the `LocalModelNode` of each, and the labels that say which copies it holds (N1 to N3, D4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::context::{Context, RECHECK, retry};
use super::news::Touched;
use super::stores::{Stores, all};
use super::{apply, controller_config};
use crate::api::{LocalModelNode, ModelEntry};
use crate::error::{Doing, Error};
use crate::plan::entries::NodePlan;
use crate::plan::names::{CacheKey, MANAGED_BY, MANAGER, MODEL_SIZES};
use crate::plan::{definitions, entries, sizes};

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
    let NodePlan { entries, sizes, .. } = entries::entries(&node, &groups, &caches, &before, enabled);
    let (entries, is_held) = held(entries, local.as_deref(), &context).await?;
    let status = local.as_ref().and_then(|l| l.status.as_ref());
    let member_of = entries::groups_of_node(&node, &groups);
    let labels = if member_of.is_empty() {
        entries::labels_to_come_back_to(&node, &caches)
    } else {
        entries::warm_labels(&node, &caches, &entries, status)
    };

    let name = node.name_any();
    let nodes: Api<Node> = Api::all(context.client.clone());
    let api: Api<LocalModelNode> = Api::all(context.client.clone());
    if !member_of.is_empty() {
        if local.is_none() && !enabled {
            // Nobody knows any more what was planned here, and an empty list would erase it (C9).
            return Ok(Action::await_change());
        }
        // What is made anew goes by the labels of the Node (D4): by those that it has, and only if it has no list.
        if local.is_none()
            && !(is_current(&api, &name, None).await?
                && is_current(&nodes, &name, node.resource_version()).await?)
        {
            return Ok(Action::requeue(LAGGING));
        }
        let mut wanted = entries::local_model_node(&node, entries, &member_of);
        wanted.annotations_mut().insert(MODEL_SIZES.to_owned(), sizes::annotation(&sizes));
        // What is planned keeps its place (C8): a list that has changed meanwhile is looked at first.
        wanted.metadata.resource_version = local.as_ref().and_then(|local| local.resource_version());
        // The list holds what is wanted and nothing else, additions of others included.
        let same = local.as_deref().filter(|local| local.spec == wanted.spec);
        apply::apply(&api, &wanted, same).await?;
    } else if let Some(local) = local.as_deref().filter(|local| is_ours(local)) {
        delete(&api, local).await?;
    }
    let changes = entries::label_changes(&node, &labels);
    let takes_away = changes.values().any(Option::is_none);
    // An old word must not take away what says whose place it is: the object may be gone by now (D4, C8).
    if takes_away && !is_current(&api, &name, local.and_then(|local| local.resource_version())).await? {
        return Ok(Action::requeue(LAGGING));
    }
    label(&nodes, &node, &changes).await?;
    Ok(if is_held { Action::requeue(RECHECK) } else { Action::await_change() })
}

/// What is planned, and of what has been so far that which nobody can have unwanted: its kind is not defined. Gives
/// also whether there is any.
async fn held(
    mut planned: Vec<ModelEntry>,
    local: Option<&LocalModelNode>,
    context: &Context,
) -> Result<(Vec<ModelEntry>, bool), Error> {
    let Some(local) = local else { return Ok((planned, false)) };
    let leaving = definitions::leaving(&local.spec.local_models, &planned);
    let made = local.creation_timestamp().map(|time| time.0);
    let mut kept = Vec::new();
    for is_of_namespace in [false, true] {
        let of_kind = || leaving.iter().filter(|entry| entry.namespace().is_some() == is_of_namespace);
        if of_kind().next().is_some() {
            let definition = crate::definitions::now(&context.client, is_of_namespace).await?;
            if definitions::holds(definition, made, Timestamp::now()) {
                kept.extend(of_kind().map(|entry| (*entry).clone()));
            }
        }
    }
    let is_held = !kept.is_empty();
    if is_held {
        tracing::warn!(
            node = local.name_any(),
            entries = kept.len(),
            "kept: the definition of their caches is gone"
        );
        planned.extend(kept);
        planned.sort_by_cached_key(CacheKey::of);
    }
    Ok((planned, is_held))
}

/// Whether the API server has an object in the version that was seen, or none where none was.
async fn is_current<K>(api: &Api<K>, name: &str, seen: Option<String>) -> Result<bool, Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let this_one = ListParams::default().fields(&format!("metadata.name={name}"));
    let found =
        api.list_metadata(&this_one).await.doing(|| format!("looking for {} {name}", K::kind(&())))?;
    Ok(found.items.into_iter().next().and_then(|object| object.metadata.resource_version) == seen)
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

async fn label(
    nodes: &Api<Node>,
    node: &Node,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let name = node.name_any();
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

#[cfg(test)]
mod tests {
    use kube::{Client, Config};
    use wiremock::matchers::{path, query_param};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    #[tokio::test]
    async fn an_object_is_seen_as_it_is_in_its_last_version_alone() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = MockServer::start().await;
        for (name, items) in
            [("n", json!([{"metadata": {"name": "n", "resourceVersion": "7"}}])), ("gone", json!([]))]
        {
            let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items});
            Mock::given(path("/api/v1/nodes"))
                .and(query_param("fieldSelector", format!("metadata.name={name}")))
                .respond_with(ResponseTemplate::new(200).set_body_json(list))
                .mount(&server)
                .await;
        }
        let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
        let nodes: Api<Node> = Api::all(client);
        for (name, seen, expected) in [
            ("n", Some("7"), true),
            ("n", Some("6"), false),
            ("n", None, false),
            ("gone", None, true),
            ("gone", Some("7"), false),
        ] {
            let is_so = is_current(&nodes, name, seen.map(Into::into)).await.unwrap();
            assert_eq!(is_so, expected, "{name} {seen:?}");
        }
    }
}
