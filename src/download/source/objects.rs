//! Buckets of object stores, through `object_store`, with our own HTTP client and our own patience.
//!
//! A prefix ends at a `/`: `model` never means `model-hf/…` too; empty objects are files like others. Each range
//! is asked for on condition that the object is still the one that was listed. Its `ETag` is the MD5 of its
//! bytes where the store says nothing else, and then they are verified against it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use reqwest::Client;
use tokio::sync::OnceCell;

use super::body::Body;
use super::link::Link;
use super::uri::{Account, Bucket};
use super::{credentials, http, text_without_secrets};
use crate::download::budget::Listing;
use crate::download::digest::Digest;
use crate::download::error::{Error, Fault, Result};
use crate::download::plan::PlannedFile;
use crate::download::retry::{Pause, Policy, wait_in};
use crate::download::settings::Settings;

/// What a bucket holds below a prefix.
#[derive(Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The bucket and the prefix, for messages.
    place: String,
    pause: Arc<Pause>,
    refused: Arc<AtomicBool>,
    /// Whether the prefix is the name of an object, once that is known.
    one: OnceCell<bool>,
    retry: Policy,
    stall: Duration,
}

impl Objects {
    /// A client with the credentials that the environment names.
    pub async fn new(bucket: &Bucket, settings: &Settings) -> Result<Self> {
        let pause = Arc::new(Pause::default());
        let refused = Arc::new(AtomicBool::new(false));
        let trust = match bucket.account {
            Account::S3 => settings.trust.for_s3(&settings.variables),
            Account::Gcs | Account::Azure { .. } => settings.trust.clone(),
        };
        let client = http::client(settings, &trust)?;
        let connector = Connector { client, pause: Arc::clone(&pause), refused: Arc::clone(&refused) };
        let store = credentials::open(bucket, &settings.variables, connector).await?;
        let prefix = Path::parse(&bucket.prefix)
            .map_err(|error| Error::InvalidSource { uri: bucket.to_string(), why: error.to_string() })?;
        let (retry, stall) = (settings.retry, settings.stall);
        Ok(Self {
            store,
            prefix,
            place: bucket.to_string(),
            pause,
            refused,
            one: OnceCell::new(),
            retry,
            stall,
        })
    }

    /// The bucket and the prefix.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The pause that an answer puts on all requests.
    pub fn pause(&self) -> &Pause {
        &self.pause
    }

    /// A list of the objects below the prefix, or of the one that is called so.
    pub async fn files(&self, empty: impl Fn() -> Listing) -> Result<Listing> {
        let mut attempts = self.retry.begin(&self.pause);
        loop {
            match self.list(empty()).await {
                Ok(files) => return Ok(files),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    async fn list(&self, mut listing: Listing) -> Result<Listing> {
        let mut below = self.store.list(Some(&self.prefix));
        while let Some(object) = below.try_next().await.map_err(|error| self.failure(error))? {
            let parts = object
                .location
                .prefix_match(&self.prefix)
                .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
            // What stands for a folder has no name of its own.
            match parts.filter(|name| !name.is_empty()) {
                Some(name) => listing.add(planned(name, &object))?,
                None => listing.add_folder()?,
            }
        }
        if listing.count() == 0 && !self.prefix.as_ref().is_empty() {
            let object = self.store.head(&self.prefix).await.map_err(|error| self.failure(error))?;
            let name = self.prefix.filename().unwrap_or_default().to_owned();
            listing.add(planned(name, &object))?;
        }
        Ok(listing)
    }

    /// Asks once for a range of an object.
    pub async fn open(&self, file: &PlannedFile, range: &Range<u64>, link: &Link) -> Result<Body> {
        let object = self.object_of(file).await?;
        let result = self.get(&object, file, range, link).await.map_err(|error| self.failure(error))?;
        let what = format!("{}/{}", self.place, file.path);
        if result.range != *range || result.meta.size != file.size {
            let why =
                format!("{:?} of {} instead of {range:?} of {}", result.range, result.meta.size, file.size);
            return Err(Error::Passing { what, fault: Fault::WrongRange(why) });
        }
        let place = self.place.clone();
        let stream = result.into_stream().map_err(move |error| failure(&place, error)).boxed();
        Ok(Body::of_stream(what, range.clone(), self.stall, stream))
    }

    /// The object that a file is: below the prefix, or the prefix itself where that is an object's name.
    async fn object_of(&self, file: &PlannedFile) -> Result<Path> {
        if self.prefix.filename() == Some(file.path.as_str()) && self.is_one(file).await? {
            return Ok(self.prefix.clone());
        }
        let below = match self.prefix.as_ref() {
            "" => file.path.clone(),
            prefix => format!("{prefix}/{}", file.path),
        };
        let why = |error: object_store::path::Error| error.to_string();
        Path::parse(below).map_err(|error| Error::InvalidSource { uri: self.place.clone(), why: why(error) })
    }

    /// Whether the prefix is this object; a run that goes on with a recorded plan has to ask.
    async fn is_one(&self, file: &PlannedFile) -> Result<bool> {
        let ask = async || match self.store.head(&self.prefix).await {
            Ok(object) => Ok(object.size == file.size && object.e_tag == file.version),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failure(error)),
        };
        self.one.get_or_try_init(ask).await.copied()
    }

    async fn get(
        &self,
        object: &Path,
        file: &PlannedFile,
        range: &Range<u64>,
        link: &Link,
    ) -> object_store::Result<object_store::GetResult> {
        let seen = Seen::default();
        let mut options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: file.version.clone(),
            ..GetOptions::default()
        };
        options.extensions.insert(seen.clone());
        let result = self.store.get_opts(object, options).await;
        if seen.0.load(Relaxed) {
            link.withdraw_md5();
        }
        result
    }

    fn failure(&self, error: object_store::Error) -> Error {
        // Not every request of the library tells a refusal from other errors.
        if self.refused.swap(false, Relaxed) {
            return Error::StoreRefused { place: self.place.clone() };
        }
        failure(&self.place, error)
    }
}

fn planned(name: String, object: &ObjectMeta) -> PlannedFile {
    let tag = object.e_tag.as_deref().map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
    let digest = match tag {
        Some(tag) if tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Digest::Md5(tag.to_ascii_lowercase())
        }
        _ => Digest::Untold,
    };
    PlannedFile { version: object.e_tag.clone(), ..PlannedFile::new(name, object.size, digest) }
}

