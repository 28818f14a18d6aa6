//! A large file on its way: each chunk is hashed and written from the one buffer that it came in.
//!
//! Chunks are written as they come and hashed in order; those that came early wait in memory, those of an
//! earlier run are read from the disk. When all is hashed and written the file gets its name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::buffers::Buffer;
use super::chunks::Chunks;
use super::journal::{self, Checkpoint, Record, Replay};
use super::{Threads, mismatch};
use crate::download::digest::Hasher;
use crate::download::error::{Error, Result};
use crate::download::manifest::{ManifestFile, total};
use crate::download::plan::PlannedFile;
use crate::download::progress::{Meter, Progress};
use crate::download::source::Link;
use crate::download::store::{JournalFile, Part, Store};

/// The time between two lines that say what is on the disk: so much is lost by a power cut.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// Bytes read at a time where they have to be hashed from the disk.
const READ: usize = 512 << 10;

/// What becomes of a file.
#[derive(Debug)]
pub enum Event {
    /// It is in its place.
    Placed(usize, ManifestFile),
    /// All of it came, and it is not what it should be.
    Corrupt(usize, Error),
    /// The disk refuses it.
    Failed(Error),
}

/// One such file.
pub struct Growing {
    /// Its index among the files of the transfer.
    pub index: usize,
    /// Which file it is.
    pub file: PlannedFile,
    /// How it is parted.
    pub chunks: Chunks,
    /// Where its bytes come from.
    pub link: Link,
    /// Counts its bytes.
    pub meter: Arc<Meter>,
    store: Arc<Store>,
    part: Part,
    journal: Mutex<Journal>,
    state: Mutex<State>,
    threads: Threads,
    events: UnboundedSender<Event>,
}

struct Journal {
    file: JournalFile,
    /// Its first lines.
    head: Vec<u8>,
    synced: Instant,
}

struct State {
    /// `None` while a thread is hashing, and once all is over.
    hasher: Option<Hasher>,
    /// The chunks before it are hashed.
    hashed: usize,
    waiting: BTreeMap<usize, Arc<Buffer>>,
    on_disk: Vec<bool>,
    /// Whether a state of the hash is wanted for the journal, and the last one that was asked for.
    checkpoint_wanted: bool,
    checkpoint: Option<Checkpoint>,
}

impl Growing {
    /// Opens the part that an earlier run left, as far as its journal vouches for it, or a new one.
    /// Gives also which chunks are there. `place` is the address and revision that it is fetched from.
    pub fn open(
        store: &Arc<Store>,
        (index, file): (usize, PlannedFile),
        (chunk, place): (u64, &str),
        (progress, threads): (&Progress, Threads),
        events: UnboundedSender<Event>,
    ) -> Result<(Arc<Self>, Vec<bool>)> {
        let chunks = Chunks::new(file.size, chunk);
        let key = journal::key(place, &file, chunks);
        let (part, new) = store.part(&file.path)?;
        let (mut lines, content) = store.journal(&file.path)?;
        let boot = boot_id();
        let mut replay = journal::replay(&content, &key, chunks, boot.as_deref());
        let end = replay.on_disk.iter().rposition(|there| *there).map_or(0, |last| chunks.range(last).end);
        if new || part.length()? < end {
            replay = journal::replay(&[], &key, chunks, None);
        }
        part.reserve(file.size)?;
        lines.cut(replay.length)?;
        let boot_line = journal::line(&Record::Boot(boot.unwrap_or_default()));
        let head = [journal::line(&Record::Of(key)), boot_line.clone()].concat();
        lines.append(if replay.length == 0 { &head } else { &boot_line })?;
        let Replay { on_disk, checkpoint, .. } = replay;
        let there = on_disk.iter().enumerate().filter(|(_, there)| **there);
        let meter = progress.begin(&file, total(there.map(|(chunk, _)| chunks.length(chunk))));
        let state = State::new(&file, on_disk.clone(), checkpoint);
        let journal = Mutex::new(Journal { file: lines, head, synced: Instant::now() });
        let (store, state, link) = (Arc::clone(store), Mutex::new(state), Link::default());
        let growing =
            Arc::new(Self { index, file, chunks, link, meter, store, part, journal, state, threads, events });
        growing.go_on_hashing();
        Ok((growing, on_disk))
    }

    /// Takes a chunk that has come whole; its buffer is free again once it is hashed and written.
    pub fn accept(self: &Arc<Self>, chunk: usize, mut buffer: Buffer) {
        buffer.pad();
        let buffer = Arc::new(buffer);
        self.state().waiting.insert(chunk, Arc::clone(&buffer));
        self.on_thread(move |growing| growing.write(chunk, buffer));
        self.go_on_hashing();
    }

    /// Forgets all that came, so that the file can be fetched from its first byte.
    pub fn restart(&self) -> Result<Vec<bool>> {
        let mut journal = self.journal();
        journal.file.cut(0)?;
        let Journal { file, head, .. } = &mut *journal;
        file.append(head)?;
        let nothing = vec![false; self.chunks.count()];
        *self.state() = State::new(&self.file, nothing.clone(), None);
        Ok(nothing)
    }

