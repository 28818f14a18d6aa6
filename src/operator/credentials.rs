//! The credentials of namespace caches: read in the cache's own namespace, each object by its name, and copied
//! for its Jobs into the job namespace (K4). Nothing tells the operator when a secret changes, because the
//! right to watch secrets is one to read them all: it looks again from time to time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};

use super::cache_kind::CacheKind;
use super::cache_volumes::{exactly, ignore_missing};
use super::context::{Context, RECHECK};
use crate::api::CacheSpec;
use crate::config::Config;
use crate::credentials::find;
use crate::error::{Doing, Error};
use crate::plan::cache::CREDENTIALS_NOT_READY;
use crate::plan::conditions::Statement;
use crate::plan::credentials::copy::{self, Content, Step};
use crate::plan::credentials::{injection, wish};
use crate::plan::names::{self, CacheKey, MANAGER};
use crate::plan::pass::Problem;

/// When credentials that are in order are looked at again.
const LOOK_AGAIN: Duration = Duration::from_mins(2);
/// How long a look counts, whatever else brings the cache up.
const COUNTS: Duration = Duration::from_secs(15);

/// The last looks, by the uid of the cache.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<HashMap<String, Look>>);

#[derive(Clone, Debug)]
struct Look {
    generation: Option<i64>,
    at: Instant,
    /// Whether the cache names credentials at all; where it does not, nothing can change by itself.
    wished: bool,
    problem: Option<Problem>,
}

impl Looks {
    fn last(&self, uid: &str, generation: Option<i64>) -> Option<Look> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts =
            |look: &&Look| look.generation == generation && (!look.wished || look.at.elapsed() < COUNTS);
        looks.get(uid).filter(counts).cloned()
    }

    fn remember(&self, uid: &str, look: Look) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), look);
    }

    fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Keeps the copy of a namespace cache's credentials; returns when to look again at the latest.
pub(super) async fn keep<C: CacheKind>(
    cache: &C,
    context: &Context,
    problems: &mut Vec<Statement>,
) -> Result<Option<Duration>, Error> {
    let (key, uid, config) = (cache.key(), cache.uid().unwrap_or_default(), context.stores.config());
    let generation = cache.meta().generation;
    if key.namespace.is_none() || !config.enabled {
        return Ok(None);
    }
    let look = if let Some(look) = context.looks.last(&uid, generation) {
        look
    } else {
        let problem = follow(&context.client, &config, &key, &uid, cache.spec()).await?;
        let wished = is_wished(cache.spec());
        let look = Look { generation, at: Instant::now(), wished, problem };
        context.looks.remember(&uid, look.clone());
        look
    };
    let has_failed = cache.status().and_then(|status| status.copies.as_ref()).is_some_and(|c| c.failed > 0);
    let again = if has_failed || look.problem.is_some() { RECHECK } else { LOOK_AGAIN };
    problems.extend(look.problem.map(|Problem { reason, message }| Statement {
        kind: CREDENTIALS_NOT_READY,
        holds: true,
        reason,
        message,
    }));
    Ok(look.wished.then_some(again))
}

fn is_wished(spec: &CacheSpec) -> bool {
    wish(spec.service_account_name.as_deref(), spec.storage.as_ref()).is_some()
}

/// Reads what the cache names and makes the copy follow it; returns what is wrong with the source.
async fn follow(
    client: &Client,
    config: &Config,
    key: &CacheKey,
    uid: &str,
    spec: &CacheSpec,
) -> Result<Option<Problem>, Error> {
    let content = content(client, config, key, spec).await?;
    let problem = content.as_ref().and_then(|content| content.as_ref().err().cloned());
    let wanted = content.map(|content| copy::secret(key, uid, &config.job_namespace, &content));
    let conflict = advance(client, config, key, wanted.as_ref()).await?;
    Ok(problem.or(conflict))
}

/// What the copy is to hold; none for a cache that names no credentials.
async fn content(
    client: &Client,
    config: &Config,
    key: &CacheKey,
    spec: &CacheSpec,
) -> Result<Option<Content>, Error> {
    let wish = wish(spec.service_account_name.as_deref(), spec.storage.as_ref());
    let (Some(wish), Some(namespace)) = (wish, &key.namespace) else { return Ok(None) };
    Ok(Some(match find(client, namespace, &wish, &config.credentials).await {
        Ok(found) => {
            injection(&wish, &found, &config.credentials).map(|injection| copy::content(&injection, &found))
        }
        // Whoever takes the right away means the copies too.
        Err(error) if error.code() == Some(403) => Err(Problem::new(
            "CredentialsForbidden",
            format!(
                "{error}; bind ClusterRole localmodel-operator-credentials to the operator in namespace {namespace}"
            ),
        )),
        Err(error) => return Err(error),
    }))
}

/// Takes the step towards the copy; returns what stands in its way.
async fn advance(
    client: &Client,
    config: &Config,
    key: &CacheKey,
    wanted: Option<&Secret>,
) -> Result<Option<Problem>, Error> {
    let name = names::credentials(key);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &config.job_namespace);
    let doing = |what: &str| format!("{what} Secret {}/{name}", config.job_namespace);
    let live = secrets.get_opt(&name).await.doing(|| doing("reading"))?;
    match copy::step(key, wanted, live.as_ref()) {
        Step::Done => {}
        Step::Conflict(message) => return Ok(Some(Problem::new("NameConflict", message))),
        Step::Create => {
            if let Some(wanted) = wanted {
                let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
                secrets.create(&params, wanted).await.map(drop).doing(|| doing("making"))?;
                tracing::info!(cache = %key, secret = name, "credentials copied");
            }
        }
        Step::Patch(patch) => {
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            let patched = secrets.patch(&name, &params, &Patch::Merge(&patch)).await;
            patched.map(drop).doing(|| doing("patching"))?;
            tracing::info!(cache = %key, secret = name, "credentials copied anew");
        }
        Step::Delete => {
            let this_one = live.as_ref().map(exactly).unwrap_or_default();
            ignore_missing(secrets.delete(&name, &this_one).await.map(drop)).doing(|| doing("deleting"))?;
            tracing::info!(cache = %key, secret = name, "copy of credentials deleted");
        }
    }
    Ok(None)
}

/// Takes the copy away, if there is one.
pub(super) async fn remove<C: CacheKind>(cache: &C, context: &Context) -> Result<(), Error> {
    let key = cache.key();
    if key.namespace.is_none() {
        return Ok(());
    }
    context.looks.forget(&cache.uid().unwrap_or_default());
    advance(&context.client, &context.stores.config(), &key, None).await.map(drop)
}

#[cfg(test)]
mod tests;
