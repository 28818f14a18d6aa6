//! What may have changed, as the watches tell it, and gathered: many changes in a moment cause one look at each
//! object that they touch. The moment begins with the first of them. A look that every further change put off
//! would never come on a busy cluster.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures::{Stream, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{Resource, ResourceExt};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{self, Receiver};
use tokio::time::sleep;

use super::cache_kind::CacheKind;
use crate::api::LocalModelNode;
use crate::plan::entries::is_ready;
use crate::plan::names::{self, CacheKey};
use crate::watch::Change;

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// The settings, or a whole kind.
    All,
    /// A cache: it was made, is another than before, or goes.
    Cache(CacheKey),
    /// What concerns a cache alone: its status, or who uses it.
    Own(CacheKey),
    /// What a node's object says of a copy of a cache, or that it is to have one.
    Copy(CacheKey),
    /// A node group.
    Group(String),
    /// A node's labels or readiness.
    Node(String),
    /// A node's `LocalModelNode`.
    LocalNode(String),
    /// What is told of agents' pods: of a group's, by the value of its label, or of any.
    Agents(Option<String>),
    /// A volume, claim or `DaemonSet` of ours, by the label values of its cache and group.
    Owned {
        /// The cache it belongs to.
        cache: Option<String>,
        /// The namespace of that cache, where it is a namespace cache.
        namespace: Option<String>,
        /// The group it belongs to.
        group: Option<String>,
    },
}

/// How long news are gathered.
const MOMENT: Duration = Duration::from_millis(100);

/// What came in each moment in which something came. Where more came than the channel holds it is `everything`.
pub(super) fn gathered<T>(news: Receiver<T>, everything: T) -> impl Stream<Item = Vec<T>> + Send
where
    T: Clone + Send + Sync + 'static,
{
    stream::unfold((news, everything), |(mut news, everything)| async {
        let mut moment = match news.recv().await {
            Ok(first) => vec![first],
            Err(RecvError::Lagged(_)) => vec![everything.clone()],
            Err(RecvError::Closed) => return None,
        };
        sleep(MOMENT).await;
        loop {
            match news.try_recv() {
                Ok(next) => moment.push(next),
                Err(TryRecvError::Lagged(_)) => moment.push(everything.clone()),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some((moment, (news, everything)))
    })
}

pub(super) fn tell<K, F>(
    news: &broadcast::Sender<Touched>,
    touched: F,
) -> impl FnMut(Change<K>) + Send + 'static + use<K, F>
where
    F: Fn(&K) -> Touched + Send + 'static,
{
    let news = news.clone();
    move |change| {
        let _ = news.send(match change {
            Change::Applied(object) | Change::Deleted(object) => touched(object),
            Change::All(_) => Touched::All,
        });
    }
}

pub(super) fn owned<K: Resource>(object: &K) -> Touched {
    let label = |key| object.meta().labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    Touched::Owned {
        cache: label(names::CACHE),
        namespace: label(names::CACHE_NAMESPACE),
        group: label(names::NODE_GROUP),
    }
}

/// A kubelet reports several times a minute; only labels, taints and readiness matter here.
pub(super) fn tell_of_nodes(news: &broadcast::Sender<Touched>) -> impl FnMut(Change<Node>) + Send + 'static {
    let mut tell = tell(news, |node: &Node| Touched::Node(node.name_any()));
    let mut seen = HashMap::new();
    move |change| {
        match &change {
            Change::Applied(node) => {
                let mut hash = DefaultHasher::new();
                (node.labels(), is_ready(node), &node.metadata.uid).hash(&mut hash);
                for taint in node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()) {
                    (&taint.key, &taint.value, &taint.effect).hash(&mut hash);
                }
                if seen.insert(node.name_any(), hash.finish()) == Some(hash.finish()) {
                    return;
                }
            }
            Change::Deleted(node) => {
                seen.remove(&node.name_any());
            }
            Change::All(_) => seen.clear(),
        }
        tell(change);
    }
}

