//! The control port: a test in another process adds models and faults, and asks what was requested.
//!
//! [`serve`] answers it, [`Control`] asks it; both sides stand here so that they cannot disagree.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use reqwest::{Client, Method, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::fault::Fault;
use crate::model::{Access, Model};
use crate::server::Hub;
use crate::state::{Request, UnknownName};

/// A generated model to add.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelSpec {
    /// `owner/name`; an existing repository of that name is replaced.
    pub repo: String,
    /// Bytes of all shards together.
    pub size: usize,
    /// The number of shards.
    pub shards: usize,
    /// Who may read it.
    #[serde(default)]
    pub access: Access,
    /// The number of commits, each with other weights; `main` stands at the last.
    #[serde(default = "one")]
    pub commits: usize,
}

fn one() -> usize {
    1
}

impl ModelSpec {
    /// A public model of one commit.
    pub fn new(repo: impl Into<String>, size: usize, shards: usize) -> Self {
        Self { repo: repo.into(), size, shards, access: Access::Public, commits: 1 }
    }

    fn model(self) -> Model {
        let model = Model::llama(self.repo).size(self.size).shards(self.shards).access(self.access);
        (1..self.commits).fold(model, |model, _| model.retrain())
    }
}

/// Where a branch is to stand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BranchMove {
    pub(crate) repo: String,
    pub(crate) branch: String,
    pub(crate) commit: String,
    /// Whether the commit it stood at is forgotten, as after a forced push.
    #[serde(default)]
    pub(crate) forget: bool,
}

/// Whom a question or a removal is about: paths that contain this, or all.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    path: String,
}

#[derive(Deserialize)]
struct Revision {
    repo: String,
    revision: String,
}

type Answer<T> = Result<Json<T>, (StatusCode, String)>;

fn answer<T>(result: Result<T, UnknownName>) -> Answer<T> {
    result.map(Json).map_err(|error| (StatusCode::NOT_FOUND, error.to_string()))
}

/// Answers the control port for ever.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, hub: Arc<Hub>) -> io::Result<()> {
    let faults = post(async |hub: State<Arc<Hub>>, fault: Json<Fault>| hub.fault(fault.0))
        .delete(async |hub: State<Arc<Hub>>, about: Query<About>| hub.clear_faults_of(&about.path));
    let requests = get(async |hub: State<Arc<Hub>>, about: Query<About>| Json(hub.requests_of(&about.path)))
        .delete(async |hub: State<Arc<Hub>>, about: Query<About>| hub.clear_requests_of(&about.path));
    let files = get(async |hub: State<Arc<Hub>>, asked: Query<Revision>| {
        answer(hub.digests(&asked.repo, &asked.revision))
    });
    let branches = post(async |hub: State<Arc<Hub>>, to: Json<BranchMove>| answer(hub.try_move_branch(&to)));
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/models", post(add_model))
        .route("/branches", branches)
        .route("/files", files)
        .route("/faults", faults)
        .route("/requests", requests)
        .with_state(hub);
    axum::serve(listener, router).await
}

/// Generates a model beside the other requests: a big one takes a while.
async fn add_model(
    hub: State<Arc<Hub>>,
    spec: Json<ModelSpec>,
) -> Result<Json<Vec<String>>, (StatusCode, String)> {
    let added = tokio::task::spawn_blocking(move || hub.add(spec.0.model())).await;
    added.map(Json).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Why the control port did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The URL that it was given is none.
    #[error("the control port's address `{0}` is not a URL; write it like http://127.0.0.1:8082")]
    Address(String),
    /// It cannot be reached, or speaks something else.
    #[error("the mock hub's control port does not answer: {0}")]
    Unreachable(#[from] reqwest::Error),
    /// It understood and refused.
    #[error("the mock hub's control port refuses {what}: {status}: {why}")]
    Refused {
        /// The request, such as `POST /branches`.
        what: String,
        /// Its answer's status.
        status: u16,
        /// Its answer's text.
        why: String,
    },
}

/// A client of the control port.
#[derive(Clone, Debug)]
pub struct Control {
    url: Url,
    client: Client,
}

impl Control {
    /// A client for a control port such as `http://127.0.0.1:8082`. Makes ring the process's TLS provider
    /// where none is set, because reqwest insists on one.
    ///
    /// # Errors
    /// When `url` is no URL.
    pub fn new(url: &str) -> Result<Self, ControlError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = Url::parse(url).map_err(|_| ControlError::Address(url.to_owned()))?;
        Ok(Self { url, client: Client::builder().no_proxy().build()? })
    }

    /// Whether the hub is up.
    pub async fn healthy(&self) -> bool {
        self.send(Method::GET, "/healthz", &[], None::<&()>).await.is_ok()
    }

    /// Adds a model, or puts another in its place, and returns its commits, oldest first.
    pub async fn add_model(&self, spec: &ModelSpec) -> Result<Vec<String>, ControlError> {
        self.json(Method::POST, "/models", &[], Some(spec)).await
    }

    /// Puts a branch at a commit.
    pub async fn move_branch(&self, repo: &str, branch: &str, commit: &str) -> Result<(), ControlError> {
        self.branch(repo, branch, commit, false).await
    }

    /// Puts a branch at a commit, after which nobody finds the commit that it stood at.
    pub async fn force_push(&self, repo: &str, branch: &str, commit: &str) -> Result<(), ControlError> {
        self.branch(repo, branch, commit, true).await
    }

    async fn branch(&self, repo: &str, branch: &str, commit: &str, forget: bool) -> Result<(), ControlError> {
        let [repo, branch, commit] = [repo, branch, commit].map(str::to_owned);
        self.json(Method::POST, "/branches", &[], Some(&BranchMove { repo, branch, commit, forget })).await
    }

    /// The SHA-256 of each file of a branch, tag or commit, by path.
    pub async fn files(&self, repo: &str, revision: &str) -> Result<BTreeMap<String, String>, ControlError> {
        self.json(Method::GET, "/files", &[("repo", repo), ("revision", revision)], None::<&()>).await
    }

    /// Adds a fault.
    pub async fn fault(&self, fault: &Fault) -> Result<(), ControlError> {
        self.send(Method::POST, "/faults", &[], Some(fault)).await.map(drop)
    }

    /// Removes the faults whose path contains `path` (all, if empty), and lets go what they hold.
    pub async fn clear_faults(&self, path: &str) -> Result<(), ControlError> {
        self.send(Method::DELETE, "/faults", &[("path", path)], None::<&()>).await.map(drop)
    }

    /// What hub and CDN were asked with a path that contains `path` (all, if empty), in order.
    pub async fn requests(&self, path: &str) -> Result<Vec<Request>, ControlError> {
        self.json(Method::GET, "/requests", &[("path", path)], None::<&()>).await
    }

    /// Forgets the requests whose path contains `path` (all, if empty).
    pub async fn clear_requests(&self, path: &str) -> Result<(), ControlError> {
        self.send(Method::DELETE, "/requests", &[("path", path)], None::<&()>).await.map(drop)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<T, ControlError> {
        Ok(self.send(method, path, query, body).await?.json().await?)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<reqwest::Response, ControlError> {
        let what = format!("{method} {path}");
        let mut url = self.url.clone();
        url.set_path(path);
        url.query_pairs_mut().extend_pairs(query);
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        Err(ControlError::Refused { what, status, why: answer.text().await? })
    }
}
