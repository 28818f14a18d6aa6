//! What the open connections of a server cost, and which of them ends when they cost too much.
//!
//! Whoever has the most loses first: the victim is a connection of the source address that has the most of them, and of
//! those the one that has done nothing for the longest. So a client that opens any number of connections ends its own,
//! and an API server that asks from another address is never among them. A connection whose request is being answered
//! is left alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It agrees on a connection, or sends the head of a request.
    Head,
    /// It sends the body of a request.
    Body,
    /// Its request is being answered.
    Answer,
    /// Its request was answered; the answer may still be on its way.
    Idle,
}

impl Phase {
    /// How long a connection may stay in it.
    pub(super) fn limit(self) -> Duration {
        match self {
            Self::Head | Self::Body => Duration::from_secs(5),
            // The API server waits for five seconds; what is asked of others ends before.
            Self::Answer => Duration::from_secs(10),
            // Longer than an API server keeps a connection that it does not use.
            Self::Idle => Duration::from_mins(2),
        }
    }
}

/// All open connections of a server.
pub(super) struct Connections {
    most: usize,
    most_bytes: usize,
    state: Mutex<State>,
    /// Wakes who waits for a place.
    freed: Notify,
}

#[derive(Default)]
struct State {
    last: u64,
    open: BTreeMap<u64, Open>,
}

struct Open {
    source: IpAddr,
    phase: Phase,
    since: Instant,
    /// Of a request's body.
    bytes: usize,
    /// Wakes the connection: it is in another phase, or not wanted any more.
    news: Arc<Notify>,
}

/// One connection; it is closed with this value.
pub(super) struct Connection {
    id: u64,
    all: Arc<Connections>,
    news: Arc<Notify>,
}

impl Connections {
    pub(super) fn new(most: usize, most_bytes: usize) -> Arc<Self> {
        Arc::new(Self { most, most_bytes, state: Mutex::default(), freed: Notify::new() })
    }

    /// Counts a new connection, in place of another one where there are too many. Waits while all of them are being
    /// answered.
    pub(super) async fn admit(self: &Arc<Self>, source: IpAddr) -> Connection {
        loop {
            let freed = self.freed.notified();
            if let Some(connection) = self.try_admit(source) {
                return connection;
            }
            freed.await;
        }
    }

    fn try_admit(self: &Arc<Self>, source: IpAddr) -> Option<Connection> {
        let mut state = self.state();
        if state.open.len() >= self.most {
            let victim = state.victim(|open| (open.phase != Phase::Answer).then_some(1))?;
            state.evict(victim);
        }
        state.last += 1;
        let (id, news) = (state.last, Arc::new(Notify::new()));
        let open = Open { source, phase: Phase::Head, since: Instant::now(), bytes: 0, news: news.clone() };
        state.open.insert(id, open);
        Some(Connection { id, all: self.clone(), news })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of the source with the highest costs, the connection that has been in its phase for the longest; connections
    /// without costs do not count.
    fn victim(&self, cost: impl Fn(&Open) -> Option<usize>) -> Option<u64> {
        let mut sources: HashMap<IpAddr, usize> = HashMap::new();
        for open in self.open.values() {
            *sources.entry(open.source).or_default() += cost(open).unwrap_or_default();
        }
        let candidates = self.open.iter().filter(|(_, open)| cost(open).is_some());
        let first = candidates.max_by_key(|(id, open)| (sources[&open.source], Reverse((open.since, **id))));
        first.map(|(id, _)| *id)
    }

    fn evict(&mut self, id: u64) {
        if let Some(open) = self.open.remove(&id) {
            tracing::debug!(source = %open.source, "connection closed: there are too many");
            open.news.notify_one();
        }
    }
}

impl Connection {
    /// It does something else from now on.
    pub(super) fn enter(&self, phase: Phase) {
        let mut state = self.all.state();
        let Some(open) = state.open.get_mut(&self.id) else { return };
        (open.phase, open.since) = (phase, Instant::now());
        if phase == Phase::Idle {
            open.bytes = 0;
        }
        drop(state);
        self.news.notify_one();
        self.all.freed.notify_one();
    }

    /// Its client sends something: after an answer, that is the next request.
    pub(super) fn sends(&self) {
        let is_idle = self.all.state().open.get(&self.id).is_some_and(|open| open.phase == Phase::Idle);
        if is_idle {
            self.enter(Phase::Head);
        }
    }

