//! A file of a web server, with the headers that KServe's `<host>-headers` variable holds.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Url, Version};
use serde_json::{Map, Value};

use super::body::{Body, content_range};
use super::http::{Answer, Http, plain};
use super::link::Link;
use super::page::why_page;
use crate::download::archive::is_archive;
use crate::download::budget::Listing;
use crate::download::digest::Digest;
use crate::download::error::{Error, Fault, Result};
use crate::download::plan::PlannedFile;
use crate::download::retry::{Pause, Policy, passing_status};
use crate::download::settings::Settings;
use crate::download::variables::Variables;

/// Bytes that are read to see what kind of answer it is.
const FIRST: u64 = 512;

/// One file.
#[derive(Debug)]
pub struct Web {
    http: Http,
    url: Url,
    retry: Policy,
    /// Whether two answers turned out to be of two versions.
    differs: AtomicBool,
}

impl Web {
    /// A client for the file at this address.
    pub fn new(url: Url, settings: &Settings) -> Result<Self> {
        let headers = headers_for(url.host_str().unwrap_or_default(), &settings.variables)?;
        let plain_http = !settings.egress.refuses_plain_http;
        let http = Http::with(settings, url.clone(), headers, plain_http)?;
        Ok(Self { http, url, retry: settings.retry, differs: AtomicBool::new(false) })
    }

    /// Its address, without what may be secret in it.
    pub fn place(&self) -> String {
        plain(&self.url)
    }

    /// The pause that a 429 puts on all requests.
    pub fn pause(&self) -> &Pause {
        &self.http.pause
    }

    /// From now on the file has to come in one answer: its servers do not agree on which version it is.
    pub fn ask_once(&self) {
        self.differs.store(true, Relaxed);
    }

