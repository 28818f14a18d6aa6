//! Watches that keep a store of one kind in step with the API server and say when to look again.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt, pin_mut};
use kube::api::Api;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::error::for_people;

/// What a watch saw. It carries no news of its own: the store has it.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// This object was made or changed.
    Applied(&'a K),
    /// This object was deleted.
    Deleted(&'a K),
    /// The whole kind was read anew, and this is all of it; anything may have changed.
    All(&'a [Arc<K>]),
}

/// A store and the task that keeps it in step; the task ends with this value.
#[derive(Debug)]
pub struct Watch<K: Resource<DynamicType: Debug + Eq + Hash> + 'static> {
    /// The store.
    pub store: Store<K>,
    task: JoinHandle<()>,
}

impl<K: Resource<DynamicType: Clone + Debug + Eq + Hash> + Clone> Watch<K> {
    /// Whether the first list has arrived.
    pub fn is_filled(&self) -> bool {
        self.store.wait_until_ready().now_or_never().is_some()
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Watch<K> {
    /// Adds the kind's name when its first list has not arrived yet.
    pub fn name_if_unfilled(&self, missing: &mut Vec<String>) {
        if !self.is_filled() {
            missing.push(K::plural(&()).into_owned());
        }
    }
}

impl<K: Resource<DynamicType: Debug + Eq + Hash>> Drop for Watch<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches a kind. An object that cannot be read is left out with a warning: it never stops the others.
pub fn watch<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    on: impl FnMut(Change<K>) + Send + 'static,
) -> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = watcher(api, config).default_backoff().filter_map(|event| {
        std::future::ready(match event {
            Ok(event) => readable(event).map(Ok),
            Err(error) => Some(Err(error)),
        })
    });
    follow(events, (), on)
}

/// Watches no more of a kind than names, labels and annotations.
pub fn watch_metadata<K>(
    api: Api<PartialObjectMeta<K>>,
    kind: K::DynamicType,
    config: watcher::Config,
    on: impl FnMut(Change<PartialObjectMeta<K>>) + Send + 'static,
) -> Watch<PartialObjectMeta<K>>
where
    K: Resource<DynamicType: Clone + Debug + Eq + Hash + Send + Sync>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    follow(watcher(api, config).default_backoff(), kind, on)
}

fn follow<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    kind: K::DynamicType,
    mut on: impl FnMut(Change<K>) + Send + 'static,
) -> Watch<K>
where
    K: Resource<DynamicType: Clone + Debug + Eq + Hash + Send + Sync> + Clone + Send + Sync + 'static,
{
    let mut writer = Writer::new(kind.clone());
    let (store, all) = (writer.as_reader(), writer.as_reader());
    let task = tokio::spawn(async move {
        pin_mut!(events);
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    interrupted(&K::kind(&kind), &error);
                    continue;
                }
            };
            writer.apply_watcher_event(&event);
            match &event {
                Event::Apply(object) => on(Change::Applied(object)),
                Event::Delete(object) => on(Change::Deleted(object)),
                Event::InitDone => on(Change::All(&all.state())),
                Event::Init | Event::InitApply(_) => {}
            }
        }
    });
    Watch { store, task }
}

/// A watch that the API server ends because its version is too old is a matter of course: the kind is listed again.
fn interrupted(kind: &str, error: &watcher::Error) {
    let error = match error {
        watcher::Error::WatchError(status) if status.code == 410 => {
            tracing::debug!(kind, "watch expired, listing again");
            return;
        }
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => for_people(error),
        watcher::Error::NoResourceVersion => error.to_string(),
    };
    tracing::warn!(kind, error, "watch interrupted, trying again");
}

fn readable<K: Resource<DynamicType = ()> + Clone>(event: Event<DeserializeGuard<K>>) -> Option<Event<K>> {
    let object = |guard: DeserializeGuard<K>| {
        let name = guard.name_any();
        guard
            .0
            .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), name, %error, "object cannot be read"))
            .ok()
    };
    Some(match event {
        Event::Apply(guard) => Event::Apply(object(guard)?),
        Event::Delete(guard) => Event::Delete(object(guard)?),
        Event::InitApply(guard) => Event::InitApply(object(guard)?),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    })
}
