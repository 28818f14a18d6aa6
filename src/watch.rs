//! Watches that keep a store of one kind in step with the API server and say when to look again.

use std::fmt::Debug;
use std::hash::Hash;

use futures::{FutureExt, StreamExt, pin_mut};
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

/// What a watch saw. It carries no news of its own: the store has it.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// This object was made or changed.
    Applied(&'a K),
    /// This object was deleted.
    Deleted(&'a K),
    /// The whole kind was read anew; anything may have changed.
    All,
}

/// A store and the task that keeps it in step; the task ends with this value.
#[derive(Debug)]
pub struct Watch<K: Resource<DynamicType: Debug + Eq + Hash> + 'static> {
    /// The store.
    pub store: Store<K>,
    task: JoinHandle<()>,
}

impl<K: Resource<DynamicType = ()> + Clone> Watch<K> {
    /// Adds the kind's name when its first list has not arrived yet.
    pub fn name_if_unfilled(&self, missing: &mut Vec<String>) {
        if self.store.wait_until_ready().now_or_never().is_none() {
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
    mut on: impl FnMut(Change<K>) + Send + 'static,
) -> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, mut writer) = reflector::store();
    let task = tokio::spawn(async move {
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted, trying again");
                    continue;
                }
            };
            let Some(event) = readable(event) else { continue };
            writer.apply_watcher_event(&event);
            match &event {
                Event::Apply(object) => on(Change::Applied(object)),
                Event::Delete(object) => on(Change::Deleted(object)),
                Event::InitDone => on(Change::All),
                Event::Init | Event::InitApply(_) => {}
            }
        }
    });
    Watch { store, task }
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