    /// The file, named as the last part of the address.
    pub async fn files(&self, mut listing: Listing) -> Result<Listing> {
        let mut attempts = self.retry.begin(&self.http.pause);
        loop {
            match self.look().await {
                Ok(file) => {
                    listing.add(file)?;
                    return Ok(listing);
                }
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    async fn look(&self) -> Result<PlannedFile> {
        let mut answer = self.http.get(self.url.clone(), Some(&(0..FIRST))).await?;
        let mut size = match answer.status() {
            206 => answer.header("content-range").and_then(content_range).and_then(|(_, size)| size),
            200 => answer.response.content_length(),
            // There is no first byte.
            416 => Some(0),
            status => return Err(refused(&answer, status)),
        };
        if size.is_none() && answer.status() == 206 {
            answer = self.http.get(self.url.clone(), None).await?;
            size = answer.response.content_length().filter(|_| answer.status() == 200);
        }
        let name = self.name(&answer);
        let version = tag(&answer);
        // An answer may be empty by mistake, and parts of a file without a version may be of two.
        let one_stream = size.is_none_or(|size| size == 0) || version.is_none() || self.differs.load(Relaxed);
        if size.is_none() {
            self.check_end(&answer)?;
        }
        if answer.status() != 416 {
            let first = answer.chunk().await?.unwrap_or_default();
            self.check(&answer, &name, &first)?;
        }
        let size = size.unwrap_or_default();
        Ok(PlannedFile { version, one_stream, ..PlannedFile::new(name, size, Digest::Untold) })
    }

    /// The name of the file: the last part of the address. An archive may be named elsewhere in it, in the address
    /// of a redirect, or in `Content-Disposition`.
    fn name(&self, answer: &Answer) -> String {
        let last = last_part(self.url.path());
        if is_archive(&last) {
            return last;
        }
        let mut others: Vec<String> = self.url.query_pairs().map(|(_, value)| last_part(&value)).collect();
        others.extend(answer.header("content-disposition").and_then(file_name));
        if !last.contains('.') {
            others.extend(self.url.path().rsplit('/').map(last_part));
            others.push(last_part(answer.url.path()));
        }
        others.into_iter().find(|name| is_archive(name)).unwrap_or(last)
    }

    /// Refuses a body whose end nobody can tell from a connection that broke.
    fn check_end(&self, answer: &Answer) -> Result<()> {
        let is_chunked = answer.header("transfer-encoding").is_some_and(|how| how.contains("chunked"));
        if is_chunked || answer.response.version() >= Version::HTTP_2 {
            return Ok(());
        }
        let why = "it says neither how large the file is nor where it ends".to_owned();
        Err(Error::BadAnswer { what: self.place(), why })
    }

    /// Refuses an answer that is not the file.
    fn check(&self, answer: &Answer, name: &str, first: &[u8]) -> Result<()> {
        if let Some(page) = why_page(name, answer.header("content-type"), first) {
            let host = self.url.host_str().unwrap_or_default();
            let why = format!(
                "it is {page} and not the file: where that is a login page, put what it asks for into {host}-headers"
            );
            return Err(Error::BadAnswer { what: plain(&answer.url), why });
        }
        let packing = answer.header("content-encoding").unwrap_or("identity").to_ascii_lowercase();
        let is_meant = ["gzip", "x-gzip"].contains(&packing.as_str())
            && [".gz", ".tgz"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
        if packing == "identity" || packing.is_empty() || is_meant {
            return Ok(());
        }
        let why = format!("it is compressed ({packing}), which was not asked for");
        Err(Error::BadAnswer { what: plain(&answer.url), why })
    }

    /// Asks once for a range of the file.
    pub async fn open(&self, file: &PlannedFile, range: &Range<u64>, link: &Link) -> Result<Body> {
        let answer = link.through(|| self.url.clone(), |url| self.http.get(url, Some(range))).await?;
        match answer.status() {
            200 | 206 => {
                self.check(&answer, &file.path, &[])?;
                if tag(&answer) != file.version {
                    return Err(Error::Changed { place: self.place() });
                }
                Body::new(answer, range, file.size)
            }
            status => {
                link.forget_if(&answer.url).await;
                Err(refused(&answer, status))
            }
        }
    }

    /// Asks once for all of a file that has to come in one answer.
    pub async fn open_whole(&self, file: &PlannedFile) -> Result<Body> {
        let mut answer = self.http.get(self.url.clone(), None).await?;
        match answer.status() {
            200 => {
                let first = answer.chunk().await?.unwrap_or_default();
                self.check(&answer, &file.path, &first)?;
                if answer.response.content_length().is_none() {
                    self.check_end(&answer)?;
                }
                Ok(Body::of_unknown_length(answer, first))
            }
            status => Err(refused(&answer, status)),
        }
    }
}

/// The last part of a path, decoded.
fn last_part(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// The name in a `Content-Disposition`, in either of its forms.
fn file_name(header: &str) -> Option<String> {
    let parameters = header.split(';').skip(1).filter_map(|part| part.trim().split_once('='));
    let names = parameters.filter(|(key, _)| {
        let key = key.trim().to_ascii_lowercase();
        key == "filename" || key == "filename*"
    });
    let value_of = |(_, value): (&str, &str)| {
        let value = value.trim().trim_matches('"');
        let value = value.rsplit_once("''").map_or(value, |(_, name)| name);
        Some(last_part(value)).filter(|name| !name.is_empty())
    };
    names.filter_map(value_of).last()
}

/// What tells versions of the file apart: an `ETag` that is a strong one, or the time of the last change.
fn tag(answer: &Answer) -> Option<String> {
    let strong = answer.header("etag").filter(|tag| !tag.starts_with("W/"));
    strong.or(answer.header("last-modified")).map(str::to_owned)
}

fn refused(answer: &Answer, status: u16) -> Error {
    let what = plain(&answer.url);
    if let Some(fault) = passing_status(status, answer.response.headers()) {
        return Error::Passing { what, fault };
    }
    match status {
        401 | 403 if answer.from_endpoint => Error::StoreRefused { place: what, why: status.to_string() },
        401 | 403 => Error::Passing { what, fault: Fault::LinkExpired(status) },
        404 | 410 => Error::NoObjects { place: what },
        416 => Error::Changed { place: what },
        _ => Error::Refused { what, status, message: None },
    }
}

/// The headers in `<host>-headers`: a JSON object of names and values.
fn headers_for(host: &str, variables: &Variables) -> Result<HeaderMap> {
    let invalid =
        |why: &str| Error::InvalidSetting { name: "the variable <host>-headers", why: why.to_owned() };
    let Some(text) = variables.get(&format!("{host}-headers")) else { return Ok(HeaderMap::new()) };
    let json: Map<String, Value> =
        serde_json::from_str(text).map_err(|_| invalid("it is not a JSON object of names and values"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &json {
        let name = HeaderName::try_from(name).map_err(|_| invalid("it holds a name that no header has"))?;
        let value = value.as_str().and_then(|text| HeaderValue::from_str(text).ok());
        let mut value = value.ok_or_else(|| invalid("it holds a value that no header has"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_a_content_disposition_is_found() {
        for (header, expected) in [
            ("attachment; filename=\"m.tar.gz\"", Some("m.tar.gz")),
            ("attachment; FileName = m.zip", Some("m.zip")),
            ("attachment; filename=\"a.zip\"; filename*=UTF-8''m%20x.zip", Some("m x.zip")),
            ("attachment; filename=\"../../m.zip\"", Some("m.zip")),
            ("inline", None),
        ] {
            assert_eq!(file_name(header).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn headers_are_those_of_the_host_and_told_to_nobody() {
        let json = r#"{"X-Token": "hunter2", "Accept": "*/*"}"#;
        let variables =
            Variables::try_from([("files.example-headers", json), ("b-headers", "{\"a b\": \"hunter2\"}")]);
        let variables = variables.unwrap();
        let headers = headers_for("files.example", &variables).unwrap();
        assert_eq!(headers.get("x-token").unwrap(), "hunter2");
        assert!(headers_for("other.example", &variables).unwrap().is_empty());
        let error = headers_for("b", &variables).unwrap_err().to_string();
        assert!(error.contains("-headers") && !error.contains("hunter2"), "{error}");
        assert!(!format!("{headers:?}").contains("hunter2"));
    }
}
