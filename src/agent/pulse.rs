//! Whether the node's disk answers. One that hangs keeps every thread that asks it something for ever, so that it is
//! asked by one thread of its own, and by no other while that one waits.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::work::off_the_loop;
use crate::error::Error;

/// A disk that has not answered for so long does not respond.
pub(super) const LIMIT: Duration = Duration::from_mins(1);
/// The time from an answer to the next question.
const EVERY: Duration = Duration::from_secs(15);

/// Whether the disk answers, for whoever asks.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    answers: watch::Receiver<bool>,
    /// Work on the disk that has begun and not come back.
    busy: Arc<AtomicUsize>,
}

/// Asks the disk for as long as it is run.
pub(super) struct Questions<Q> {
    question: Arc<Q>,
    answers: watch::Sender<bool>,
    limit: Duration,
    every: Duration,
}

impl Pulse {
    /// With a question that a disk which responds answers soon, and that is allowed so long.
    pub(super) fn new<Q: Fn() + Send + Sync + 'static>(question: Q, limit: Duration) -> (Self, Questions<Q>) {
        let (answers, told) = watch::channel(true);
        let questions = Questions { question: Arc::new(question), answers, limit, every: EVERY.min(limit) };
        (Self { answers: told, busy: Arc::default() }, questions)
    }

    /// Whether the disk answers, and no work on it is left over.
    pub(super) fn is_steady(&self) -> bool {
        *self.answers.borrow() && self.busy.load(Ordering::Relaxed) == 0
    }

    /// Whether the disk answers.
    pub(super) fn answers(&self) -> bool {
        *self.answers.borrow()
    }

    /// Waits until the disk does not answer.
    pub(super) async fn lost(&self) {
        // The other end lives as long as the agent.
        let _ = self.answers.clone().wait_for(|answers| !answers).await;
    }

    /// Waits until it answers again, or does not any more.
    pub(super) async fn changed(&self) {
        let mut answers = self.answers.clone();
        answers.mark_unchanged();
        let _ = answers.changed().await;
    }

    /// Does work on the disk on a thread of its own. It counts as under way until it has come back, also when nobody
    /// waits for it any more.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let under_way = UnderWay::new(self.busy.clone());
        off_the_loop(move || {
            let result = work();
            drop(under_way);
            result
        })
        .await
    }
}

struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(busy: Arc<AtomicUsize>) -> Self {
        busy.fetch_add(1, Ordering::Relaxed);
        Self(busy)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<Q: Fn() + Send + Sync + 'static> Questions<Q> {
    pub(super) async fn run(self) -> Infallible {
        loop {
            self.ask().await;
            sleep(self.every).await;
        }
    }

    /// Asks once, and comes back with the answer, however long it takes.
    async fn ask(&self) {
        let (done, mut answer) = oneshot::channel::<()>();
        let question = self.question.clone();
        let asked = std::thread::Builder::new().name("pulse".into()).spawn(move || {
            question();
            // Nobody waits when the agent is about to end.
            let _ = done.send(());
        });
        if let Err(error) = asked {
            tracing::warn!(%error, "no thread to ask the disk with");
            return;
        }
        if timeout_at(Instant::now() + self.limit, &mut answer).await.is_err() {
            tracing::error!(seconds = self.limit.as_secs(), "the disk has not answered");
            self.answers.send_replace(false);
            let _ = answer.await;
            tracing::info!("the disk answers again");
        }
        self.answers.send_if_modified(|answers| !std::mem::replace(answers, true));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A disk that answers once for each time that it is allowed to, and counts how often it was asked.
    fn slow() -> (Sender<()>, Arc<AtomicUsize>, impl Fn() + Send + Sync + 'static) {
        let (allow, allowed): (Sender<()>, Receiver<()>) = channel();
        let (asked, allowed) = (Arc::new(AtomicUsize::new(0)), Mutex::new(allowed));
        let count = asked.clone();
        let question = move || {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = allowed.lock().unwrap().recv();
        };
        (allow, asked, question)
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_noticed_asked_by_no_second_thread_and_noticed_again_when_it_answers() {
        let (allow, asked, question) = slow();
        let (pulse, questions) = Pulse::new(question, Duration::from_millis(20));
        let running = tokio::spawn(questions.run());
        assert!(pulse.answers());
        pulse.lost().await;
        assert!(!pulse.is_steady());
        // Many times the limit.
        assert!(tokio::time::timeout(Duration::from_millis(400), pulse.changed()).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        drop(allow); // from now on every question is answered at once
        pulse.changed().await;
        assert!(pulse.is_steady());
        running.abort();
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_still_counts_until_it_has_come_back() {
        let (allow, _, hang) = slow();
        let (pulse, _questions) = Pulse::new(|| {}, LIMIT);
        let work = pulse.work(move || {
            hang();
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), work).await.is_err());
        assert!(pulse.answers() && !pulse.is_steady());
        drop(allow);
        while !pulse.is_steady() {
            tokio::task::yield_now().await;
        }
    }
}
