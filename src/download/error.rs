//! What can go wrong in a download, in words for the person who has to put it right.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::source::SUPPORTED;
use crate::api::quantity::human;

/// The result of anything in this module.
pub type Result<T> = std::result::Result<T, Error>;

/// The advice that ends every message about access: where a token comes from.
const TOKEN_ADVICE: &str = "put a token in HF_TOKEN (in a cluster: key HF_TOKEN of the secret that the \
                            ClusterStorageContainer names)";

/// What the platform can do about an address that is refused.
const ADDRESS_ADVICE: &str = "the platform may allow it: localModelEgress.internalAddresses in ConfigMap \
                              inferenceservice-config";

/// What the platform can do where plain http is refused.
const HTTP_ADVICE: &str = "the platform may allow it: localModelEgress.plainHttp in ConfigMap \
                           inferenceservice-config";

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it and its fields are")]
pub enum Error {
    #[error("the source {uri:?} is not valid: {why}")]
    InvalidSource { uri: String, why: String },
    #[error("the source {uri:?} has a scheme that is not supported; supported are {SUPPORTED}")]
    UnsupportedScheme { uri: String },
    #[error("{name} is not valid: {why}")]
    InvalidSetting { name: &'static str, why: String },

    #[error("{}", not_found(.repository, *.token_given))]
    RepositoryNotFound { repository: String, token_given: bool },
    #[error("{repository} has no revision {revision:?}: check its name")]
    RevisionNotFound { repository: String, revision: String },
    #[error("{repository} has no file {path:?} at commit {commit}")]
    FileNotFound { repository: String, path: String, commit: String },
    #[error("{}", gated(.repository, .page, *.token_given))]
    Gated { repository: String, page: String, token_given: bool },
    #[error(
        "{repository} is private or does not exist, and no token is given: check its name, or {TOKEN_ADVICE}"
    )]
    TokenMissing { repository: String },
    #[error(
        "the hub does not accept the token given for {repository}: it is expired, revoked or mistyped; \
         {TOKEN_ADVICE}"
    )]
    TokenInvalid { repository: String },
    #[error("the token may not read {repository} ({message}): give it read access, or {TOKEN_ADVICE}")]
    Forbidden { repository: String, message: String },
    #[error("{what} answered {status}{}", .message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused { what: String, status: u16, message: Option<String> },
    #[error("{what} answered something that cannot be understood: {why}")]
    BadAnswer { what: String, why: String },
    #[error(
        "the certificate of {what} is not trusted ({why}): name the file of your certificate authority in \
         SSL_CERT_FILE"
    )]
    Certificate { what: String, why: String },
    #[error(
        "{what} is refused: {host} is {address}, which is not reachable from downloads; {ADDRESS_ADVICE}"
    )]
    AddressRefused { what: String, host: String, address: String },
    #[error("{what} is refused: plain http is not allowed for this download; use https, or {HTTP_ADVICE}")]
    PlainHttpRefused { what: String },
    #[error(
        "{what} cannot be asked through the proxy {proxy}: {why}; check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
    )]
    ProxyFailed { what: String, proxy: String, why: String },
    #[error("{what} is too slow: it sent {got} bytes in {} s", .within.as_secs_f32())]
    TooSlow { what: String, got: u64, within: Duration },
    #[error("{what}: {fault}")]
    Passing { what: String, fault: Fault },
    #[error("{last} (tried {attempts} times)")]
    GaveUp { attempts: usize, last: Box<Error> },

    #[error("{place} does not exist, or holds nothing: check its name")]
    NoObjects { place: String },
    #[error(
        "{place} refuses access ({why}): check the credentials (in a cluster: the secret or service account that \
         the cache or the ClusterStorageContainer names)"
    )]
    StoreRefused { place: String, why: String },
    #[error(
        "there are no credentials for {place}: {why}; give some (in a cluster: by the secret or service account that \
         the cache or the ClusterStorageContainer names), or set awsAnonymousCredential=true for a public bucket of S3"
    )]
    NoCredentials { place: String, why: String },
    #[error("{place} changed while it was downloaded")]
    Changed { place: String },
    #[error("{source_uri} holds no file to download: {why}")]
    NothingSelected { source_uri: String, why: String },
    #[error(
        "{source_uri} has more than the {most} bytes that this download may take: raise modelSize of the cache \
         (outside a cluster --max-bytes), or choose fewer files"
    )]
    TooLarge { source_uri: String, most: u64 },
    #[error(
        "{source_uri} has more than the {most} files that this download may take: choose fewer by \
         STORAGE_ALLOW_PATTERNS, or raise LOCALMODEL_MAX_FILES"
    )]
    TooManyFiles { source_uri: String, most: usize },
    #[error(
        "the name {name:?} from the source has {bytes} bytes and {deep} parts: at most 1024 bytes and 64 parts \
         are taken"
    )]
    PathTooDeep { name: String, bytes: usize, deep: usize },
    #[error("{path:?} is corrupt: its bytes have {found}, the source says {expected}")]
    ChecksumMismatch { path: String, expected: String, found: String },
    #[error("the archive {name:?} cannot be unpacked: {why}")]
    Archive { name: String, why: String },
    #[error(
        "the archive {name:?} is refused: it becomes more than {ratio} times as large when it is unpacked"
    )]
    Bomb { name: String, ratio: u64 },
    #[error("the name {name:?} from the source is refused: {why}")]
    UnsafeName { name: String, why: &'static str },
    #[error(
        "{path:?} of {source_uri} would be put into a folder of another source: name another folder for one of them"
    )]
    Reserved { source_uri: String, path: String },
    #[error("{} cannot be used: a symlink, a file or a folder stands in its way; remove that", .0.display())]
    InTheWay(PathBuf),
    #[error("not enough space in {}: {} needed, {} free", .dest.display(), human((*.needed).into()), human((*.free).into()))]
    NoRoom { dest: PathBuf, needed: u64, free: u64 },
    #[error("the disk of {} is full: free some space or use a larger disk", .0.display())]
    DiskFull(PathBuf),
    #[error("cannot {action} {}: {source}{}", .path.display(), owner(.source))]
    Disk { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the manifest {} is damaged: {why}", .path.display())]
    ManifestDamaged { path: PathBuf, why: String },
    #[error(
        "{} has more than {longest} bytes: no copy of a model needs that, unless its source has too many files \
         or too long names", .path.display()
    )]
    TooLong { path: PathBuf, longest: u64 },
    #[error("{} holds no copy of a model: there is no manifest", .0.display())]
    NoCopy(PathBuf),
    #[error("interrupted by {signal}; a later run fetches what is missing")]
    Interrupted { signal: &'static str },
}

