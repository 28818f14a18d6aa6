//! A test's own part of the cluster: a prefix for its names, a folder on the disks, a node group. All of
//! it is removed afterwards, also after a panic.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;

use anyhow::{Result, ensure};
use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use localmodel::api::cache::CacheStatus;
use localmodel::api::{
    ClusterStorageContainer, LocalModelCache, LocalModelNamespaceCache, LocalModelNode, LocalModelNodeGroup,
    ModelStatus,
};
use localmodel::plan::names::MANAGED_BY;
use localmodel_hub::{Control, ModelSpec};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{RwLock, Semaphore, SemaphorePermit, watch};

use crate::command::{kubectl, on_node};
use crate::dump::dump;
use crate::objects::{self, apply};
use crate::setup::{Setup, setup};
use crate::tokens;
use crate::wait::until;
use crate::walkthrough::JOBS;

/// Both workers.
pub const WORKERS: [&str; 2] = ["kind-worker", "kind-worker2"];

/// Tests that disturb what others share hold it for themselves.
static CLUSTER: RwLock<()> = RwLock::const_new(());
/// How many tests run beside others, or wait for a place.
static SHARING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));
/// How many tests may run beside others at once.
const SHARED: u32 = 10;
static PLACES: Semaphore = Semaphore::const_new(SHARED as usize);

/// A test's part of the cluster.
pub struct World {
    /// The prefix of its names; also the name of its node group and of its folder below `/models`.
    pub prefix: String,
    /// A client.
    pub client: Client,
    /// The hub, for setting faults and reading requests.
    pub hub: Control,
    /// What all tests share.
    pub setup: &'static Setup,
}

/// Runs a test beside others.
pub async fn beside_others<F: Future<Output = Result<()>>>(prefix: &str, test: impl FnOnce(World) -> F) {
    beside_others_then(prefix, test, async |_| Ok(())).await;
}

/// The same; whatever becomes of it, what [`World`] does not remove by itself is removed `afterwards`.
pub async fn beside_others_then<F: Future<Output = Result<()>>>(
    prefix: &str,
    test: impl FnOnce(World) -> F,
    afterwards: impl AsyncFnOnce(&World) -> Result<()>,
) {
    SHARING.send_modify(|sharing| *sharing += 1);
    let shared = async {
        let _place = PLACES.acquire().await;
        let _shared = CLUSTER.read().await;
        in_world(prefix, test, afterwards).await;
    };
    let ended = AssertUnwindSafe(shared).catch_unwind().await;
    SHARING.send_modify(|sharing| *sharing -= 1);
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Waits in a test that runs beside others until they have ended, and holds those that come. Only one
/// test may do so: two would wait for each other.
pub async fn hold_others() -> Option<SemaphorePermit<'static>> {
    PLACES.acquire_many(SHARED - 1).await.ok()
}

/// Runs a test while no other runs, after all that can run beside others. Whatever becomes of it, what it
/// changed for all is put right `afterwards`.
pub async fn alone<F: Future<Output = Result<()>>>(
    prefix: &str,
    test: impl FnOnce(World) -> F,
    afterwards: impl AsyncFnOnce(&World) -> Result<()>,
) {
    // An error would only say that nobody shares it any more.
    drop(SHARING.subscribe().wait_for(|sharing| *sharing == 0).await);
    let _all = CLUSTER.write().await;
    in_world(prefix, test, afterwards).await;
}

