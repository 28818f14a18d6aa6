//! An HTTP/1 server for clients that need not mean well: connections, their bytes and their times have bounds.
//!
//! The webhook server and the one for health checks and metrics are such servers.

mod connections;
mod watched;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::Service;

use connections::{Connection, Connections, Phase};
use watched::Watched;

/// What a connection's head and its share of a body are read into.
const BUFFER: usize = 64 << 10;
/// The pause after the system has refused a connection: there are too many open files.
const REFUSED: Duration = Duration::from_millis(100);

/// The bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// The bytes of one request's body.
    pub body: usize,
    /// The bytes of all bodies that have arrived in part.
    pub all_bodies: usize,
    /// The bytes of all bodies that are being answered: read, they take several times as much.
    pub answered: usize,
}

/// What every connection of a server needs.
struct Shared {
    router: Router,
    limits: Limits,
    answered: Semaphore,
}

/// Serves until `stop` says true, or its sender has gone: then no more connections are taken, and requests that are
/// being answered are.
pub async fn serve<S, F, T>(
    listener: TcpListener,
    secure: S,
    router: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) where
    S: Fn(TcpStream) -> F,
    F: Future<Output = io::Result<T>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let all = Connections::new(limits.connections, limits.all_bodies);
    let answered = Semaphore::new(limits.answered);
    let shared = Arc::new(Shared { router, limits, answered });
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &all) => accepted,
            () = stopped(&mut stop) => break,
        };
        while tasks.try_join_next().is_some() {}
        if let Some((stream, connection)) = accepted {
            let (shared, stop) = (shared.clone(), stop.clone());
            let secured = secure(stream);
            tasks.spawn(async move {
                let connection = Arc::new(connection);
                tokio::select! {
                    () = connection.ended() => {}
                    () = answer_all(secured, &connection, shared, stop) => {}
                }
            });
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener, all: &Arc<Connections>) -> Option<(TcpStream, Connection)> {
    match listener.accept().await {
        Ok((stream, source)) => {
            // Answers are small: nothing is gained by collecting them.
            let _ = stream.set_nodelay(true);
            Some((stream, all.admit(canonical(source)).await))
        }
        Err(error) => {
            tracing::debug!(%error, "no connection");
            tokio::time::sleep(REFUSED).await;
            None
        }
    }
}

fn canonical(source: SocketAddr) -> std::net::IpAddr {
    source.ip().to_canonical()
}

/// Waits for the end of the server. That of the sender means the same.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Answers one request after the other on a connection.
async fn answer_all<T>(
    secured: impl Future<Output = io::Result<T>>,
    connection: &Arc<Connection>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let stream = match secured.await {
        Ok(stream) => Watched::new(stream, connection.clone()),
        Err(error) => return tracing::debug!(%error, "no connection is agreed on"),
    };
    let service = service_fn(|request: Request<Incoming>| {
        let (connection, shared) = (connection.clone(), shared.clone());
        async move {
            let response = answer(request, &connection, &shared).await;
            connection.enter(Phase::Idle);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut serving = std::pin::pin!(
        http1::Builder::new().max_buf_size(BUFFER).serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        ended = &mut serving => if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        },
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            // An error is the client's end.
            let _ = serving.await;
        }
    }
}

async fn answer(request: Request<Incoming>, connection: &Connection, shared: &Shared) -> Response<Body> {
    connection.enter(Phase::Body);
    let (parts, body) = request.into_parts();
    let body = match read(Body::new(body), connection, shared.limits.body).await {
        Ok(body) => body,
        Err(status) => return refused(status),
    };
    connection.enter(Phase::Answer);
    let weight = u32::try_from(body.len().clamp(1, shared.limits.answered)).unwrap_or(u32::MAX);
    let answered = async {
        // An error means that the semaphore is closed, which it never is.
        let _permit = shared.answered.acquire_many(weight).await;
        // A router is always ready.
        shared.router.clone().call(Request::from_parts(parts, Body::from(body))).await
    };
    match answered.await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The whole body, if it is not too long.
async fn read(body: Body, connection: &Connection, most: usize) -> Result<Bytes, StatusCode> {
    // A declared length counts before a byte of it has come.
    if body.size_hint().lower() > most as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let mut stream = body.into_data_stream();
    let mut read = Vec::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| StatusCode::BAD_REQUEST)?;
        if read.len() + part.len() > most {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        connection.holds(part.len());
        read.extend_from_slice(&part);
    }
    Ok(read.into())
}

/// Refuses a request, and ends its connection: what else it sends is not read.
fn refused(status: StatusCode) -> Response<Body> {
    (status, [(header::CONNECTION, "close")]).into_response()
}
