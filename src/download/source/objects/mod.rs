//! Buckets of object stores: S3, Google's and Azure's, asked by our own client. `object_store` signs requests and
//! knows how identities are found.
//!
//! A prefix ends at a `/`: `model` never means `model-hf/…` too. An address that is an object's name means that
//! object. Each range is asked for on condition that the object is still the one that was listed.

mod aws;
mod azure;
mod gcs;
mod identity;
mod names;
mod refusal;
mod s3;
mod xml;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::client::{HttpRequest, HttpRequestBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, IF_MATCH, RANGE};
use reqwest::{Method, Request, Url};
use tokio::time::timeout;

use self::azure::{Azure, Where};
use self::gcs::Gcs;
use self::names::{Named, named, opaque, stands_for_folder};
use self::refusal::Refusal;
use self::s3::S3;
use self::xml::{Entry, Next, Page, azure_page, s3_page};
use super::body::Body;
use super::http::{Answer, Http};
use super::link::Link;
use super::uri::{Account, Bucket};
use crate::download::budget::Listing;
use crate::download::digest::Digest;
use crate::download::error::{Error, Result};
use crate::download::limits::Limits;
use crate::download::plan::PlannedFile;
use crate::download::retry::{Pause, Policy};
use crate::download::settings::Settings;
use crate::download::shared::Store as Kind;

/// The most bytes of a page of a list: one has up to 5000 objects.
const MOST_LIST: usize = 32 << 20;
/// The most pages of a list, so that a store that always has a next one ends too.
const MOST_PAGES: usize = 10_000;
/// Objects that are asked at the same time for the size that their list leaves out.
const SIZES: usize = 8;
/// An answer that says where else to ask is followed so often.
const MOST_MOVES: usize = 3;
/// What Google has to be asked for, so that it sends an object as it is stored.
const AS_IT_IS: &str = "gzip";
/// What an address holds as it is: the rest is encoded, as signatures want it.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ENCODED_PATH: AsciiSet = ENCODED.remove(b'/');

/// What a bucket holds below a prefix.
#[derive(Debug)]
pub struct Objects {
    http: Http,
    store: Box<Store>,
    bucket: Bucket,
    /// The bucket and the prefix, for messages.
    place: String,
    retry: Policy,
    limits: Limits,
    /// Whether an object has turned out to be packed.
    some_are_packed: AtomicBool,
    /// Whether the store's tags have turned out to be no MD5s.
    tags_are_other: Arc<AtomicBool>,
}

/// The stores.
#[derive(Debug)]
enum Store {
    S3(Box<S3>),
    Gcs(Gcs),
    Azure(Azure),
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Asked<'a> {
    Object(&'a str),
    /// The objects that begin with a prefix, from a place on.
    List {
        prefix: &'a str,
        from: &'a Next,
        one: bool,
    },
}

impl Objects {
    /// A client with the credentials that the environment names.
    pub async fn new(bucket: &Bucket, settings: &Settings) -> Result<Self> {
        let store = match &bucket.account {
            Account::S3 => Store::S3(Box::new(S3::new(&bucket.name, settings)?)),
            Account::Gcs => Store::Gcs(Gcs::new(&bucket.name, settings).await?),
            Account::Azure { name, host, usual_host, signature } => {
                let uri = Where {
                    account: name.as_deref(),
                    host: host.as_deref(),
                    usual_host: usual_host.as_deref(),
                    signature: signature.as_deref(),
                };
                Store::Azure(Azure::new(&bucket.name, uri, settings)?)
            }
        };
        let trust = match store {
            Store::S3(_) => settings.trust.for_s3(&settings.variables),
            Store::Gcs(_) | Store::Azure(_) => settings.trust.clone(),
        };
        let plain_http =
            !settings.egress.refuses_plain_http || !settings.variables.has_own_endpoint(store.kind());
        let settings = &Settings { trust, ..settings.clone() };
        let http = Http::with(settings, store.url(""), HeaderMap::new(), plain_http)?;
        Ok(Self {
            http,
            store: Box::new(store),
            place: bucket.to_string(),
            bucket: bucket.clone(),
            retry: settings.retry,
            limits: settings.limits,
            some_are_packed: AtomicBool::default(),
            tags_are_other: Arc::default(),
        })
    }

    /// The bucket and the prefix.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The pause that an answer puts on all requests.
    pub fn pause(&self) -> &Pause {
        &self.http.pause
    }

