//! Work that blocks (the disk, hashing) on threads of its own, so that a transfer that has failed can wait until
//! nobody touches the folder any more.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::download::error::{Error, Result};

/// More than there ever are: the buffers and streams bound them.
const MOST: u32 = 1 << 16;

/// The threads of one transfer.
#[derive(Clone, Debug)]
pub struct Threads {
    running: Arc<Semaphore>,
    /// The folder they work on, for messages.
    path: PathBuf,
}

impl Threads {
    /// For work on the folder `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { running: Arc::new(Semaphore::new(MOST as usize)), path: path.into() }
    }

    /// Starts some work; nothing, once all is to be quiet.
    pub fn start(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(running) = self.running() {
            spawn_blocking(move || {
                work();
                drop(running);
            });
        }
    }

    /// Does some work and waits for it. It goes on to its end also if nobody waits any more.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let failed = |error| Error::disk("work on", &self.path, error);
        let running = self.running().ok_or_else(|| failed(std::io::ErrorKind::Interrupted.into()))?;
        let done = spawn_blocking(move || {
            let done = work();
            drop(running);
            done
        });
        done.await.map_err(|error| failed(std::io::Error::other(error)))?
    }

    /// Waits until no work is being done, and lets none begin.
    pub async fn quiet(&self) {
        if let Ok(all) = self.running.acquire_many(MOST).await {
            all.forget();
        }
    }

    fn running(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.running).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn quiet_comes_when_the_last_work_is_done_and_lasts() {
        let threads = Threads::new("/models");
        let (go_on, waiting) = mpsc::channel::<()>();
        threads.start(move || assert!(waiting.recv().is_err()));
        let mut quiet = std::pin::pin!(threads.quiet());
        assert!(futures::poll!(&mut quiet).is_pending());
        drop(go_on);
        quiet.await;
        threads.start(|| panic!("this must not begin"));
        let error = threads.run(|| Ok(1)).await.unwrap_err();
        assert!(error.to_string().contains("/models"), "{error}");
    }
}
