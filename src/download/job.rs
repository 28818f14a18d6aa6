//! One source into one folder: look at what is there, ask for the rest, fetch it, write the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::archive::{kind_of, unpack, why_not};
use super::budget::Budget;
use super::digest::Digest;
use super::engine::check::check;
use super::engine::{Threads, Transfer};
use super::error::{Error, Result};
use super::learned::{Known, Learned};
use super::lent;
use super::manifest::{Damage, Manifest, ManifestFile, total};
use super::plan::{self, Plan, PlannedFile, Start};
use super::progress::{Progress, ProgressReport, rate, report_beginning};
use super::settings::Settings;
use super::source::{Link, Location, Source, without_secrets};
use super::store::{Lock, Store};

const LOCK_POLL: Duration = Duration::from_millis(250);

/// Makes `dest` a complete copy of the source `uri`. Over a complete copy it sends no request; over a
/// part of one it fetches what is missing, of the same commit.
pub async fn download(settings: &Settings, uri: &str, dest: &Path) -> Result<()> {
    let location = Location::parse(uri)?;
    if let Some(store) = Store::open(dest).map_err(|error| Error::disk("open", dest, error))?
        && look(uri, settings, &store)?.0.is_none()
    {
        tracing::info!(source = without_secrets(uri), dest = %dest.display(), "complete already");
        return Ok(());
    }
    let store = Arc::new(Store::create(dest)?);
    store.keep(lock(&store).await?);
    // Once more: whoever had the lock may have done the work.
    let (Some(start), manifest) = look(uri, settings, &store)? else {
        tracing::info!(source = without_secrets(uri), dest = %dest.display(), "complete already");
        return Ok(());
    };
    let job = Job {
        uri,
        told: without_secrets(uri),
        settings,
        source: Arc::new(Source::new(&location, settings).await?),
        store,
        manifest,
    };
    let plan = tokio::select! {
        plan = job.plan(start) => plan?,
        never = report_beginning(&job.store, job.source.pause()) => match never {},
    };
    let gone = plan.0.revision.clone();
    match job.fetch_or_erase(plan).await {
        // A force-push took the commit away: all that differs is fetched anew, at what the branch is now.
        Err(error) if error.is_gone() && location.commit().is_none() => {
            let commit = job.source.commit().await?;
            if commit.as_ref() == Some(&gone) {
                return Err(error);
            }
            job.tell_gone(&error);
            job.source.ask_once();
            let earlier = plan::earlier_files(job.manifest.as_ref(), Plan::read(&job.store)?.as_ref());
            job.fetch_or_erase((job.ask(commit, earlier).await?, None)).await
        }
        done => done,
    }
}

/// Where to begin in the folder (nowhere, if it is complete), and the manifest it has.
fn look(uri: &str, settings: &Settings, store: &Store) -> Result<(Option<Start>, Option<Manifest>)> {
    let manifest = Manifest::read_in(store).unwrap_or_else(|error| {
        tracing::warn!(%error, "the manifest cannot be read, the files are checked");
        None
    });
    let damage = match &manifest {
        Some(manifest) => {
            manifest.damaged_in(store).map_err(|error| Error::disk("look at", store.path(), error))?
        }
        None => Vec::new(),
    };
    let record = Plan::read(store)?;
    Ok((plan::start(uri, &settings.selection, manifest.as_ref(), damage, record), manifest))
}

async fn lock(store: &Store) -> Result<Lock> {
    let mut told = false;
    loop {
        if let Some(lock) = store.try_lock()? {
            return Ok(lock);
        }
        if !told {
            let dest = store.path().display();
            tracing::info!(%dest, "another process downloads into this folder: waiting for it");
            told = true;
        }
        sleep(LOCK_POLL).await;
    }
}

struct Job<'a> {
    uri: &'a str,
    /// The URI as it may be told.
    told: String,
    settings: &'a Settings,
    source: Arc<Source>,
    store: Arc<Store>,
    manifest: Option<Manifest>,
}