    fn write(&self, chunk: usize, buffer: Arc<Buffer>) -> Result<()> {
        self.part.write(&buffer, self.chunks.range(chunk).start)?;
        // Its memory is wanted for the next one.
        drop(buffer);
        if self.chunks.count() > 1 {
            self.journal().file.append(&journal::line(&Record::Written(chunk)))?;
            self.sync_now_and_then(chunk)?;
        }
        self.state().on_disk[chunk] = true;
        self.finish_if_complete()
    }

    /// Once in a while, puts on the disk what was written and says so in the journal.
    fn sync_now_and_then(&self, chunk: usize) -> Result<()> {
        let age = self.journal().synced.elapsed();
        if age < SYNC_EVERY {
            return Ok(());
        }
        let checkpoint = {
            let mut state = self.state();
            state.checkpoint_wanted = true;
            let there = |index: usize| index == chunk || state.on_disk[index];
            let covered = state.checkpoint.as_ref().is_some_and(|found| (0..found.chunk).all(there));
            if covered { state.checkpoint.take() } else { None }
        };
        if checkpoint.is_none() && age < 2 * SYNC_EVERY {
            return Ok(());
        }
        // Nobody writes a line meanwhile: the new one is about all before it.
        let mut journal = self.journal();
        self.part.sync()?;
        journal.file.append(&journal::line(&Record::Synced(checkpoint)))?;
        journal.synced = Instant::now();
        Ok(())
    }

    /// Hashes on a thread of its own what can be hashed next, unless that is being done.
    fn go_on_hashing(self: &Arc<Self>) {
        let mut state = self.state();
        if !state.can_go_on() {
            return;
        }
        let Some(hasher) = state.hasher.take() else { return };
        drop(state);
        self.on_thread(move |growing| growing.hash(hasher));
    }

    fn hash(&self, mut hasher: Hasher) -> Result<()> {
        loop {
            let (chunk, buffer) = {
                let mut state = self.state();
                if !state.can_go_on() {
                    state.hasher = Some(hasher);
                    break;
                }
                let chunk = state.hashed;
                (chunk, state.waiting.remove(&chunk))
            };
            match buffer {
                Some(buffer) => hasher.update(buffer.filled()),
                None => self.hash_from_disk(chunk, &mut hasher)?,
            }
            let mut state = self.state();
            state.hashed += 1;
            if std::mem::take(&mut state.checkpoint_wanted) {
                state.checkpoint = Some(Checkpoint { chunk: state.hashed, hash: hasher.checkpoint() });
            }
        }
        self.finish_if_complete()
    }

    fn hash_from_disk(&self, chunk: usize, hasher: &mut Hasher) -> Result<()> {
        let range = self.chunks.range(chunk);
        let mut buffer = Buffer::of_its_own(READ);
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).map_or(READ, |left| left.min(READ));
            self.part.read(&mut buffer, at, length)?;
            hasher.update(buffer.filled());
            at += length as u64;
        }
        Ok(())
    }

    /// The last thread that has to do with the file gives it its name.
    fn finish_if_complete(&self) -> Result<()> {
        let hasher = {
            let mut state = self.state();
            let complete = state.hashed == state.on_disk.len() && state.on_disk.iter().all(|there| *there);
            if complete { state.hasher.take() } else { None }
        };
        let Some(hasher) = hasher else { return Ok(()) };
        let event = match self.link.verify(hasher, &self.file.digest) {
            Ok(sha256) => {
                self.part.finish(self.file.size)?;
                self.store.place(&self.part, &self.file.path)?;
                Event::Placed(self.index, self.file.known_as(sha256))
            }
            Err(found) => Event::Corrupt(self.index, mismatch(&self.file, &found)),
        };
        let _ = self.events.send(event);
        Ok(())
    }

    /// Does some work on a thread of its own; its failure is the transfer's.
    fn on_thread(self: &Arc<Self>, work: impl FnOnce(&Self) -> Result<()> + Send + 'static) {
        let growing = Arc::clone(self);
        self.threads.start(move || {
            let told = Told(&growing.events);
            if let Err(error) = work(&growing) {
                // Nobody listens once the transfer has failed.
                let _ = told.0.send(Event::Failed(error));
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of a thread that panicked: without it the transfer would wait for ever.
struct Told<'a>(&'a UnboundedSender<Event>);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = std::io::Error::other("a thread of the download panicked");
            let _ = self.0.send(Event::Failed(Error::disk("write", Path::new("the model"), source)));
        }
    }
}

impl State {
    fn new(file: &PlannedFile, on_disk: Vec<bool>, checkpoint: Option<Checkpoint>) -> Self {
        let restored = checkpoint.and_then(|checkpoint| {
            Some((Hasher::restore(&file.digest, &checkpoint.hash)?, checkpoint.chunk))
        });
        let (state, hashed) = restored.unwrap_or_else(|| (Hasher::new(&file.digest, file.size), 0));
        Self {
            hasher: Some(state),
            hashed,
            waiting: BTreeMap::new(),
            on_disk,
            checkpoint_wanted: false,
            checkpoint: None,
        }
    }

    fn can_go_on(&self) -> bool {
        self.waiting.contains_key(&self.hashed) || self.on_disk.get(self.hashed) == Some(&true)
    }
}

/// Names the time since the machine started: what the kernel had taken before that may be lost.
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
