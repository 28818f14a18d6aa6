//! HTTP as the sources use it: redirects followed by hand, the token only for the endpoint's own origin,
//! nothing that hangs for ever, and no query (which may hold a signature) in any message.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, LOCATION, RANGE};
use reqwest::{Request, Response, Url};
use tokio::time::timeout;

use super::cause::Barrier;
use super::client::{Client, Rights};
use super::unzip::Unzip;
use crate::download::error::{Error, Fault, Result};
use crate::download::limits::{Limits, Pace};
use crate::download::retry::Pause;
use crate::download::settings::Settings;

const MOST_REDIRECTS: usize = 10;

/// A client of one endpoint and of the stores that it redirects to.
#[derive(Debug)]
pub struct Http {
    client: Arc<Client>,
    endpoint: Url,
    /// Sent to the endpoint's own origin only: the token is among them.
    headers: HeaderMap,
    limits: Limits,
    /// The pause that a 429 puts on all requests.
    pub pause: Pause,
}

/// The answer at the end of a chain of redirects.
pub struct Answer {
    /// Where it came from.
    pub url: Url,
    /// Whether that is the endpoint itself, and not a store that it redirected to.
    pub from_endpoint: bool,
    /// Status, headers, and a body not yet read.
    pub response: Response,
    client: Arc<Client>,
    limits: Limits,
    pace: Pace,
    /// Where the body is packed and has to be unpacked.
    unzip: Option<Unzip>,
}

impl Http {
    /// A client of the hub, with its token.
    pub fn new(settings: &Settings) -> Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &settings.token {
            headers.insert(AUTHORIZATION, token.header()?);
        }
        // No cache can name the hub: whoever runs the downloader has.
        Self::with(settings, settings.endpoint.clone(), headers, true)
    }

    /// A client of the endpoint's origin, which alone gets these headers.
    pub fn with(settings: &Settings, endpoint: Url, headers: HeaderMap, plain_http: bool) -> Result<Self> {
        let rights = Rights { plain_http, identity: false };
        let client = Arc::new(Client::new(settings, &settings.trust, rights)?);
        Ok(Self { client, endpoint, headers, limits: settings.limits, pause: Pause::default() })
    }

    /// The endpoint's address.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Whether requests to the endpoint carry a token.
    pub fn has_token(&self) -> bool {
        self.headers.contains_key(AUTHORIZATION)
    }

    /// A text of somebody else's as it may be told: a proxy or a mirror may repeat the token that it refuses.
    pub fn without_token(&self, text: &str) -> String {
        let values = self.headers.values().filter_map(|value| value.to_str().ok());
        let secrets = values.map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
        secrets
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
    }

    /// Sends GET for `range` (or all) of `url` and follows redirects; any other status is an answer.
    pub async fn get(&self, url: Url, range: Option<&Range<u64>>) -> Result<Answer> {
        self.pause.over().await;
        let mut url = url;
        // A chain that has once left the endpoint gets no token any more, even if it comes back.
        let mut from_endpoint = true;
        for _ in 0..=MOST_REDIRECTS {
            from_endpoint &= url.origin() == self.endpoint.origin();
            let response = self.send(&url, range, from_endpoint).await?;
            match redirect_of(&url, &response)? {
                Some(next) => url = next,
                None => return Ok(self.answer(url, from_endpoint, response)),
            }
        }
        Err(Error::BadAnswer { what: plain(&url), why: format!("more than {MOST_REDIRECTS} redirects") })
    }

    /// Sends a request that is complete in itself; a redirect is an answer like any other.
    pub async fn send_as_it_is(&self, request: Request) -> Result<Answer> {
        self.pause.over().await;
        let url = request.url().clone();
        let sent = self.client.for_url(&url)?.execute(request);
        let sent = async { sent.await.map_err(reqwest::Error::without_url) };
        let response = self.client.answer(&url, sent, Response::status).await?;
        Ok(self.answer(url, true, response))
    }

    fn answer(&self, url: Url, from_endpoint: bool, response: Response) -> Answer {
        let (client, limits) = (Arc::clone(&self.client), self.limits);
        Answer { url, from_endpoint, response, client, limits, pace: Pace::new(&limits), unzip: None }
    }

    async fn send(&self, url: &Url, range: Option<&Range<u64>>, with_token: bool) -> Result<Response> {
        let mut request = self.client.for_url(url)?.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        if with_token {
            request = request.headers(self.headers.clone());
        }
        let sent = async { request.send().await.map_err(reqwest::Error::without_url) };
        self.client.answer(url, sent, Response::status).await
    }
}

