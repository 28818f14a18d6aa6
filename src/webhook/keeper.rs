//! Keeps the certificate in the Secret good, the webhook configurations as they should be, and the server
//! in step with both: read, plan, apply, and again whenever one of them changes (O5).

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Notify;

use super::authority;
use super::server::Identity;
use crate::error::{Doing, Error};
use crate::plan::certificates::{self, CA, CERTIFICATE, Change, KEY, Pair, bundle, change};
use crate::plan::names::{MANAGED_BY, MANAGER, MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, WEBHOOK_SECRET};
use crate::plan::webhooks::{self, correction, trusts};
use crate::watch::{Watch, watch};

/// How long API servers may take to see another bundle.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(10);
/// Certificates grow old without any event.
const LONGEST: Duration = Duration::from_hours(1);
/// The pause after a write that failed.
const RETRY: Duration = Duration::from_secs(5);

/// The Secret, the two configurations, and the certificate that the server serves.
pub struct Keeper {
    client: Client,
    namespace: String,
    settle: SignedDuration,
    secrets: Watch<Secret>,
    validating: Watch<ValidatingWebhookConfiguration>,
    mutating: Watch<MutatingWebhookConfiguration>,
    news: Arc<Notify>,
    identity: Arc<Identity>,
    in_step: AtomicBool,
    leads: AtomicBool,
    /// The authority of the certificate that was served before, and until when it stays in the bundles: another
    /// operator may change over a moment later.
    retired: Mutex<Option<(String, Timestamp)>>,
}

