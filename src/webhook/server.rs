//! HTTPS with a certificate that can be changed while requests come in.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::Router;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::error::{Doing, Error};
use crate::plan::certificates::{self, Pair};
use crate::server::{self, Limits};

/// A review holds an object, its earlier state and what is around, and the API server stores nothing above 1.5 MiB.
/// API servers ask on up to as many connections as they answer requests.
const LIMITS: Limits = Limits { connections: 256, body: 3 << 20, all_bodies: 8 << 20, answered: 4 << 20 };

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

/// Who may ask: everybody, or who has a certificate of one of the authorities in a file. The file is read again for each
/// connection, so that a mounted one can be changed.
pub struct Clients {
    identity: Arc<Identity>,
    authorities: Option<PathBuf>,
    last: Mutex<(Vec<u8>, TlsAcceptor)>,
}

impl Clients {
    /// Reads the file, where there is one.
    pub fn new(identity: Arc<Identity>, authorities: Option<PathBuf>) -> Result<Self, Error> {
        let pem = match &authorities {
            Some(path) => {
                std::fs::read(path).doing(|| format!("reading the client CA {}", path.display()))?
            }
            None => Vec::new(),
        };
        let acceptor = acceptor(identity.clone(), authorities.is_some().then_some(&pem))?;
        Ok(Self { identity, authorities, last: Mutex::new((pem, acceptor)) })
    }

    /// What agrees on the next connection. A file that cannot be read or used changes nothing.
    fn acceptor(&self) -> TlsAcceptor {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.authorities
            && let Ok(pem) = std::fs::read(path)
            && pem != last.0
        {
            match acceptor(self.identity.clone(), Some(&pem)) {
                Ok(changed) => {
                    tracing::info!(path = %path.display(), "client CA read again");
                    *last = (pem, changed);
                }
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "keeping the last good client CA");
                    last.0 = pem;
                }
            }
        }
        last.1.clone()
    }
}

fn acceptor(identity: Arc<Identity>, authorities: Option<&Vec<u8>>) -> Result<TlsAcceptor, Error> {
    let failed = |what: &str, error: &dyn fmt::Display| Error::Setup(format!("{what}: {error}"));
    let provider = certificates::provider();
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("TLS", &error))?;
    let config = match authorities {
        None => config.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate =
                    certificate.map_err(|error| failed("the client CA is no PEM file", &error))?;
                roots.add(certificate).map_err(|error| failed("the client CA", &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.map_err(|error| failed("the client CA", &error))?)
        }
    };
    Ok(TlsAcceptor::from(Arc::new(config.with_cert_resolver(identity))))
}

/// Serves until `stop`: then what is being answered is answered and no more is taken.
pub async fn serve(listener: TcpListener, clients: Clients, router: Router, stop: oneshot::Receiver<()>) {
    let (stopping, stopped) = watch::channel(false);
    let secure = |stream: TcpStream| clients.acceptor().accept(stream);
    let stops = async {
        // The sender's end means the same as its word.
        let _ = stop.await;
        stopping.send_replace(true);
    };
    futures::join!(server::serve(listener, secure, router, LIMITS, stopped), stops);
}
