//! The agent of one node group on one node: it makes the disk hold what the node's `LocalModelNode`
//! asks for, and says there how that goes.
//!
//! A pass reads the stores and the disk, asks the plan (`plan::pass`), writes the status and carries
//! the plan out. Every event only wakes the next pass.

mod adopt;
mod disk;
mod erase;
mod folders;
mod pulse;
mod recipes;
mod scrub;
mod sources;
mod status;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::sync::{Notify, watch};

use crate::api::{LocalModelNode, ModelEntry};
use crate::config::Config;
use crate::download::ProgressReport;
use crate::error::Error;
use crate::live_config::LiveConfig;
use crate::plan::disk::{CopyKey, Folder};
use crate::plan::local_status::Usage;
use crate::plan::names::is_member;
use crate::plan::pass::{self, JobPhase, JobView, PROGRESS_EVERY, Problem, Said, View};
use crate::plan::recipe::Recipe;
use crate::plan::transfers::Transfers;
use crate::plan::{self, job_view, sizes, takeover};
use crate::telemetry;
use crate::telemetry::metrics::AgentMetrics;
use disk::{Disk, Scan};
use pulse::Pulse;
use scrub::Scrub;
use sources::Sources;
use work::With;

/// The pause in which events gather before a pass.
const GATHER: Duration = Duration::from_millis(100);
/// The pause before a failed pass is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node it runs on.
    pub node: String,
    /// The node group whose models it keeps.
    pub group: String,
    /// The operator's namespace, where the settings are.
    pub namespace: String,
    /// Its own image, for Jobs that name no other.
    pub image: String,
    /// Where the group's disk is mounted.
    pub root: PathBuf,
    /// Where it is on the node, for people.
    pub path: Option<String>,
    /// The port of the health checks.
    pub health_port: u16,
}

/// Runs until a signal ends the process.
pub async fn run(client: Client, settings: Settings) -> Result<(), Error> {
    tracing::info!(node = settings.node, group = settings.group, root = %settings.root.display(), "agent starts");
    let wake = Arc::new(Notify::new());
    let (scrubbed, copies) = watch::channel(BTreeSet::new());
    let (woken, paced) = (wake.clone(), scrubbed.clone());
    let config = Arc::new(LiveConfig::start(&client, &settings.namespace, move |_| {
        woken.notify_one();
        paced.send_modify(|_| {});
    }));
    let passed = Arc::new(AtomicBool::new(false));
    let (seen, port) = (passed.clone(), settings.health_port);
    let waiting =
        move || if seen.load(Ordering::Relaxed) { Vec::new() } else { vec!["the first pass".to_owned()] };
    let disk = Disk::new(settings.root.clone(), settings.path.as_deref());
    let live = config.clone();
    let metrics = Arc::new(AgentMetrics::new(&settings.node, &settings.group));
    let pace = move || (&live.get().scrub).into();
    let scrub = Scrub::new(disk.clone(), pace, copies, wake.clone(), metrics.clone());
    let measured = metrics.clone();
    let asked = disk.clone();
    let (pulse, questions) = Pulse::new(move || asked.answer(), pulse::LIMIT);
    let responds = Arc::new(AtomicBool::new(true));
    let (alive, looks) = (pulse.clone(), responds.clone());
    let is_well = move || alive.answers() && looks.load(Ordering::Relaxed);
    let health = telemetry::router(is_well, waiting, move || measured.text());
    let agent = Agent {
        disk,
        client,
        settings,
        config,
        wake,
        scrubbed,
        passed,
        pulse,
        responds,
        first_groups: HashMap::new(),
        said: None,
        reported: BTreeSet::new(),
        progress: (None, BTreeMap::new()),
        unadoptable: BTreeMap::new(),
        refused: BTreeMap::new(),
        unserved: BTreeMap::new(),
        tried: BTreeMap::new(),
        plain: false,
        metrics,
        transfers: Transfers::default(),
    };
    tokio::select! {
        result = telemetry::serve(port, health) => result,
        () = agent.run() => Ok(()),
        never = scrub.run() => match never {},
        never = questions.run() => match never {},
        () = crate::shutdown_signal() => {
            tracing::info!("agent stops");
            Ok(())
        }
    }
}