impl Keeper {
    /// Starts the watches. `settle` is [`SETTLE`] outside tests.
    pub fn start(client: &Client, namespace: &str, settle: SignedDuration, identity: Arc<Identity>) -> Self {
        let news = Arc::new(Notify::new());
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let secrets = Api::namespaced(client.clone(), namespace);
        let (validating, mutating) = (named(VALIDATING_WEBHOOKS), named(MUTATING_WEBHOOKS));
        let wake = || {
            let news = news.clone();
            move || news.notify_one()
        };
        let (of_secret, of_validating, of_mutating) = (wake(), wake(), wake());
        Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            settle,
            secrets: watch(secrets, named(WEBHOOK_SECRET), move |_| of_secret()),
            validating: watch(Api::all(client.clone()), validating, move |_| of_validating()),
            mutating: watch(Api::all(client.clone()), mutating, move |_| of_mutating()),
            news,
            identity,
            in_step: AtomicBool::new(false),
            leads: AtomicBool::new(false),
            retired: Mutex::default(),
        }
    }

    /// From now on it writes: before, it only serves what the operator that leads has made (O1).
    pub fn lead(&self) {
        self.leads.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// What the readiness check waits for: until the API server can trust us once, nothing may be asked.
    pub fn missing(&self) -> Option<&'static str> {
        (!self.in_step.load(Ordering::Relaxed)).then_some("webhook")
    }

    /// Keeps everything in step; never ends.
    pub async fn run(&self) {
        // An error means that a watch has ended, which it does with this value alone.
        let _ = self.secrets.store.wait_until_ready().await;
        let _ = self.validating.store.wait_until_ready().await;
        let _ = self.mutating.store.wait_until_ready().await;
        let mut trusted = None;
        loop {
            let pause = match self.pass(&mut trusted).await {
                Ok(pause) => pause,
                Err(error) if error.is_conflict() => RETRY, // what came between is news, and wakes us
                Err(error) => {
                    tracing::warn!(%error, "webhook certificate or configuration not kept, trying again");
                    RETRY
                }
            };
            // Out of time means the same as news.
            let _ = tokio::time::timeout(pause, self.news.notified()).await;
        }
    }

    /// One look at everything; returns when to look again at the latest. `trusted` is the authority that
    /// both configurations have, and since when.
    pub(super) async fn pass(&self, trusted: &mut Option<(String, Timestamp)>) -> Result<Duration, Error> {
        let now = Timestamp::now();
        let secret = self.secrets.store.state().into_iter().next();
        let stored = match certificates::stored(secret.as_deref(), &self.namespace, now) {
            Ok(stored) => stored,
            Err(_) if !self.leads() => return Ok(LONGEST), // what the other one makes wakes us
            Err(reason) => {
                tracing::info!(%reason, "a new webhook certificate is made");
                self.replace(secret.as_deref(), now).await?;
                return Ok(RETRY); // the write's event wakes us
            }
        };
        let next = |trusted: &Option<(String, Timestamp)>| {
            let since = trusted.as_ref().filter(|(authority, _)| *authority == stored.ca).map(|(_, at)| *at);
            change(&stored, self.identity.served().as_ref(), &self.namespace, since, self.settle, now)
        };
        if next(trusted) == Change::Serve {
            let before = self.identity.served().filter(|before| before.ca != stored.ca);
            *self.retired() = before.map(|before| (before.ca, now + self.settle));
            self.identity.set(stored.clone()).map_err(|reason| Error::Setup(reason.to_string()))?;
            tracing::info!("the webhook certificate in the Secret is served");
        }
        let retired = self.retired().clone().filter(|(_, until)| now < *until);
        let served = self.identity.served();
        let others =
            served.as_ref().map(|served| &served.ca).into_iter().chain(retired.as_ref().map(|(ca, _)| ca));
        let bundle = bundle(&stored.ca, others);
        let wanted = webhooks::validating(&self.namespace, Some(&bundle));
        let validating = self.keep(&self.validating, wanted, VALIDATING_WEBHOOKS, &stored.ca).await;
        let wanted = webhooks::mutating(&self.namespace, Some(&bundle));
        let mutating = self.keep(&self.mutating, wanted, MUTATING_WEBHOOKS, &stored.ca).await;
        if !(validating? && mutating?) {
            *trusted = None;
            return Ok(RETRY); // the write's event wakes us
        }
        if trusted.as_ref().is_none_or(|(authority, _)| *authority != stored.ca) {
            *trusted = Some((stored.ca.clone(), now));
        }
        if !self.in_step.swap(true, Ordering::Relaxed) {
            tracing::info!("webhooks are served");
        }
        let until = |at: Timestamp| at.duration_since(now).unsigned_abs();
        let pause = match next(trusted) {
            Change::At(at) => until(at),
            Change::Serve => Duration::ZERO,
            Change::Done | Change::Trust => LONGEST,
        };
        Ok(retired.map_or(pause, |(_, at)| pause.min(until(at))))
    }

    fn retired(&self) -> MutexGuard<'_, Option<(String, Timestamp)>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a configuration right where it is not. Returns whether the API server was seen to trust the
    /// authority by it.
    async fn keep<K>(
        &self,
        watch: &Watch<K>,
        wanted: Result<K, serde_json::Error>,
        name: &str,
        authority: &str,
    ) -> Result<bool, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let failed = |error| Error::Manifest(name.to_owned(), error);
        let kind = K::kind(&());
        let Some(live) = watch.store.state().into_iter().next() else {
            return Err(Error::Setup(format!(
                "there is no {kind} {name}: apply the install manifests again"
            )));
        };
        if self.leads()
            && let Some(patch) = correction(&*live, &wanted.map_err(failed)?).map_err(failed)?
        {
            let api: Api<K> = Api::all(self.client.clone());
            api.patch(name, &params(), &Patch::Merge(patch))
                .await
                .doing(|| format!("writing {kind} {name}"))?;
            tracing::info!(%kind, name, "webhook configuration put right");
        }
        trusts(&*live, authority).map_err(failed)
    }

    fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    /// Writes a new certificate into the Secret, or takes a Secret away that cannot be written.
    async fn replace(&self, old: Option<&Secret>, now: Timestamp) -> Result<(), Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let doing = |what: &'static str| move || format!("{what} Secret {WEBHOOK_SECRET}");
        if let Some(old) = old.filter(|old| old.immutable == Some(true)) {
            let this_one = Preconditions { uid: old.uid(), resource_version: None };
            let params = DeleteParams::default().preconditions(this_one);
            return api.delete(WEBHOOK_SECRET, &params).await.map(drop).doing(doing("deleting"));
        }
        let pair = authority::make(&self.namespace, now)
            .map_err(|error| Error::Setup(format!("making a certificate: {error}")))?;
        match old {
            None => {
                let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
                api.create(&params, &new_secret(&pair)).await.map(drop).doing(doing("making"))
            }
            Some(old) => {
                let version = old.resource_version();
                let body = json!({"metadata": {"resourceVersion": version}, "data": new_secret(&pair).data});
                let patched = api.patch(WEBHOOK_SECRET, &params(), &Patch::Merge(body)).await;
                patched.map(drop).doing(doing("writing"))
            }
        }
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() }
}

fn new_secret(pair: &Pair) -> Secret {
    let data = [(CA, &pair.ca), (CERTIFICATE, &pair.certificate), (KEY, &pair.key)];
    let data = data.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())));
    let mut secret =
        Secret { type_: Some("kubernetes.io/tls".into()), data: Some(data.into()), ..Secret::default() };
    secret.metadata.name = Some(WEBHOOK_SECRET.into());
    secret.metadata.labels = Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into());
    secret
}
