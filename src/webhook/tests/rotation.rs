//! Certificates come and go while requests come in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::api_server::{ApiServer, MUTATING, SECRETS, VALIDATING};
use super::*;
use crate::plan::certificates::{CA, CERTIFICATE, KEY, stored};

/// Short, so that tests are; longer than the client's view of the bundles lags behind.
const SETTLE_HERE: SignedDuration = SignedDuration::from_millis(500);
/// How long the client takes to see another bundle.
const LAG: Duration = Duration::from_millis(100);

struct Setup {
    api: Arc<ApiServer>,
    identity: Arc<Identity>,
    server: Arc<Server>,
    keeper: Arc<Keeper>,
    task: JoinHandle<()>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Setup {
    async fn start(objects: &[(&str, Value)]) -> Self {
        let setup = Self::follow(objects).await;
        setup.keeper.lead();
        setup
    }

    /// The same, beside an operator that leads.
    async fn follow(objects: &[(&str, Value)]) -> Self {
        let (api, client) = ApiServer::start(objects).await;
        let identity = Arc::new(Identity::default());
        let server = Arc::new(Server::start(Known::default(), identity.clone()).await);
        let keeper = Arc::new(Keeper::start(&client, "kserve", SETTLE_HERE, identity.clone()));
        let kept = keeper.clone();
        let task = tokio::spawn(async move { kept.run().await });
        Self { api, identity, server, keeper, task }
    }

    /// Waits until the Secret is good, served, and alone in every bundle.
    async fn until_settled(&self) -> Pair {
        let identity = &self.identity;
        let is_settled =
            |api: &ApiServer| settled(api, identity).is_some() && self.keeper.missing().is_none();
        self.api.until("a good certificate, served and trusted", is_settled).await;
        settled(&self.api, &self.identity).unwrap()
    }
}

fn settled(api: &ApiServer, identity: &Identity) -> Option<Pair> {
    let secret: Secret = serde_json::from_value(api.get(SECRETS)?).ok()?;
    let pair = stored(Some(&secret), "kserve", Timestamp::now()).ok()?;
    let alone =
        [VALIDATING, MUTATING].iter().all(|resource| bundles(api, resource).iter().all(|b| *b == pair.ca));
    (alone && identity.served().as_ref() == Some(&pair)).then_some(pair)
}

fn bundles(api: &ApiServer, resource: &str) -> Vec<String> {
    let configuration = api.get(resource).unwrap_or_default();
    let entries = configuration["webhooks"].as_array().cloned().unwrap_or_default();
    let bundle = |entry: Value| {
        let bundle: Option<k8s_openapi::ByteString> =
            serde_json::from_value(entry["clientConfig"]["caBundle"].clone()).unwrap();
        String::from_utf8(bundle.map(|bundle| bundle.0).unwrap_or_default()).unwrap()
    };
    entries.into_iter().map(bundle).collect()
}

fn secret(pair: &Pair) -> Value {
    let encoded = |text: &str| json!(k8s_openapi::ByteString(text.as_bytes().to_vec()));
    json!({
        "metadata": {"name": "localmodel-webhook-cert", "namespace": "kserve", "uid": "theirs"},
        "data": {CA: encoded(&pair.ca), CERTIFICATE: encoded(&pair.certificate), KEY: encoded(&pair.key)},
    })
}

#[tokio::test]
async fn from_nothing_there_is_a_secret_the_bundles_and_an_answer_and_then_nothing_is_written() {
    let setup = Setup::start(&ApiServer::installed()).await;
    let pair = setup.until_settled().await;
    let mut writes = setup.api.writes();
    writes.sort();
    assert_eq!(
        writes,
        [format!("PATCH {MUTATING}"), format!("PATCH {VALIDATING}"), format!("POST {SECRETS}")]
    );
    let question = review("CREATE", "Pod", &json!({"metadata": {"name": "web"}}));
    let client = setup.server.client(&pair.ca);
    let answer = setup.server.post(&client, webhooks::PODS_PATH, question.to_string()).await.unwrap();
    assert_eq!(answer.status(), 200);
    setup.keeper.pass(&mut None).await.unwrap();
    assert_eq!(setup.api.writes().len(), 3);
}

#[tokio::test]
async fn a_restarted_server_keeps_the_certificate_that_is_there() {
    let pair = pair();
    let objects = [ApiServer::installed(), vec![(SECRETS, secret(&pair))]].concat();
    let setup = Setup::start(&objects).await;
    assert_eq!(setup.until_settled().await, pair);
    assert!(!setup.api.writes().iter().any(|write| write.contains(SECRETS)));
}

#[tokio::test]
async fn beside_an_operator_that_leads_the_certificate_is_served_once_it_is_trusted_and_nothing_is_written() {
    let pair = pair();
    let trusted = {
        let objects = [ApiServer::installed(), vec![(SECRETS, secret(&pair))]].concat();
        let leads = Setup::start(&objects).await;
        leads.until_settled().await;
        [VALIDATING, MUTATING].map(|resource| (resource, leads.api.get(resource).unwrap()))
    };
    let setup = Setup::follow(&[&trusted[..], &[(SECRETS, secret(&pair))]].concat()).await;
    assert_eq!(setup.until_settled().await, pair);
    assert_eq!(setup.api.writes(), Vec::<String>::new());

    let mut edited = setup.api.get(MUTATING).unwrap();
    edited["webhooks"][0]["clientConfig"]["caBundle"] = json!("Z29uZQ==");
    setup.api.put(MUTATING, edited);
    setup.keeper.pass(&mut None).await.unwrap();
    assert_eq!(setup.api.writes(), Vec::<String>::new(), "that is for the one that leads");
}

#[tokio::test]
async fn kserves_entry_another_authority_and_an_edit_are_put_right() {
    let mut objects = ApiServer::installed();
    objects[0].1["webhooks"] = json!([{
        "name": "localmodelcache.kserve-webhook-server.validator",
        "clientConfig": {"service": {"name": "gone", "namespace": "kserve"}, "caBundle": "Z29uZQ=="},
        "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1beta1"],
    }]);
    let setup = Setup::start(&objects).await;
    let pair = setup.until_settled().await;
    assert_eq!(bundles(&setup.api, VALIDATING), [pair.ca.clone(), pair.ca.clone(), pair.ca.clone()]);
    let mut edited = setup.api.get(MUTATING).unwrap();
    edited["webhooks"][0]["clientConfig"]["caBundle"] = json!("Z29uZQ==");
    edited["webhooks"][1]["failurePolicy"] = json!("Fail");
    setup.api.put(MUTATING, edited);
    setup
        .api
        .until("the edit's end", |api| {
            let live = api.get(MUTATING).unwrap_or_default();
            live["webhooks"][1]["failurePolicy"] == json!("Ignore")
                && bundles(api, MUTATING).iter().all(|bundle| *bundle == pair.ca)
        })
        .await;
}

