//! What is behind an error of an HTTP client: the few causes that somebody can do something about.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use crate::download::error::{Error, Fault};

/// What our own parts of a client stopped a request with; it travels inside the client's error.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Barrier {
    /// The name of the host has no address.
    #[error("the name {host} cannot be resolved: {why}")]
    NoAddress {
        /// The host.
        host: String,
        /// What the system says.
        why: String,
    },
    /// The host is, or has only, internal addresses.
    #[error("{host} is {address}, which is internal")]
    Address {
        /// The host.
        host: String,
        /// Its first address.
        address: String,
    },
    /// An address without TLS.
    #[error("plain http is not allowed")]
    PlainHttp,
    /// No answer, or no byte of it, for so long.
    #[error("sent nothing for {} s", .0.as_secs_f32())]
    Stalled(Duration),
    /// The answer came too slowly.
    #[error("sent only {got} bytes in {} s", .within.as_secs_f32())]
    TooSlow {
        /// The bytes that came.
        got: u64,
        /// In this time.
        within: Duration,
    },
    /// The answer has too many bytes.
    #[error("answered more than {0} bytes")]
    TooLong(usize),
}

impl Barrier {
    /// The error that it is for the request that `what` names.
    pub(super) fn into_error(self, what: String) -> Error {
        match self {
            Self::NoAddress { host, why } => Error::Passing { what, fault: Fault::NoAddress { host, why } },
            Self::Address { host, address } => Error::AddressRefused { what, host, address },
            Self::PlainHttp => Error::PlainHttpRefused { what },
            Self::Stalled(stall) => Error::Passing { what, fault: Fault::Stalled(stall) },
            Self::TooSlow { got, within } => Error::TooSlow { what, got, within },
            Self::TooLong(limit) => Error::BadAnswer { what, why: format!("more than {limit} bytes") },
        }
    }
}

/// The error behind an error of a client, which must not hold an address: that may be signed. Where the request
/// went through a proxy, no connection means no connection to that.
pub(super) fn error_of(what: String, error: &(dyn StdError + 'static), proxy: Option<&str>) -> Error {
    let text = words(error);
    if let Some(barrier) = find::<Barrier>(error) {
        return match (barrier.clone(), proxy) {
            (Barrier::NoAddress { host, why }, Some(proxy)) => {
                let why = format!("the name {host} cannot be resolved: {why}");
                Error::ProxyFailed { what, proxy: proxy.to_owned(), why }
            }
            (barrier, _) => barrier.into_error(what),
        };
    }
    if let Some(rustls::Error::InvalidCertificate(problem)) = find::<rustls::Error>(error) {
        return Error::Certificate { what, why: problem.to_string() };
    }
    let Some(proxy) = proxy else {
        let refused = find_io(error, io::ErrorKind::ConnectionRefused);
        let fault = if refused { Fault::ConnectionRefused } else { Fault::Connection(text) };
        return Error::Passing { what, fault };
    };
    match proxy_failure(error, &text) {
        Some(why) => Error::ProxyFailed { what, proxy: proxy.to_owned(), why: why.to_owned() },
        None => Error::Passing { what, fault: Fault::Connection(text) },
    }
}

/// Why a proxy is of no use. The client's error for a tunnel that is refused is not public, but for its words.
fn proxy_failure(error: &(dyn StdError + 'static), text: &str) -> Option<&'static str> {
    if find_io(error, io::ErrorKind::ConnectionRefused) {
        Some("it refuses the connection")
    } else if text.contains("tunnel error: proxy authorization required") {
        Some("it asks for a user and a password")
    } else if text.contains("tunnel error: unsuccessful") {
        Some("it refuses to connect to this host")
    } else {
        None
    }
}

/// The first error of this type in the chain of causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

fn find_io(error: &(dyn StdError + 'static), kind: io::ErrorKind) -> bool {
    chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| cause.kind() == kind)
}

/// An error and its causes. An I/O error hides what it wraps from `source`.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&current| {
        let wrapped = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|inner| inner as &(dyn StdError + 'static)).or_else(move || current.source())
    })
}

/// The chain of causes in one line.
pub(super) fn words(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in chain(error).map(ToString::to_string) {
        // Many an error repeats its cause.
        if !text.ends_with(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}
