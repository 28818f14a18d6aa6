//! What a test can make go wrong, and which request it happens to.

use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::state::{Origin, Request};

/// Something that goes wrong with requests of a path. Of several faults that match a request, the one that
/// was added first happens, alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A part of the decoded path, such as a repository, `/tree/` or `model-00001`; empty matches all.
    /// Paths of both origins hold the repository and the file.
    pub path: String,
    /// At which origin, or at both.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// What goes wrong.
    pub kind: FaultKind,
    /// How many requests it happens to; 0 means every one until faults are cleared.
    #[serde(default)]
    pub times: u32,
}

impl Fault {
    /// Happens to every request until faults are cleared.
    pub fn always(path: impl Into<String>, kind: FaultKind) -> Self {
        Self { path: path.into(), origin: None, kind, times: 0 }
    }

    /// Happens to one request.
    pub fn once(path: impl Into<String>, kind: FaultKind) -> Self {
        Self { times: 1, ..Self::always(path, kind) }
    }

    /// The same, at one origin only.
    #[must_use]
    pub fn at(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// The same, `times` times.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Whether it can happen to this answer. Faults of a body wait for an answer that carries content, so
    /// that a redirect does not use them up.
    pub(crate) fn matches(&self, request: &Request, answer: &Answer) -> bool {
        let content = request.method == "GET" && matches!(answer.status, 200 | 206);
        let longer_than = |after: u64| content && answer.body.len() as u64 > after;
        let possible = match &self.kind {
            FaultKind::IgnoreRange => answer.status == 206,
            FaultKind::ShortBody | FaultKind::LongBody | FaultKind::FlipByte => longer_than(1),
            FaultKind::WrongSizes(_) => content && request.path.contains("/tree/"),
            FaultKind::Throttle { .. } => longer_than(0),
            FaultKind::Cut { after } | FaultKind::Stall { after } => longer_than(*after),
            FaultKind::ExpiredSignature => request.origin == Origin::Cdn || answer.status == 302,
            FaultKind::ForeignLink => answer.header("Link").is_some(),
            _ => true,
        };
        possible
            && self.origin.is_none_or(|origin| origin == request.origin)
            && request.path.contains(&self.path)
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The answer is this status, with a body that says nothing.
    Status(u16),
    /// 429, and when to come back.
    TooManyRequests {
        /// After how many seconds the client may ask again.
        seconds: u64,
        /// Which header says so.
        header: RateHeader,
    },
    /// A request with `Range` is answered 200 with the whole file.
    IgnoreRange,
    /// The second half of the body is missing; `Content-Length` fits what is sent, `Content-Range` does not.
    ShortBody,
    /// The body is there twice, one behind the other, whatever `Content-Range` says.
    LongBody,
    /// A tree tells sizes that are so many bytes larger (or smaller, below zero) than the files are.
    WrongSizes(i64),
    /// One bit in the middle of the body is wrong.
    FlipByte,
    /// At the CDN: the signed URL is refused as expired. At the hub: it hands out one that has expired.
    ExpiredSignature,
    /// The answer's first byte comes this many milliseconds late.
    Delay(u64),
    /// Nothing of the answer is sent until faults are cleared.
    Hold,
    /// The body stops after this many bytes, goes on when faults are cleared; the connection stays open.
    Stall {
        /// Bytes of the body that still arrive.
        after: u64,
    },
    /// The connection is closed after this many bytes of the body.
    Cut {
        /// Bytes of the body that still arrive.
        after: u64,
    },
    /// The body trickles until faults are cleared.
    Throttle {
        /// Bytes of the body in a second, at least 20.
        bytes_per_second: u64,
    },
    /// After this answer the branch stands at another commit, as when somebody pushes between two requests.
    MoveBranch {
        /// The repository.
        repo: String,
        /// The branch, such as `main`.
        branch: String,
        /// Where it stands from now on.
        commit: String,
        /// Whether the hub forgets the commit it stood at, as after a forced push.
        #[serde(default)]
        forget: bool,
    },
    /// The next page's `Link` names the real hub's host, as from a mirror that passes the header on.
    ForeignLink,
}

/// The two ways in which the hub says how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateHeader {
    /// `RateLimit: "api";r=0;t=55`.
    RateLimit,
    /// `Retry-After: 55`, beside a `RateLimit` that is not used up and therefore not the reason.
    RetryAfter,
}
