//! Only one operator writes: whoever holds the Lease, and only for as long as it may rely on it (O1).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::{Body, ClientBuilder};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;
use tower::BoxError;
use tower::filter::FilterLayer;

use crate::error::{Doing, Error};
use crate::plan::lease::{ANSWER_WITHIN, LOOK_EVERY, NAME, RELIED_ON, Step, released, step};
use crate::plan::names::MANAGER;

/// Where the Lease is written, which has to go on also while nothing else may be.
const LEASES: &str = "/apis/coordination.k8s.io/";

/// Until when this process may write. It is asked before each request, so that a process that was paused
/// begins no write in a time that belongs to another.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// A client that refuses to write while the fence is closed.
    pub fn client(&self, config: Config) -> Result<Client, kube::Error> {
        let fence = self.clone();
        let check = move |request: http::Request<Body>| {
            let free = request.method().is_safe() || request.uri().path().starts_with(LEASES);
            if free || fence.is_open() {
                return Ok(request);
            }
            let (method, path) = (request.method(), request.uri().path());
            Err(BoxError::from(format!("{method} {path}: not written, another operator may lead by now")))
        };
        Ok(ClientBuilder::try_from(config)?.with_layer(&FilterLayer::new(check)).build())
    }

    pub(super) fn is_open(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    fn open_until(&self, until: Instant) {
        *self.until() = Some(until);
    }

    fn close(&self) {
        *self.until() = None;
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the operators that would lead.
pub(super) struct Candidate {
    leases: Api<Lease>,
    me: String,
    fence: Fence,
    answer_within: Duration,
    /// The lease's version, and since when it is this one.
    seen: Mutex<(Option<String>, Instant)>,
}

impl Candidate {
    /// `me` is a name that no other operator has: that of the pod.
    pub(super) fn new(client: &Client, namespace: &str, me: String, fence: Fence) -> Self {
        let seen = Mutex::new((None, Instant::now()));
        let leases = Api::namespaced(client.clone(), namespace);
        Self { leases, me, fence, answer_within: ANSWER_WITHIN, seen }
    }

    /// Waits until this one leads.
    pub(super) async fn elected(&self) {
        let mut told = None;
        loop {
            match self.look().await {
                Ok(Step::Hold(_)) => {
                    tracing::info!(lease = NAME, "this operator leads");
                    return;
                }
                Ok(Step::Wait { holder }) if told.as_ref() != Some(&holder) => {
                    tracing::info!(lease = NAME, holder, "another operator leads, waiting");
                    told = Some(holder);
                }
                Ok(Step::Wait { .. }) => {}
                Err(error) if error.is_conflict() => {}
                Err(error) => tracing::warn!(lease = NAME, %error, "cannot stand for election, trying again"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Leads for as long as it can; returns why no longer.
    pub(super) async fn lead(&self) -> Error {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.look().await {
                Ok(Step::Hold(_)) => {}
                Ok(Step::Wait { holder }) => {
                    self.fence.close();
                    return Error::Setup(format!("Lease {NAME} is {holder}'s now: another operator leads"));
                }
                Err(error) if self.fence.is_open() => {
                    tracing::warn!(lease = NAME, %error, "the lease is not renewed, trying again");
                }
                Err(error) => return error,
            }
        }
    }

    /// Lets the next one lead at once. One that cannot be told waits, so that an error is no harm.
    pub(super) async fn leave(&self) {
        if !self.fence.is_open() {
            return;
        }
        self.fence.close();
        let left = async {
            let lease = self.leases.get(NAME).await?;
            match lease.spec.as_ref().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me)) {
                Some(spec) => self.write(Some(&lease), &released(spec, Timestamp::now())).await,
                None => Ok(()),
            }
        };
        if let Err(error) = self.in_time(left).await {
            tracing::info!(lease = NAME, %error, "the lease is not given back");
        }
    }

    /// One look at the lease, and what follows from it.
    async fn look(&self) -> Result<Step, Error> {
        let begun = Instant::now();
        let read = self.in_time(self.leases.get_opt(NAME)).await;
        let lease = read.doing(|| format!("reading Lease {NAME}"))?;
        let unchanged = self.unchanged_for(lease.as_ref().and_then(ResourceExt::resource_version), begun);
        let step = step(lease.as_ref(), &self.me, unchanged, Timestamp::now());
        if let Step::Hold(spec) = &step {
            let written = self.in_time(self.write(lease.as_ref(), spec)).await;
            written.doing(|| format!("writing Lease {NAME}"))?;
            // From before it was written: nobody else has seen it earlier.
            self.fence.open_until(begun + RELIED_ON);
        }
        Ok(step)
    }

    /// A connection that hangs must not keep a leader from knowing that it is none, nor the next from its turn.
    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, kube::Error> {
        let late = |_| kube::Error::Service(format!("no answer within {:?}", self.answer_within).into());
        tokio::time::timeout(self.answer_within, answer).await.map_err(late)?
    }

    fn unchanged_for(&self, version: Option<String>, now: Instant) -> Duration {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != version {
            *seen = (version, now);
        }
        now.saturating_duration_since(seen.1)
    }

    /// Writes the lease as it was seen: where another one was faster the API server refuses.
    async fn write(&self, seen: Option<&Lease>, spec: &LeaseSpec) -> Result<(), kube::Error> {
        let Some(seen) = seen else {
            let mut lease = Lease { spec: Some(spec.clone()), ..Lease::default() };
            lease.metadata.name = Some(NAME.into());
            let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
            return self.leases.create(&params, &lease).await.map(drop);
        };
        let body = json!({"metadata": {"resourceVersion": seen.resource_version()}, "spec": spec});
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        self.leases.patch(NAME, &params, &Patch::Merge(&body)).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
