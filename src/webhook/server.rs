//! HTTPS with a certificate that can be changed while requests come in.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::{Doing, Error};
use crate::plan::certificates::{self, Pair};

/// How long a client may take to agree on a connection.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that are agreed on and wait to be served.
const BACKLOG: usize = 64;

/// The certificate that is served now. Connections that are open keep theirs.
#[derive(Default)]
pub struct Identity(RwLock<Option<(Pair, Arc<CertifiedKey>)>>);

impl Identity {
    /// Serves this certificate from now on.
    pub fn set(&self, pair: Pair) -> Result<(), certificates::Reason> {
        let key = Arc::new(certificates::identity(&pair)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((pair, key));
        Ok(())
    }

    /// The certificate that is served.
    pub fn served(&self) -> Option<Pair> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(pair, _)| pair.clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.served()).finish()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, key)| key.clone())
    }
}

/// Serves until `stop`: then what is under way is answered and no more is taken.
pub async fn serve(
    listener: TcpListener,
    identity: Arc<Identity>,
    router: Router,
    stop: oneshot::Receiver<()>,
) -> Result<(), Error> {
    let config = ServerConfig::builder_with_provider(certificates::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setup(format!("TLS: {error}")))?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    let listener =
        TlsListener::start(listener, Arc::new(config)).doing(|| "listening for webhooks".into())?;
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            // The sender's end means the same as its word.
            let _ = stop.await;
        })
        .await
        .doing(|| "serving webhooks".into())
}

/// A listener of connections that are encrypted already. One client that is slow to agree holds up nobody
/// else.
struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl TlsListener {
    fn start(mut listener: TcpListener, config: Arc<ServerConfig>) -> io::Result<Self> {
        let acceptor = TlsAcceptor::from(config);
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(BACKLOG);
        let task = tokio::spawn(async move {
            loop {
                let (stream, address) = Listener::accept(&mut listener).await;
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                // Answers are small: nothing is gained by collecting them.
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        // An error means that the server has stopped.
                        Ok(Ok(stream)) => drop(sender.send((stream, address)).await),
                        Ok(Err(error)) => tracing::debug!(%address, %error, "no TLS connection"),
                        Err(_) => tracing::debug!(%address, "no TLS connection in time"),
                    }
                });
            }
        });
        Ok(Self { ready, address, task })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await, // the task that accepts ends with this value alone
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