impl Job<'_> {
    /// The plan for where the run begins; with the damage where the rest of the folder is known to be right.
    async fn plan(&self, start: Start) -> Result<(Plan, Option<Vec<Damage>>)> {
        match start {
            Start::Repair(plan, damage) => {
                for Damage { path, kind } in &damage {
                    tracing::warn!(path, damage = %kind, "a file is damaged, it is fetched again");
                }
                Ok((plan, Some(damage)))
            }
            Start::Resume(plan) => Ok((plan, None)),
            Start::Ask { pin: Some(commit), earlier } => {
                match self.ask(Some(commit), earlier.clone()).await {
                    Err(error) if error.is_gone() => {
                        self.tell_gone(&error);
                        Ok((self.ask(self.source.commit().await?, earlier).await?, None))
                    }
                    plan => Ok((plan?, None)),
                }
            }
            Start::Ask { pin: None, earlier } => {
                Ok((self.ask(self.source.commit().await?, earlier).await?, None))
            }
        }
    }

    fn tell_gone(&self, error: &Error) {
        tracing::warn!(source = self.told, %error, "the commit is gone, asking what the source is now");
    }

    /// Plans the selected files (of a commit) and records the plan.
    async fn ask(&self, commit: Option<String>, mut earlier: Vec<String>) -> Result<Plan> {
        let selection = &self.settings.selection;
        let listing = self.source.files(commit.as_deref(), self.settings, &self.told).await?;
        let count = listing.count();
        let record = Plan::read(&self.store)?;
        let known = Known::new(self.uri, self.manifest.as_ref(), record.as_ref());
        let files: Vec<_> = listing.into_files().into_iter().map(|file| known.told(file)).collect();
        if files.is_empty() {
            let why = match count {
                0 => "it is empty".to_owned(),
                count => format!("the patterns leave none of its {count} files"),
            };
            return Err(Error::NothingSelected { source_uri: self.told.clone(), why });
        }
        if let [one] = files.as_slice()
            && self.source.unpacks()
            && let Some(why) = why_not(&one.path)
        {
            return Err(Error::Archive { name: one.path.clone(), why });
        }
        let is_reserved = |file: &&PlannedFile| {
            let below = |folder: &String| {
                file.path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
            };
            self.settings.reserved.iter().any(|folder| file.path == *folder || below(folder))
        };
        if let Some(file) = files.iter().find(is_reserved) {
            return Err(Error::Reserved { source_uri: self.told.clone(), path: file.path.clone() });
        }
        let lent = lent::read(&self.store)?;
        self.prove(commit.as_deref(), &files, &lent).await?;
        self.keep_what_sha256_vouches_for(&files, &lent)?;
        earlier.extend(lent);
        earlier.sort();
        earlier.dedup();
        earlier.retain(|path| files.iter().all(|file| file.path != *path));
        let plan = Plan {
            source: self.uri.to_owned(),
            revision: commit.clone().unwrap_or_default(),
            allow_patterns: selection.allow_patterns().to_vec(),
            ignore_patterns: selection.ignore_patterns().to_vec(),
            files,
            stale: earlier,
        };
        plan.record(&self.store)?;
        // A manifest of anything else must not be believed while files are replaced one by one.
        let same = |manifest: &Manifest| {
            manifest.source == self.uri && commit.is_some() && manifest.revision == commit
        };
        if !self.manifest.as_ref().is_some_and(same) {
            self.store.remove(Manifest::PATH)?;
        }
        Ok(plan)
    }

    /// Asks for a byte of what somebody else's copy has lent to this folder, with this run's own credentials: a
    /// list of files is shown to everybody also by a hub that gives the files themselves to few (K4). Only
    /// then is the plan recorded, by which later runs know that it was so.
    async fn prove(&self, commit: Option<&str>, files: &[PlannedFile], lent: &[String]) -> Result<()> {
        let lent: BTreeSet<&str> = lent.iter().map(String::as_str).collect();
        let of_lent = files.iter().filter(|file| file.size > 0 && lent.contains(file.path.as_str()));
        let doors = if self.source.is_one_door() { 1 } else { usize::MAX };
        for file in of_lent.take(doors) {
            let mut attempts = self.settings.retry.begin(self.source.pause());
            while let Err(error) = self.source.open(commit, file, &(0..1), &Link::default()).await {
                attempts.again(error).await?;
            }
        }
        Ok(())
    }

    /// The same as [`Self::fetch`]; what came of a source that brings too much does not stay.
    async fn fetch_or_erase(&self, plan: (Plan, Option<Vec<Damage>>)) -> Result<()> {
        let error = match self.fetch(plan).await {
            Err(error) if error.is_over_budget() => error,
            done => return done,
        };
        if let Err(error) = self.erase() {
            tracing::warn!(%error, "what came of it cannot be erased");
        }
        Err(error)
    }

    /// Erases what runs for the recorded plan have written.
    fn erase(&self) -> Result<()> {
        if Manifest::read_in(&self.store)?.is_some() {
            return Ok(()); // a copy that was whole before
        }
        for path in Plan::read(&self.store)?.iter().flat_map(Plan::names) {
            self.store.erase(path)?;
        }
        self.store.remove_left_over(&[])?;
        self.store.remove(ProgressReport::PATH)?;
        Plan::forget(&self.store)
    }

    /// Removes the lent files for which the source tells no SHA-256: other digests can be made to match other bytes,
    /// and these are somebody else's.
    fn keep_what_sha256_vouches_for(&self, files: &[PlannedFile], lent: &[String]) -> Result<()> {
        let vouched: BTreeSet<&str> = files
            .iter()
            .filter(|file| matches!(file.digest, Digest::Sha256(_)))
            .map(|file| file.path.as_str())
            .collect();
        lent.iter()
            .filter(|path| !vouched.contains(path.as_str()))
            .try_for_each(|path| self.store.remove(path))
    }

    /// Fetches what the folder lacks, removes what is stale, and writes the manifest.
    async fn fetch(&self, (plan, damage): (Plan, Option<Vec<Damage>>)) -> Result<()> {
        tracing::info!(
            source = self.told,
            commit = plan.revision,
            files = plan.files.len(),
            bytes = plan.bytes(),
            "resolved"
        );
        // Also for a plan that an earlier run has recorded, when more was allowed.
        let mut budget = Budget::new(self.settings.allowance, &self.told);
        for file in &plan.files {
            budget.add_file(&file.path, file.version.as_deref())?;
            budget.add_bytes(file.size)?;
        }
        let (mut files, wanted) = match damage {
            Some(damage) => split(&plan, &damage),
            None => check(&self.store, self.settings.streams, plan.files.clone()).await?,
        };
        let paths: Vec<&str> = wanted.iter().map(|file| file.path.as_str()).collect();
        self.store.remove_left_over(&paths)?;
        let bytes = total(wanted.iter().map(|file| file.size));
        let needed = bytes.saturating_sub(self.store.taken(paths.into_iter()));
        check_room(self.store.path(), needed, self.store.free_bytes()?)?;
        let (begun, count) = (Instant::now(), wanted.len());
        let before = (total(files.iter().map(|file: &ManifestFile| file.size)), files.len() as u64);
        let progress = Arc::new(Progress::new(&wanted, before));
        let transfer = Arc::new(Transfer {
            source: Arc::clone(&self.source),
            commit: Some(plan.revision.clone()).filter(|commit| !commit.is_empty()),
            store: Arc::clone(&self.store),
            settings: self.settings.clone(),
            progress: Arc::clone(&progress),
            learned: Arc::new(Learned::new(&self.store, &plan)),
            threads: Threads::new(self.store.path()),
        });
        let fetched = tokio::select! {
            fetched = transfer.fetch(wanted) => fetched,
            never = progress.report(&self.store, self.settings, self.source.pause()) => match never {},
        };
        match fetched {
            Ok(fetched) => files.extend(fetched),
            Err(error) => {
                if let Err(error) = transfer.learned.record() {
                    tracing::warn!(%error, "what was learned of the source is forgotten");
                }
                return Err(in_numbers(error, &progress.snapshot(), &self.store));
            }
        }
        for path in &plan.stale {
            self.store.remove(path)?;
        }
        let unpacked = match files.as_slice() {
            [one] if self.source.unpacks() && kind_of(&one.path).is_some() => Some(one.path.clone()),
            _ => None,
        };
        if let Some(archive) = &unpacked {
            // The archive is on the disk beside what comes out of it.
            let mut budget = Budget::new(self.settings.allowance, &self.told);
            budget.add_bytes(total(files.iter().map(|file| file.size)))?;
            files = self.unpack(&transfer, archive, budget).await?;
        }
        files.sort();
        self.finish(plan, files, unpacked.is_some())?;
        let bytes_per_second = rate(bytes, begun.elapsed());
        tracing::info!(source = self.told, files = count, bytes, bytes_per_second, "complete");
        Ok(())
    }

    async fn unpack(&self, transfer: &Transfer, archive: &str, budget: Budget) -> Result<Vec<ManifestFile>> {
        tracing::info!(archive, "unpacking");
        let (store, archive) = (Arc::clone(&self.store), archive.to_owned());
        let files = transfer.threads.run(move || unpack(&store, &archive, budget)).await?;
        transfer.sync(files.iter().map(|file| file.path.clone()).collect()).await?;
        Ok(files)
    }

    fn finish(&self, plan: Plan, files: Vec<ManifestFile>, unpacked: bool) -> Result<()> {
        let manifest = Manifest {
            source: plan.source,
            revision: Some(plan.revision).filter(|commit| !commit.is_empty()),
            versions: versions_of(&plan.files),
            files,
            adopted: false,
            unpacked,
            allow_patterns: plan.allow_patterns,
            ignore_patterns: plan.ignore_patterns,
        };
        // What was begun of another commit's files is not wanted any more.
        self.store.remove_left_over(&[])?;
        self.store.remove(ProgressReport::PATH)?;
        manifest.write_in(&self.store)?;
        Manifest::record_corrupt(&self.store, &[])?;
        lent::forget(&self.store)?;
        Plan::forget(&self.store)
    }
}