struct Agent {
    client: Client,
    settings: Settings,
    config: Arc<LiveConfig>,
    disk: Disk,
    wake: Arc<Notify>,
    /// The copies that the scrub reads.
    scrubbed: watch::Sender<BTreeSet<CopyKey>>,
    passed: Arc<AtomicBool>,
    /// Whether the disk answers.
    pulse: Pulse,
    /// Whether the last pass could look at it.
    responds: Arc<AtomicBool>,
    /// The first group of each cluster cache that this node has an entry of: it never changes.
    first_groups: HashMap<String, String>,
    /// What was said last; before that, what stands in the status.
    said: Option<BTreeMap<String, Said>>,
    /// What was found on the disk that is not ours, so that it is reported once.
    reported: BTreeSet<String>,
    /// How far the downloads were at the last look, and when that was: the status follows no faster (A8).
    progress: (Option<Timestamp>, BTreeMap<CopyKey, ProgressReport>),
    /// Why what another initializer has downloaded for a copy cannot be taken for one.
    unadoptable: BTreeMap<CopyKey, Problem>,
    /// Why the API server refused the last Job of a copy, and when.
    refused: BTreeMap<CopyKey, (Problem, Timestamp)>,
    /// Why a complete copy could not be linked to where pods read it.
    unserved: BTreeMap<CopyKey, Problem>,
    /// What the last Job of each copy was made from that could not be made complete: its Job may be gone.
    tried: BTreeMap<CopyKey, Recipe>,
    /// Whether the cluster's definition of nodes drops our own status fields.
    plain: bool,
    metrics: Arc<AgentMetrics>,
    /// The downloads that are under way, for the metrics.
    transfers: Transfers,
}

impl Agent {
    async fn run(mut self) {
        self.config.ready().await;
        loop {
            let job_namespace = self.config.get().job_namespace.clone();
            let sources = Sources::start(&self.client, &self.settings, &job_namespace, &self.wake);
            sources.ready().await;
            // Another job namespace means other watches.
            while self.config.get().job_namespace == job_namespace {
                self.pass_and_wait(&sources).await;
            }
        }
    }