/// What an error of the store means.
fn failure(place: &str, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let place = place.to_owned();
    match error {
        Store::NotFound { .. } => Error::NoObjects { place },
        Store::Precondition { .. } | Store::NotModified { .. } => Error::Changed { place },
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => Error::StoreRefused { place },
        other => Error::Passing { what: place, fault: Fault::Connection(told(&other)) },
    }
}

/// An error in one line. The queries of its addresses may be signatures, and a store's answer may hold the
/// token or signature that it refuses: of that its code and message are told.
pub(super) fn told(error: &object_store::Error) -> String {
    let text = error.to_string();
    let answer = text.find("<?xml").or_else(|| text.find("<Error"));
    let (words, answer) = text.split_at(answer.unwrap_or(text.len()));
    let said = ["Code", "Message"].map(|name| element(answer, name).unwrap_or_default());
    let words = format!("{} {}", words.trim_end_matches('\u{feff}'), said.join(" "));
    text_without_secrets(&words.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The text of the first element of this name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// Makes `object_store` use our client.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    client: Client,
    pause: Arc<Pause>,
    /// Set by an answer that refuses access.
    refused: Arc<AtomicBool>,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.clone())))
    }
}

/// Whether the object turned out to be encrypted so that its tag is not its MD5.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<AtomicBool>);

#[derive(Debug)]
struct Service(Connector);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let Connector { client, pause, refused } = &self.0;
        pause.over().await;
        let seen = request.extensions().get::<Seen>().cloned();
        let response = HttpService::call(client, request).await?;
        if matches!(response.status().as_u16(), 401 | 403) {
            refused.store(true, Relaxed);
        }
        if matches!(response.status().as_u16(), 429 | 503) {
            let asked = wait_in(response.headers(), SystemTime::now());
            pause.extend(asked.unwrap_or(Duration::from_secs(1)).min(Duration::from_mins(10)));
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let managed = header("x-amz-server-side-encryption").is_some_and(|how| how.starts_with("aws:kms"));
        if let Some(seen) = seen
            && (managed || header("x-amz-server-side-encryption-customer-algorithm").is_some())
        {
            seen.0.store(true, Relaxed);
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(tag: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            location: Path::from("model/a"),
            last_modified: SystemTime::UNIX_EPOCH.into(),
            size: 1,
            e_tag: tag.map(str::to_owned),
            version: None,
        }
    }

    #[test]
    fn a_tag_that_looks_like_an_md5_is_taken_for_one_and_pins_the_object() {
        let md5 = "0123456789ABCDEF0123456789abcdef";
        for (tag, digest) in [
            (Some(format!("\"{md5}\"")), Digest::Md5(md5.to_lowercase())),
            (Some(format!("\"{md5}-3\"")), Digest::Untold),
            (Some("\"0x8DABCDEF\"".to_owned()), Digest::Untold),
            (None, Digest::Untold),
        ] {
            let file = planned("a".into(), &object(tag.as_deref()));
            assert_eq!((file.digest, file.version), (digest, tag));
        }
    }

    #[test]
    fn errors_are_told_without_signatures() {
        let source = "GET https://host/b/k?X-Amz-Signature=secret failed".into();
        let error = failure("s3://b/k", object_store::Error::Generic { store: "S3", source });
        let text = error.to_string();
        assert!(text.contains("https://host/b/k failed") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn of_a_stores_answer_code_and_message_are_told_and_not_the_token_that_it_repeats() {
        let source =
            "Error performing GET https://s3/b in 2ms - Server returned non-2xx status code: 400 Bad \
                      Request: \u{feff}<?xml version=\"1.0\"?>\n<Error><Code>ExpiredToken</Code><Message>The \
                      provided token has expired.</Message><Token-0>hunter2</Token-0></Error>"
                .into();
        let error = failure("s3://b/k", object_store::Error::Generic { store: "S3", source });
        let text = error.to_string();
        assert!(!text.contains("hunter2") && !text.contains('<'), "{text}");
        assert!(text.contains("400 Bad Request:") && text.contains("ExpiredToken The provided"), "{text}");
    }
}
