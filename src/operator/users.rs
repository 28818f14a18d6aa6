//! The objects that use caches: pods with our label, and services where KServe's definitions are
//! installed, which may be at any time (S12). No more of them than their metadata is read.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use kube::discovery;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, broadcast};

use super::news::Touched;
use crate::error::for_people;
use crate::plan::names::{POD_MODEL, SERVICE_MODEL};
use crate::plan::users::{self, Kind, User};
use crate::watch::{Change, Watch, watch_metadata};

/// KServe's API group.
const GROUP: &str = "serving.kserve.io";
/// The kinds of service.
const SERVICES: [Kind; 2] = [Kind::InferenceService, Kind::LLMInferenceService];
/// The pause before a definition that is not yet served is looked up again.
const LOOKUP: Duration = Duration::from_secs(2);
/// A pod that has ended uses nothing any more.
const LIVING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// The watches of everything that uses a cache.
#[derive(Debug)]
pub(super) struct Users {
    pods: Watch<PartialObjectMeta<Pod>>,
    service_pods: Watch<PartialObjectMeta<Pod>>,
    services: Vec<Services>,
}

/// A kind of service as the API server has it, and its watch.
type ServiceWatch = (ApiResource, Watch<PartialObjectMeta<DynamicObject>>);

/// The services of one kind, whose definition may be there or not.
#[derive(Debug)]
struct Services {
    kind: Kind,
    definition: Watch<PartialObjectMeta<CustomResourceDefinition>>,
    watched: Arc<Mutex<Option<ServiceWatch>>>,
}

/// What it takes to watch services for as long as they are defined.
struct Following {
    client: Client,
    kind: Kind,
    definitions: Store<PartialObjectMeta<CustomResourceDefinition>>,
    watched: Arc<Mutex<Option<ServiceWatch>>>,
    news: broadcast::Sender<Touched>,
}

impl Users {
    pub(super) fn start(client: &Client, news: &broadcast::Sender<Touched>) -> Self {
        let labelled = |label| watcher::Config::default().labels(label).fields(LIVING);
        let all = || Api::all(client.clone());
        Self {
            pods: watch_metadata(all(), (), labelled(POD_MODEL), tell(news, Kind::Pod)),
            // They only guard, which is asked for when a cache is to be deleted.
            service_pods: watch_metadata(all(), (), labelled(SERVICE_MODEL), |_: Change<_>| {}),
            services: SERVICES.map(|kind| Services::start(client, kind, news)).into(),
        }
    }

    /// Every object that uses a cache now.
    pub(super) fn all(&self) -> Vec<User> {
        let pods = [(Kind::Pod, &self.pods), (Kind::ServicePod, &self.service_pods)];
        let pods = pods.into_iter().flat_map(|(kind, watch)| {
            watch.store.state().into_iter().filter_map(move |pod| users::user(kind, &pod.metadata))
        });
        pods.chain(self.services.iter().flat_map(Services::all)).collect()
    }

    /// Every object that uses a cache of this name, as the API server has it now: a watch may lag behind a service
    /// that was made or deleted a moment ago.
    pub(super) async fn now(&self, client: &Client, cache: &str) -> kube::Result<Vec<User>> {
        let mut users = Vec::new();
        let pods: Api<Pod> = Api::all(client.clone());
        for (kind, label) in [(Kind::Pod, POD_MODEL), (Kind::ServicePod, SERVICE_MODEL)] {
            let of_cache = ListParams::default().labels(&format!("{label}={cache}")).fields(LIVING);
            users.extend(listed(&pods, kind, &of_cache).await?);
        }
        let of_cache = ListParams::default().labels(&format!("{SERVICE_MODEL}={cache}"));
        for services in &self.services {
            let Some(resource) = services.resource() else { continue };
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            users.extend(listed(&api, services.kind, &of_cache).await?);
        }
        Ok(users)
    }

