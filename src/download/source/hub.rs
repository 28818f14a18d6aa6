//! A Hugging Face hub: which commit a revision is, which files it has, and where their bytes are.
//!
//! The tree of a commit holds size and digest of every file, so that a whole download takes one request
//! for the revision, one per page of the tree, and one resolve per file.

use std::ops::Range;

use reqwest::Url;

use super::http::{Answer, Http, plain};
use super::{Body, Link, Repository, is_commit, protocol};
use crate::download::budget::Listing;
use crate::download::error::{Error, Fault, Result};
use crate::download::plan::PlannedFile;
use crate::download::retry::{Pause, Policy, passing_status};
use crate::download::settings::Settings;

/// The most bytes of one answer of the API: a page of 1000 files has some 300 kB.
const MOST_JSON: usize = 16 << 20;
/// The most pages of one tree, so that a hub that always has a next one ends too.
const MOST_PAGES: usize = 1000;

/// A client for one model repository.
#[derive(Debug)]
pub struct Hub {
    http: Http,
    repository: Repository,
    retry: Policy,
}

/// What a request was for: the words for its errors.
#[derive(Clone, Copy, Debug)]
enum Asked<'a> {
    Revision(&'a str),
    Tree { commit: &'a str },
    File { path: &'a str, commit: &'a str },
}

/// What the hub says when it refuses.
#[derive(Debug, Default)]
struct Refusal<'a> {
    status: u16,
    /// `X-Error-Code`.
    code: &'a str,
    /// `X-Error-Message`.
    message: Option<&'a str>,
}

impl Hub {
    /// A client for `repository`.
    pub fn new(repository: Repository, settings: &Settings) -> Result<Self> {
        Ok(Self { http: Http::new(settings)?, repository, retry: settings.retry })
    }

    /// The pause that a 429 puts on all requests.
    pub fn pause(&self) -> &Pause {
        &self.http.pause
    }

    /// The repository's address.
    pub fn place(&self) -> String {
        format!("{}{}", self.http.endpoint(), self.repository)
    }

    /// The commit that the repository's revision is now.
    pub async fn commit(&self) -> Result<String> {
        let Repository { owner, model, revision } = &self.repository;
        if is_commit(revision) {
            return Ok(revision.clone());
        }
        let url = self.url(["api", "models", owner, model, "revision", revision]);
        let (answer, json) = self.ask(url, Asked::Revision(revision)).await?;
        protocol::commit(&json).map_err(|why| bad(&answer.url, &why))
    }

    /// Adds the files of a commit to the list.
    pub async fn files(&self, commit: &str, mut listing: Listing) -> Result<Listing> {
        let Repository { owner, model, .. } = &self.repository;
        let mut url = self.url(["api", "models", owner, model, "tree", commit]);
        url.set_query(Some("recursive=true"));
        for _ in 0..MOST_PAGES {
            let (answer, json) = self.ask(url, Asked::Tree { commit }).await?;
            let page = protocol::tree_page(&json).map_err(|why| bad(&answer.url, &why))?;
            for file in page {
                listing.add(file)?;
            }
            match next_page(&answer)? {
                Some(next) => url = self.page_url(&answer.url, &next)?,
                None => return Ok(listing),
            }
        }
        Err(Error::BadAnswer {
            what: self.repository.to_string(),
            why: format!("more than {MOST_PAGES} pages"),
        })
    }

    /// Asks once for a range of a file.
    pub async fn open(
        &self,
        commit: &str,
        file: &PlannedFile,
        range: &Range<u64>,
        link: &Link,
    ) -> Result<Body> {
        let Repository { owner, model, .. } = &self.repository;
        let path = file.path.split('/');
        let resolve = || self.url([owner.as_str(), model, "resolve", commit].into_iter().chain(path));
        let answer = link.through(resolve, |url| self.http.get(url, Some(range))).await?.unpacked()?;
        match answer.status() {
            200 | 206 => Body::new(answer, range, file.size),
            _ if answer.from_endpoint => Err(self.refusal(&answer, Asked::File { path: &file.path, commit })),
            status => {
                link.forget_if(&answer.url).await;
                Err(refused_by_store(&answer, status))
            }
        }
    }

