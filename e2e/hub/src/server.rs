//! The two servers, running.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer};

use crate::control::BranchMove;
use crate::fault::Fault;
use crate::model::{Access, Model};
use crate::relay;
use crate::state::{Origin, Request, State, UnknownName};

/// Where the servers listen, and how clients reach the CDN.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The hub's address; port 0 takes a free one.
    pub hub: SocketAddr,
    /// The CDN's address; port 0 takes a free one.
    pub cdn: SocketAddr,
    /// The CDN's origin in signed URLs, such as `http://hub:8081`, if clients need another than its address.
    pub public_cdn: Option<String>,
}

impl Default for Addresses {
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { hub: loopback, cdn: loopback, public_cdn: None }
    }
}

/// A running mock of the hub and its CDN; both end when it is dropped.
pub struct Hub {
    state: Arc<State>,
    endpoint: String,
    _servers: [MockServer; 2],
    /// A thread of its own, so that a test may block its own. `None` only while it is dropped.
    relays: Option<Runtime>,
}

impl Hub {
    /// Starts both servers on free ports of 127.0.0.1.
    ///
    /// # Panics
    /// When the machine gives no port or thread.
    pub async fn start(models: Vec<Model>) -> Self {
        match Self::listen(Addresses::default(), models).await {
            Ok(hub) => hub,
            Err(error) => panic!("the mock hub cannot listen on 127.0.0.1: {error}"),
        }
    }

    /// Starts both servers where `addresses` says.
    ///
    /// # Errors
    /// When an address is taken, or the machine gives no thread.
    pub async fn listen(addresses: Addresses, models: Vec<Model>) -> io::Result<Self> {
        let hub = TcpListener::bind(addresses.hub).await?;
        let cdn = TcpListener::bind(addresses.cdn).await?;
        let public_cdn = match addresses.public_cdn {
            Some(origin) => origin.trim_end_matches('/').to_owned(),
            None => format!("http://{}", cdn.local_addr()?),
        };
        let state = Arc::new(State::new(models, public_cdn));
        let endpoint = format!("http://{}", hub.local_addr()?);
        let relays = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let servers = [start(Origin::Hub, &state).await, start(Origin::Cdn, &state).await];
        for (listener, server) in [hub, cdn].into_iter().zip(&servers) {
            // The listener belongs to this runtime; the relay's has to adopt it.
            let listener = listener.into_std()?;
            let (address, state) = (*server.address(), state.clone());
            relays.spawn(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => relay::run(listener, address, state).await,
                    Err(error) => eprintln!("the mock hub cannot listen: {error}"),
                }
            });
        }
        Ok(Self { state, endpoint, _servers: servers, relays: Some(relays) })
    }

    /// The hub's origin, such as `http://127.0.0.1:4711`, for `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// The CDN's origin, as it stands in signed URLs.
    pub fn cdn(&self) -> String {
        self.state.public_cdn.clone()
    }

    /// Adds a fault; several are tried in the order in which they were added.
    pub fn fault(&self, fault: Fault) {
        self.state.add_fault(fault);
    }

    /// Removes all faults, and lets go what they hold.
    pub fn clear_faults(&self) {
        self.clear_faults_of("");
    }

    /// Removes the faults whose path contains `path`, such as a repository's, and lets go what they hold.
    pub fn clear_faults_of(&self, path: &str) {
        self.state.clear_faults(path);
    }

    /// What both servers were asked, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.requests_of("")
    }

    /// What both servers were asked with a path that contains `path`, in order.
    pub fn requests_of(&self, path: &str) -> Vec<Request> {
        self.state.requests(path)
    }

    /// Forgets all requests.
    pub fn clear_requests(&self) {
        self.clear_requests_of("");
    }

    /// Forgets the requests whose path contains `path`.
    pub fn clear_requests_of(&self, path: &str) {
        self.state.clear_requests(path);
    }

    /// Adds a repository, or puts another in its place, and returns its commits, oldest first.
    pub fn add(&self, model: Model) -> Vec<String> {
        self.state.add_model(model)
    }

    /// Puts a branch at a commit, or makes it.
    ///
    /// # Panics
    /// When there is no such repository or commit.
    #[track_caller]
    pub fn move_branch(&self, repo: &str, branch: &str, commit: &str) {
        known(self.state.move_branch(repo, branch, commit, false));
    }

    /// Puts a branch at a commit, after which nobody finds the commit that it stood at.
    ///
    /// # Panics
    /// When there is no such repository or commit.
    #[track_caller]
    pub fn force_push(&self, repo: &str, branch: &str, commit: &str) {
        known(self.state.move_branch(repo, branch, commit, true));
    }

    /// Changes who may read a repository.
    ///
    /// # Panics
    /// When there is no such repository.
    #[track_caller]
    pub fn set_access(&self, repo: &str, access: Access) {
        known(self.state.set_access(repo, access));
    }

    /// The commits that a repository ever had, oldest first.
    ///
    /// # Panics
    /// When there is no such repository.
    #[track_caller]
    pub fn commits(&self, repo: &str) -> Vec<String> {
        known(self.state.commits(repo))
    }

    /// The files of a branch, tag or commit: what a perfect download holds.
    ///
    /// # Panics
    /// When there is no such repository or revision.
    #[track_caller]
    pub fn files(&self, repo: &str, revision: &str) -> BTreeMap<String, Vec<u8>> {
        let tree = known(self.state.tree(repo, revision));
        tree.iter().map(|(path, blob)| (path.clone(), blob.bytes.to_vec())).collect()
    }

    /// As [`Self::move_branch`] or [`Self::force_push`], for names that come from outside.
    pub(crate) fn try_move_branch(&self, to: &BranchMove) -> Result<(), UnknownName> {
        self.state.move_branch(&to.repo, &to.branch, &to.commit, to.forget)
    }

    /// The SHA-256 of each file of a revision, by path.
    pub(crate) fn digests(
        &self,
        repo: &str,
        revision: &str,
    ) -> Result<BTreeMap<String, String>, UnknownName> {
        let tree = self.state.tree(repo, revision)?;
        Ok(tree.iter().map(|(path, blob)| (path.clone(), blob.sha256())).collect())
    }

    /// Bytes that both servers have sent so far, in answers of any kind.
    pub fn sent(&self) -> u64 {
        self.state.sent()
    }

    /// Entries on a page of a tree; 1000 unless told otherwise.
    pub fn set_page_size(&self, entries: usize) {
        self.state.set_page_size(entries);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(relays) = self.relays.take() {
            relays.shutdown_background();
        }
    }
}

async fn start(origin: Origin, state: &Arc<State>) -> MockServer {
    let server = MockServer::builder().disable_request_recording().start().await;
    let state = state.clone();
    let respond = move |request: &wiremock::Request| state.answer(origin, request).into_template();
    Mock::given(any()).respond_with(respond).mount(&server).await;
    server
}

#[track_caller]
fn known<T>(result: Result<T, UnknownName>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
