//! A file of a web server, with the headers that KServe's `<host>-headers` variable holds.

use std::ops::Range;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::body::{Body, content_range};
use super::http::{Answer, Http, plain};
use super::link::Link;
use crate::download::digest::Digest;
use crate::download::error::{Error, Fault, Result};
use crate::download::plan::PlannedFile;
use crate::download::retry::{Pause, Policy, passing_status};
use crate::download::settings::Settings;
use crate::download::store::check_name;
use crate::download::variables::Variables;

/// One file.
#[derive(Debug)]
pub struct Web {
    http: Http,
    url: Url,
    retry: Policy,
}

impl Web {
    /// A client for the file at this address.
    pub fn new(url: Url, settings: &Settings) -> Result<Self> {
        let headers = headers_for(url.host_str().unwrap_or_default(), &settings.variables)?;
        Ok(Self { http: Http::with(settings, url.clone(), headers)?, url, retry: settings.retry })
    }

    /// Its address, without what may be secret in it.
    pub fn place(&self) -> String {
        plain(&self.url)
    }

    /// The pause that a 429 puts on all requests.
    pub fn pause(&self) -> &Pause {
        &self.http.pause
    }

    /// The file, named as the last part of the address.
    pub async fn files(&self) -> Result<Vec<PlannedFile>> {
        let mut attempts = self.retry.begin(&self.http.pause);
        loop {
            match self.look().await {
                Ok(file) => return Ok(vec![file]),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    async fn look(&self) -> Result<PlannedFile> {
        let answer = self.http.get(self.url.clone(), Some(&(0..1))).await?;
        let size = match answer.status() {
            206 => answer.header("content-range").and_then(content_range).and_then(|(_, size)| size),
            200 => answer.response.content_length(),
            // There is no first byte.
            416 => Some(0),
            status => return Err(refused(&answer, status)),
        };
        let name = self.url.path().rsplit('/').next().unwrap_or_default();
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
        check_name(&name)?;
        let why = "it does not say how large the file is";
        let size = size.ok_or_else(|| Error::BadAnswer { what: self.place(), why: why.to_owned() })?;
        Ok(PlannedFile { version: tag(&answer), ..PlannedFile::new(name, size, Digest::Untold) })
    }

    /// Asks once for a range of the file.
    pub async fn open(&self, file: &PlannedFile, range: &Range<u64>, link: &Link) -> Result<Body> {
        let answer = link.through(|| self.url.clone(), |url| self.http.get(url, Some(range))).await?;
        match answer.status() {
            200 | 206 if tag(&answer) != file.version => Err(Error::Changed { place: self.place() }),
            200 | 206 => Body::new(answer, range, file.size),
            status => {
                link.forget_if(&answer.url).await;
                Err(refused(&answer, status))
            }
        }
    }
}

/// What tells versions of the file apart: an `ETag` that is a strong one.
fn tag(answer: &Answer) -> Option<String> {
    answer.header("etag").filter(|tag| !tag.starts_with("W/")).map(str::to_owned)
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
