//! What both servers share: repositories, faults, and the record of requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::answer::Answer;
use crate::fault::{Fault, FaultKind, RateHeader};
use crate::model::{Model, Repo, Tree};
use crate::relay::{CONNECTION, Effect, Shape};
use crate::{api, cdn};

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Repositories, revisions, small files.
    Hub,
    /// Large files by signed URL.
    Cdn,
}

/// A request that one of the servers saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which server.
    pub origin: Origin,
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path, percent-decoded.
    pub path: String,
    /// The query as it was sent, without its question mark.
    pub query: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether an `Authorization` header came along; its value is kept nowhere.
    pub authorized: bool,
    /// The status of the answer, faults included. A held answer is recorded before it is sent.
    pub status: u16,
}

/// A test named a repository, revision or commit that the mock does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mock hub has no {what} `{name}`")]
pub struct UnknownName {
    what: &'static str,
    name: String,
}

impl UnknownName {
    fn new(what: &'static str, name: &str) -> Self {
        Self { what, name: name.to_owned() }
    }
}

/// A request on its way to an answer.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub raw: &'a wiremock::Request,
    pub range: Option<&'a str>,
    /// Whether signed URLs count as expired: those handed out and those that come in.
    pub expired: bool,
}

impl<'a> Call<'a> {
    /// A request header, if it is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        header(self.raw, name)
    }

    /// A parameter of the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.raw.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// A fault and how often it can still happen.
struct Armed {
    fault: Fault,
    left: Option<u32>,
    /// Dropped when the fault is cleared, which releases whoever it holds.
    release: watch::Sender<()>,
}

/// What both servers share.
pub struct State {
    repos: Mutex<BTreeMap<String, Repo>>,
    faults: Mutex<Vec<Armed>>,
    requests: Mutex<Vec<Request>>,
    /// What the relays are to do with answers on their way, by connection.
    effects: Mutex<BTreeMap<u64, Effect>>,
    page_size: Mutex<usize>,
    /// Bytes of answers that were handed to clients' connections.
    sent: AtomicU64,
    /// The CDN's origin in signed URLs, such as `http://127.0.0.1:4711`.
    pub public_cdn: String,
}

/// Entries on a page of a tree, as on the real hub.
const PAGE_SIZE: usize = 1000;

impl State {
    pub fn new(models: Vec<Model>, public_cdn: String) -> Self {
        Self {
            repos: Mutex::new(models.into_iter().map(|model| (model.repo.clone(), model.build())).collect()),
            faults: Mutex::default(),
            requests: Mutex::default(),
            effects: Mutex::default(),
            page_size: Mutex::new(PAGE_SIZE),
            sent: AtomicU64::new(0),
            public_cdn,
        }
    }

    /// Answers a request that came through a relay, and tells the relay what to do with the answer.
    pub fn answer(&self, origin: Origin, raw: &wiremock::Request) -> Answer {
        let (answer, effect) = self.faulty_answer(origin, raw);
        if let Some(connection) = header(raw, CONNECTION).and_then(|id| id.parse().ok()) {
            lock(&self.effects).insert(connection, effect);
        }
        answer
    }

    fn faulty_answer(&self, origin: Origin, raw: &wiremock::Request) -> (Answer, Effect) {
        let call = Call { raw, range: header(raw, "range"), expired: false };
        let mut request = Request {
            origin,
            method: raw.method.to_string(),
            path: percent_decode_str(raw.url.path()).decode_utf8_lossy().into_owned(),
            query: raw.url.query().unwrap_or_default().to_owned(),
            range: call.range.map(str::to_owned),
            authorized: call.header("authorization").is_some(),
            status: 0,
        };
        let mut answer = self.route(origin, &call);
        let mut effect = None;
        if let Some((kind, release)) = self.strike(&request, &answer) {
            answer = self.spoil(origin, &call, answer, &kind);
            effect = Some(Effect { shape: Shape::of(&kind), release });
        }
        request.status = answer.status;
        lock(&self.requests).push(request);
        (answer, effect.unwrap_or_else(Effect::none))
    }

    fn route(&self, origin: Origin, call: &Call) -> Answer {
        match origin {
            Origin::Hub => api::answer(self, call),
            Origin::Cdn => cdn::answer(self, call),
        }
    }

    /// Picks the fault that happens to an answer, and counts it.
    fn strike(&self, request: &Request, answer: &Answer) -> Option<(FaultKind, watch::Receiver<()>)> {
        let mut faults = lock(&self.faults);
        let armed =
            faults.iter_mut().find(|armed| armed.left != Some(0) && armed.fault.matches(request, answer))?;
        armed.left = armed.left.map(|left| left - 1);
        Some((armed.fault.kind.clone(), armed.release.subscribe()))
    }