/// A status that follows from what others say is written often; it is nobody's to look at but the cache's own.
pub(super) fn tell_of_caches<C: CacheKind>(
    news: &broadcast::Sender<Touched>,
) -> impl FnMut(Change<C>) + Send + 'static + use<C> {
    let news = news.clone();
    let mut seen = HashMap::new();
    move |change| {
        let _ = news.send(match change {
            Change::Applied(cache) => {
                let meta = cache.meta();
                let mut hash = DefaultHasher::new();
                (&meta.uid, meta.generation, &meta.labels, &meta.annotations, &meta.finalizers)
                    .hash(&mut hash);
                meta.deletion_timestamp.is_some().hash(&mut hash);
                let key = cache.key();
                let before = seen.insert(key.clone(), hash.finish());
                if before == Some(hash.finish()) { Touched::Own(key) } else { Touched::Cache(key) }
            }
            Change::Deleted(cache) => {
                seen.remove(&cache.key());
                Touched::Cache(cache.key())
            }
            Change::All(_) => {
                seen.clear();
                Touched::All
            }
        });
    }
}

/// Of the many copies on a node few change at a time.
pub(super) fn tell_of_local_nodes(
    news: &broadcast::Sender<Touched>,
) -> impl FnMut(Change<LocalModelNode>) + Send + 'static + use<> {
    let mut tell = tell(news, |local: &LocalModelNode| Touched::LocalNode(local.name_any()));
    let news = news.clone();
    let mut seen: HashMap<String, HashMap<CacheKey, u64>> = HashMap::new();
    move |change| {
        let (name, now) = match &change {
            Change::Applied(local) => (local.name_any(), copies(local)),
            Change::Deleted(local) => (local.name_any(), HashMap::new()),
            Change::All(all) => {
                // The next change of one of these is told by what it was.
                seen = all.iter().map(|local| (local.name_any(), copies(local))).collect();
                return tell(change);
            }
        };
        let before = seen.insert(name.clone(), now.clone()).unwrap_or_default();
        let keys: BTreeSet<&CacheKey> = before.keys().chain(now.keys()).collect();
        for key in keys.into_iter().filter(|key| before.get(key) != now.get(key)) {
            let _ = news.send(Touched::Copy(key.clone()));
        }
        if now.is_empty() {
            seen.remove(&name);
        }
        tell(change);
    }
}