async fn in_world<F: Future<Output = Result<()>>>(
    prefix: &str,
    test: impl FnOnce(World) -> F,
    afterwards: impl AsyncFnOnce(&World) -> Result<()>,
) {
    let setup = or_panic("the shared setup", setup().await);
    let client = or_panic("a client of the cluster", Client::try_default().await.map_err(Into::into));
    // Clients are the test's own: connections end with the runtime that made them.
    let hub = or_panic("a client of the hub", Control::new(&setup.control).map_err(Into::into));
    let world = || World { prefix: prefix.to_owned(), client: client.clone(), hub: hub.clone(), setup };
    or_panic("removing what an earlier run left", world().begin().await);
    let result = AssertUnwindSafe(test(world())).catch_unwind().await;
    if !matches!(result, Ok(Ok(()))) {
        dump(prefix).await;
    }
    // Before all that it made is gone.
    let tokens = tokens::are_kept(&client).await;
    let put_right = afterwards(&world()).await;
    let removed = world().remove().await;
    match result {
        Ok(result) => or_panic(prefix, result),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    or_panic("the tokens", tokens);
    or_panic("putting right what the test changed for all", put_right);
    or_panic("removing the test's objects", removed);
}

/// Fails the test with an error's words and no backtrace: those of the error chain say more.
fn or_panic<T>(what: &str, result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error:#}"))
}

/// The manifest of a namespace that enforces the pod security standard "restricted".
pub fn namespace(name: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}
"
    )
}

impl World {
    /// Makes the test's node group, with its own folder on both workers. Nodes join it by [`Self::join`].
    pub async fn group(&self) -> Result<()> {
        for node in WORKERS {
            on_node(node, &format!("mkdir -p /models/{}", self.prefix)).await?;
        }
        apply(&self.group_yaml(&self.prefix)).await
    }

    /// The manifest of a node group of this name on the test's folder and nodes.
    pub fn group_yaml(&self, name: &str) -> String {
        let prefix = &self.prefix;
        format!(
            "
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelNodeGroup
metadata: {{name: {name}}}
spec:
  storageLimit: 100G
  persistentVolumeClaimSpec:
    accessModes: [ReadWriteOnce]
    resources: {{requests: {{storage: 100G}}}}
    storageClassName: local-storage
  persistentVolumeSpec:
    accessModes: [ReadWriteOnce]
    capacity: {{storage: 100G}}
    local: {{path: /models/{prefix}}}
    storageClassName: local-storage
    nodeAffinity:
      required:
        nodeSelectorTerms:
          - matchExpressions: [{{key: test/{prefix}, operator: Exists}}]
"
        )
    }

    /// Labels a node so that it belongs to the test's group.
    pub async fn join(&self, node: &str) -> Result<()> {
        self.label(node, Some("yes")).await
    }

    /// Takes the label away again.
    pub async fn leave(&self, node: &str) -> Result<()> {
        self.label(node, None).await
    }

    /// The full name of one of the test's caches.
    pub fn name(&self, cache: &str) -> String {
        format!("{}-{cache}", self.prefix)
    }

    /// Makes a cache of the test's group.
    pub async fn cache(&self, cache: &str, source: &str) -> Result<()> {
        let (name, group) = (self.name(cache), &self.prefix);
        apply(&format!(
            "
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelCache
metadata: {{name: {name}}}
spec: {{sourceModelUri: '{source}', modelSize: 1Gi, nodeGroups: [{group}]}}
"
        ))
        .await
    }

    /// Makes the test's group on a node, with a cache `m` that is complete there.
    pub async fn warm(&self, node: &str) -> Result<()> {
        self.group().await?;
        self.join(node).await?;
        self.cache("m", &self.model("m").await?).await?;
        self.until_available("m", 1, 1).await.map(drop)
    }

    /// Makes a namespace of the test's own, in which Pod Security "restricted" is enforced. Returns its
    /// name.
    pub async fn namespace(&self, name: &str) -> Result<String> {
        let name = self.name(name);
        apply(&namespace(&name)).await?;
        Ok(name)
    }