    /// Adds the objects below the prefix to the list, or the one that is called so.
    pub async fn files(&self, mut listing: Listing) -> Result<Listing> {
        let exact = self.exact().await?;
        let below = match &exact {
            Some(object) if object.size != Some(0) => Vec::new(),
            _ => self.below(&mut listing).await?,
        };
        let files = match exact {
            // What is empty and has others below it stands for their folder.
            Some(object) if below.is_empty() => vec![single(object)],
            _ => named(&self.folder(), below)?,
        };
        if files.is_empty() {
            return Err(Error::NoObjects { place: self.place.clone() });
        }
        let mut files: Vec<_> = files.into_iter().map(|file| self.planned(file)).collect();
        if self.some_are_packed.load(Relaxed) {
            let asked = files.into_iter().map(|file| self.if_packed(file));
            files = stream::iter(asked).buffered(SIZES).try_collect().await?;
        }
        for file in files {
            listing.add(file)?;
        }
        Ok(listing)
    }

    /// The object that is called as the prefix is, if there is one.
    async fn exact(&self) -> Result<Option<Entry>> {
        let Bucket { prefix, is_folder, .. } = &self.bucket;
        if prefix.is_empty() || *is_folder {
            return Ok(None);
        }
        // Of all that begins so, it is the first.
        let page = self.page(prefix, &Next::End, true).await?;
        let found = page.entries.into_iter().find(|entry| entry.key == *prefix && !stands_for_folder(entry));
        match found {
            Some(object) => Ok(self.with_sizes(vec![object]).await?.pop()),
            None => Ok(None),
        }
    }

    /// All objects below the prefix, within the time that a list may take.
    async fn below(&self, listing: &mut Listing) -> Result<Vec<Entry>> {
        let within = self.limits.listing;
        let listed = timeout(within, self.listed(listing)).await;
        listed.unwrap_or_else(|_| Err(self.endless(&format!("has no end after {} s", within.as_secs()))))
    }

    async fn listed(&self, listing: &mut Listing) -> Result<Vec<Entry>> {
        let folder = self.folder();
        let mut objects = Vec::new();
        let mut next = Next::End;
        let mut seen = HashSet::new();
        for _ in 0..MOST_PAGES {
            let page = self.page(&folder, &next, false).await?;
            // A store that ignores the prefix must not make others' objects this model's.
            for entry in page.entries {
                if let Some(name) = entry.key.strip_prefix(&folder) {
                    listing.hold(name, entry.tag.as_deref())?;
                    objects.push(entry);
                } else {
                    listing.add_folder()?;
                }
            }
            if page.next == Next::End {
                return self.with_sizes(objects).await;
            }
            if !seen.insert(page.next.clone()) {
                return Err(self.endless("names a place for the next page that it has named before"));
            }
            next = page.next;
        }
        Err(self.endless(&format!("has more than {MOST_PAGES} pages")))
    }

    fn endless(&self, why: &str) -> Error {
        Error::BadAnswer { what: self.place.clone(), why: format!("its list {why}") }
    }

