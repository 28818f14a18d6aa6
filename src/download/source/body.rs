//! The bytes of a file, or of a part of it, as they arrive.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::http::{Answer, plain};
use super::page::why_page;
use crate::download::error::{Error, Fault, Result};
use crate::download::limits::{Limits, Pace};

/// A body that is being read.
pub struct Body {
    kind: Kind,
    /// The bytes of the file that it holds.
    pub range: Range<u64>,
    /// Whether it is the whole file although a part was asked for.
    pub whole: bool,
    /// Whether nothing may come behind the range: an answer that is the whole file.
    is_file: bool,
    /// Bytes that have been read already.
    first: Bytes,
}

enum Kind {
    Answer(Box<Answer>),
    Stream { what: String, pace: Pace, stream: BoxStream<'static, Result<Bytes>> },
}

impl Body {
    /// The body of an answer with status 200 or 206 to a request for `range` of a file of `size` bytes.
    /// An answer that is not about those bytes is refused.
    pub(super) fn new(answer: Answer, range: &Range<u64>, size: u64) -> Result<Self> {
        let wrong = |why: String| Error::Passing { what: plain(&answer.url), fault: Fault::WrongRange(why) };
        let held = if answer.status() == 206 {
            let content_range = answer.header("content-range").unwrap_or_default();
            if let (Some((held, _)), Some(length)) =
                (self::content_range(content_range), answer.response.content_length())
                && held.end - held.start < length
            {
                return Err(wrong(format!("{length} bytes, and Content-Range is {content_range:?}")));
            }
            held_by(content_range, range, size).ok_or_else(|| {
                wrong(format!("Content-Range is {content_range:?}, asked was {range:?} of {size}"))
            })?
        } else {
            // The range was ignored: the body is the whole file, from its first byte. A page that people are to log in
            // on is no answer that another try makes better.
            let page = || why_page(answer.url.path(), answer.header("content-type"), &[]);
            if let Some(page) = page().filter(|_| answer.length() != Some(size)) {
                let why = format!("it is {page} and not the file: check the address and the credentials");
                return Err(Error::BadAnswer { what: plain(&answer.url), why });
            }
            match answer.length() {
                Some(length) if length != size => {
                    return Err(wrong(format!("{length} bytes instead of {size}")));
                }
                Some(_) => 0..size,
                // It may be anything, and more of it than the file has.
                None => return Err(wrong("a whole file of unknown length".to_owned())),
            }
        };
        let whole = held.end > range.end || held.start < range.start;
        let is_file = answer.status() == 200;
        Ok(Self { first: Bytes::new(), kind: Kind::Answer(Box::new(answer)), range: held, whole, is_file })
    }

    /// The body of an answer whose length shows at its end, and of which `first` has been read.
    pub(super) fn of_unknown_length(answer: Answer, first: Bytes) -> Self {
        Self { first, kind: Kind::Answer(Box::new(answer)), range: 0..u64::MAX, whole: true, is_file: true }
    }

    /// The bytes `range` of a file that `what` names, from a stream that is held to these limits.
    pub(super) fn of_stream(
        what: String,
        range: Range<u64>,
        limits: &Limits,
        stream: BoxStream<'static, Result<Bytes>>,
    ) -> Self {
        Self {
            first: Bytes::new(),
            kind: Kind::Stream { what, pace: Pace::new(limits), stream },
            range,
            whole: false,
            is_file: false,
        }
    }

    /// The next bytes; `None` when the server says that there are no more.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if !self.first.is_empty() {
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        match &mut self.kind {
            Kind::Answer(answer) => answer.chunk().await,
            Kind::Stream { what, pace, stream } => {
                let next = async { stream.next().await.transpose() };
                pace.next(next).await.unwrap_or_else(|barrier| Err(barrier.into_error(what.clone())))
            }
        }
    }

    /// Cuts off bytes behind the range, the first of these being byte `at` of the file. Behind the end of a whole
    /// file there are none, or it is another one.
    pub fn limit(&self, bytes: &mut Bytes, at: u64) -> Result<()> {
        let left = usize::try_from(self.range.end - at).unwrap_or(usize::MAX);
        if self.is_file && bytes.len() > left {
            let why = format!("more than {} bytes", self.range.end);
            return Err(Error::Passing { what: self.what(), fault: Fault::WrongRange(why) });
        }
        bytes.truncate(left);
        Ok(())
    }

    /// Waits for the end of an answer that is the whole file and has not said how long it is.
    pub async fn end(&mut self) -> Result<()> {
        match &self.kind {
            Kind::Answer(answer) if self.is_file && answer.response.content_length().is_none() => {}
            Kind::Answer(_) | Kind::Stream { .. } => return Ok(()),
        }
        while let Some(mut bytes) = self.chunk().await? {
            self.limit(&mut bytes, self.range.end)?;
        }
        Ok(())
    }

    fn what(&self) -> String {
        match &self.kind {
            Kind::Answer(answer) => plain(&answer.url),
            Kind::Stream { what, .. } => what.clone(),
        }
    }

    /// The error that the body has ended when only `got` bytes of the file were there.
    pub fn truncated(&self, got: u64) -> Error {
        let what = self.what();
        Error::Passing { what, fault: Fault::Truncated { got, want: self.range.end } }
    }
}

/// First byte, last byte and size of a `Content-Range`; the size is not always told.
pub fn content_range(header: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (bounds, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = bounds.split_once('-')?;
    let held = first.parse::<u64>().ok()?..last.parse::<u64>().ok()?.checked_add(1)?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    (held.start < held.end).then_some((held, total))
}

/// The bytes that a `Content-Range` says the body holds, if they begin where the asked ones do.
fn held_by(header: &str, asked: &Range<u64>, size: u64) -> Option<Range<u64>> {
    let (held, total) = content_range(header)?;
    let right = held.start == asked.start && total.is_none_or(|total| total == size);
    right.then(|| held.start..held.end.min(asked.end))
}

#[cfg(test)]
mod tests {
    use super::*;

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
