//! What is remembered of copies between two looks: a copy of which nothing has changed costs a look its manifest
//! and its folders, not each of its files. A file that was cut short changes no folder: each look goes over some
//! files of the copies that it knows, in turn, so that those of a usual node are all seen within one look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::look::Looked;
use crate::download::manifest::{CORRUPT, Manifest};
use crate::download::store::{Found, Mark, Store};

/// The most folders of a copy that each look sees; those that are deeper are seen in turn, with their files.
const FOLDERS: usize = 32;
/// The most bytes that their names are kept in.
const NAMES: usize = 8 << 10;
/// The files that a look goes over.
const FILES: usize = 256;
/// A manifest of more bytes takes a while to be read: one is, at most, in so long, and more of its files are seen.
const LARGE: u64 = 256 << 10;
const LARGE_EVERY: Duration = Duration::from_mins(10);
const LARGE_FILES: usize = 1024;
/// The clock of a file system is coarse: what changed so short a time ago may change again and not show it.
const SETTLED: i64 = 2;

/// The copies that are known, by where they are.
#[derive(Debug)]
pub(super) struct Known {
    /// After how many seconds a change counts as settled.
    settles: i64,
    copies: Mutex<BTreeMap<PathBuf, Arc<Seen>>>,
    turns: Mutex<Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    /// Where in each copy's manifest the next look goes on, and when it was there last.
    next: BTreeMap<PathBuf, (usize, u64)>,
    looks: u64,
    large: Option<Instant>,
}

/// What a look found, and what has to be as it was for that to be so still.
#[derive(Debug)]
struct Seen {
    marks: Vec<(String, Option<Mark>)>,
    found: Looked,
    manifest: u64,
}

/// What is to be compared at the next look, as it was before this one.
#[derive(Debug)]
pub(super) struct Before {
    marks: Vec<(String, Option<Mark>)>,
    manifest: u64,
}

impl Default for Known {
    fn default() -> Self {
        Self::settling(SETTLED)
    }
}

impl Known {
    pub(super) fn settling(settles: i64) -> Self {
        Self { settles, copies: Mutex::default(), turns: Mutex::default() }
    }

    /// What the last look at a copy found, where nothing of it has changed since.
    pub(super) fn unchanged(&self, path: &Path, store: &Store) -> Option<Looked> {
        let seen = self.copies().get(path).cloned()?;
        let same = |(path, mark): &(String, Option<Mark>)| store.mark(path).is_ok_and(|now| now == *mark);
        seen.marks.iter().all(same).then(|| seen.found.clone())
    }

    /// Remembers what a look found since `before`, unless something has changed only just now.
    pub(super) fn remember(&self, path: &Path, before: Before, found: &Looked) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let settled = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(self.settles);
        let is_settled =
            before.marks.iter().flat_map(|(_, mark)| mark).all(|mark| mark.changed().0 < settled);
        if is_settled {
            let Before { marks, manifest } = before;
            let seen = Seen { marks, found: found.clone(), manifest };
            self.copies().insert(path.to_owned(), Arc::new(seen));
        } else {
            self.forget(path);
        }
    }

    pub(super) fn forget(&self, path: &Path) {
        self.copies().remove(path);
    }

    /// Forgets all copies but these.
    pub(super) fn retain(&self, paths: &BTreeSet<PathBuf>) {
        self.copies().retain(|path, _| paths.contains(path));
        self.turns().next.retain(|path, _| paths.contains(path));
    }

    /// Goes over some files of some copies, those first that were seen longest ago, and forgets a copy of which one
    /// is not as its manifest says.
    pub(super) fn go_over(&self, now: Instant) {
        let copies: Vec<(PathBuf, u64)> =
            self.copies().iter().map(|(path, seen)| (path.clone(), seen.manifest)).collect();
        let mut turns = self.turns();
        turns.looks += 1;
        let look = turns.looks;
        let last = |path: &PathBuf| turns.next.get(path).copied().unwrap_or_default();
        let mut order: Vec<_> = copies.into_iter().map(|(path, size)| (last(&path), path, size)).collect();
        order.sort_by(|((_, one), path, _), ((_, other), beside, _)| (one, path).cmp(&(other, beside)));
        let mut left = FILES;
        for ((from, _), path, size) in order {
            let most = if size <= LARGE {
                left
            } else if turns.large.is_none_or(|last| now.duration_since(last) >= LARGE_EVERY) {
                turns.large = Some(now);
                LARGE_FILES
            } else {
                0
            };
            if most == 0 {
                continue;
            }
            match files_are_there(&path, from, most) {
                Some((next, seen)) => {
                    turns.next.insert(path, (next, look));
                    left -= if size <= LARGE { seen.min(left) } else { 0 };
                }
                None => self.forget(&path),
            }
        }
    }

    fn copies(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<Seen>>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Before {
    /// The marks of a copy with this manifest. They are taken before its files are looked at, and after its manifest
    /// is read: `manifest` is that one's mark from before.
    pub(super) fn of(store: &Store, manifest: Option<Mark>, read: &Manifest) -> Option<Self> {
        let mut folders = BTreeSet::new();
        for file in &read.files {
            let above = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
            folders.extend(above.map(|folder| (folder.matches('/').count(), folder)));
        }
        let mut names = 0;
        let kept = folders.into_iter().take(FOLDERS).take_while(|(_, folder)| {
            names += folder.len();
            names <= NAMES
        });
        let paths = ["", CORRUPT].into_iter().chain(kept.map(|(_, folder)| folder));
        let mark = |path: &str| Some((path.to_owned(), store.mark(path).ok()?));
        let mut marks: Vec<_> = paths.map(mark).collect::<Option<_>>()?;
        marks.push((Manifest::PATH.to_owned(), manifest));
        Some(Self { marks, manifest: manifest.map_or(0, |mark| mark.size()) })
    }
}

/// Whether so many files of a copy's manifest are as it says; gives where to go on, and how many they were.
fn files_are_there(path: &Path, from: usize, most: usize) -> Option<(usize, usize)> {
    let store = Store::open(path).ok()??;
    let manifest = Manifest::read_in(&store).ok()??;
    let from = if from < manifest.files.len() { from } else { 0 };
    let files = manifest.files.iter().skip(from).take(most);
    let mut seen = 0;
    for file in files {
        seen += 1;
        if !store.stat(&file.path).is_ok_and(|found| found == Found::File(file.size)) {
            return None;
        }
    }
    let next = from + seen;
    Some((if next < manifest.files.len() { next } else { 0 }, seen))
}
