//! The address behind a file's redirects: asked for once, for all ranges of the file.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError};

use reqwest::Url;
use tokio::sync::Mutex;

use super::http::Answer;
use crate::download::digest::{Digest, Hasher};
use crate::download::error::Result;

/// What is known of where a file's bytes are.
#[derive(Debug, Default)]
pub struct Link {
    address: Mutex<Option<Url>>,
    /// Whether the store said that what looked like the MD5 of the bytes is something else.
    md5_withdrawn: AtomicBool,
    /// Where a store's tags only may be MD5s: whether one of them has turned out to be none.
    doubt: OnceLock<Arc<AtomicBool>>,
    /// What the bytes hashed to that came first, if that was not what was expected.
    came: StdMutex<Option<Digest>>,
}

impl Link {
    /// Asks the known address, or the one that `first` gives, and remembers where the answer came from. While
    /// the first answer is not there other streams wait for it, so that one look-up does for all.
    pub(super) async fn through<F>(
        &self,
        first: impl FnOnce() -> Url,
        ask: impl FnOnce(Url) -> F,
    ) -> Result<Answer>
    where
        F: Future<Output = Result<Answer>>,
    {
        let mut known = self.address.lock().await;
        if let Some(url) = known.clone() {
            drop(known);
            return ask(url).await;
        }
        let answer = ask(first()).await?;
        if matches!(answer.status(), 200 | 206) {
            *known = Some(answer.url.clone());
        }
        Ok(answer)
    }

    /// The store encrypts the file with a key of its own: its tag is not the MD5 of the bytes.
    pub(super) fn withdraw_md5(&self) {
        self.md5_withdrawn.store(true, Relaxed);
    }

    /// The tags of the file's store may be something else than MD5s though they look like it; `found` says that of
    /// one of them for all.
    pub(super) fn doubt_md5(&self, found: &Arc<AtomicBool>) {
        self.doubt.get_or_init(|| Arc::clone(found));
    }

    /// The SHA-256 of all bytes if they are the expected ones, else the digest that they have. Where a store's tag
    /// may be no MD5, the same bytes twice say that it is none.
    pub fn verify(&self, hasher: Hasher, expected: &Digest) -> std::result::Result<String, Digest> {
        let (sha256, found) = hasher.finish();
        let is_md5 = matches!(expected, Digest::Md5(_));
        let known = |flag: &Arc<AtomicBool>| flag.load(Relaxed);
        let none = is_md5 && (self.md5_withdrawn.load(Relaxed) || self.doubt.get().is_some_and(known));
        if none || *expected == Digest::Untold || found == *expected {
            return Ok(sha256);
        }
        let before = self.came.lock().unwrap_or_else(PoisonError::into_inner).replace(found.clone());
        match self.doubt.get() {
            Some(flag) if is_md5 && before.as_ref() == Some(&found) => {
                tracing::warn!(tag = %expected, "the same bytes came twice: this store's tags are no MD5s");
                flag.store(true, Relaxed);
                Ok(sha256)
            }
            _ => Err(found),
        }
    }

    /// Forgets the address.
    pub async fn forget(&self) {
        *self.address.lock().await = None;
    }

    /// Forgets the address if it is still this one: another stream may have a better one already.
    pub async fn forget_if(&self, url: &Url) {
        let mut known = self.address.lock().await;
        if known.as_ref() == Some(url) {
            *known = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(bytes: &[u8], expected: &Digest) -> Hasher {
        let mut hasher = Hasher::new(expected, bytes.len() as u64);
        hasher.update(bytes);
        hasher
    }

    #[test]
    fn the_same_bytes_twice_say_that_a_tag_is_no_md5_where_that_may_be() {
        let expected = Digest::Md5("00".repeat(16));
        let check = |link: &Link, bytes: &[u8]| link.verify(hashed(bytes, &expected), &expected).is_ok();
        let found = Arc::new(AtomicBool::new(false));
        let (certain, doubtful, other) = (Link::default(), Link::default(), Link::default());
        doubtful.doubt_md5(&found);
        other.doubt_md5(&found);
        assert!(!check(&certain, b"a") && !check(&certain, b"a"), "a store whose tags are MD5s");
        assert!(!check(&doubtful, b"a") && !check(&doubtful, b"b"), "other bytes each time");
        assert!(check(&doubtful, b"b"));
        assert!(check(&other, b"c"), "what is known of one file is known of all");
        certain.withdraw_md5();
        assert!(check(&certain, b"a"));
    }

    #[test]
    fn no_doubt_about_tags_makes_another_digest_count_less() {
        let expected = Digest::Sha256("00".repeat(32));
        let link = Link::default();
        link.doubt_md5(&Arc::new(AtomicBool::new(true)));
        for _ in 0..3 {
            assert!(link.verify(hashed(b"a", &expected), &expected).is_err());
        }
    }
}
