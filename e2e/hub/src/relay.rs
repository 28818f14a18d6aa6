//! A TCP relay in front of a server, for what wiremock cannot do to a body: hold, stall, cut and throttle it.
//!
//! The relay tells the server which connection a request came through, in a header of its own; the server
//! tells the relay, before it answers, what to do with the answer's bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::fault::FaultKind;
use crate::state::State;

/// The header in which the relay names its connection to the server.
pub const CONNECTION: &str = "x-mock-connection";

/// Bytes passed on at a time.
const BUFFER: usize = 64 << 10;

/// A throttled body moves this often.
const TICK: Duration = Duration::from_millis(50);

/// Connections of all relays together, so that a number names one.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// What happens to the bytes of one answer.
#[derive(Debug)]
pub struct Effect {
    pub shape: Shape,
    /// Closed once the fault is cleared.
    pub release: watch::Receiver<()>,
}

impl Effect {
    /// That of an answer without a fault.
    pub fn none() -> Self {
        Self { shape: Shape::Plain, release: watch::channel(()).1 }
    }
}

/// The shape that a fault gives to an answer. Numbers count bytes of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Plain,
    Hold,
    Stall(u64),
    Cut(u64),
    Throttle(u64),
}

impl Shape {
    /// The shape that a fault gives to an answer; most are none of the relay's business.
    pub fn of(kind: &FaultKind) -> Self {
        match kind {
            FaultKind::Hold => Self::Hold,
            FaultKind::Stall { after } => Self::Stall(*after),
            FaultKind::Cut { after } => Self::Cut(*after),
            FaultKind::Throttle { bytes_per_second } => Self::Throttle(*bytes_per_second),
            _ => Self::Plain,
        }
    }
}

/// Relays every connection of `listener` to `target`, for ever.
pub async fn run(listener: TcpListener, target: SocketAddr, state: Arc<State>) {
    loop {
        // A client that is gone before it was accepted is no reason to stop.
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(connection(client, target, state.clone()));
    }
}

/// Relays one connection until either side ends it, or a fault does. Dropping both halves closes it.
async fn connection(client: TcpStream, target: SocketAddr, state: Arc<State>) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        ended = requests(from_client, to_server, id) => ended,
        ended = answers(from_server, to_client, &state, id) => ended,
    }
}

/// Passes requests on, each with the name of its connection.
async fn requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, id: u64) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        while let Some(end) = head_end(&buffer) {
            let body = content_length(&buffer[..end]);
            let rest = buffer.split_off(end);
            buffer.truncate(end - 2);
            buffer.extend(format!("{CONNECTION}: {id}\r\n\r\n").into_bytes());
            server.write_all(&buffer).await?;
            buffer = rest;
            while buffer.len() < body {
                if client.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            server.write_all(&buffer[..body]).await?;
            buffer.drain(..body);
        }
        if client.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Where a head ends: the index after its empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Passes answers on, each in the shape that its fault gives it. A client sends no request before it has the
/// last answer, so bytes that come after a new effect belong to the new answer.
async fn answers(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    state: &State,
    id: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut current: Option<Shaper> = None;
    loop {
        let length = server.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        if let Some(effect) = state.take_effect(id) {
            current = Some(effect).filter(|effect| effect.shape != Shape::Plain).map(Shaper::new);
        }
        let chunk = &buffer[..length];
        let end = match &mut current {
            None => {
                client.write_all(chunk).await?;
                state.count_sent(chunk.len());
                false
            }
            Some(shaper) => shaper.pass(chunk, &mut client, state).await?,
        };
        if end {
            return Ok(());
        }
    }
}

/// One answer on its way.
struct Shaper {
    effect: Effect,
    /// The head as far as it has come; `None` once it is through.
    head: Option<Vec<u8>>,
    /// Bytes of the body that are through.
    sent: u64,
}

impl Shaper {
    fn new(effect: Effect) -> Self {
        Self { effect, head: Some(Vec::new()), sent: 0 }
    }

    /// Passes bytes of the answer on; true when the connection is to be closed.
    async fn pass(&mut self, chunk: &[u8], client: &mut OwnedWriteHalf, state: &State) -> io::Result<bool> {
        if self.effect.shape == Shape::Hold {
            self.released().await;
        }
        let mut body = chunk.to_vec();
        if let Some(mut head) = self.head.take() {
            head.extend(body);
            let Some(end) = head_end(&head) else {
                self.head = Some(head);
                return Ok(false);
            };
            body = head.split_off(end);
            client.write_all(&head).await?;
        }
        match self.effect.shape {
            Shape::Plain | Shape::Hold => client.write_all(&body).await?,
            Shape::Stall(after) => {
                let now = self.allowed(after, &body);
                client.write_all(&body[..now]).await?;
                if now < body.len() {
                    self.released().await;
                    client.write_all(&body[now..]).await?;
                }
            }
            Shape::Cut(after) => {
                let now = self.allowed(after, &body);
                client.write_all(&body[..now]).await?;
                if now < body.len() {
                    client.shutdown().await?;
                    return Ok(true);
                }
            }
            Shape::Throttle(rate) => {
                self.trickle(rate, &body, client, state).await?;
                return Ok(false);
            }
        }
        state.count_sent(body.len());
        self.sent += body.len() as u64;
        Ok(false)
    }

    /// How much of the next bytes may still pass.
    fn allowed(&self, after: u64, body: &[u8]) -> usize {
        usize::try_from(after.saturating_sub(self.sent)).map_or(body.len(), |left| left.min(body.len()))
    }

    async fn trickle(
        &mut self,
        rate: u64,
        body: &[u8],
        client: &mut OwnedWriteHalf,
        state: &State,
    ) -> io::Result<()> {
        let ticks = u64::try_from(Duration::from_secs(1).as_millis() / TICK.as_millis()).unwrap_or(1);
        let slice = usize::try_from(rate / ticks).unwrap_or(usize::MAX).max(1);
        for part in body.chunks(slice) {
            client.write_all(part).await?;
            state.count_sent(part.len());
            let _ = timeout(TICK, self.released()).await;
        }
        Ok(())
    }

    /// Waits until the fault is cleared.
    async fn released(&mut self) {
        while self.effect.release.changed().await.is_ok() {}
    }
}
