//! Where models come from: a source URI, what it holds, and how a range of a file is read.
//!
//! A further scheme is a variant of [`Location`] and of [`Source`]; planning, transfer and disk know
//! nothing of schemes.

use std::ops::Range;

use bytes::Bytes;

mod http;
mod hub;
mod link;

use http::{Answer, plain};
use hub::Hub;
pub use link::Link;

use super::error::{Error, Fault, Result};
use super::plan::PlannedFile;
use super::settings::Settings;

/// A source URI that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `hf://owner/model[:revision]`.
    Hub(Repository),
}

/// A model repository on a hub, and the revision that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// A user or an organisation.
    pub owner: String,
    /// The model.
    pub model: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Location {
    /// Understands a source URI (F2).
    pub fn parse(uri: &str) -> Result<Self> {
        match uri.split_once("://") {
            Some(("hf", rest)) => Repository::parse(uri, rest).map(Self::Hub),
            Some(_) => Err(Error::UnsupportedScheme { uri: uri.to_owned() }),
            None => Err(invalid(uri, "it has to look like hf://owner/model[:revision]")),
        }
    }

    /// The commit, where the URI itself names one.
    pub fn commit(&self) -> Option<&str> {
        let Self::Hub(repository) = self;
        Some(repository.revision.as_str()).filter(|revision| is_commit(revision))
    }
}

impl Repository {
    fn parse(uri: &str, rest: &str) -> Result<Self> {
        let (name, revision) = rest.split_once(':').unwrap_or((rest, ""));
        let Some((owner, model)) = name.split_once('/').filter(|(_, model)| !model.contains('/')) else {
            return Err(invalid(uri, "it has to have exactly two parts, hf://owner/model[:revision]"));
        };
        for (part, value) in [("the owner", owner), ("the model", model)] {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if value.is_empty() || value.starts_with('.') || !value.chars().all(allowed) {
                return Err(invalid(uri, &format!("{part} has to be letters, digits, '-', '_' and '.'")));
            }
        }
        if revision.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid(uri, "the revision holds white space"));
        }
        let revision = if revision.is_empty() { "main" } else { revision };
        Ok(Self { owner: owner.to_owned(), model: model.to_owned(), revision: revision.to_owned() })
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.model)
    }
}

/// Whether a revision is a full commit id, which needs no look-up and never moves.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn invalid(uri: &str, why: &str) -> Error {
    Error::InvalidSource { uri: uri.to_owned(), why: why.to_owned() }
}

/// A source that can be asked.
#[derive(Debug)]
pub enum Source {
    /// A Hugging Face hub.
    Hub(Hub),
}

/// The body of a file, or of a part of it, as it arrives.
pub struct Body {
    answer: Answer,
    /// The bytes of the file that it holds.
    pub range: Range<u64>,
    /// Whether it is the whole file although a part was asked for.
    pub whole: bool,
}

impl Source {
    /// Opens a client for a source.
    pub fn new(location: &Location, settings: &Settings) -> Result<Self> {
        match location {
            Location::Hub(repository) => Hub::new(repository.clone(), settings).map(Self::Hub),
        }
    }

    /// The commit that the URI's revision is now.
    pub async fn commit(&self) -> Result<String> {
        match self {
            Self::Hub(hub) => hub.commit().await,
        }
    }

    /// All files of a commit, with names that are safe.
    pub async fn files(&self, commit: &str) -> Result<Vec<PlannedFile>> {
        match self {
            Self::Hub(hub) => hub.files(commit).await,
        }
    }

    /// Asks once for a range of a file; `link` is the file's.
    pub async fn open(
        &self,
        commit: Option<&str>,
        file: &PlannedFile,
        range: &Range<u64>,
        link: &Link,
    ) -> Result<Body> {
        match self {
            Self::Hub(hub) => hub.open(commit.unwrap_or_default(), file, range, link).await,
        }
    }

    /// Where the files are asked for: the same files at another place are not the same download.
    pub fn place(&self) -> String {
        match self {
            Self::Hub(hub) => hub.place(),
        }
    }

    /// The pause that all requests to this source share.
    pub fn pause(&self) -> &super::retry::Pause {
        match self {
            Self::Hub(hub) => hub.pause(),
        }
    }
}