/// Which versions of its files a plan wants.
fn versions_of(files: &[PlannedFile]) -> BTreeMap<String, String> {
    files.iter().filter_map(|file| Some((file.path.clone(), file.version.clone()?))).collect()
}

/// The files of a manifest's plan that are whole, and those that are not.
fn split(plan: &Plan, damage: &[Damage]) -> (Vec<ManifestFile>, Vec<PlannedFile>) {
    let (mut whole, mut wanted) = (Vec::new(), Vec::new());
    for file in &plan.files {
        match &file.digest {
            Digest::Sha256(sha256) if damage.iter().all(|damage| damage.path != file.path) => {
                whole.push(file.known_as(sha256.clone()));
            }
            _ => wanted.push(file.clone()),
        }
    }
    (whole, wanted)
}

/// A disk that became full midway is told as one that was too small to begin with: with the bytes that are
/// still needed and those that are free (A8). Where these would do, something else is short: a quota, inodes.
fn in_numbers(error: Error, progress: &ProgressReport, store: &Store) -> Error {
    let Error::DiskFull(_) = error else { return error };
    let needed = progress.bytes_total.saturating_sub(progress.bytes_done);
    match store.free_bytes() {
        Ok(free) if free < needed => Error::NoRoom { dest: store.path().to_owned(), needed, free },
        _ => error,
    }
}