    /// Asks the API, again and again while faults are passing.
    async fn ask(&self, url: Url, asked: Asked<'_>) -> Result<(Answer, Vec<u8>)> {
        let mut attempts = self.retry.begin(&self.http.pause);
        loop {
            match self.ask_once(url.clone(), asked).await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    async fn ask_once(&self, url: Url, asked: Asked<'_>) -> Result<(Answer, Vec<u8>)> {
        let mut answer = self.http.get(url, None).await?.unpacked()?;
        if answer.status() != 200 {
            return Err(self.refusal(&answer, asked));
        }
        let body = answer.bytes(MOST_JSON).await?;
        Ok((answer, body))
    }

    fn refusal(&self, answer: &Answer, asked: Asked<'_>) -> Error {
        let what = plain(&answer.url);
        let message = answer.header("x-error-message").map(|message| self.http.without_token(message));
        let refusal = Refusal {
            status: answer.status(),
            code: answer.header("x-error-code").unwrap_or_default(),
            message: message.as_deref(),
        };
        if let Some(fault) = passing_status(refusal.status, answer.response.headers()) {
            return Error::Passing { what, fault };
        }
        let page = self.url([self.repository.owner.as_str(), &self.repository.model]);
        refusal.meaning(what, &self.repository.to_string(), page.as_str(), asked, self.http.has_token())
    }

    /// An address below the endpoint; each segment is encoded, also a `/` in it.
    fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.http.endpoint().clone();
        // The endpoint is http or https, whose addresses always have a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// The address of the next page, at this endpoint: a mirror hands on the links of the hub behind it.
    fn page_url(&self, page: &Url, next: &str) -> Result<Url> {
        let next = page.join(next).map_err(|error| bad(page, &format!("its next page: {error}")))?;
        let mut url = self.http.endpoint().clone();
        // The endpoint's own path may hold `/api/` too.
        let base = url.path().trim_end_matches('/').to_owned();
        let of_endpoint = next.path().strip_prefix(&base).filter(|path| path.starts_with("/api/models/"));
        let path = of_endpoint.or_else(|| next.path().find("/api/models/").map(|at| &next.path()[at..]));
        let path = path.ok_or_else(|| bad(page, &"its next page is not of the API"))?;
        url.set_path(&format!("{base}{path}"));
        url.set_query(next.query());
        Ok(url)
    }
}

impl Refusal<'_> {
    /// What it means: the code decides, then the status.
    fn meaning(
        &self,
        what: String,
        repository: &str,
        page: &str,
        asked: Asked<'_>,
        token_given: bool,
    ) -> Error {
        let repository = repository.to_owned();
        let invalid_token = self.message.is_some_and(|message| message.starts_with("Invalid credentials"));
        match (self.code, self.status) {
            ("GatedRepo", _) => Error::Gated { repository, page: page.to_owned(), token_given },
            ("RevisionNotFound", _) => no_revision(repository, asked),
            ("EntryNotFound", _) => no_file(repository, asked),
            (_, 401) if !token_given => Error::TokenMissing { repository },
            ("RepoNotFound", _) if !invalid_token => Error::RepositoryNotFound { repository, token_given },
            (_, 401) => Error::TokenInvalid { repository },
            (_, 403) => {
                let message = self.message.unwrap_or("403 Forbidden").to_owned();
                Error::Forbidden { repository, message }
            }
            (_, 404) => match asked {
                Asked::Revision(_) => Error::RepositoryNotFound { repository, token_given },
                Asked::Tree { .. } => no_revision(repository, asked),
                Asked::File { .. } => no_file(repository, asked),
            },
            (_, status) => Error::Refused { what, status, message: self.message.map(str::to_owned) },
        }
    }
}

/// The address of the next page, in whichever of an answer's `Link` headers it is.
fn next_page(answer: &Answer) -> Result<Option<String>> {
    for header in answer.response.headers().get_all("link") {
        let header = String::from_utf8_lossy(header.as_bytes());
        if let Some(next) = protocol::next_page(&header).map_err(|why| bad(&answer.url, &why))? {
            return Ok(Some(next.to_owned()));
        }
    }
    Ok(None)
}

fn no_revision(repository: String, asked: Asked<'_>) -> Error {
    let revision = match asked {
        Asked::Revision(revision) => revision,
        Asked::Tree { commit } | Asked::File { commit, .. } => commit,
    };
    Error::RevisionNotFound { repository, revision: revision.to_owned() }
}

fn no_file(repository: String, asked: Asked<'_>) -> Error {
    match asked {
        Asked::File { path, commit } => {
            Error::FileNotFound { repository, path: path.to_owned(), commit: commit.to_owned() }
        }
        Asked::Revision(_) | Asked::Tree { .. } => no_revision(repository, asked),
    }
}

/// What it means when the store behind a redirect refuses: mostly that the signature has expired.
fn refused_by_store(answer: &Answer, status: u16) -> Error {
    let what = plain(&answer.url);
    let fault = match status {
        401 | 403 | 404 | 410 => Fault::LinkExpired(status),
        416 => Fault::WrongRange("it has fewer bytes than the hub says".to_owned()),
        _ => match passing_status(status, answer.response.headers()) {
            Some(fault) => fault,
            None => return Error::Refused { what, status, message: None },
        },
    };
    Error::Passing { what, fault }
}

fn bad(url: &Url, why: &dyn std::fmt::Display) -> Error {
    Error::BadAnswer { what: plain(url), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::error::Reason;

    fn hub(endpoint: &str) -> Hub {
        // Another test of this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let repository = Repository { owner: "o".into(), model: "m".into(), revision: "refs/pr/1".into() };
        Hub::new(repository, &Settings::new(endpoint).unwrap()).unwrap()
    }

    #[test]
    fn a_refusal_is_told_in_words_by_its_code_and_then_its_status() {
        let file = Asked::File { path: "a.bin", commit: "c1" };
        let revision = Asked::Revision("v9");
        let (not_found, gated) = (Reason::RepositoryNotFound, Reason::RepositoryGated);
        let invalid = "Invalid credentials in Authorization header";
        for (status, code, message, asked, token, reason, words) in [
            (401, "RepoNotFound", "", revision, false, Reason::TokenMissing, "private or does not exist"),
            (401, "", "", revision, false, Reason::TokenMissing, "HF_TOKEN"),
            (404, "RepoNotFound", "", revision, false, not_found, "does not exist, or is private"),
            (404, "RepoNotFound", "", revision, true, not_found, "the token may not read it"),
            (401, "RepoNotFound", "", revision, true, not_found, "the token may not read it"),
            (401, "", invalid, revision, true, Reason::TokenInvalid, "does not accept the token"),
            (401, "RepoNotFound", invalid, revision, true, Reason::TokenInvalid, "HF_TOKEN"),
            (401, "GatedRepo", "", file, false, gated, "no token is given"),
            (403, "GatedRepo", "", file, true, gated, "accept its licence at https://hub/o/m"),
            (403, "", "read scope", file, true, Reason::AccessDenied, "read scope"),
            (404, "RevisionNotFound", "", revision, true, Reason::RevisionNotFound, "no revision \"v9\""),
            (404, "EntryNotFound", "", file, true, Reason::FileNotFound, "no file \"a.bin\" at commit c1"),
            (404, "", "", file, true, Reason::FileNotFound, "a.bin"),
            (404, "", "", Asked::Tree { commit: "c1" }, true, Reason::RevisionNotFound, "c1"),
            (404, "", "", revision, true, not_found, "o/m"),
            (400, "", "bad thing", file, true, Reason::SourceRefused, "answered 400: bad thing"),
        ] {
            let message = Some(message).filter(|message| !message.is_empty());
            let refusal = Refusal { status, code, message };
            let error = refusal.meaning("https://hub/x".into(), "o/m", "https://hub/o/m", asked, token);
            assert_eq!(error.reason(), reason, "{refusal:?}");
            let text = error.to_string();
            assert!(
                text.contains(words) && text.contains(if status == 400 { "hub" } else { "o/m" }),
                "{text}"
            );
        }
    }

    #[test]
    fn a_page_of_the_hub_behind_a_mirror_is_asked_of_the_mirror() {
        let mirror = hub("https://mirror/hf/");
        let page = mirror.url(["api", "models", "o", "m", "tree", "c1"]);
        for next in
            ["https://huggingface.co/api/models/o/m/tree/c1?cursor=2", "/api/models/o/m/tree/c1?cursor=2"]
        {
            let next = mirror.page_url(&page, next).unwrap();
            assert_eq!(next.as_str(), "https://mirror/hf/api/models/o/m/tree/c1?cursor=2");
        }
        assert!(mirror.page_url(&page, "https://elsewhere/x").is_err());
        // A path of its own that looks like the API's.
        let base = "https://mirror/artifactory/api/models/hf";
        let mirror = hub(base);
        let path = "/api/models/o/m/tree/c1?cursor=2";
        for next in [
            format!("{base}{path}"),
            format!("/artifactory/api/models/hf{path}"),
            format!("https://huggingface.co{path}"),
            "?cursor=2".to_owned(),
        ] {
            let page = mirror.url(["api", "models", "o", "m", "tree", "c1"]);
            assert_eq!(mirror.page_url(&page, &next).unwrap().as_str(), format!("{base}{path}"), "{next}");
        }
    }

    #[test]
    fn names_are_encoded_in_addresses() {
        let hub = hub("https://hub");
        let url = hub.url(["o", "m", "refs/pr/1", "100% ?#ü.bin"]);
        assert_eq!(url.as_str(), "https://hub/o/m/refs%2Fpr%2F1/100%25%20%3F%23%C3%BC.bin");
    }
}