/// What an object says of each cache that it lists, as a digest.
fn copies(local: &LocalModelNode) -> HashMap<CacheKey, u64> {
    let status = local.status.as_ref();
    let of_entry = local.spec.local_models.iter().map(|entry| {
        let key = entry.status_key();
        let phase = status.and_then(|status| status.model_status.get(&key));
        let detail = status.and_then(|status| status.models.get(&key));
        let mut hash = DefaultHasher::new();
        format!("{:?} {entry:?} {phase:?} {detail:?}", local.metadata.uid).hash(&mut hash);
        (CacheKey::of(entry), hash.finish())
    });
    of_entry.collect()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use futures::StreamExt;
    use serde_json::{Value, json};
    use tokio::sync::broadcast::channel;
    use tokio::time::{Instant, interval};

    use super::*;
    use crate::api::LocalModelCache;

    fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    /// The news that a watch makes of what it saw.
    fn told<K: 'static, T: FnMut(Change<K>)>(
        tell: impl FnOnce(&broadcast::Sender<Touched>) -> T,
        changes: &[Change<K>],
    ) -> Vec<Touched> {
        let (news, mut told) = channel(64);
        let mut tell = tell(&news);
        for change in changes {
            tell(match change {
                Change::Applied(object) => Change::Applied(object),
                Change::Deleted(object) => Change::Deleted(object),
                Change::All(all) => Change::All(all),
            });
        }
        std::iter::from_fn(|| told.try_recv().ok()).collect()
    }

    #[test]
    fn a_caches_status_is_news_for_itself_alone() {
        let cache = |generation: i64, status: Value| -> LocalModelCache {
            from(json!({
                "apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelCache",
                "metadata": {"name": "m", "uid": "u", "generation": generation},
                "spec": {"sourceModelUri": "hf://o/m", "modelSize": "1Gi", "nodeGroups": ["g"]},
                "status": status,
            }))
        };
        let (first, counted, later) = (
            cache(1, json!({})),
            cache(1, json!({"copies": {"total": 1}})),
            cache(2, json!({"copies": {"total": 1}})),
        );
        let changes = [
            Change::Applied(&first),
            Change::Applied(&counted),
            Change::Applied(&later),
            Change::Deleted(&later),
            Change::Applied(&later),
        ];
        let m = || CacheKey::cluster("m");
        let (whole, status) = (|| Touched::Cache(m()), Touched::Own(m()));
        assert_eq!(told(tell_of_caches, &changes), [whole(), status, whole(), whole(), whole()]);
    }

    #[test]
    fn of_a_nodes_object_only_the_copies_are_news_that_changed() {
        let local = |models: &[&str], status: Value| -> LocalModelNode {
            let entry = |name: &&str| json!({"modelName": name, "sourceModelUri": format!("hf://o/{name}")});
            from(json!({
                "apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode",
                "metadata": {"name": "n", "uid": "u"},
                "spec": {"localModels": models.iter().map(entry).collect::<Vec<_>>()},
                "status": status,
            }))
        };
        let (first, warm, fewer) = (
            local(&["a", "b"], json!({"modelStatus": {"a": "ModelDownloading"}})),
            local(&["a", "b"], json!({"modelStatus": {"a": "ModelDownloaded"}})),
            local(&["b"], json!({"modelStatus": {"b": "ModelDownloaded"}})),
        );
        let copy = |name: &str| Touched::Copy(CacheKey::cluster(name));
        let node = || Touched::LocalNode("n".into());
        let listed = [Arc::new(first.clone())];
        let gone = [Change::All(&listed), Change::Deleted(&first)];
        assert_eq!(told(tell_of_local_nodes, &gone), [Touched::All, copy("a"), copy("b"), node()]);
        let changes = [
            Change::Applied(&first),
            Change::Applied(&warm),
            Change::Applied(&warm),
            Change::Applied(&fewer),
            Change::Deleted(&fewer),
        ];
        assert_eq!(
            told(tell_of_local_nodes, &changes),
            [
                copy("a"),
                copy("b"),
                node(), // all of it is new
                copy("a"),
                node(),
                node(),
                copy("a"),
                copy("b"),
                node(),
                copy("b"),
                node(),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_never_end_put_off_no_look() {
        let (tell, news) = channel(4096);
        let mut gathered = pin!(gathered(news, usize::MAX));
        let begun = Instant::now();
        tokio::spawn(async move {
            let mut every = interval(MOMENT / 10);
            for number in 0.. {
                every.tick().await;
                if tell.send(number).is_err() {
                    return;
                }
            }
        });
        let mut seen = Vec::new();
        for look in 1..=20 {
            seen.extend(gathered.next().await.expect("news"));
            assert!(
                begun.elapsed() <= look * (MOMENT + MOMENT / 10),
                "look {look} after {:?}",
                begun.elapsed()
            );
        }
        let count = seen.len();
        assert_eq!(seen, (0..count).collect::<Vec<_>>(), "none is lost, none comes twice");
        assert!(count >= 200, "{count} in 20 looks");
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_the_channel_holds_touches_everything() {
        let (tell, news) = channel(2);
        for number in 0..10 {
            assert!(tell.send(number).is_ok());
        }
        drop(tell);
        let all: Vec<Vec<usize>> = gathered(news, usize::MAX).collect().await;
        assert_eq!(all, [vec![usize::MAX, 8, 9]]);
    }
}
