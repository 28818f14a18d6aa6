//! How identities are asked for: of services beside the process, and of those that give tokens.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Request, RequestBuilder, Response, Url};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::download::error::{Error, Fault, Result};
use crate::download::source::client::Client;
use crate::download::source::http::plain;
use crate::download::source::text_without_secrets;

/// The most bytes of an answer about an identity.
const MOST: usize = 1 << 20;
/// The time before its end at which an identity counts as ended.
const BEFORE_END: Duration = Duration::from_mins(5);
/// How long a library's way to an identity may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An identity that was given for a time.
#[derive(Debug)]
pub struct Cached<T> {
    value: Arc<T>,
    until: Option<SystemTime>,
}

impl<T> Cached<T> {
    /// An identity that ends at `until`.
    pub fn new(value: Arc<T>, until: Option<SystemTime>) -> Self {
        Self { value, until }
    }

    /// The identity, unless it ends soon.
    pub fn get(&self) -> Option<Arc<T>> {
        let ends = self.until.is_some_and(|until| until < SystemTime::now() + BEFORE_END);
        (!ends).then(|| Arc::clone(&self.value))
    }
}

/// The token in a file, without the white space around it.
pub fn token(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::disk("read the token", path, error))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = format!("{} holds no token", path.display());
        return Err(Error::InvalidSetting { name: "the identity's token file", why });
    }
    Ok(token.to_owned())
}

/// The error that a service's answer is none.
pub fn odd(what: &str, why: &str) -> Error {
    Error::BadAnswer { what: text_without_secrets(what), why: why.to_owned() }
}

/// A request that sends these values as a form.
pub fn post_form(client: &Client, url: &str, values: &[(&str, &str)]) -> RequestBuilder {
    let encoded = Url::parse_with_params("form:", values);
    let body = encoded.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default();
    client.request(Method::POST, url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
}

/// Sends a request for an identity; gives the body of a good answer.
pub async fn send(client: &Client, request: Request, patience: Duration, place: &str) -> Result<Vec<u8>> {
    let url = request.url().clone();
    let what = plain(&url);
    let answered = async {
        let sent = client.for_url(&url)?.execute(request);
        let sent = async { sent.await.map_err(reqwest::Error::without_url) };
        let mut answer = client.answer(&url, sent, Response::status).await?;
        let mut body = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|error| client.failure(&url, &error.without_url()))?
            && body.len() < MOST
        {
            body.extend_from_slice(&chunk);
        }
        Ok::<_, Error>((answer.status().as_u16(), answer.headers().clone(), body))
    };
    let stalled = || Error::Passing { what: what.clone(), fault: Fault::Stalled(patience) };
    let (status, headers, body) = timeout(patience, answered).await.map_err(|_| stalled())??;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    Err(refused(Refusal::new(what, status, headers, &body), place))
}

/// What it means when a service gives no identity.
fn refused(refusal: Refusal, place: &str) -> Error {
    match refusal.status {
        408 | 429 | 500.. => refusal.meaning(place, place, true),
        status => {
            let said = refusal.said();
            let why = format!("{} answered {status} {said}", refusal.what);
            Error::StoreRefused { place: place.to_owned(), why: why.trim().to_owned() }
        }
    }
}

/// Makes `object_store`'s ways to identities use our client, and remembers what they were answered.
#[derive(Clone, Debug)]
pub struct Connector {
    client: Arc<Client>,
    refusal: Arc<Mutex<Option<(String, u16)>>>,
    /// Why a request was not sent, or cannot be however often it is tried.
    barred: Arc<Mutex<Option<Error>>>,
}

impl Connector {
    /// For this client.
    pub fn new(client: Arc<Client>) -> Self {
        Self { client, refusal: Arc::default(), barred: Arc::default() }
    }

    /// What a library's way to an identity came to; `local` where nobody was asked for it.
    pub async fn identity<T>(
        &self,
        place: &str,
        asked: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        *self.refusal() = None;
        let why = match timeout(PATIENCE, asked).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => told(&error),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        if let Some(error) = self.barred().take() {
            return Err(error);
        }
        let place = place.to_owned();
        match self.refusal().take() {
            Some((what, status @ (408 | 429 | 500..))) => {
                Err(Error::Passing { what, fault: Fault::Status { status, wait: None } })
            }
            Some((what, status)) => {
                Err(Error::StoreRefused { place, why: format!("{what} answered {status}: {why}") })
            }
            None => Err(Error::NoCredentials { place, why }),
        }
    }

    fn barred(&self) -> std::sync::MutexGuard<'_, Option<Error>> {
        self.barred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self) -> std::sync::MutexGuard<'_, Option<(String, u16)>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let what = text_without_secrets(&request.uri().to_string());
        let url = Url::parse(&request.uri().to_string());
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
        let answered = async {
            let client = self.client.for_url(&url)?;
            self.client.answer(&url, HttpService::call(client, request), HttpResponse::status).await
        };
        let response = match answered.await {
            Ok(response) => response,
            Err(error) => {
                let words = std::io::Error::other(error.to_string());
                if !matches!(error, Error::Passing { .. }) {
                    *self.barred() = Some(error);
                }
                return Err(HttpError::new(HttpErrorKind::Unknown, words));
            }
        };
        if !response.status().is_success() {
            *self.refusal() = Some((what, response.status().as_u16()));
        }
        Ok(response)
    }
}

/// An error of the library in one line. The queries of its addresses may be signatures, and an answer may hold the
/// token that it refuses: of that its code and message are told.
pub fn told(error: &object_store::Error) -> String {
    let text = error.to_string();
    let answer = text.find("<?xml").or_else(|| text.find("<Error"));
    let (words, answer) = text.split_at(answer.unwrap_or(text.len()));
    let said = super::xml::texts(answer.as_bytes(), ["Code", "Message"]).map(Option::unwrap_or_default);
    let words = format!("{} {}", words.trim_end_matches('\u{feff}'), said.join(" "));
    text_without_secrets(&words.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_ends_soon_is_asked_for_again() {
        let of = |until| Cached::new(Arc::new(()), until).get().is_some();
        assert!(of(None) && of(Some(SystemTime::now() + BEFORE_END * 2)));
        assert!(!of(Some(SystemTime::now() + BEFORE_END / 2)) && !of(Some(SystemTime::UNIX_EPOCH)));
    }

    #[test]
    fn a_token_comes_without_the_white_space_around_it_and_none_with_odd_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, " hunter2\n").unwrap();
        assert_eq!(token(&path).unwrap(), "hunter2");
        for odd in ["", "\n", "hunter2\nhunter2", "hunter2\u{e9}"] {
            std::fs::write(&path, odd).unwrap();
            let text = token(&path).unwrap_err().to_string();
            assert!(text.contains("token") && !text.contains("hunter2"), "{text}");
        }
        assert!(token(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn of_a_libraries_error_code_and_message_are_told_and_no_signature() {
        let source =
            "Error performing GET https://s3/b?X-Amz-Signature=hunter2 in 2ms - 400 Bad Request: \
             \u{feff}<?xml version=\"1.0\"?>\n<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message>\
             <Token-0>hunter2</Token-0></Error>"
                .into();
        let text = told(&object_store::Error::Generic { store: "S3", source });
        assert!(!text.contains("hunter2") && !text.contains('<'), "{text}");
        assert!(text.contains("400 Bad Request:") && text.contains("ExpiredToken The token"), "{text}");
    }
}
