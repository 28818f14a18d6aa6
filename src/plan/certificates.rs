//! The webhook server's certificate: whether the one in the Secret will do, and when a new one may be
//! served (O5).
//!
//! A certificate and the authority that signed it are made together, and the authority's key is thrown
//! away: nothing can ever be signed with it again. The API server trusts the authorities in the `caBundle`
//! of the webhook configurations, so that a change of certificate goes in this order: the new one stands in
//! the Secret; the bundles have both authorities; some time later, when every API server has seen that, the
//! server changes over; the old authority leaves the bundles, a while later, because other operators change over by
//! clocks of their own. No request is refused on the way.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};

use super::names::WEBHOOK_SERVICE;

/// For how many days a certificate is made.
pub const DAYS: i64 = 365;
/// A certificate is renewed when two thirds of its time are over.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(24 * DAYS / 3);

/// The Secret's key of the authority's certificate; the other two are those of every TLS Secret.
pub const CA: &str = "ca.crt";
/// The Secret's key of the server's certificate.
pub const CERTIFICATE: &str = "tls.crt";
/// The Secret's key of the server's private key.
pub const KEY: &str = "tls.key";

/// A certificate, its key and its authority, all as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The authority's certificate.
    pub ca: String,
    /// The server's certificate.
    pub certificate: String,
    /// The server's private key.
    pub key: String,
}

/// The key is for nobody's eyes.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why a new certificate is made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Reason {
    /// There is no Secret.
    #[error("there is none")]
    Missing,
    /// The Secret lacks a key, or what it holds cannot be read.
    #[error("{0} is missing or cannot be read")]
    Unreadable(&'static str),
    /// The key is not the certificate's.
    #[error("its key is not that of its certificate: {0}")]
    OtherKey(rustls::Error),
    /// Another authority signed it, it is for another name, or its time is over.
    #[error("an API server would not trust it: {0}")]
    NotTrusted(rustls::Error),
    /// Its time is over soon.
    #[error("two thirds of its time are over")]
    Ending,
}

/// The names under which the API server, and others in the cluster, reach the server. The first one is the
/// API server's.
pub fn server_names(namespace: &str) -> [String; 2] {
    let name = format!("{WEBHOOK_SERVICE}.{namespace}.svc");
    [name.clone(), format!("{name}.cluster.local")]
}

/// The certificate in the Secret, or why it will not do.
pub fn stored(secret: Option<&Secret>, namespace: &str, now: Timestamp) -> Result<Pair, Reason> {
    let secret = secret.ok_or(Reason::Missing)?;
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let text = bytes.and_then(|ByteString(bytes)| String::from_utf8(bytes.clone()).ok());
        text.ok_or(Reason::Unreadable(key))
    };
    let pair = Pair { ca: text(CA)?, certificate: text(CERTIFICATE)?, key: text(KEY)? };
    usable(&pair, namespace, now)?;
    match usable(&pair, namespace, now + RENEW_BEFORE) {
        Err(_) => Err(Reason::Ending),
        Ok(()) => Ok(pair),
    }
}

/// Whether a client that trusts the authority would accept the certificate at this time.
fn usable(pair: &Pair, namespace: &str, now: Timestamp) -> Result<(), Reason> {
    let identity = identity(pair)?;
    let provider = provider();
    let ca = CertificateDer::from_pem_slice(pair.ca.as_bytes()).map_err(|_| Reason::Unreadable(CA))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(|_| Reason::Unreadable(CA))?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|_| Reason::Unreadable(CA))?;
    let time = UnixTime::since_unix_epoch(now.as_duration().try_into().unwrap_or_default());
    let verify = |certificate: &CertificateDer<'_>, name: String| {
        let Ok(name) = ServerName::try_from(name) else {
            return Err(CertificateError::NotValidForName.into());
        };
        verifier.verify_server_cert(certificate, &[], &name, &[], time).map(drop)
    };
    let leaf = identity.end_entity_cert().map_err(|_| Reason::Unreadable(CERTIFICATE))?;
    for name in server_names(namespace) {
        verify(leaf, name.clone()).map_err(Reason::NotTrusted)?;
        // An authority is no server's certificate, which is said only once its own time is found to be right.
        if let Err(error) = verify(&ca, name)
            && is_out_of_time(&error)
        {
            return Err(Reason::NotTrusted(error));
        }
    }
    Ok(())
}

fn is_out_of_time(error: &rustls::Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
        )
    )
}

/// The certificate and key as the TLS library serves them.
pub fn identity(pair: &Pair) -> Result<CertifiedKey, Reason> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(Reason::Unreadable(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|_| Reason::Unreadable(KEY))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(Reason::OtherKey)
}

/// The one TLS provider of this project.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What is to be done so that the stored certificate is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is served already.
    Done,
    /// Serve it now.
    Serve,
    /// The bundles lack its authority still.
    Trust,
    /// Serve it then.
    At(Timestamp),
}

/// The next step from the served certificate to the stored one. `trusted_since` says since when every
/// bundle has the stored one's authority; `settle` how long an API server may take to see a bundle.
pub fn change(
    stored: &Pair,
    served: Option<&Pair>,
    namespace: &str,
    trusted_since: Option<Timestamp>,
    settle: SignedDuration,
    now: Timestamp,
) -> Change {
    match served {
        Some(served) if served == stored => Change::Done,
        // Nobody's request could be answered so far: there is nothing to wait for.
        None => Change::Serve,
        Some(served) if usable(served, namespace, now).is_err() => Change::Serve,
        Some(_) => match trusted_since.map(|since| since + settle) {
            None => Change::Trust,
            Some(at) if at <= now => Change::Serve,
            Some(at) => Change::At(at),
        },
    }
}

/// The authorities that API servers have to trust: that of the stored certificate, and others that are still in use.
pub fn bundle<'a>(stored: &str, others: impl IntoIterator<Item = &'a String>) -> String {
    let mut all = vec![stored];
    for other in others {
        if !all.contains(&other.as_str()) {
            all.push(other);
        }
    }
    all.concat()
}

#[cfg(test)]
mod tests;