impl Answer {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The same, to be read unpacked if it came packed though nobody asked for that. An answer for a part of a
    /// packed file is of no use.
    pub fn unpacked(mut self) -> Result<Self> {
        let encoding = self.header("content-encoding").unwrap_or("identity").to_ascii_lowercase();
        match (encoding.as_str(), self.status()) {
            ("identity" | "", _) | (_, 300..) => {}
            ("gzip" | "x-gzip", 200) => self.unzip = Some(Unzip::new()),
            (encoding, _) => {
                let why = format!("its body is encoded by {encoding:?}, which nobody asked for");
                return Err(Error::BadAnswer { what: plain(&self.url), why });
            }
        }
        Ok(self)
    }

    /// The length of the body, where that is known.
    pub fn length(&self) -> Option<u64> {
        if self.unzip.is_some() { None } else { self.response.content_length() }
    }

    /// The next bytes of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let broken = |url: &Url, error: std::io::Error| Error::Passing {
            what: plain(url),
            fault: Fault::Connection(format!("its body cannot be unpacked: {error}")),
        };
        loop {
            if let Some(unzip) = &mut self.unzip
                && let Some(bytes) = unzip.next().map_err(|error| broken(&self.url, error))?
            {
                return Ok(Some(bytes));
            }
            let received = self.received().await?;
            match (&mut self.unzip, received) {
                (Some(unzip), Some(packed)) => unzip.take(packed),
                (Some(unzip), None) => return unzip.end().map_err(|error| broken(&self.url, error)),
                (None, received) => return Ok(received),
            }
        }
    }

    async fn received(&mut self) -> Result<Option<Bytes>> {
        match self.pace.next(self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| self.client.failure(&self.url, &error.without_url())),
            Err(barrier) => Err(barrier.into_error(plain(&self.url))),
        }
    }

    /// The whole body, which may have at most `limit` bytes.
    pub async fn bytes(&mut self, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let within = self.limits.answer;
        match timeout(within, self.append(&mut body, limit)).await {
            Ok(done) => done.map(|()| body),
            Err(_) => Err(Error::TooSlow { what: plain(&self.url), got: body.len() as u64, within }),
        }
    }

    async fn append(&mut self, body: &mut Vec<u8>, limit: usize) -> Result<()> {
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(Barrier::TooLong(limit).into_error(plain(&self.url)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(())
    }
}

/// An address without what may be secret in it.
pub fn plain(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn redirect_of(from: &Url, response: &Response) -> Result<Option<Url>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let bad = |why: &str| Error::BadAnswer { what: plain(from), why: why.to_owned() };
    // Some servers send names as they are, in UTF-8.
    let location =
        response.headers().get(LOCATION).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let location = location.ok_or_else(|| bad("a redirect without Location"))?;
    let next = from.join(location).map_err(|_| bad("a redirect to something that is not an address"))?;
    match (from.scheme(), next.scheme()) {
        ("https", "https") | ("http", "http" | "https") => Ok(Some(next)),
        _ => Err(bad("a redirect away from https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::settings::Token;

    #[test]
    fn a_refusal_that_repeats_the_token_is_told_without_it() {
        // Another test of this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = Settings { token: Token::new("hf_hunter2"), ..Settings::new("http://hub").unwrap() };
        let http = Http::new(&settings).unwrap();
        assert_eq!(http.without_token("no scope: Bearer hf_hunter2"), "no scope: Bearer …");
        assert!(!format!("{http:?}").contains("hunter2"));
    }
}
