//! Carries out what the plan of a pass says. Each action is safe to do twice, and one that fails never
//! keeps the others from being done (A2).

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Resource, ResourceExt};

use super::recipes::{Prepared, Recipes};
use super::sources::Sources;
use super::{Agent, sources};
use crate::api::{ClusterStorageContainer, LocalModelNode, ModelEntry};
use crate::config::Config;
use crate::definitions;
use crate::error::{Doing, Error};
use crate::plan::definitions as plan;
use crate::plan::disk::CopyKey;
use crate::plan::job::{self, Download};
use crate::plan::names::{self, CacheKey, MANAGED_BY, MANAGER, STORAGE_KEY, is_member};
use crate::plan::pass::{self, Action, COPY_NOT_SERVED, JOB_REFUSED, Problem};
use crate::plan::recipe::Recipe;

/// Runs what waits for a disk where it holds up nobody else.
pub(super) async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Setup(format!("work on the disk was cut off: {error}"))),
    }
}

/// What actions are carried out with.
pub(super) struct With<'a> {
    /// The entries of this agent's group.
    pub(super) entries: &'a [ModelEntry],
    /// The node's object, which owns the Jobs.
    pub(super) local: &'a LocalModelNode,
    /// What Jobs are made from.
    pub(super) recipes: &'a Recipes,
}

impl Agent {
    /// Does all of it; the first failure is returned when the rest is done. A Job that the API server refuses
    /// is no failure of ours: it is told, and tried again with the next look.
    pub(super) async fn carry_out(
        &mut self,
        actions: &[Action],
        with: &With<'_>,
        sources: &Sources,
        config: &Config,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        let mut disk_changed = false;
        let mut is_refused = false;
        for action in actions {
            match (self.act(action, with, sources, config).await, action) {
                (Ok(()), _) => {
                    disk_changed |= !matches!(action, Action::DeleteJob(_) | Action::Download(_));
                    match action {
                        Action::Download(copy) => {
                            self.refused.remove(copy);
                            self.unadoptable.remove(copy);
                        }
                        Action::Serve(copy) => drop(self.unserved.remove(copy)),
                        _ => {}
                    }
                    tracing::info!(action = action.name(), on = action.on(), "done");
                }
                (Err(error), Action::Download(copy)) if error.is_refusal() => {
                    tracing::warn!(%copy, %error, "the Job was refused");
                    let problem = Problem::new(JOB_REFUSED, error.to_string());
                    self.refused.insert(copy.clone(), (problem, Timestamp::now()));
                    is_refused = true;
                }
                (Err(error), Action::Serve(copy)) => {
                    tracing::warn!(%copy, %error, "the copy cannot be linked to where pods read it");
                    let problem = Problem::new(COPY_NOT_SERVED, error.to_string());
                    // What is said already needs no other pass: the next one tries again.
                    is_refused |= self.unserved.insert(copy.clone(), problem.clone()) != Some(problem);
                    result = result.and(Err(error));
                }
                (Err(error), _) if result.is_ok() => result = Err(error),
                (Err(error), _) => {
                    tracing::warn!(action = action.name(), on = action.on(), %error, "failed");
                }
            }
        }
        self.refused.retain(|copy, _| with.recipes.contains_key(copy));
        self.unserved.retain(|copy, _| with.entries.iter().any(|entry| CopyKey::of(entry) == *copy));
        if disk_changed {
            self.scrubbed.send_modify(|_| {});
        }
        if disk_changed || is_refused {
            self.wake.notify_one(); // nobody else tells of the disk, and what was refused is to be said
        }
        result
    }

    /// Whether a folder is still nobody's: actions before this one may have taken minutes, in which a
    /// cache may have come back.
    fn may_erase(&self, copy: &CopyKey, sources: &Sources, unless_wanted: bool) -> bool {
        let Some(local) = sources.local_node().filter(|local| is_member(local, &self.settings.group)) else {
            return false;
        };
        let mut entries = local.spec.local_models.iter().map(CopyKey::of);
        let needed = unless_wanted && entries.any(|wanted| wanted == *copy);
        let busy = sources.jobs(&self.settings.group).iter().any(|job| {
            pass::is_active(job) && (job.copy == *copy || (job.kserve && job.copy.in_root() == *copy))
        });
        !busy && !needed
    }