/// A fault that may be gone at the next attempt.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// A status that asks to come back: 408 and 5xx, with how long it asks for.
    #[error("answered {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What `Retry-After` asked for.
        wait: Option<Duration>,
    },
    /// 429, with how long the hub asks to wait.
    #[error("too many requests: the hub limits how often this address or token may ask{}",
            .wait.map(|w| format!(", for another {} s", w.as_secs())).unwrap_or_default())]
    RateLimited {
        /// What `RateLimit` or `Retry-After` asked for.
        wait: Option<Duration>,
    },
    /// The name of the host has no address.
    #[error("the name {host} cannot be resolved: {why}")]
    NoAddress {
        /// The host.
        host: String,
        /// What the system says.
        why: String,
    },
    /// The host refuses connections.
    #[error("the connection is refused: check host and port")]
    ConnectionRefused,
    /// No connection, or one that broke.
    #[error("{0}")]
    Connection(String),
    /// No byte for so long.
    #[error("sent nothing for {} s", .0.as_secs_f32())]
    Stalled(Duration),
    /// The body ended early.
    #[error("ended after {got} of {want} bytes")]
    Truncated {
        /// Bytes of the file that arrived so far.
        got: u64,
        /// Where the body should have ended.
        want: u64,
    },
    /// The store behind a redirect refused the link: a signature has expired.
    #[error("refused its signed link ({0})")]
    LinkExpired(u16),
    /// An answer for other bytes than were asked for.
    #[error("answered the wrong bytes: {0}")]
    WrongRange(String),
}

/// The kinds of failure, as they stand in status and metrics: few, and never with a name in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Reason {
    InvalidSource,
    UnsupportedScheme,
    InvalidConfiguration,
    RepositoryNotFound,
    RevisionNotFound,
    FileNotFound,
    NotFound,
    SourceChanged,
    RepositoryGated,
    TokenMissing,
    TokenInvalid,
    AccessDenied,
    SourceRefused,
    SourceUnavailable,
    RateLimited,
    CertificateNotTrusted,
    HostNotFound,
    ConnectionRefused,
    ProxyFailed,
    AddressRefused,
    PlainHttpRefused,
    SourceTooSlow,
    NothingSelected,
    TooLarge,
    TooManyFiles,
    PathTooDeep,
    ChecksumMismatch,
    UnsafeFileName,
    DiskFull,
    DiskError,
    ManifestDamaged,
    NoCopy,
    Interrupted,
}

/// The reasons of a download that has passed one of its limits.
pub const OVER_BUDGET: [Reason; 3] = [Reason::TooLarge, Reason::TooManyFiles, Reason::PathTooDeep];

