//! A component's way to the API server, on which writes are counted and cut off.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::dice::Dice;
use super::late;

/// When a write is cut off, and what becomes of the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The process is killed before the write is sent.
    Before,
    /// The process is killed when the write was done, before the answer arrives.
    After,
    /// The write was done and its answer is lost with the connection; the process lives on.
    Lost,
}

/// Which writes are cut off.
#[derive(Clone, Debug, Default)]
pub enum Cuts {
    /// None.
    #[default]
    Never,
    /// The n-th from now, counted from 1.
    At(usize, Moment),
    /// About every third from now, at most so many.
    Often(Dice, usize),
}

/// What is done to a component's traffic.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Which writes are cut off.
    pub cuts: Cuts,
    /// The seed by which watches lag behind, if they do.
    pub late: Option<u64>,
}

/// One of every so many writes is cut off by [`Cuts::Often`].
const ONE_OF: u64 = 3;

/// A proxy; it listens for as long as the test runs.
#[derive(Clone)]
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    inner: Arc<Inner>,
}

struct Inner {
    upstream: Client,
    state: Mutex<State>,
    /// Wakes whoever kills the process.
    cut: Notify,
}

struct State {
    plan: Plan,
    /// Every write since the plan was made.
    writes: Vec<String>,
    /// Those that were cut off.
    cuts: Vec<String>,
    /// The process is about to be killed: nothing that it sends arrives any more.
    dead: bool,
    active: Instant,
    watches: u64,
}

impl Proxy {
    /// Begins to listen.
    pub async fn start(upstream: Client) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for a proxy")?;
        let address = format!("http://{}", listener.local_addr()?);
        let state = State {
            plan: Plan::default(),
            writes: Vec::new(),
            cuts: Vec::new(),
            dead: false,
            active: Instant::now(),
            watches: 0,
        };
        let inner = Arc::new(Inner { upstream, state: Mutex::new(state), cut: Notify::new() });
        let accepting = inner.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        Ok(Self { address, inner })
    }

    /// From now on this plan is followed, and writes are counted anew.
    pub fn follow(&self, plan: Plan) {
        let mut state = self.inner.state();
        (state.plan, state.watches) = (plan, 0);
        state.writes.clear();
        state.cuts.clear();
    }

    /// Waits until the process has to be killed.
    pub async fn until_cut(&self) {
        // What woke it may have been for the process before.
        while !self.inner.state().dead {
            self.inner.cut.notified().await;
        }
    }

    /// Has the process killed that runs now.
    pub fn end_life(&self) {
        self.inner.state().dead = true;
        self.inner.cut.notify_one();
    }

    /// A new process begins.
    pub fn revive(&self) {
        let mut state = self.inner.state();
        (state.dead, state.active) = (false, Instant::now());
    }

    /// How long nothing was written.
    pub fn quiet(&self) -> Duration {
        self.inner.state().active.elapsed()
    }

    /// The writes since the plan was made.
    pub fn writes(&self) -> Vec<String> {
        self.inner.state().writes.clone()
    }

    /// Those of them that were cut off.
    pub fn cuts(&self) -> Vec<String> {
        self.inner.state().cuts.clone()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(move |request| {
            let inner = self.clone();
            async move { inner.answer(request).await }
        });
        // An error is a connection that was closed, by us or by the process.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    /// The API server's answer. An error closes the connection without one.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let moment = self.look(&request);
        if moment == Some(Moment::Before) {
            match self.kill().await {}
        }
        let lag = self.lag(&request);
        let response = self.forward(request).await;
        match moment {
            Some(Moment::After) => match self.kill().await {},
            Some(Moment::Lost) => bail!("the answer is lost"),
            Some(Moment::Before) | None => {}
        }
        if self.state().dead {
            match pending().await {}
        }
        let response = response?;
        Ok(match lag {
            Some(dice) => response.map(|body| late::held_back(body, dice)),
            None => response,
        })
    }

    /// Counts a write, and says whether it is cut off.
    fn look(&self, request: &Request<Incoming>) -> Option<Moment> {
        let mut state = self.state();
        if state.dead || !is_write(request) {
            return None;
        }
        state.active = Instant::now();
        let write = format!("{} {}", request.method(), request.uri().path());
        state.writes.push(write.clone());
        let count = state.writes.len();
        let moment = state.plan.cuts.next(count)?;
        state.cuts.push(format!("write {count}, {moment:?}: {write}"));
        Some(moment)
    }

    /// By which dice the answer to a request lags behind, if it is a watch and does.
    fn lag(&self, request: &Request<Incoming>) -> Option<Dice> {
        let query = request.uri().query().unwrap_or_default();
        if !query.split('&').any(|part| matches!(part, "watch=true" | "watch=1" | "watch")) {
            return None;
        }
        let mut state = self.state();
        let seed = state.plan.late?;
        state.watches += 1;
        Some(Dice::new(seed.wrapping_mul(1_000_003).wrapping_add(state.watches)))
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        if self.state().dead {
            match pending().await {}
        }
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await?;
        let mut forwarded = Request::builder().method(parts.method).uri(parts.uri);
        if let Some(headers) = forwarded.headers_mut() {
            *headers = end_to_end(parts.headers);
        }
        let response = self.upstream.send(forwarded.body(kube::client::Body::from(body))?).await?;
        Ok(response.map(Body::new))
    }

    /// Lets nothing of the process through any more, and has it killed.
    async fn kill(&self) -> Infallible {
        self.state().dead = true;
        self.cut.notify_one();
        pending().await
    }
}

/// What is asked of a dead process's connection; it ends with it.
async fn pending() -> Infallible {
    std::future::pending().await
}

impl Cuts {
    fn next(&mut self, count: usize) -> Option<Moment> {
        match self {
            Self::At(write, moment) if *write == count => Some(*moment),
            Self::Never | Self::At(..) => None,
            Self::Often(dice, left) => {
                if *left == 0 || dice.below(ONE_OF) != 0 {
                    return None;
                }
                *left -= 1;
                Some(if dice.below(2) == 0 { Moment::Before } else { Moment::After })
            }
        }
    }
}

/// Writes that count. The lease is written by the clock, Events tell and decide nothing, and reviews are
/// questions.
fn is_write(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    !request.method().is_safe()
        && !path.starts_with("/apis/coordination.k8s.io/")
        && !path.starts_with("/apis/authentication.k8s.io/")
        && !path.starts_with("/apis/authorization.k8s.io/")
        && !path.contains("/events")
}

/// The headers that are not of one connection alone. The client that sends them on has its own credentials.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [
        header::HOST,
        header::CONNECTION,
        header::AUTHORIZATION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
    headers
}
