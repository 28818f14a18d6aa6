//! What the operator knows: one store per kind, and the news that something in one changed.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::broadcast;

use super::news::{Touched, gathered, owned, tell, tell_of_caches, tell_of_local_nodes, tell_of_nodes};
use super::users::Users;
use crate::api::{
    ClusterStorageContainer, LocalModelCache, LocalModelNamespaceCache, LocalModelNode, LocalModelNodeGroup,
};
use crate::config::{Config, ConfigError, EgressSettings};
use crate::live_config::LiveConfig;
use crate::plan::admission::deletion_waits_for;
use crate::plan::agent::AGENT_PODS;
use crate::plan::agent_pods::{self, Stuck};
use crate::plan::entries::{PlannedCache, is_ready};
use crate::plan::names::{self, CacheKey, MANAGED_BY, MANAGER};
use crate::plan::users::User;
use crate::plan::{rivals, source};
use crate::watch::{Watch, watch};

/// The stores and their news.
#[derive(Debug)]
pub(super) struct Stores {
    pub(super) caches: Watch<LocalModelCache>,
    pub(super) namespace_caches: Watch<LocalModelNamespaceCache>,
    pub(super) groups: Watch<LocalModelNodeGroup>,
    pub(super) local_nodes: Watch<LocalModelNode>,
    pub(super) nodes: Watch<Node>,
    pub(super) volumes: Watch<PersistentVolume>,
    pub(super) claims: Watch<PersistentVolumeClaim>,
    pub(super) daemon_sets: Watch<DaemonSet>,
    /// The agents' pods.
    pub(super) agents: Watch<Pod>,
    /// Warnings about pods in the agents' namespace.
    pub(super) warnings: Watch<Event>,
    /// What downloads which sources.
    pub(super) containers: Watch<ClusterStorageContainer>,
    rivals: Watch<Deployment>,
    users: Users,
    config: LiveConfig,
    news: broadcast::Sender<Touched>,
}

/// The groups and caches at one moment, for the plan to borrow from.
pub(super) struct Wanted {
    groups: Vec<Arc<LocalModelNodeGroup>>,
    caches: Vec<Arc<LocalModelCache>>,
    namespace_caches: Vec<Arc<LocalModelNamespaceCache>>,
    containers: Vec<Arc<ClusterStorageContainer>>,
    egress: EgressSettings,
    /// The caches in deletion that something uses: they stay planned.
    held: BTreeSet<CacheKey>,
}

impl Wanted {
    /// The groups.
    pub(super) fn groups(&self) -> Vec<&LocalModelNodeGroup> {
        self.groups.iter().map(|group| &**group).collect()
    }

    /// The caches of both kinds.
    pub(super) fn caches(&self) -> Vec<PlannedCache<'_>> {
        let containers = self.containers();
        let of_namespaces = self.namespace_caches.iter().map(|cache| PlannedCache::from(&**cache));
        let all = self.caches.iter().map(|cache| PlannedCache::from(&**cache)).chain(of_namespaces);
        let fetchable = |cache: &PlannedCache| {
            source::problem(&cache.key, &cache.spec.source_model_uri, &containers, &self.egress).is_none()
        };
        all.map(|cache| PlannedCache {
            fetchable: fetchable(&cache),
            deleting: cache.deleting && !self.held.contains(&cache.key),
            ..cache
        })
        .collect()
    }

    /// The storage containers.
    pub(super) fn containers(&self) -> Vec<&ClusterStorageContainer> {
        self.containers.iter().map(|container| &**container).collect()
    }
}

impl Stores {
    /// Starts every watch.
    pub(super) fn start(client: &Client, namespace: &str) -> Self {
        let (news, _) = broadcast::channel(4096);
        let all = watcher::Config::default;
        let ours = || watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
        Self {
            caches: watch(Api::all(client.clone()), all(), tell_of_caches(&news)),
            namespace_caches: watch(Api::all(client.clone()), all(), tell_of_caches(&news)),
            groups: watch(
                Api::all(client.clone()),
                all(),
                tell(&news, |g: &LocalModelNodeGroup| Touched::Group(g.name_any())),
            ),
            local_nodes: watch(Api::all(client.clone()), all(), tell_of_local_nodes(&news)),
            nodes: watch(Api::all(client.clone()), all(), tell_of_nodes(&news)),
            volumes: watch(Api::all(client.clone()), ours(), tell(&news, owned)),
            claims: watch(Api::all(client.clone()), ours(), tell(&news, owned)),
            daemon_sets: watch(Api::namespaced(client.clone(), namespace), ours(), tell(&news, owned)),
            agents: watch(
                Api::namespaced(client.clone(), namespace),
                all().labels(&format!("app.kubernetes.io/name={AGENT_PODS}")),
                tell(&news, |p: &Pod| Touched::Agents(p.labels().get(names::NODE_GROUP).cloned())),
            ),
            warnings: watch(
                Api::namespaced(client.clone(), namespace),
                all().fields("type=Warning,involvedObject.kind=Pod"),
                tell(&news, |_: &Event| Touched::Agents(None)),
            ),
            containers: watch(Api::all(client.clone()), all(), tell(&news, |_| Touched::All)),
            rivals: watch(
                Api::namespaced(client.clone(), namespace),
                all().fields(&format!("metadata.name={}", rivals::DEPLOYMENT)),
                tell(&news, |_: &Deployment| Touched::All),
            ),
            users: Users::start(client, &news),
            config: LiveConfig::start(client, namespace, tell(&news, |_| Touched::All)),
            news,
        }
    }

