//! HTTP as the sources use it: redirects followed by hand, the token only for the endpoint's own origin,
//! nothing that hangs for ever, and no query (which may hold a signature) in any message.

use std::error::Error as _;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, LOCATION, RANGE};
use reqwest::{Client, NoProxy, Proxy, Request, Response, Url};
use tokio::time::timeout;

use super::trust::Trust;
use crate::download::error::{Error, Fault, Result};
use crate::download::retry::Pause;
use crate::download::settings::Settings;

const MOST_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one endpoint and of the stores that it redirects to.
#[derive(Debug)]
pub struct Http {
    client: Client,
    endpoint: Url,
    /// Sent to the endpoint's own origin only: the token is among them.
    headers: HeaderMap,
    stall: Duration,
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
    stall: Duration,
}

impl Http {
    /// A client of the hub, with its token.
    pub fn new(settings: &Settings) -> Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &settings.token {
            headers.insert(AUTHORIZATION, token.header()?);
        }
        Self::with(settings, settings.endpoint.clone(), headers)
    }

    /// A client of the endpoint's origin, which alone gets these headers.
    pub fn with(settings: &Settings, endpoint: Url, headers: HeaderMap) -> Result<Self> {
        let client = client(settings, &settings.trust)?;
        Ok(Self { client, endpoint, headers, stall: settings.stall, pause: Pause::default() })
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
                None => return Ok(Answer { url, from_endpoint, response, stall: self.stall }),
            }
        }
        Err(Error::BadAnswer { what: plain(&url), why: format!("more than {MOST_REDIRECTS} redirects") })
    }

    /// Sends a request that is complete in itself; a redirect is an answer like any other.
    pub async fn send_as_it_is(&self, request: Request) -> Result<Answer> {
        self.pause.over().await;
        let url = request.url().clone();
        let response = match timeout(self.stall, self.client.execute(request)).await {
            Ok(sent) => sent.map_err(|error| connection_error(&url, error))?,
            Err(_) => return Err(Error::Passing { what: plain(&url), fault: Fault::Stalled(self.stall) }),
        };
        Ok(Answer { url, from_endpoint: true, response, stall: self.stall })
    }

    async fn send(&self, url: &Url, range: Option<&Range<u64>>, with_token: bool) -> Result<Response> {
        let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        if with_token {
            request = request.headers(self.headers.clone());
        }
        match timeout(self.stall, request.send()).await {
            Ok(sent) => sent.map_err(|error| connection_error(url, error)),
            Err(_) => Err(Error::Passing { what: plain(url), fault: Fault::Stalled(self.stall) }),
        }
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

    /// The next bytes of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        match timeout(self.stall, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| connection_error(&self.url, error)),
            Err(_) => Err(Error::Passing { what: plain(&self.url), fault: Fault::Stalled(self.stall) }),
        }
    }

    /// The whole body, which may have at most `limit` bytes.
    pub async fn bytes(&mut self, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(Error::BadAnswer {
                    what: plain(&self.url),
                    why: format!("more than {limit} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// A client with these proxies, which trusts these certificates and follows no redirect by itself.
pub fn client(settings: &Settings, trust: &Trust) -> Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("localmodel/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .tls_danger_accept_invalid_certs(trust.anybody)
        .tls_certs_only(trust.roots()?)
        .no_proxy();
    for proxy in proxies(settings)? {
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|error| Error::InvalidSetting {
        name: "the HTTP client's configuration",
        why: causes(error),
    })
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

/// The fault behind an error of the client, without the address (it may be signed).
fn connection_error(url: &Url, error: reqwest::Error) -> Error {
    let what = plain(url);
    if let Some(why) = certificate_problem(&error) {
        return Error::Certificate { what, why };
    }
    Error::Passing { what, fault: Fault::Connection(causes(error)) }
}

/// What is wrong with the server's certificate, if that is why the connection failed.
fn certificate_problem(error: &reqwest::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(current) = cause {
        let inner = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| current.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(problem)) = tls {
            return Some(problem.to_string());
        }
        // An I/O error hides what it wraps from `source`.
        cause = inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| current.source());
    }
    None
}

/// The chain of causes in one line.
pub fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        text = format!("{text}: {current}");
        cause = current.source();
    }
    text
}

fn proxies(settings: &Settings) -> Result<Vec<Proxy>> {
    let given = &settings.proxies;
    let except = given.except.as_deref().and_then(NoProxy::from_string);
    let one = |name, url: &Option<String>, make: fn(String) -> reqwest::Result<Proxy>| {
        let Some(url) = url else { return Ok(None) };
        // The address may hold a password: it is not repeated.
        let invalid = |_| Error::InvalidSetting { name, why: "it is not the address of a proxy".to_owned() };
        make(url.clone()).map(|proxy| Some(proxy.no_proxy(except.clone()))).map_err(invalid)
    };
    let http = one("HTTP_PROXY", &given.http, Proxy::http)?;
    let https = one("HTTPS_PROXY", &given.https, Proxy::https)?;
    let all = one("ALL_PROXY", &given.all, Proxy::all)?;
    Ok([http, https, all].into_iter().flatten().collect())
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