    /// Whether the API server itself, and not a watch that may lag, says that a copy is wanted, or that nothing
    /// may be erased: the agent of another group on the same disk may have placed it just now (G5).
    async fn is_wanted_now(&self, copy: &CopyKey) -> Result<bool, Error> {
        let local = sources::local_node_now(&self.client, &self.settings.node).await?;
        let Some(local) = local.filter(|local| is_member(local, &self.settings.group)) else {
            return Ok(true);
        };
        Ok(local.spec.local_models.iter().any(|entry| CopyKey::of(entry) == *copy))
    }

    /// Whether a copy stays because the definition of its caches is gone, or is new and they may come back.
    async fn is_held(&self, copy: &CopyKey) -> Result<bool, Error> {
        let definition = definitions::now(&self.client, copy.namespace.is_some()).await?;
        let (disk, of) = (self.disk.clone(), copy.clone());
        let made = self.pulse.work(move || Ok(disk.made(&of))).await?;
        let is_held = plan::holds(definition, made, Timestamp::now());
        if is_held {
            tracing::warn!(%copy, "kept: the definition of its caches is gone, or they may be about to come back");
        }
        Ok(is_held)
    }

    async fn act(
        &mut self,
        action: &Action,
        with: &With<'_>,
        sources: &Sources,
        config: &Config,
    ) -> Result<(), Error> {
        // A copy in the root may be a namespace cache's since KServe's time.
        let source_of = |copy: &CopyKey| {
            let entry = with.entries.iter().find(|entry| CopyKey::of(entry).key == copy.key);
            entry.map(|entry| entry.source_model_uri.clone())
        };
        let disk = self.disk.clone();
        match action.clone() {
            Action::DeleteJob(name) => self.delete_job(&name, config).await,
            Action::Keep(key) => self.pulse.work(move || disk.keep(&key)).await,
            Action::Download(copy) => {
                let Some(Ok(prepared)) = with.recipes.get(&copy) else { return Ok(()) };
                let (ours, may_borrow) = (prepared.ours, prepared.may_borrow);
                self.pulse.work(move || disk.prepare(&copy, ours, may_borrow)).await?;
                self.create_job(prepared, with.local, config).await
            }
            Action::Adopt(copy) => {
                let Some(source) = source_of(&copy) else { return Ok(()) };
                let adopt = {
                    let copy = copy.clone();
                    move || disk.adopt(&copy, &source)
                };
                self.adopted(copy, self.pulse.work(adopt).await?);
                Ok(())
            }
            Action::AdoptModel(copy) => {
                let Some(source) = source_of(&copy) else { return Ok(()) };
                let adopt = {
                    let copy = copy.clone();
                    move || disk.adopt_model(&copy, &source)
                };
                self.adopted(copy, self.pulse.work(adopt).await?);
                Ok(())
            }
            Action::Link(copy) => self.pulse.work(move || disk.link(&copy)).await,
            Action::Place(copy) => self.pulse.work(move || disk.place(&copy)).await,
            Action::Serve(copy) => self.pulse.work(move || disk.serve(&copy)).await,
            Action::EraseIncoming(copy) if self.may_erase(&copy, sources, false) => {
                self.pulse.work(move || disk.erase_incoming(&copy)).await
            }
            Action::EraseModel(copy) if self.may_erase(&copy, sources, true) => {
                if self.is_wanted_now(&copy).await? || self.is_held(&copy).await? {
                    return Ok(()); // the watch lags; what it brings wakes the next pass
                }
                self.pulse.work(move || disk.erase_model(&copy)).await
            }
            Action::EraseServed(copy) if self.may_erase(&copy, sources, true) => {
                if self.is_wanted_now(&copy).await? || self.is_held(&copy).await? {
                    return Ok(());
                }
                self.pulse.work(move || disk.erase_served(&copy)).await
            }
            Action::EraseGate(copy) if self.may_erase(&copy, sources, true) => {
                if self.is_held(&copy).await? {
                    return Ok(());
                }
                self.pulse.work(move || disk.erase_gate(&copy)).await
            }
            Action::EraseIncoming(_)
            | Action::EraseModel(_)
            | Action::EraseGate(_)
            | Action::EraseServed(_) => Ok(()),
            Action::RemoveArea(namespace) => self.pulse.work(move || disk.remove_area(&namespace)).await,
        }
    }