impl Body {
    /// The body of an answer with status 200 or 206 to a request for `range` of a file of `size` bytes.
    /// An answer that is not about those bytes is refused.
    pub fn new(answer: Answer, range: &Range<u64>, size: u64) -> Result<Self> {
        let wrong = |why: String| Error::Passing { what: plain(&answer.url), fault: Fault::WrongRange(why) };
        let held = if answer.status() == 206 {
            let content_range = answer.header("content-range").unwrap_or_default();
            held_by(content_range, range, size).ok_or_else(|| {
                wrong(format!("Content-Range is {content_range:?}, asked was {range:?} of {size}"))
            })?
        } else {
            // The range was ignored: the body is the whole file, from its first byte.
            match answer.response.content_length() {
                Some(length) if length != size => {
                    return Err(wrong(format!("{length} bytes instead of {size}")));
                }
                _ => 0..size,
            }
        };
        let whole = held.end > range.end || held.start < range.start;
        Ok(Self { answer, range: held, whole })
    }

    /// The next bytes; `None` when the server says that there are no more.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.answer.chunk().await
    }

    /// The error that the body has ended when only `got` bytes of the file were there.
    pub fn truncated(&self, got: u64) -> Error {
        let fault = Fault::Truncated { got, want: self.range.end };
        Error::Passing { what: plain(&self.answer.url), fault }
    }
}

/// The bytes that a `Content-Range` says the body holds, if they begin where the asked ones do.
fn held_by(content_range: &str, asked: &Range<u64>, size: u64) -> Option<Range<u64>> {
    let (bounds, total) = content_range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = bounds.split_once('-')?;
    let held = first.parse::<u64>().ok()?..last.parse::<u64>().ok()?.checked_add(1)?;
    let right_total = total == "*" || total.parse() == Ok(size);
    (right_total && held.start == asked.start && held.start < held.end)
        .then(|| held.start..held.end.min(asked.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_uris_have_two_parts_and_maybe_a_revision() {
        for (uri, owner, model, revision) in [
            ("hf://meta-llama/meta-llama-3-8b-instruct", "meta-llama", "meta-llama-3-8b-instruct", "main"),
            ("hf://o/m:v1.0", "o", "m", "v1.0"),
            ("hf://o/m:refs/pr/1", "o", "m", "refs/pr/1"),
            ("hf://o/m_x.y:", "o", "m_x.y", "main"),
        ] {
            let expected = Repository { owner: owner.into(), model: model.into(), revision: revision.into() };
            assert_eq!(Location::parse(uri).unwrap(), Location::Hub(expected), "{uri}");
        }
    }

    #[test]
    fn a_uri_that_makes_no_sense_is_refused_with_its_reason() {
        for (uri, reason) in [
            ("hf://only-one-part", "InvalidSource"),
            ("hf:///x", "InvalidSource"),
            ("hf://o/", "InvalidSource"),
            ("hf://o/m/x", "InvalidSource"),
            ("hf://o/..", "InvalidSource"),
            ("hf://o/m?x", "InvalidSource"),
            ("hf://o/m:a b", "InvalidSource"),
            ("o/m", "InvalidSource"),
            ("", "InvalidSource"),
            ("s3://bucket/model", "UnsupportedScheme"),
            ("HF://o/m", "UnsupportedScheme"),
        ] {
            let error = Location::parse(uri).unwrap_err();
            assert_eq!(format!("{:?}", error.reason()), reason, "{uri}");
            assert!(error.to_string().contains("hf://owner/model") || uri.starts_with("hf://"), "{error}");
        }
    }

    #[test]
    fn only_a_full_commit_id_is_a_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let of = |revision: &str| {
            Location::parse(&format!("hf://o/m:{revision}")).unwrap().commit().map(str::to_owned)
        };
        assert_eq!(of(commit).as_deref(), Some(commit));
        assert_eq!(of(&commit[..39]), None);
        assert_eq!(of(&commit.to_uppercase()), None);
    }

    #[test]
    fn a_partial_body_is_taken_only_for_the_bytes_that_were_asked_for() {
        for (content_range, expected) in [
            ("bytes 10-19/100", Some(10..20)),
            ("bytes 10-14/100", Some(10..15)),
            ("bytes 10-99/100", Some(10..20)),
            ("bytes 10-19/*", Some(10..20)),
            ("bytes 0-19/100", None),
            ("bytes 11-19/100", None),
            ("bytes 10-19/99", None),
            ("bytes 10-9/100", None),
            ("bytes */100", None),
            ("bytes 10-18446744073709551615/100", None),
            ("items 10-19/100", None),
            ("", None),
        ] {
            assert_eq!(held_by(content_range, &(10..20), 100), expected, "{content_range}");
        }
    }
}