    /// The settings as last read.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.get()
    }

    /// The groups and caches as they are now.
    pub(super) fn wanted(&self) -> Wanted {
        let (caches, namespace_caches) = (self.caches.store.state(), self.namespace_caches.store.state());
        let of_namespaces = namespace_caches.iter().map(|cache| PlannedCache::from(&**cache));
        let all = caches.iter().map(|cache| PlannedCache::from(&**cache)).chain(of_namespaces);
        let in_deletion: Vec<CacheKey> = all.filter(|cache| cache.deleting).map(|cache| cache.key).collect();
        let held = if in_deletion.is_empty() {
            BTreeSet::new()
        } else {
            let users = self.users();
            in_deletion.into_iter().filter(|key| deletion_waits_for(key, &users).is_some()).collect()
        };
        Wanted {
            groups: self.groups_with_shares(),
            caches,
            namespace_caches,
            containers: self.containers.store.state(),
            egress: self.config().egress.clone(),
            held,
        }
    }

    /// The groups, each with the share of namespaces that the settings give where it says none.
    fn groups_with_shares(&self) -> Vec<Arc<LocalModelNodeGroup>> {
        let groups = self.groups.store.state();
        let Some(share) = self.config().namespace_storage_limit.clone() else { return groups };
        let with_share = |group: Arc<LocalModelNodeGroup>| {
            let mut group = Arc::unwrap_or_clone(group);
            group.spec.namespace_storage_limit.get_or_insert_with(|| share.clone());
            Arc::new(group)
        };
        groups.into_iter().map(with_share).collect()
    }

    /// Every object that uses a cache now.
    pub(super) fn users(&self) -> Vec<User> {
        self.users.all()
    }

    /// Every object that uses a cache of this name, asked of the API server.
    pub(super) async fn users_now(&self, client: &Client, cache: &str) -> kube::Result<Vec<User>> {
        self.users.now(client, cache).await
    }

    /// Why the agents of a group do not run (G8).
    pub(super) fn stuck_agents(&self, group: &LocalModelNodeGroup) -> Stuck {
        let (pods, events) = (self.agents.store.state(), self.warnings.store.state());
        let nodes = self.nodes.store.state();
        let nodes: Vec<&Node> = nodes.iter().map(|node| &**node).filter(|node| is_ready(node)).collect();
        let view = agent_pods::View {
            pods: &pods.iter().map(|pod| &**pod).collect::<Vec<_>>(),
            events: &events.iter().map(|event| &**event).collect::<Vec<_>>(),
            tolerations: &self.config().pod.tolerations,
            now: Timestamp::now(),
        };
        agent_pods::stuck(group, &nodes, &view)
    }

    /// Why nothing is written: KServe's own controller runs (O1).
    pub(super) fn standing_back(&self) -> Option<String> {
        rivals::standing_back(self.rivals.store.state().first().map(|deployment| &**deployment))
    }

    /// The rival itself, for an Event.
    pub(super) fn rival(&self) -> Option<Arc<Deployment>> {
        self.rivals.store.state().first().cloned()
    }

    /// The ConfigMap and what is wrong with it, where it cannot be read.
    pub(super) fn config_problem(&self) -> Option<(Arc<ConfigMap>, ConfigError)> {
        self.config.problem()
    }

    /// Waits for any news.
    pub(super) async fn changed(&self) {
        // Lagging behind is news too.
        let _ = self.news.subscribe().recv().await;
    }

    /// Waits until a question about the stores is answered with yes. No news between the question and
    /// the wait is missed.
    pub(super) async fn until(&self, holds: impl Fn() -> bool) {
        let mut news = self.news.subscribe();
        while !holds() {
            let _ = news.recv().await;
        }
    }

    /// The kinds whose first list has not arrived, for the readiness check.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        self.caches.name_if_unfilled(&mut missing);
        self.namespace_caches.name_if_unfilled(&mut missing);
        self.groups.name_if_unfilled(&mut missing);
        self.local_nodes.name_if_unfilled(&mut missing);
        self.nodes.name_if_unfilled(&mut missing);
        self.volumes.name_if_unfilled(&mut missing);
        self.claims.name_if_unfilled(&mut missing);
        self.daemon_sets.name_if_unfilled(&mut missing);
        self.agents.name_if_unfilled(&mut missing);
        self.warnings.name_if_unfilled(&mut missing);
        self.containers.name_if_unfilled(&mut missing);
        self.rivals.name_if_unfilled(&mut missing);
        self.users.name_if_unfilled(&mut missing);
        self.config.maps.name_if_unfilled(&mut missing);
        missing
    }

    /// Waits until every store has its first list: a plan made from half a world would undo the rest.
    pub(super) async fn ready(&self) {
        let mut retry = tokio::time::interval(Duration::from_millis(100));
        while !self.missing().is_empty() {
            retry.tick().await;
        }
    }

    /// The objects that a controller has to look at again, as `map` derives them from the news.
    pub(super) fn triggers<K, F>(
        self: &Arc<Self>,
        map: F,
    ) -> impl Stream<Item = ObjectRef<K>> + Send + use<K, F>
    where
        K: Resource<DynamicType = ()> + 'static,
        F: Fn(&Self, &Touched) -> Vec<ObjectRef<K>> + Send + 'static,
    {
        let stores = self.clone();
        let first = stream::once(async { vec![Touched::All] });
        let later = gathered(self.news.subscribe(), Touched::All);
        first.chain(later).flat_map(move |moment| {
            let touched: HashSet<ObjectRef<K>> =
                moment.iter().flat_map(|touched| map(&stores, touched)).collect();
            stream::iter(touched)
        })
    }
}

/// References to every object of a store.
pub(super) fn all<K: Resource<DynamicType = ()> + Clone>(store: &Store<K>) -> Vec<ObjectRef<K>> {
    store.state().iter().map(|object| ObjectRef::from_obj(&**object)).collect()
}