    /// Makes a namespace cache of the test's group in a namespace.
    pub async fn namespace_cache(&self, namespace: &str, cache: &str, source: &str) -> Result<()> {
        let (name, group) = (self.name(cache), &self.prefix);
        apply(&format!(
            "
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelNamespaceCache
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{sourceModelUri: '{source}', modelSize: 1Gi, nodeGroups: [{group}]}}
"
        ))
        .await
    }

    /// A model of the test's own on the hub; returns its source URI.
    pub async fn model(&self, name: &str) -> Result<String> {
        let repository = format!("{}/{name}", self.prefix);
        self.hub.add_model(&ModelSpec::new(&repository, 2_000_000, 2)).await?;
        Ok(format!("hf://{repository}"))
    }

    /// One of the test's caches as it is now.
    pub async fn get(&self, cache: &str) -> Result<Option<LocalModelCache>> {
        Ok(self.in_cluster::<LocalModelCache>().get_opt(&self.name(cache)).await?)
    }

    /// A node's object as it is now.
    pub async fn node(&self, node: &str) -> Result<Option<LocalModelNode>> {
        Ok(self.in_cluster::<LocalModelNode>().get_opt(node).await?)
    }

    /// Waits until a node says this of one of the test's caches.
    pub async fn until_status(&self, node: &str, cache: &str, wanted: ModelStatus) -> Result<LocalModelNode> {
        let key = self.name(cache);
        until(&format!("{wanted:?} of {key} on {node}"), || async {
            let local = self.node(node).await?;
            let said = |local: &LocalModelNode| local.status.as_ref()?.model_status.get(&key).copied();
            Ok(local.filter(|local| said(local) == Some(wanted)))
        })
        .await
    }

    /// Waits until so many copies of so many are available.
    pub async fn until_available(&self, cache: &str, available: i32, total: i32) -> Result<LocalModelCache> {
        let name = self.name(cache);
        until(&format!("{available} of {total} copies of {name}"), || async {
            Ok(self.get(cache).await?.filter(|found| counts(found.status.as_ref()) == (available, total)))
        })
        .await
    }

    /// The same for one of the test's namespace caches.
    pub async fn until_available_in(
        &self,
        namespace: &str,
        cache: &str,
        available: i32,
        total: i32,
    ) -> Result<LocalModelNamespaceCache> {
        let name = self.name(cache);
        until(&format!("{available} of {total} copies of {namespace}/{name}"), || async {
            let api: Api<LocalModelNamespaceCache> = self.in_namespace(namespace);
            let found = api.get_opt(&name).await?;
            Ok(found.filter(|found| counts(found.status.as_ref()) == (available, total)))
        })
        .await
    }

    /// Waits until `kubectl describe` of one of the test's caches, by itself, says all of this.
    pub async fn until_described(&self, cache: &str, words: &[&str]) -> Result<()> {
        let name = self.name(cache);
        until(&format!("{words:?} in the description of {name}"), || async {
            let said = kubectl(&["describe", "localmodelcache", &name]).await?;
            let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
            ensure!(missing.is_empty(), "{missing:?} is not in\n{said}");
            Ok(Some(()))
        })
        .await
    }

    /// The files of the test's folder on a node, sorted.
    pub async fn files(&self, node: &str) -> Result<Vec<String>> {
        let folder = format!("/models/{}", self.prefix);
        let found =
            on_node(node, &format!("cd {folder} 2>/dev/null && find . -type f | sort || true")).await?;
        Ok(found.lines().map(Into::into).collect())
    }

    /// The names of a kind's objects that are the test's, in a namespace or in none.
    pub async fn names<K>(&self, api: Api<K>) -> Result<Vec<String>>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let names = api.list_metadata(&ListParams::default()).await?.items.into_iter().map(|o| o.name_any());
        Ok(names
            .filter(|name| *name == self.prefix || name.starts_with(&format!("{}-", self.prefix)))
            .collect())
    }

    /// A kind in the namespace of download Jobs.
    pub fn in_jobs<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.in_namespace(JOBS)
    }

    /// A kind in a namespace.
    pub fn in_namespace<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A kind without a namespace.
    pub fn in_cluster<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    async fn delete_all<K>(&self, api: Api<K>) -> Result<()>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        until(&format!("the end of every {}", std::any::type_name::<K>()), || async {
            let names = self.names(api.clone()).await?;
            for name in &names {
                objects::if_there(api.delete(name, &DeleteParams::default()).await)?;
            }
            Ok(names.is_empty().then_some(()))
        })
        .await
    }

    /// Deletes what a test made as KServe makes it: ours goes by itself.
    async fn delete_kserves<K>(&self, api: Api<K>) -> Result<()>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let theirs = ListParams::default().labels(&format!("!{MANAGED_BY}"));
        let made: BTreeSet<String> = self.names(api.clone()).await?.into_iter().collect();
        for object in api.list_metadata(&theirs).await?.items {
            if made.contains(&object.name_any()) {
                api.delete(&object.name_any(), &DeleteParams::default()).await?;
            }
        }
        Ok(())
    }

    /// Removes what an earlier run left, its namespaces to their end.
    async fn begin(&self) -> Result<()> {
        self.remove().await?;
        until("the end of an earlier run's namespaces", || async {
            Ok(self.names(self.in_cluster::<Namespace>()).await?.is_empty().then_some(()))
        })
        .await
    }

    /// Ends what uses caches in the test's namespaces, since it guards them, and waits for the pods' end.
    pub async fn end_users(&self) -> Result<()> {
        for namespace in self.names(self.in_cluster::<Namespace>()).await? {
            let users = objects::users_of_caches(&self.client, &namespace);
            for kind in &users {
                objects::if_there(
                    kind.delete_collection(&DeleteParams::default(), &ListParams::default()).await,
                )?;
            }
            until(&format!("the end of what uses caches in {namespace}"), || async {
                for kind in &users {
                    let left = objects::if_there(kind.list_metadata(&ListParams::default()).await)?;
                    let left: Vec<String> = left.into_iter().flatten().map(|left| left.name_any()).collect();
                    ensure!(left.is_empty(), "there are still {left:?}");
                }
                Ok(Some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Removes all that the test made, as far as it is there.
    async fn remove(&self) -> Result<()> {
        self.hub.clear_faults(&self.prefix).await?;
        self.end_users().await?;
        // Nobody waits for their end, which takes the API server long; a next run does.
        for namespace in self.names(self.in_cluster::<Namespace>()).await? {
            objects::if_there(
                self.in_cluster::<Namespace>().delete(&namespace, &DeleteParams::default()).await,
            )?;
        }
        self.delete_all(self.in_cluster::<LocalModelCache>()).await?;
        self.delete_all(self.in_cluster::<ClusterStorageContainer>()).await?;
        self.delete_all(self.in_cluster::<LocalModelNodeGroup>()).await?;
        self.delete_kserves(self.in_jobs::<PersistentVolumeClaim>()).await?;
        self.delete_kserves(self.in_cluster::<PersistentVolume>()).await?;
        until(&format!("the end of the volumes and Jobs of {}", self.prefix), || async {
            let volumes = self.names(self.in_cluster::<PersistentVolume>()).await?;
            let jobs = self.names(self.in_jobs::<Job>()).await?;
            Ok((volumes.is_empty() && jobs.is_empty()).then_some(()))
        })
        .await?;
        for node in WORKERS {
            self.leave(node).await?;
            on_node(node, &format!("rm -rf /models/{}", self.prefix)).await?;
        }
        Ok(())
    }

    async fn label(&self, node: &str, value: Option<&str>) -> Result<()> {
        let labels = json!({"metadata": {"labels": {format!("test/{}", self.prefix): value}}});
        self.in_cluster::<Node>()
            .patch_metadata(node, &PatchParams::default(), &Patch::Merge(labels))
            .await?;
        Ok(())
    }
}

/// The copies of a cache that are available, and all of them.
fn counts(status: Option<&CacheStatus>) -> (i32, i32) {
    let copies = status.and_then(|status| status.copies.clone()).unwrap_or_default();
    (copies.available, copies.total)
}