    /// The answer that the fault makes of a good one.
    fn spoil(&self, origin: Origin, call: &Call, mut answer: Answer, kind: &FaultKind) -> Answer {
        match kind {
            FaultKind::Status(status) => Answer::error(*status, None, "This failure is made on purpose"),
            FaultKind::TooManyRequests { seconds, header } => too_many_requests(*seconds, *header),
            FaultKind::IgnoreRange => self.route(origin, &Call { range: None, ..call.clone() }),
            FaultKind::ExpiredSignature => self.route(origin, &Call { expired: true, ..call.clone() }),
            FaultKind::ShortBody => {
                answer.body.truncate(answer.body.len() / 2);
                answer
            }
            FaultKind::LongBody => {
                answer.body.extend_from_within(..);
                answer
            }
            FaultKind::WrongSizes(by) => {
                answer.body = with_wrong_sizes(&answer.body, *by);
                answer
            }
            FaultKind::FlipByte => {
                let middle = answer.body.len() / 2;
                answer.body[middle] ^= 1;
                answer
            }
            FaultKind::Delay(milliseconds) => {
                answer.delay = Duration::from_millis(*milliseconds);
                answer
            }
            FaultKind::MoveBranch { repo, branch, commit, forget } => {
                match self.move_branch(repo, branch, commit, *forget) {
                    Ok(()) => answer,
                    Err(error) => Answer::error(500, None, &error.to_string()),
                }
            }
            FaultKind::ForeignLink => {
                let endpoint = api::endpoint(call);
                for (_, value) in answer.headers.iter_mut().filter(|(name, _)| *name == "Link") {
                    *value = value.replace(&endpoint, "https://huggingface.co");
                }
                answer
            }
            FaultKind::Hold
            | FaultKind::Stall { .. }
            | FaultKind::Cut { .. }
            | FaultKind::Throttle { .. } => answer,
        }
    }

    /// What the relay is to do with the answer that begins on this connection; `None` when none has begun.
    pub fn take_effect(&self, connection: u64) -> Option<Effect> {
        lock(&self.effects).remove(&connection)
    }

    pub fn add_fault(&self, fault: Fault) {
        let left = (fault.times > 0).then_some(fault.times);
        lock(&self.faults).push(Armed { fault, left, release: watch::Sender::new(()) });
    }

    /// Removes the faults whose path contains `path`, and releases what they hold.
    pub fn clear_faults(&self, path: &str) {
        lock(&self.faults).retain(|armed| !armed.fault.path.contains(path));
    }

    /// The requests whose path contains `path`, in order.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        lock(&self.requests).iter().filter(|request| request.path.contains(path)).cloned().collect()
    }

    pub fn clear_requests(&self, path: &str) {
        lock(&self.requests).retain(|request| !request.path.contains(path));
    }

    /// Adds a repository, or puts another in its place, and returns its commits.
    pub fn add_model(&self, model: Model) -> Vec<String> {
        let name = model.repo.clone();
        let repo = model.build();
        let commits = repo.commits.clone();
        lock(&self.repos).insert(name, repo);
        commits
    }

    pub fn move_branch(
        &self,
        name: &str,
        branch: &str,
        commit: &str,
        forget: bool,
    ) -> Result<(), UnknownName> {
        let mut repos = lock(&self.repos);
        let repo = repos.get_mut(name).ok_or_else(|| UnknownName::new("repository", name))?;
        if !repo.trees.contains_key(commit) {
            return Err(UnknownName::new("commit", commit));
        }
        let old = repo.refs.insert(branch.to_owned(), commit.to_owned());
        if let Some(old) = old.filter(|old| forget && old != commit) {
            repo.trees.remove(&old);
        }
        Ok(())
    }

    pub fn set_access(&self, name: &str, access: crate::Access) -> Result<(), UnknownName> {
        let mut repos = lock(&self.repos);
        repos.get_mut(name).ok_or_else(|| UnknownName::new("repository", name))?.access = access;
        Ok(())
    }

    /// The commits that a repository ever had, oldest first.
    pub fn commits(&self, name: &str) -> Result<Vec<String>, UnknownName> {
        self.repo(name, |repo| repo.commits.clone()).ok_or_else(|| UnknownName::new("repository", name))
    }

    /// The files of a revision.
    pub fn tree(&self, name: &str, revision: &str) -> Result<Arc<Tree>, UnknownName> {
        self.repo(name, |repo| repo.at(revision).map(|(_, tree)| tree.clone()))
            .ok_or_else(|| UnknownName::new("repository", name))?
            .ok_or_else(|| UnknownName::new("revision", revision))
    }

    /// Looks at a repository, if there is one of that name.
    pub fn repo<T>(&self, name: &str, look: impl FnOnce(&Repo) -> T) -> Option<T> {
        lock(&self.repos).get(name).map(look)
    }

    pub fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of answers so far, those that a connection took down with it included.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn page_size(&self) -> usize {
        *lock(&self.page_size)
    }

    pub fn set_page_size(&self, entries: usize) {
        *lock(&self.page_size) = entries.max(1);
    }
}

/// A page of a tree whose files have other sizes.
fn with_wrong_sizes(tree: &[u8], by: i64) -> Vec<u8> {
    let mut tree: serde_json::Value = serde_json::from_slice(tree).unwrap_or_default();
    let wrong = |size: &mut serde_json::Value| {
        *size = size.as_i64().unwrap_or_default().saturating_add(by).max(0).into();
    };
    for entry in tree.as_array_mut().into_iter().flatten() {
        wrong(&mut entry["size"]);
        if entry.get("lfs").is_some() {
            wrong(&mut entry["lfs"]["size"]);
        }
    }
    tree.to_string().into_bytes()
}

fn too_many_requests(seconds: u64, header: RateHeader) -> Answer {
    let answer = Answer::error(429, None, "You have reached your rate limit")
        .with("RateLimit-Policy", "\"fixed window\";\"api\";q=500;w=300");
    match header {
        RateHeader::RateLimit => answer.with("RateLimit", format!("\"api\";r=0;t={seconds}")),
        RateHeader::RetryAfter => {
            answer.with("RateLimit", "\"api\";r=499;t=299").with("Retry-After", seconds.to_string())
        }
    }
}

fn header<'a>(raw: &'a wiremock::Request, name: &str) -> Option<&'a str> {
    raw.headers.get(name).and_then(|value| value.to_str().ok())
}

/// Locks; a panic elsewhere leaves nothing half-written here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