    /// Counts bytes of its request's body, in place of others' where there are too many.
    pub(super) fn holds(&self, bytes: usize) {
        let mut state = self.all.state();
        if let Some(open) = state.open.get_mut(&self.id) {
            open.bytes += bytes;
        }
        let unfinished = |open: &Open| (open.phase == Phase::Body && open.bytes > 0).then_some(open.bytes);
        while state.open.values().map(|open| open.bytes).sum::<usize>() > self.all.most_bytes {
            let Some(victim) = state.victim(unfinished) else { return };
            state.evict(victim);
        }
    }

    /// Waits until another one has taken its place, or it has done nothing for too long.
    pub(super) async fn ended(&self) {
        loop {
            let left = {
                let state = self.all.state();
                let Some(open) = state.open.get(&self.id) else { return };
                open.phase.limit().saturating_sub(open.since.elapsed())
            };
            if left.is_zero() {
                return;
            }
            // Out of time is the same as news.
            let _ = tokio::time::timeout(left, self.news.notified()).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.state().open.remove(&self.id);
        self.all.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API_SERVER: [u8; 4] = [10, 0, 0, 1];
    const ATTACKER: [u8; 4] = [10, 9, 9, 9];

    fn is_open(connection: &Connection) -> bool {
        connection.all.state().open.contains_key(&connection.id)
    }

    fn admit(all: &Arc<Connections>, source: [u8; 4]) -> Option<Connection> {
        all.try_admit(source.into())
    }

    #[test]
    fn the_source_with_the_most_connections_loses_its_oldest() {
        let all = Connections::new(4, 100);
        let ours = admit(&all, API_SERVER).unwrap();
        ours.enter(Phase::Idle);
        let theirs: Vec<Connection> = (0..9).map(|_| admit(&all, ATTACKER).unwrap()).collect();
        assert!(is_open(&ours));
        let open: Vec<bool> = theirs.iter().map(is_open).collect();
        assert_eq!(open, [false, false, false, false, false, false, true, true, true]);
    }

    #[test]
    fn a_connection_whose_request_is_being_answered_keeps_its_place_and_others_wait() {
        let all = Connections::new(2, 100);
        let busy: Vec<Connection> = (0..2).map(|_| admit(&all, ATTACKER).unwrap()).collect();
        for connection in &busy {
            connection.enter(Phase::Answer);
        }
        assert!(admit(&all, API_SERVER).is_none());
        busy[1].enter(Phase::Idle);
        assert!(admit(&all, API_SERVER).is_some());
        assert!(is_open(&busy[0]) && !is_open(&busy[1]));
    }

    #[test]
    fn too_many_bytes_end_an_unfinished_body_of_whoever_sent_the_most() {
        let all = Connections::new(9, 100);
        let theirs: Vec<Connection> = (0..3).map(|_| admit(&all, ATTACKER).unwrap()).collect();
        for connection in &theirs {
            connection.enter(Phase::Body);
            connection.holds(30);
        }
        let ours = admit(&all, API_SERVER).unwrap();
        ours.enter(Phase::Body);
        ours.holds(20);
        let open: Vec<bool> = theirs.iter().map(is_open).collect();
        assert!(is_open(&ours) && open == [false, true, true], "{open:?}");
        // What is being answered counts and stays.
        ours.enter(Phase::Answer);
        ours.holds(70);
        assert!(is_open(&ours) && !theirs.iter().any(is_open));
    }

    #[test]
    fn bytes_of_an_answered_request_count_no_longer() {
        let all = Connections::new(9, 100);
        let (first, second) = (admit(&all, API_SERVER).unwrap(), admit(&all, API_SERVER).unwrap());
        for connection in [&first, &second] {
            connection.enter(Phase::Body);
            connection.holds(90);
            connection.enter(Phase::Idle);
        }
        assert!(is_open(&first) && is_open(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_it_has_been_in_a_phase_for_too_long() {
        let all = Connections::new(9, 100);
        for (phases, seconds) in [
            (&[][..], 5),
            (&[Phase::Body], 5),
            (&[Phase::Answer], 10),
            (&[Phase::Idle], 120),
            (&[Phase::Idle, Phase::Body], 5),
        ] {
            let connection = Arc::new(admit(&all, ATTACKER).unwrap());
            let (ending, begun) = (connection.clone(), Instant::now());
            let ended = tokio::spawn(async move { ending.ended().await });
            tokio::task::yield_now().await;
            for phase in phases {
                connection.enter(*phase);
            }
            ended.await.unwrap();
            assert_eq!(begun.elapsed().as_secs(), seconds, "{phases:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_after_an_answer_has_as_long_as_the_first() {
        let all = Connections::new(9, 100);
        let connection = admit(&all, API_SERVER).unwrap();
        connection.enter(Phase::Idle);
        connection.sends();
        connection.sends();
        assert_eq!(tokio::time::timeout(Phase::Head.limit() * 2, connection.ended()).await, Ok(()));
    }
}