    /// Asks for a page, again and again while faults are passing.
    async fn page(&self, prefix: &str, from: &Next, one: bool) -> Result<Page> {
        let mut attempts = self.retry.begin(&self.http.pause);
        loop {
            let asked = async {
                let mut answer =
                    self.ask(Method::GET, Asked::List { prefix, from, one }, HeaderMap::new()).await?;
                let body = answer.bytes(MOST_LIST).await?;
                self.store.page(&body).map_err(|why| self.no_list(&answer, &body, &why))
            };
            match asked.await {
                Ok(page) => return Ok(page),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    /// What it means when an answer that should be a list is none.
    fn no_list(&self, answer: &Answer, body: &[u8], why: &str) -> Error {
        let what = super::http::plain(&answer.url);
        let refusal = Refusal::new(what.clone(), 400, HeaderMap::new(), body);
        if !refusal.code.is_empty() {
            return refusal.meaning(&self.place, &self.bucket.whole(), self.store.signs());
        }
        let why = format!(
            "no list of objects: {why} (is it the address of the store's API, and not of its console?)"
        );
        Error::BadAnswer { what, why }
    }

    /// The same objects with the sizes that their list left out.
    async fn with_sizes(&self, objects: Vec<Entry>) -> Result<Vec<Entry>> {
        let asked = objects.into_iter().map(async |object| match object.size {
            None if !stands_for_folder(&object) => self.looked_up(object).await,
            _ => Ok(object),
        });
        stream::iter(asked).buffered(SIZES).try_collect().await
    }

    async fn looked_up(&self, object: Entry) -> Result<Entry> {
        let answer = self.head(&object.key).await?;
        let size = answer.header("content-length").and_then(|length| length.parse().ok());
        let why = "it does not say how large the object is".to_owned();
        let size = size.ok_or(Error::BadAnswer { what: super::http::plain(&answer.url), why })?;
        let tag = answer.header("etag").map(str::to_owned).or(object.tag);
        Ok(Entry { size: Some(size), tag, ..object })
    }

    /// The file, with what its object's own headers say of it: one that is packed comes in one answer.
    async fn if_packed(&self, file: PlannedFile) -> Result<PlannedFile> {
        if !is_packed(&self.head(&self.key_of(&file)).await?) {
            return Ok(file);
        }
        Ok(PlannedFile { one_stream: true, size: 0, digest: Digest::Untold, ..file })
    }

    async fn head(&self, key: &str) -> Result<Answer> {
        let mut attempts = self.retry.begin(&self.http.pause);
        loop {
            match self.ask(Method::HEAD, Asked::Object(key), HeaderMap::new()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    fn planned(&self, file: Named) -> PlannedFile {
        let size = file.object.size.unwrap_or_default();
        file.planned(size, &self.folder(), !matches!(*self.store, Store::Azure(_)))
    }

    /// What the keys of the objects below the prefix begin with.
    fn folder(&self) -> String {
        match self.bucket.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    /// Asks once for a range of an object.
    pub async fn open(&self, file: &PlannedFile, range: &Range<u64>, link: &Link) -> Result<Body> {
        let key = self.key_of(file);
        let mut headers = HeaderMap::new();
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        headers.extend(HeaderValue::try_from(bytes).map(|bytes| (RANGE, bytes)));
        // A weak tag would match nothing.
        let strong = file.version.as_ref().filter(|version| !version.starts_with("W/"));
        headers.extend(strong.and_then(|version| Some((IF_MATCH, HeaderValue::from_str(version).ok()?))));
        let answer = self.ask(Method::GET, Asked::Object(&key), headers).await?;
        if matches!(*self.store, Store::Gcs(_)) && is_packed(&answer) {
            // Another list says of each object whether it is.
            self.some_are_packed.store(true, Relaxed);
            return Err(Error::Changed { place: format!("{}/{}", self.place, file.path) });
        }
        let (listed, sent) = (file.version.as_deref().map(opaque), answer.header("etag").map(opaque));
        if let (Some(listed), Some(sent)) = (listed, sent)
            && !sent.is_empty()
            && listed != sent
        {
            return Err(Error::Changed { place: format!("{}/{}", self.place, file.path) });
        }
        if is_encrypted(&answer) {
            link.withdraw_md5();
        }
        if matches!(&*self.store, Store::S3(s3) if !s3.is_aws()) {
            link.doubt_md5(&self.tags_are_other);
        }
        Body::new(answer, range, file.size)
    }

    /// Asks once for all of an object that is packed, as Google's own libraries unpack it.
    pub async fn open_whole(&self, file: &PlannedFile) -> Result<Body> {
        let mut headers = HeaderMap::new();
        let strong = file.version.as_ref().filter(|version| !version.starts_with("W/"));
        headers.extend(strong.and_then(|version| Some((IF_MATCH, HeaderValue::from_str(version).ok()?))));
        let answer = self.ask(Method::GET, Asked::Object(&self.key_of(file)), headers).await?;
        Ok(Body::of_unknown_length(answer.unpacked()?, bytes::Bytes::new()))
    }

    /// The name of a file's object.
    fn key_of(&self, file: &PlannedFile) -> String {
        file.key.clone().unwrap_or_else(|| format!("{}{}", self.folder(), file.path))
    }

    /// Sends a request, and follows what an answer says about where to ask.
    async fn ask(&self, method: Method, asked: Asked<'_>, headers: HeaderMap) -> Result<Answer> {
        for moves in 0.. {
            let request = self.request(method.clone(), asked, headers.clone()).await?;
            let answer = self.http.send_as_it_is(request).await?;
            if matches!(answer.status(), 200 | 206) {
                return Ok(answer);
            }
            let refusal = Refusal::read(answer).await;
            let learns = matches!(&*self.store, Store::S3(s3) if moves < MOST_MOVES && s3.learns(&refusal));
            if !learns {
                let place = match asked {
                    Asked::Object(key) => format!("{}/{key}", self.bucket.whole()),
                    Asked::List { .. } => self.place.clone(),
                };
                return Err(refusal.meaning(&place, &self.bucket.whole(), self.store.signs()));
            }
        }
        unreachable!("the loop has no end of its own")
    }

    async fn request(&self, method: Method, asked: Asked<'_>, headers: HeaderMap) -> Result<Request> {
        let odd = |why: String| Error::InvalidSource { uri: self.place.clone(), why };
        let mut signed = HttpRequest::new(HttpRequestBody::empty());
        *signed.method_mut() = method.clone();
        *signed.uri_mut() =
            self.store.asked(asked).as_str().parse().map_err(|error| odd(format!("{error}")))?;
        *signed.headers_mut() = headers;
        self.store.sign(&mut signed, &self.place).await?;
        let url = Url::parse(&signed.uri().to_string()).map_err(|error| odd(error.to_string()))?;
        let mut request = Request::new(method, url);
        *request.headers_mut() = signed.headers().clone();
        // Not signed: whoever passes the request on may change it.
        let encoding = if matches!(*self.store, Store::Gcs(_)) { AS_IT_IS } else { "identity" };
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        Ok(request)
    }
}

impl Store {
    fn kind(&self) -> Kind {
        match self {
            Self::S3(_) => Kind::S3,
            Self::Gcs(_) => Kind::Gcs,
            Self::Azure(_) => Kind::Azure,
        }
    }

    fn url(&self, key: &str) -> Url {
        match self {
            Self::S3(s3) => s3.url(key),
            Self::Gcs(gcs) => gcs.url(key),
            Self::Azure(azure) => azure.url(key),
        }
    }

    /// The address of what is asked for.
    fn asked(&self, asked: Asked<'_>) -> Url {
        let (prefix, from, one) = match asked {
            Asked::Object(key) => return self.url(key),
            Asked::List { prefix, from, one } => (prefix, from, one),
        };
        let (first, cursor, most) = match (self, from) {
            (Self::Azure(_), _) => (
                &[("restype", "container"), ("comp", "list"), ("include", "metadata")][..],
                "marker",
                "maxresults",
            ),
            (Self::S3(_), Next::Marker(_)) => (&[("encoding-type", "url")][..], "marker", "max-keys"),
            (Self::Gcs(_), Next::Marker(_)) => (&[][..], "marker", "max-keys"),
            (Self::S3(_), _) => {
                (&[("list-type", "2"), ("encoding-type", "url")][..], "continuation-token", "max-keys")
            }
            (Self::Gcs(_), _) => (&[("list-type", "2")][..], "continuation-token", "max-keys"),
        };
        let mut query: Vec<_> = first.to_vec();
        match from {
            Next::End => {}
            Next::Token(at) | Next::Marker(at) => query.push((cursor, at)),
        }
        if one {
            query.push((most, "1"));
        }
        query.push(("prefix", prefix));
        let encoded: Vec<_> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, &ENCODED)))
            .collect();
        let mut url = self.url("");
        url.set_query(Some(&encoded.join("&")));
        url
    }

    async fn sign(&self, request: &mut HttpRequest, place: &str) -> Result<()> {
        match self {
            Self::S3(s3) => s3.sign(request, place).await,
            Self::Gcs(gcs) => gcs.sign(request, place).await,
            Self::Azure(azure) => azure.sign(request, place).await,
        }
    }

    fn signs(&self) -> bool {
        match self {
            Self::S3(s3) => s3.signs(),
            Self::Gcs(gcs) => gcs.signs(),
            Self::Azure(azure) => azure.signs(),
        }
    }

    fn page(&self, xml: &[u8]) -> std::result::Result<Page, String> {
        match self {
            Self::S3(_) | Self::Gcs(_) => s3_page(xml),
            Self::Azure(_) => azure_page(xml),
        }
    }
}

/// The file that an object is by itself.
fn single(object: Entry) -> Named {
    let path = object.key.rsplit('/').next().unwrap_or_default().to_owned();
    Named { path, object }
}

/// Whether the store says that it encrypts the object with a key of its own: its tag is not the MD5 of the bytes.
fn is_encrypted(answer: &Answer) -> bool {
    answer.header("x-amz-server-side-encryption").is_some_and(|how| how.starts_with("aws:kms"))
        || answer.header("x-amz-server-side-encryption-customer-algorithm").is_some()
}

/// Whether an object is stored packed, which Google unpacks on the way for whoever does not ask for it as it is.
fn is_packed(answer: &Answer) -> bool {
    let encoded = ["content-encoding", "x-goog-stored-content-encoding"].map(|name| answer.header(name));
    encoded.into_iter().flatten().any(|encoding| encoding.eq_ignore_ascii_case("gzip"))
}

/// An address below another; empty parts are left out, and each part is encoded but for its `/`.
fn below<const N: usize>(base: &Url, parts: [&str; N]) -> Url {
    let mut path = base.path().trim_end_matches('/').to_owned();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        path.push('/');
        path.extend(utf8_percent_encode(part, &ENCODED_PATH));
    }
    let mut url = base.clone();
    url.set_path(&path);
    url
}

fn invalid(name: &'static str, why: String) -> Error {
    Error::InvalidSetting { name, why }
}

#[cfg(test)]
mod tests;