    /// Adds the kinds whose first list has not arrived, for the readiness check.
    pub(super) fn name_if_unfilled(&self, missing: &mut Vec<String>) {
        self.pods.name_if_unfilled(missing);
        self.service_pods.name_if_unfilled(missing);
        for services in self.services.iter().filter(|services| !services.is_filled()) {
            missing.push(services.kind.plural().into());
        }
    }
}

impl Services {
    fn start(client: &Client, kind: Kind, news: &broadcast::Sender<Touched>) -> Self {
        let name = format!("{}.{GROUP}", kind.plural());
        let this_one = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let look = Arc::new(Notify::new());
        let seen = look.clone();
        let definition =
            watch_metadata(Api::all(client.clone()), (), this_one, move |_: Change<_>| seen.notify_one());
        let watched = Arc::new(Mutex::new(None));
        let following = Following {
            client: client.clone(),
            kind,
            definitions: definition.store.clone(),
            watched: watched.clone(),
            news: news.clone(),
        };
        tokio::spawn(following.run(look));
        Self { kind, definition, watched }
    }

    fn all(&self) -> Vec<User> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let services = watched.iter().flat_map(|(_, watch)| watch.store.state());
        services.filter_map(|service| users::user(self.kind, &service.metadata)).collect()
    }

    fn resource(&self) -> Option<ApiResource> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.as_ref().map(|(resource, _)| resource.clone())
    }

    fn is_filled(&self) -> bool {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_defined = !self.definition.store.is_empty();
        self.definition.is_filled()
            && (!is_defined || watched.as_ref().is_some_and(|(_, watch)| watch.is_filled()))
    }
}

impl Following {
    /// Each time the definition came, went or changed.
    async fn run(self, look: Arc<Notify>) {
        loop {
            look.notified().await;
            let is_watched = self.lock().is_some();
            match (is_watched, self.definitions.is_empty()) {
                (true, true) => {
                    *self.lock() = None;
                    let _ = self.news.send(Touched::All);
                }
                (false, false) => {
                    if let Err(why) = self.start().await {
                        tracing::info!(kind = self.kind.name(), why, "CRD not served yet, retrying");
                        tokio::time::sleep(LOOKUP).await;
                        look.notify_one();
                    }
                }
                (true, false) | (false, true) => {}
            }
        }
    }