/// A client like an API server: it connects anew all the time and trusts what the bundle was some time ago.
fn requests(
    setup: &Setup,
    made: Arc<AtomicUsize>,
    mut stop: oneshot::Receiver<()>,
) -> JoinHandle<Result<(), String>> {
    let (api, server) = (setup.api.clone(), setup.server.clone());
    let view = |api: &ApiServer| (Instant::now(), bundles(api, MUTATING)[0].clone());
    let mut views = VecDeque::from([view(&api)]);
    tokio::spawn(async move {
        let question = review("CREATE", "Pod", &json!({"metadata": {"name": "web"}})).to_string();
        while stop.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
            views.push_back(view(&api));
            while views.get(1).is_some_and(|(at, _)| at.elapsed() > LAG) {
                views.pop_front();
            }
            let client = server.client(&views[0].1);
            let answer = server.post(&client, webhooks::PODS_PATH, question.clone()).await;
            let status = answer.map_err(|error| format!("{error:?}"))?.status();
            if status != 200 {
                return Err(status.to_string());
            }
            made.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_foreign_expired_and_immutable_secrets_heal_and_no_request_is_refused() {
    let setup = Setup::start(&ApiServer::installed()).await;
    let mut before = setup.until_settled().await;
    let made = Arc::new(AtomicUsize::new(0));
    let (stop, stopped) = oneshot::channel();
    let client = requests(&setup, made.clone(), stopped);
    let year = SignedDuration::from_hours(24 * 366);
    let expired = authority::make("kserve", Timestamp::now() - year).unwrap();
    let mut immutable = secret(&expired);
    immutable["immutable"] = json!(true);
    let foreign = Pair { key: pair().key, ..pair() };
    let so_far = || made.load(Ordering::Relaxed);
    for damage in [None, Some(secret(&expired)), Some(secret(&foreign)), Some(immutable)] {
        match damage {
            None => setup.api.delete(SECRETS),
            Some(damage) => setup.api.put(SECRETS, damage),
        }
        let after = setup.until_settled().await;
        assert_ne!(after, before, "a new certificate is served");
        before = after;
        let until_here = so_far();
        let goes_on = |_: &ApiServer| client.is_finished() || so_far() > until_here + 1;
        setup.api.until("requests under the new certificate", goes_on).await;
    }
    drop(stop);
    client.await.unwrap().expect("no request is refused");
}

#[tokio::test]
async fn the_new_authority_is_in_the_bundles_before_its_certificate_is_served() {
    let setup = Setup::start(&ApiServer::installed()).await;
    let old = setup.until_settled().await;
    setup.api.delete(SECRETS);
    let both = |api: &ApiServer| {
        bundles(api, MUTATING).iter().all(|b| b.ends_with(&old.ca) && b.len() > old.ca.len())
    };
    setup.api.until("both authorities in the bundles", both).await;
    assert_eq!(setup.identity.served(), Some(old.clone()));
    // Another operator may change over a moment later.
    let changed = |_: &ApiServer| setup.identity.served().is_some_and(|served| served != old);
    setup.api.until("the new certificate to be served", changed).await;
    setup.keeper.pass(&mut None).await.unwrap();
    assert!(both(&setup.api), "the old authority stays for a while");
    let new = setup.until_settled().await;
    assert_ne!(new.ca, old.ca);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_answers_what_was_asked() {
    let (pair, identity) = (pair(), Arc::new(Identity::default()));
    identity.set(pair.clone()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let (asked, may_answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (is_asked, told) = (asked.clone(), may_answer.clone());
    let slow = async move || {
        is_asked.notify_one();
        told.notified().await;
        "answered"
    };
    let slow = Router::new().route(webhooks::PODS_PATH, post(slow));
    let serving = tokio::spawn(serve(listener, Clients::new(identity, None).unwrap(), slow, stopped));
    let (sender, _) = oneshot::channel();
    let server = Server { address, _stop: sender };
    let client = server.client(&pair.ca);
    let answer = server.post(&client, webhooks::PODS_PATH, String::new());
    let (answer, ()) = futures::join!(answer, async {
        asked.notified().await;
        stop.send(()).unwrap();
        may_answer.notify_one();
    });
    assert_eq!(answer.unwrap().text().await.unwrap(), "answered");
    serving.await.unwrap();
    let refused = server.post(&server.client(&pair.ca), webhooks::PODS_PATH, String::new()).await;
    assert!(refused.is_err(), "nothing is taken any more");
}