    async fn pass_and_wait(&mut self, sources: &Sources) {
        let config = self.config.get();
        let interval = Duration::from_secs(config.pass_interval_seconds);
        if !self.pulse.is_steady() {
            return self.say_that_the_disk_does_not_respond(sources, interval).await;
        }
        self.responds.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let pulse = self.pulse.clone();
        let result = tokio::select! {
            result = self.pass(sources, &config) => result,
            () = pulse.lost() => return,
        };
        self.metrics.pass(begun, &result);
        self.metrics.interval(config.pass_interval_seconds);
        self.metrics.config(self.config.problem().is_some());
        let pause = match result {
            Ok(wake) => {
                self.passed.store(true, Ordering::Relaxed);
                let until = wake.map(|at| at.duration_since(Timestamp::now()).max(SignedDuration::ZERO));
                until
                    .and_then(|until| Duration::try_from(until).ok())
                    .map_or(interval, |until| until.min(interval))
            }
            Err(error) => {
                if !error.is_conflict() {
                    tracing::warn!(%error, "pass failed, trying again");
                }
                RETRY.min(interval)
            }
        };
        tokio::select! {
            () = self.wake.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// One pass; returns when to look again at the latest, if the plan says so.
    async fn pass(&mut self, sources: &Sources, config: &Config) -> Result<Option<Timestamp>, Error> {
        let Some(local) = sources.local_node() else {
            tracing::debug!(
                node = self.settings.node,
                "no LocalModelNode: nothing to do and nothing to erase"
            );
            self.scrub(&[]);
            self.metrics.models(&BTreeMap::new());
            return Ok(None);
        };
        if !is_member(&local, &self.settings.group) {
            self.scrub(&[]);
            tracing::debug!(node = self.settings.node, "the node has left this group: its files stay");
            self.metrics.models(&BTreeMap::new());
            return Ok(None);
        }
        let entries = self.own_entries(&local).await?;
        self.scrub(&entries);
        // The Jobs first: one that ends during the look must not be told from an old look.
        let mut jobs: Vec<JobView> = sources.jobs(&self.settings.group);
        let now = Timestamp::now();
        sources::explain(&self.client, &config.job_namespace, &mut jobs, now).await;
        if let Some(path) = &self.settings.path {
            job_view::name_disk(&mut jobs, path, &self.settings.group);
        }
        let look = self.look(&entries, &local.spec.local_models, &jobs, now).await?;
        self.report(&look.scan);
        let before = match &self.said {
            Some(said) => said.clone(),
            None => local.status.as_ref().map(plan::local_status::said).unwrap_or_default(),
        };
        let recipes = self.recipes(&entries, &local, &look, &jobs, sources, config).await;
        let digests = recipes::digests(&recipes);
        let view = View {
            entries: &entries,
            all: &local.spec.local_models,
            vouched: &takeover::vouched(&local),
            disk: &look.scan.inventory,
            unwritable: &look.unwritable,
            full: look.full.as_ref(),
            jobs: &jobs,
            progress: &self.progress.1,
            before: &before,
            recipes: &digests,
            unadoptable: &self.unadoptable,
            refused: &self.refused,
            unserved: &self.unserved,
            tried: &self.tried,
            enabled: config.enabled,
            job_ttl: SignedDuration::from_secs(i64::from(config.job_ttl_seconds)),
            now,
        };
        let outcome = pass::pass(&view);
        for ended in self.transfers.look(&view, &outcome) {
            self.metrics.download(&ended);
        }
        self.metrics.models(&outcome.status);
        let told = match self.write_gates(&outcome).await {
            Err(error) if look.full.is_some() => {
                tracing::warn!(%error, "pods that wait learn no news while the disk is full");
                Ok(())
            }
            told => told,
        };
        let written = self.write_status(&local, &outcome, &look, now).await;
        let with = With { entries: &entries, local: &local, recipes: &recipes };
        self.carry_out(&outcome.actions, &with, sources, config).await?;
        self.remember(&digests, &jobs);
        told.and(written).map(|()| outcome.wake)
    }

    /// Says that the disk hangs, as often as a pass would have been; whatever of it is left over ends first.
    async fn say_that_the_disk_does_not_respond(&mut self, sources: &Sources, interval: Duration) {
        self.responds.store(false, Ordering::Relaxed);
        if let Err(error) = self.say_unanswered(sources).await {
            tracing::warn!(%error, "that the disk does not respond cannot be written down");
        }
        let pulse = self.pulse.clone();
        tokio::select! {
            () = pulse.changed() => {}
            () = tokio::time::sleep(interval.min(RETRY)) => {}
        }
    }

    async fn say_unanswered(&mut self, sources: &Sources) -> Result<(), Error> {
        let Some(local) = sources.local_node().filter(|local| is_member(local, &self.settings.group)) else {
            return Ok(());
        };
        let entries = self.own_entries(&local).await?;
        let problem = self.disk.not_responding();
        let before = match &self.said {
            Some(said) => said.clone(),
            None => local.status.as_ref().map(plan::local_status::said).unwrap_or_default(),
        };
        let outcome = pass::unanswered(&entries, &before, &problem);
        let look = Look { unanswered: Some(problem), ..Look::default() };
        self.write_status(&local, &outcome, &look, Timestamp::now()).await
    }

    /// Says whose copies the scrub is to read.
    fn scrub(&self, entries: &[ModelEntry]) {
        let wanted: BTreeSet<CopyKey> = entries.iter().map(CopyKey::of).collect();
        self.scrubbed.send_if_modified(|copies| {
            let is_news = *copies != wanted;
            *copies = wanted;
            is_news
        });
    }

    /// Looks at the disk: at all of it, and whether the areas of the entries can be written.
    async fn look(
        &mut self,
        entries: &[ModelEntry],
        all: &[ModelEntry],
        jobs: &[JobView],
        now: Timestamp,
    ) -> Result<Look, Error> {
        // Copies in the root may be namespace caches' since KServe's time.
        let wanted: BTreeSet<CopyKey> =
            all.iter().map(CopyKey::of).flat_map(|copy| [copy.in_root(), copy]).collect();
        let areas: BTreeSet<Option<String>> =
            entries.iter().map(|entry| CopyKey::of(entry).namespace).chain([None]).collect();
        let running = jobs.iter().filter(|job| job.own && job.phase == JobPhase::Running);
        let running: Vec<CopyKey> = running.map(|job| job.copy.clone()).collect();
        let is_due = self.progress.0.is_none_or(|last| last + PROGRESS_EVERY <= now);
        let disk = self.disk.clone();
        let look = self.pulse.work(move || {
            let problem = |area: Option<String>| Some((area.clone(), disk.problem(area.as_deref())?));
            let unwritable: BTreeMap<_, _> = areas.into_iter().filter_map(problem).collect();
            let progress = |copy: CopyKey| Some((copy.clone(), disk.progress(&copy)?));
            let progress: Option<BTreeMap<_, _>> =
                is_due.then(|| running.into_iter().filter_map(progress).collect());
            match disk.scan(&wanted) {
                // Where nothing can be read either, the problem is still to be told.
                Err(_) if unwritable.contains_key(&None) => {
                    Ok((Look { unwritable, ..Look::default() }, None))
                }
                scan => scan.map(|scan| {
                    let (full, usage) = (disk.full(), disk.usage());
                    (Look { unwritable, full, usage, scan, unanswered: None }, progress)
                }),
            }
        });
        let late = |_| Error::Setup("the disk has not answered a look within a minute".into());
        let (look, progress) = tokio::time::timeout(pulse::LIMIT, look).await.map_err(late)??;
        if let Some(progress) = progress {
            self.progress = (Some(now), progress);
        }
        let mut look = look;
        let found = &mut look.scan.inventory;
        for copy in self.unadoptable.keys().filter(|copy| !found.sealed.contains(copy)) {
            // What stands there is no copy, whatever its manifest says.
            found.models.entry(copy.clone()).and_modify(|folder| *folder = Folder::Bare);
        }
        Ok(look)
    }

    /// Keeps what the last Job of each copy was made from, so that a change shows when the Job is gone.
    fn remember(&mut self, digests: &BTreeMap<CopyKey, Result<Recipe, Problem>>, jobs: &[JobView]) {
        for (copy, digest) in digests {
            let mut of_copy = jobs.iter().filter(|job| job.own && job.copy == *copy);
            let tried = of_copy.find_map(|job| job.recipe.as_ref()).or(digest.as_ref().ok());
            if let Some(tried) = tried {
                self.tried.insert(copy.clone(), tried.clone());
            }
        }
        self.tried.retain(|copy, _| digests.contains_key(copy));
    }

    /// Tells the pods that wait for a copy how it fares (S11).
    async fn write_gates(&self, outcome: &pass::Outcome) -> Result<(), Error> {
        let (disk, gates, served) = (self.disk.clone(), outcome.gates.clone(), outcome.served_gates.clone());
        self.pulse
            .work(move || {
                let mut result = Ok(());
                for (copy, status) in &gates {
                    // One that fails keeps no other from being told.
                    result = result.and(disk.write_gate(copy, status));
                }
                for (copy, status) in &served {
                    result = result.and(disk.write_served_gate(copy, status));
                }
                result
            })
            .await
    }

    /// Says once what lies on the disk that is not ours (A10).
    fn report(&mut self, scan: &Scan) {
        for stranger in scan.strangers.difference(&self.reported) {
            tracing::warn!(path = stranger, "not a model folder: left alone");
        }
        self.reported.clone_from(&scan.strangers);
    }

    /// The entries of this agent's group. One without a group belongs to its cache's first group, for
    /// which the cache is read once.
    async fn own_entries(&mut self, local: &LocalModelNode) -> Result<Vec<ModelEntry>, Error> {
        let all = sizes::entries(local);
        self.first_groups
            .retain(|name, _| all.iter().any(|e| e.model_name == *name && e.node_group.is_none()));
        let mut own = Vec::new();
        for entry in &all {
            let group = match &entry.node_group {
                Some(group) => Some(group.clone()),
                None if entry.namespace().is_some() => None, // namespace caches always say it
                None => self.first_group(&entry.model_name).await?,
            };
            if group.as_deref() == Some(&self.settings.group) {
                own.push(entry.clone());
            }
        }
        Ok(own)
    }

    async fn first_group(&mut self, cache: &str) -> Result<Option<String>, Error> {
        if let Some(group) = self.first_groups.get(cache) {
            return Ok(Some(group.clone()));
        }
        let group = sources::first_group(&self.client, cache).await?;
        if let Some(group) = &group {
            self.first_groups.insert(cache.to_owned(), group.clone());
        }
        Ok(group)
    }
}

/// What a pass saw of the disk.
#[derive(Default)]
struct Look {
    /// Why nothing was seen of it.
    unanswered: Option<Problem>,
    /// Its size and free room.
    usage: Option<Usage>,
    /// Why the root or a namespace's area cannot be written, where that is so.
    unwritable: BTreeMap<Option<String>, Problem>,
    /// Why nothing can be added to the disk, where no room is left at all.
    full: Option<Problem>,
    scan: Scan,
}