    async fn start(&self) -> Result<(), String> {
        let group = discovery::group(&self.client, GROUP).await.map_err(|error| for_people(&error))?;
        // Not in the group's recommended version alone: the kinds have versions of their own.
        let mut resources = group.resources_by_stability().into_iter();
        let (resource, _) = resources
            .find(|(resource, _)| resource.kind == self.kind.name())
            .ok_or("the API server does not list it")?;
        let api = Api::all_with(self.client.clone(), &resource);
        tracing::info!(kind = self.kind.name(), version = resource.version, "services are watched");
        let on = tell(&self.news, self.kind);
        let watch = watch_metadata(api, resource.clone(), watcher::Config::default(), on);
        *self.lock() = Some((resource, watch));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<ServiceWatch>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listed<K>(api: &Api<K>, kind: Kind, which: &ListParams) -> kube::Result<Vec<User>>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let found = api.list_metadata(which).await?.items;
    Ok(found.iter().filter_map(|object| users::user(kind, &object.metadata)).collect())
}

/// Tells of the cache that an object uses and of the one that it used before: a label may have changed.
fn tell<K>(
    news: &broadcast::Sender<Touched>,
    kind: Kind,
) -> impl FnMut(Change<PartialObjectMeta<K>>) + Send + 'static + use<K> {
    let news = news.clone();
    let mut seen = HashMap::<(Option<String>, String), User>::new();
    let key = |meta: &ObjectMeta| (meta.namespace.clone(), meta.name.clone().unwrap_or_default());
    move |change| {
        let object = match change {
            Change::All(objects) => {
                // The next change of one of these has to be told by what it is now.
                let users = objects.iter().map(|object| &object.metadata);
                seen = users.filter_map(|meta| Some((key(meta), users::user(kind, meta)?))).collect();
                let _ = news.send(Touched::All);
                return;
            }
            Change::Applied(object) | Change::Deleted(object) => object,
        };
        let key = key(&object.metadata);
        let now = users::user(kind, &object.metadata).filter(|_| matches!(change, Change::Applied(_)));
        let before = match now.clone() {
            Some(user) => seen.insert(key, user),
            None => seen.remove(&key),
        };
        if now != before {
            for user in before.into_iter().chain(now) {
                let _ = news.send(Touched::Own(user.cache));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::api::GroupVersionKind;
    use serde_json::json;
    use wiremock::matchers::{method, path, query_param};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::plan::names::CacheKey;

    type Service = PartialObjectMeta<DynamicObject>;

    fn service(labels: &serde_json::Value) -> Service {
        let metadata = json!({"name": "s", "namespace": "ns", "labels": labels});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    /// What is told of a change to a service that was there when the operator began to watch.
    fn told(change: Change<Service>) -> Vec<Touched> {
        let (news, mut told) = broadcast::channel(8);
        let mut tell = tell(&news, Kind::InferenceService);
        tell(Change::All(&[Arc::new(service(&json!({SERVICE_MODEL: "m"})))]));
        assert_eq!(told.try_recv(), Ok(Touched::All));
        tell(change);
        std::iter::from_fn(|| told.try_recv().ok()).collect()
    }

    #[test]
    fn the_end_of_a_service_that_was_there_before_the_operator_is_told() {
        let cache = Touched::Own(CacheKey::cluster("m"));
        assert_eq!(
            told(Change::Deleted(&service(&json!({SERVICE_MODEL: "m"})))),
            std::slice::from_ref(&cache)
        );
        assert_eq!(told(Change::Applied(&service(&json!({})))), [cache]);
    }

    /// An API server on which these use cache `m`: each a path, a label and a name.
    async fn api_server(users: &[(&str, &str, &str)]) -> MockServer {
        let server = MockServer::start().await;
        for (on, label, name) in users {
            let item = json!({"metadata": {"name": name, "namespace": "ns", "labels": {*label: "m"}}});
            let list = json!({"metadata": {}, "items": [item]});
            let selects = query_param("labelSelector", format!("{label}=m"));
            let answer = ResponseTemplate::new(200).set_body_json(list);
            Mock::given(method("GET")).and(path(*on)).and(selects).respond_with(answer).mount(&server).await;
        }
        server
    }

    #[tokio::test]
    async fn users_now_are_those_that_the_api_server_has_of_every_kind_that_is_defined() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = api_server(&[
            ("/api/v1/pods", POD_MODEL, "ours"),
            ("/api/v1/pods", SERVICE_MODEL, "kserves"),
            ("/apis/serving.kserve.io/v1beta1/inferenceservices", SERVICE_MODEL, "service"),
        ])
        .await;
        let client = Client::try_from(kube::Config::new(server.uri().parse().unwrap())).unwrap();
        let (news, _) = broadcast::channel(8);
        let users = Users::start(&client, &news);
        let kind = GroupVersionKind::gvk(GROUP, "v1beta1", "InferenceService");
        let resource = ApiResource::from_gvk(&kind);
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client.clone(), &resource);
        let nothing = watcher::Config::default();
        let watch = watch_metadata(api, resource.clone(), nothing, |_: Change<_>| {});
        *users.services[0].watched.lock().unwrap() = Some((resource, watch));

        assert_eq!(users.all(), [], "the watches have seen nothing");
        let now = users.now(&client, "m").await.unwrap();
        let named = |kind, name: &str| User {
            cache: CacheKey::cluster("m"),
            kind,
            namespace: "ns".into(),
            name: name.into(),
            group: None,
        };
        assert_eq!(
            now,
            [
                named(Kind::Pod, "ours"),
                named(Kind::ServicePod, "kserves"),
                named(Kind::InferenceService, "service")
            ]
        );
    }

    #[test]
    fn a_change_that_leaves_the_cache_is_not_told() {
        assert_eq!(told(Change::Applied(&service(&json!({SERVICE_MODEL: "m", "other": "label"})))), []);
    }
}