impl Error {
    /// The kind of failure.
    pub fn reason(&self) -> Reason {
        match self {
            Self::InvalidSource { .. } => Reason::InvalidSource,
            Self::UnsupportedScheme { .. } => Reason::UnsupportedScheme,
            Self::InvalidSetting { .. } => Reason::InvalidConfiguration,
            Self::RepositoryNotFound { .. } => Reason::RepositoryNotFound,
            Self::RevisionNotFound { .. } => Reason::RevisionNotFound,
            Self::FileNotFound { .. } => Reason::FileNotFound,
            Self::Gated { .. } => Reason::RepositoryGated,
            Self::TokenMissing { .. } => Reason::TokenMissing,
            Self::TokenInvalid { .. } => Reason::TokenInvalid,
            Self::Forbidden { .. } | Self::StoreRefused { .. } | Self::NoCredentials { .. } => {
                Reason::AccessDenied
            }
            Self::Refused { .. } | Self::BadAnswer { .. } | Self::Archive { .. } => Reason::SourceRefused,
            Self::Certificate { .. } => Reason::CertificateNotTrusted,
            Self::AddressRefused { .. } => Reason::AddressRefused,
            Self::PlainHttpRefused { .. } => Reason::PlainHttpRefused,
            Self::ProxyFailed { .. } => Reason::ProxyFailed,
            Self::TooSlow { .. } => Reason::SourceTooSlow,
            Self::Passing { fault: Fault::RateLimited { .. }, .. } => Reason::RateLimited,
            Self::Passing { fault: Fault::NoAddress { .. }, .. } => Reason::HostNotFound,
            Self::Passing { fault: Fault::ConnectionRefused, .. } => Reason::ConnectionRefused,
            Self::Passing { .. } => Reason::SourceUnavailable,
            Self::GaveUp { last, .. } => last.reason(),
            Self::NoObjects { .. } => Reason::NotFound,
            Self::Changed { .. } => Reason::SourceChanged,
            Self::NothingSelected { .. } => Reason::NothingSelected,
            Self::TooLarge { .. } | Self::Bomb { .. } => Reason::TooLarge,
            Self::TooManyFiles { .. } => Reason::TooManyFiles,
            Self::PathTooDeep { .. } => Reason::PathTooDeep,
            Self::ChecksumMismatch { .. } => Reason::ChecksumMismatch,
            Self::UnsafeName { .. } | Self::Reserved { .. } | Self::InTheWay(_) => Reason::UnsafeFileName,
            Self::NoRoom { .. } | Self::DiskFull(_) => Reason::DiskFull,
            Self::Disk { .. } => Reason::DiskError,
            Self::ManifestDamaged { .. } | Self::TooLong { .. } => Reason::ManifestDamaged,
            Self::NoCopy(_) => Reason::NoCopy,
            Self::Interrupted { .. } => Reason::Interrupted,
        }
    }

    /// Whether the pinned commit, a file of it, or a listed object does not exist any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::RevisionNotFound { .. } | Self::FileNotFound { .. } | Self::Changed { .. })
    }

    /// Whether the source brings more than the download may take: what came of it is erased, since no later run
    /// can use it.
    pub(crate) fn is_over_budget(&self) -> bool {
        OVER_BUDGET.contains(&self.reason())
    }

    /// An error of the disk; one that means "full" says so.
    pub(crate) fn disk(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(path.to_owned()),
            _ => Self::Disk { action, path: path.to_owned(), source },
        }
    }
}

/// Who we are, where that is the trouble.
fn owner(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        format!("; this process has uid {}", rustix::process::geteuid().as_raw())
    } else {
        String::new()
    }
}

fn not_found(repository: &str, token_given: bool) -> String {
    if token_given {
        format!(
            "{repository} does not exist, or is private and the token may not read it: check its name and \
             the token"
        )
    } else {
        format!("{repository} does not exist, or is private: check its name, or {TOKEN_ADVICE}")
    }
}

fn gated(repository: &str, page: &str, token_given: bool) -> String {
    if token_given {
        format!("{repository} is gated, and the token's account has no access: accept its licence at {page}")
    } else {
        format!(
            "{repository} is gated, and no token is given: accept its licence at {page}, then {TOKEN_ADVICE}"
        )
    }
}

/// A failure as the container's termination message carries it: one line of JSON (F1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A [`Reason`]'s name.
    pub reason: String,
    /// One line for people.
    pub message: String,
}

impl Failure {
    /// A failure in a word and one line.
    pub fn new(reason: &str, message: &str) -> Self {
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { reason: reason.to_owned(), message: shortened(message) }
    }

    /// One line for people on standard error, one for Kubernetes in the termination log.
    pub fn tell(&self, termination_log: &Path) {
        eprintln!("error: {}", self.message);
        // The kubelet makes the file; elsewhere there is none, and nobody reads it.
        let Ok(mut log) = std::fs::OpenOptions::new().write(true).truncate(true).open(termination_log) else {
            return;
        };
        let written = serde_json::to_writer(&mut log, self).map_err(io::Error::from);
        if let Err(error) = written.and_then(|()| log.write_all(b"\n")) {
            let path = termination_log.display();
            tracing::warn!(%path, %error, "the termination message cannot be written");
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::new(&format!("{:?}", error.reason()), &error.to_string())
    }
}

/// Kubernetes keeps 4096 bytes of a termination message; JSON that is cut there could not be read.
fn shortened(mut message: String) -> String {
    const MOST: usize = 1000;
    if message.len() > MOST {
        let cut = message.floor_char_boundary(MOST);
        message.truncate(cut);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests;
