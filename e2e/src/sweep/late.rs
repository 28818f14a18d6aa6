//! Watches that lag behind: their events arrive in order, each only when a random number of later ones is
//! there, or when a random time has passed.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::dice::Dice;

/// The most events that one is held back by.
const EVENTS: u64 = 5;
/// The longest that one is held back, in milliseconds.
const LONGEST: u64 = 1000;

struct Held {
    lines: UnboundedReceiver<Bytes>,
    ended: bool,
    queue: VecDeque<(Instant, Bytes)>,
    dice: Dice,
    depth: usize,
    longest: Duration,
}

/// The answer to a watch, held back.
pub fn held_back(body: Body, dice: Dice) -> Body {
    let (sender, lines) = unbounded_channel();
    tokio::spawn(split(body, sender));
    let mut held =
        Held { lines, ended: false, queue: VecDeque::new(), dice, depth: 0, longest: Duration::ZERO };
    held.roll();
    Body::from_stream(futures::stream::unfold(held, |mut held| async move {
        held.next().await.map(|line| (Ok::<_, std::convert::Infallible>(line), held))
    }))
}

/// Sends an answer on line by line: each is an event.
async fn split(body: Body, sender: UnboundedSender<Bytes>) {
    let mut chunks = body.into_data_stream();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if sender.send(line.into()).is_err() {
                return; // nobody listens any more
            }
        }
    }
}

impl Held {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended || self.queue.len() > self.depth {
                self.roll();
                return self.queue.pop_front().map(|(_, line)| line);
            }
            let until = self.queue.front().map(|(at, _)| *at + self.longest);
            let waited = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                line = self.lines.recv() => match line {
                    Some(line) => self.queue.push_back((Instant::now(), line)),
                    None => self.ended = true,
                },
                () = waited => {
                    self.roll();
                    return self.queue.pop_front().map(|(_, line)| line);
                }
            }
        }
    }

    fn roll(&mut self) {
        self.depth = usize::try_from(self.dice.below(EVENTS)).unwrap_or_default();
        self.longest = Duration::from_millis(self.dice.below(LONGEST));
    }
}
