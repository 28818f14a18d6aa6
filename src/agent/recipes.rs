//! What the download Job of each copy that lacks one would be made from: its container, and the credentials
//! that its cache names (K3). They are read anew at each look, each by its name.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource, ResourceExt};

use super::sources::{self, Sources};
use super::{Agent, Look};
use crate::api::{ClusterStorageContainer, LocalModelNode, ModelEntry};
use crate::config::Config;
use crate::credentials;
use crate::error::{Doing, Error};
use crate::plan::credentials::{self as plan, Injection};
use crate::plan::disk::CopyKey;
use crate::plan::job::{self, Download};
use crate::plan::names::{self, CacheKey};
use crate::plan::pass::{self, JobView, Problem};
use crate::plan::recipe::{Recipe, Versions};

/// All that a Job is made from.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The entry whose credentials it has: several may share one copy (A7).
    pub(super) entry: ModelEntry,
    pub(super) credentials: Injection,
    pub(super) recipe: Recipe,
    /// Whether it runs our own downloader.
    pub(super) ours: bool,
    /// Whether files of another area's copy may be put before it.
    pub(super) may_borrow: bool,
    /// Whether the job namespace enforces the "restricted" pod security standard.
    pub(super) restricted: bool,
    /// The storage containers that it was chosen from.
    pub(super) containers: Vec<ClusterStorageContainer>,
}

/// By copy: what its Job is made from, or why it cannot be made.
pub(super) type Recipes = BTreeMap<CopyKey, Result<Prepared, Problem>>;

/// The digests alone, for the plan.
pub(super) fn digests(recipes: &Recipes) -> BTreeMap<CopyKey, Result<Recipe, Problem>> {
    let digest = |prepared: &Result<Prepared, Problem>| match prepared {
        Ok(prepared) => Ok(prepared.recipe.clone()),
        Err(problem) => Err(problem.clone()),
    };
    recipes.iter().map(|(copy, prepared)| (copy.clone(), digest(prepared))).collect()
}

impl Agent {
    /// What a Job would be made from, for each copy that may need one.
    pub(super) async fn recipes(
        &self,
        entries: &[ModelEntry],
        local: &LocalModelNode,
        look: &Look,
        jobs: &[JobView],
        sources: &Sources,
        config: &Config,
    ) -> Recipes {
        let copies: BTreeSet<CopyKey> = entries.iter().map(CopyKey::of).collect();
        let due: Vec<CopyKey> =
            copies.into_iter().filter(|copy| pass::is_due(copy, &look.scan.inventory, jobs)).collect();
        if due.is_empty() || !config.enabled {
            return Recipes::new();
        }
        let restricted = sources::is_restricted(&self.client, &config.job_namespace).await;
        let containers: Vec<_> = sources.containers().iter().map(|found| (**found).clone()).collect();
        let mut recipes = Recipes::new();
        for copy in due {
            let prepared = match &restricted {
                Ok(restricted) => self.recipe(&copy, entries, local, *restricted, &containers, config).await,
                Err(error) => Err(unreadable(error)),
            };
            recipes.insert(copy, prepared);
        }
        recipes
    }

    /// Of several entries, one that brings credentials that are there, else the first problem. Then what the
    /// storage container gives to all has to do.
    async fn recipe(
        &self,
        copy: &CopyKey,
        entries: &[ModelEntry],
        local: &LocalModelNode,
        restricted: bool,
        containers: &[ClusterStorageContainer],
        config: &Config,
    ) -> Result<Prepared, Problem> {
        let of_copy = || entries.iter().filter(|entry| CopyKey::of(entry) == *copy);
        let mut problem = None;
        let mut chosen = None;
        for entry in of_copy() {
            match self.credentials(entry, config).await {
                Ok(None) => {}
                Ok(Some(credentials)) => {
                    chosen = Some((entry, credentials));
                    break;
                }
                Err(found) => problem = problem.or(Some(found)),
            }
        }
        let (entry, credentials) = match (chosen, problem, of_copy().next()) {
            (Some(chosen), ..) => chosen,
            (None, Some(problem), _) => return Err(problem),
            (None, None, Some(entry)) => (entry, Injection::default()),
            (None, None, None) => return Err(Problem::new("NotWanted", "no cache asks for it any more")),
        };
        // One copy serves them all: it may be as large as the largest of them says.
        let model_size = of_copy().filter_map(|entry| entry.model_size).max();
        let entry = &ModelEntry { model_size, ..entry.clone() };
        let Some(owner) = local.owner_ref(&()) else {
            return Err(Problem::new("NotWanted", "the LocalModelNode is not written yet"));
        };
        let by_name: Vec<&ClusterStorageContainer> = containers.iter().collect();
        let download = Download {
            entry,
            group: &self.settings.group,
            first: entry.node_group.is_none(),
            node: &self.settings.node,
            owner,
            config,
            containers: &by_name,
            own_image: &self.settings.image,
            restricted,
            credentials: &credentials,
        };
        let names = job::secrets(&download);
        let versions = self.versions(names, config).await.map_err(|error| unreadable(&error))?;
        let recipe = job::recipe(&download, &versions);
        let (ours, may_borrow) = (job::is_ours(&download), job::may_borrow(&download));
        let (entry, containers) = (entry.clone(), containers.to_vec());
        Ok(Prepared { entry, credentials, recipe, ours, may_borrow, restricted, containers })
    }

    /// What the entry's cache brings of its own; none where it names nothing.
    async fn credentials(&self, entry: &ModelEntry, config: &Config) -> Result<Option<Injection>, Problem> {
        let wish = plan::wish(entry.service_account_name.as_deref(), entry.storage.as_ref());
        let Some(wish) = wish else { return Ok(None) };
        let namespace = &config.job_namespace;
        let key = CacheKey::of(entry);
        if key.namespace.is_some() {
            // What a namespace cache names is of its own namespace, never of this one: here is a copy of it.
            let name = names::credentials(&key);
            let copies: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            let copy = copies.get_opt(&name).await.doing(|| format!("reading Secret {namespace}/{name}"));
            let copy = copy.map_err(|error| unreadable(&error))?;
            return plan::copy::injection(&key, namespace, copy.as_ref()).map(Some);
        }
        let found = credentials::find(&self.client, namespace, &wish, &config.credentials).await;
        let found = found.map_err(|error| unreadable(&error))?;
        plan::injection(&wish, &found, &config.credentials).map(Some)
    }

    /// The versions of secrets, of which nothing but their names and versions is asked for.
    async fn versions(&self, names: BTreeSet<String>, config: &Config) -> Result<Versions, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &config.job_namespace);
        let mut versions = Versions::new();
        for name in names {
            let found = secrets.get_metadata_opt(&name).await.doing(|| format!("reading Secret {name}"))?;
            let version = found.and_then(|found| Some((found.uid()?, found.resource_version()?)));
            if let Some((uid, version)) = version {
                versions.insert(name, format!("{uid}/{version}"));
            }
        }
        Ok(versions)
    }
}

fn unreadable(error: &Error) -> Problem {
    Problem::new("CredentialsUnreadable", format!("what the download needs cannot be read: {error}"))
}