    /// Keeps why a download cannot become a copy; the next pass says so.
    fn adopted(&mut self, copy: CopyKey, refused: Option<Problem>) {
        if let Some(problem) = refused {
            tracing::warn!(%copy, problem.message, "the download is refused");
            self.unadoptable.insert(copy, problem);
        }
    }

    /// The Job stays until its pods have ended: only then is its folder nobody's.
    async fn delete_job(&self, name: &str, config: &Config) -> Result<(), Error> {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &config.job_namespace);
        match jobs.delete(name, &DeleteParams::foreground()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).doing(|| format!("deleting Job {name}")),
        }
    }

    async fn create_job(
        &self,
        prepared: &Prepared,
        local: &LocalModelNode,
        config: &Config,
    ) -> Result<(), Error> {
        let (node, entry) = (self.settings.node.as_str(), &prepared.entry);
        let Some(owner) = local.owner_ref(&()) else { return Ok(()) };
        let containers: Vec<&ClusterStorageContainer> = prepared.containers.iter().collect();
        let download = Download {
            entry,
            group: &self.settings.group,
            first: entry.node_group.is_none(),
            node,
            owner,
            config,
            containers: &containers,
            own_image: &self.settings.image,
            restricted: prepared.restricted,
            credentials: &prepared.credentials,
        };
        if entry.namespace().is_some() {
            self.claim_is_ours(&job::claim(&download), config).await?;
        }
        let cache = CacheKey::of(entry);
        let plain = names::job(&cache, node);
        if self.create(&download, &prepared.recipe, &plain).await? {
            return Ok(());
        }
        // Somebody else's Job has the plain name.
        let aside = names::job_aside(&cache, node);
        if self.create(&download, &prepared.recipe, &aside).await? {
            return Ok(());
        }
        let unforeseen = names::job_unforeseen(&cache, node, Timestamp::now());
        if self.create(&download, &prepared.recipe, &unforeseen).await? {
            return Ok(());
        }
        Err(Error::Setup(format!(
            "Jobs {plain}, {aside} and {unforeseen} exist and are somebody else's: remove one of them"
        )))
    }

    /// KServe's claim of the same name leads to the root of the disk, where a namespace's Job must not
    /// write; the operator replaces it. A claim that is not there yet only makes the pod wait.
    async fn claim_is_ours(&self, name: &str, config: &Config) -> Result<(), Error> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &config.job_namespace);
        let claim = claims.get_opt(name).await.doing(|| format!("reading PersistentVolumeClaim {name}"))?;
        let is_ours =
            |claim: &PersistentVolumeClaim| claim.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGER);
        if claim.is_none_or(|claim| is_ours(&claim)) {
            return Ok(());
        }
        Err(Error::Setup(format!(
            "PersistentVolumeClaim {name} is not the operator's yet: its Job waits until it is replaced"
        )))
    }

    /// Makes the Job; true when it is there afterwards, false when another one has its name. A Job of
    /// the same download is the same Job: an earlier answer may have been lost.
    async fn create(&self, download: &Download<'_>, recipe: &Recipe, name: &str) -> Result<bool, Error> {
        let wanted =
            job::job(download, recipe, name).map_err(|error| Error::Manifest(name.to_owned(), error))?;
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &download.config.job_namespace);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match jobs.create(&params, &wanted).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // By list: the right to it is used all the time, unlike one to read a single Job.
                let this_one = ListParams::default().fields(&format!("metadata.name={name}"));
                let there = jobs.list(&this_one).await.doing(|| format!("reading Job {name}"))?.items.pop();
                let download_of = |job: &Job| {
                    let labels = job.metadata.labels.clone().unwrap_or_default();
                    [STORAGE_KEY, names::JOB_NODE, names::JOB_NAMESPACE, names::NODE_GROUP]
                        .map(|label| labels.get(label).cloned())
                };
                Ok(there.is_none_or(|there| download_of(&there) == download_of(&wanted)))
            }
            other => other.map(|_| true).doing(|| format!("creating Job {name}")),
        }
    }
}