/// Refuses to begin what cannot fit.
fn check_room(dest: &Path, needed: u64, free: u64) -> Result<()> {
    if needed > free { Err(Error::NoRoom { dest: dest.to_owned(), needed, free }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::error::Reason;

    #[test]
    fn a_download_that_cannot_fit_does_not_begin() {
        let dest = Path::new("/mnt/models");
        assert!(check_room(dest, 10, 10).is_ok());
        let error = check_room(dest, 11, 10).unwrap_err();
        assert_eq!(error.reason(), Reason::DiskFull);
        let text = error.to_string();
        assert!(
            text.contains("/mnt/models") && text.contains("11 B needed") && text.contains("10 B free"),
            "{text}"
        );
    }

    #[test]
    fn a_disk_that_became_full_midway_is_told_with_the_bytes_that_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        let full = || Error::DiskFull(folder.path().join("a"));
        let at =
            |bytes_done| ProgressReport { bytes_done, bytes_total: 1 << 60, ..ProgressReport::default() };
        let Error::NoRoom { needed, free, .. } = in_numbers(full(), &at(1 << 59), &store) else {
            panic!("the numbers are missing")
        };
        assert_eq!(needed, 1 << 59);
        assert!(free > 0 && free < needed);
        assert!(matches!(in_numbers(full(), &at(1 << 60), &store), Error::DiskFull(_)), "inodes, perhaps");
        let other = Error::NoCopy(folder.path().to_owned());
        assert!(matches!(in_numbers(other, &at(0), &store), Error::NoCopy(_)));
    }
}
