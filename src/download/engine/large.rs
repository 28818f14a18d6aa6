//! The streams that fetch large files.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::buffers::{Buffer, Pool};
use super::growing::{Event, Growing};
use super::receive::Receiver;
use super::schedule::{Claim, Schedule, Task};
use super::{Transfer, twice};
use crate::download::error::{Error, Result};
use crate::download::manifest::ManifestFile;
use crate::download::plan::PlannedFile;

/// What the streams share.
struct Streams {
    transfer: Arc<Transfer>,
    files: Vec<PlannedFile>,
    pool: Arc<Pool>,
    schedule: Mutex<Schedule>,
    /// Rings when there may be something to do for a stream that has nothing.
    bell: Notify,
    growing: Mutex<Vec<Option<Arc<Growing>>>>,
    events: mpsc::UnboundedSender<Event>,
}

/// Fetches these files, largest first.
pub async fn fetch(transfer: &Arc<Transfer>, files: Vec<PlannedFile>) -> Result<Vec<ManifestFile>> {
    let settings = &transfer.settings;
    let count = settings.streams.max(1);
    let (events, mut happened) = mpsc::unbounded_channel();
    let streams = Arc::new(Streams {
        transfer: Arc::clone(transfer),
        pool: Pool::new(settings.buffers.max(1), settings.chunk),
        schedule: Mutex::new(Schedule::new(files.len())),
        bell: Notify::new(),
        growing: Mutex::new(vec![None; files.len()]),
        files,
        events,
    });
    let (mut fetched, mut corrupt) = (Vec::new(), BTreeSet::new());
    let mut running = JoinSet::new();
    if !streams.schedule().is_over() {
        (0..count).for_each(|_| drop(running.spawn(Arc::clone(&streams).run())));
    }
    while !streams.schedule().is_over() {
        tokio::select! {
            Some(event) = happened.recv() => match event {
                Event::Placed(index, file) => {
                    transfer.placed(&file).await?;
                    fetched.push(file);
                    streams.growing()[index] = None;
                    streams.schedule().settled(index);
                }
                Event::Corrupt(index, error) if corrupt.insert(index) => streams.again(index, &error).await?,
                Event::Corrupt(index, error) => {
                    transfer.store.abandon(&streams.files[index].path)?;
                    return Err(twice(error));
                }
                Event::Failed(error) => return Err(error),
            },
            Some(ended) = running.join_next() => match ended {
                Ok(Err(error)) => return Err(error),
                Ok(Ok(never)) => match never {},
                Err(error) => return Err(Error::disk("work on", transfer.store.path(), std::io::Error::other(error))),
            },
        }
    }
    Ok(fetched)
}

impl Streams {
    /// One stream: it ends with the transfer, or with what cannot be mended.
    async fn run(self: Arc<Self>) -> Result<Infallible> {
        loop {
            match self.task().await {
                (buffer, Task::Fetch(claim)) => self.fetch(claim, buffer).await?,
                (buffer, Task::Open(index)) => {
                    drop(buffer);
                    self.open(index).await?;
                }
            }
        }
    }

    /// Something to do, and the buffer for it.
    async fn task(&self) -> (Buffer, Task) {
        loop {
            let mut rung = std::pin::pin!(self.bell.notified());
            rung.as_mut().enable();
            let buffer = self.pool.take().await;
            if let Some(task) = self.schedule().assign() {
                return (buffer, task);
            }
            drop(buffer);
            rung.await;
        }
    }

    async fn open(&self, index: usize) -> Result<()> {
        let Transfer { source, commit, store, settings, progress, threads, .. } = &*self.transfer;
        let (file, events) = (self.files[index].clone(), self.events.clone());
        let place = format!("{} {}", source.place(), commit.as_deref().unwrap_or_default());
        let (chunk, on) = (settings.chunk as u64, Arc::clone(store));
        let (progress, with) = (Arc::clone(progress), threads.clone());
        let opened = threads
            .run(move || Growing::open(&on, (index, file), (chunk, &place), (&progress, with), events));
        let (growing, on_disk) = opened.await?;
        self.growing()[index] = Some(growing);
        self.schedule().opened(index, &on_disk);
        self.bell.notify_waiters();
        Ok(())
    }

    /// Fetches a chunk, and on and on in the same file, as long as there is something to fetch.
    async fn fetch(&self, mut claim: Claim, mut buffer: Buffer) -> Result<()> {
        let Some(growing) = self.growing()[claim.file].clone() else { return Ok(()) };
        let Growing { file, link, meter, .. } = &*growing;
        let receiver = Receiver { transfer: &self.transfer, file, link, meter: Some(meter) };
        let mut stream = None;
        loop {
            let end = growing.chunks.range(claim.end - 1).end;
            receiver.fill(&mut buffer, growing.chunks.range(claim.chunk), end, &mut stream).await?;
            if stream.as_ref().is_some_and(super::receive::Stream::ignores_ranges) {
                self.schedule().whole_only(claim.file);
            }
            growing.accept(claim.chunk, buffer);
            buffer = self.pool.take().await;
            match self.schedule().following(&claim) {
                Some(next) => claim = next,
                None => return Ok(()),
            }
        }
    }

    /// A file came corrupt: once more, from its first byte.
    async fn again(&self, index: usize, error: &Error) -> Result<()> {
        let Some(growing) = self.growing()[index].clone() else { return Ok(()) };
        tracing::warn!(path = growing.file.path, %error, "a file came corrupt, trying once more");
        self.transfer.progress.lost(growing.file.size, Some(&growing.meter));
        growing.link.forget().await;
        let nothing = self.transfer.threads.run(move || growing.restart()).await?;
        self.schedule().opened(index, &nothing);
        self.bell.notify_waiters();
        Ok(())
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn growing(&self) -> MutexGuard<'_, Vec<Option<Arc<Growing>>>> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
