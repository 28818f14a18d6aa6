//! Bytes from the source into a buffer, patiently: what passes is tried again at the byte where it stopped (F4).

use std::ops::Range;

use bytes::Bytes;

use super::Transfer;
use super::buffers::Buffer;
use crate::download::error::Result;
use crate::download::plan::PlannedFile;
use crate::download::progress::Meter;
use crate::download::source::{Body, Link};

/// Attempts without progress after which the address behind the redirects is asked for anew.
const DOUBTFUL: usize = 2;

/// Bytes that count as progress.
const PROGRESS: usize = 16 << 10;

/// An answer that is being read; it may reach beyond the buffer that is filled from it.
pub struct Stream {
    body: Body,
    /// The file's byte that comes next.
    at: u64,
    /// Bytes from there on that have arrived already.
    rest: Bytes,
}

/// Receives bytes of one file.
pub struct Receiver<'a> {
    /// What the file is part of.
    pub transfer: &'a Transfer,
    /// The file.
    pub file: &'a PlannedFile,
    /// Where its bytes are.
    pub link: &'a Link,
    /// Counts its bytes, beside all.
    pub meter: Option<&'a Meter>,
}

impl Receiver<'_> {
    /// Fills the buffer with the bytes `range`. Goes on with `stream` where that stands at the right place, and
    /// leaves in it what can be gone on with; a new request asks up to `end`.
    pub async fn fill(
        &self,
        buffer: &mut Buffer,
        range: Range<u64>,
        end: u64,
        stream: &mut Option<Stream>,
    ) -> Result<()> {
        let settings = &self.transfer.settings;
        let mut attempts = settings.retry.begin(self.transfer.source.pause());
        let mut counted = buffer.filled().len();
        loop {
            let before = buffer.filled().len();
            let Err(error) = self.advance(buffer, &range, end, stream).await else { return Ok(()) };
            *stream = None;
            let filled = buffer.filled().len();
            if filled - counted >= PROGRESS {
                attempts.progressed();
                counted = filled;
            } else if filled == before && attempts.made() + 1 >= DOUBTFUL {
                self.link.forget().await;
            }
            attempts.again(error).await?;
        }
    }

    /// The same, up to the first fault.
    async fn advance(
        &self,
        buffer: &mut Buffer,
        range: &Range<u64>,
        end: u64,
        stream: &mut Option<Stream>,
    ) -> Result<()> {
        let size = range.end - range.start;
        let limit = usize::try_from(size).unwrap_or(usize::MAX);
        loop {
            let at = range.start + buffer.filled().len() as u64;
            if at == range.end {
                return Ok(());
            }
            let current = match stream.take().filter(|stream| stream.reaches(at)) {
                Some(current) => stream.insert(current),
                None => stream.insert(self.open(at..end).await?),
            };
            let bytes = current.next(at).await?;
            let taken = buffer.append(&bytes, limit);
            current.keep(bytes, taken);
            self.transfer.progress.received(taken as u64, self.meter);
        }
    }

    async fn open(&self, range: Range<u64>) -> Result<Stream> {
        let Transfer { source, commit, settings, .. } = self.transfer;
        let most = range.start.saturating_add(settings.segment.max(1));
        let asked = range.start..range.end.min(most);
        let body = source.open(commit.as_deref(), self.file, &asked, self.link).await?;
        Ok(Stream { at: body.range.start, body, rest: Bytes::new() })
    }
}

impl Stream {
    /// Whether the server sends the whole file although it was asked for a part.
    pub fn ignores_ranges(&self) -> bool {
        self.body.whole
    }

    /// Whether byte `at` is still to come, and soon.
    fn reaches(&self, at: u64) -> bool {
        (self.at == at || (self.body.whole && self.at < at)) && at < self.body.range.end
    }

    /// Some bytes from `at` on. A server that ignores ranges sends the file from its first byte: what is
    /// before `at` is dropped.
    async fn next(&mut self, at: u64) -> Result<Bytes> {
        loop {
            let mut bytes = std::mem::take(&mut self.rest);
            if bytes.is_empty() {
                bytes = self.body.chunk().await?.ok_or_else(|| self.body.truncated(self.at))?;
            }
            self.body.limit(&mut bytes, self.at)?;
            if self.at + bytes.len() as u64 == self.body.range.end {
                self.body.end().await?;
            }
            let known = bytes.len().min(usize::try_from(at - self.at).unwrap_or(usize::MAX));
            self.at += known as u64;
            let bytes = bytes.split_off(known);
            if !bytes.is_empty() {
                return Ok(bytes);
            }
        }
    }

    /// Keeps what is left of `bytes` after the `taken` first.
    fn keep(&mut self, mut bytes: Bytes, taken: usize) {
        self.at += taken as u64;
        self.rest = bytes.split_off(taken);
    }
}
