//! The address behind a file's redirects: asked for once, for all ranges of the file.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use reqwest::Url;
use tokio::sync::Mutex;

use super::http::Answer;
use crate::download::digest::Digest;
use crate::download::error::Result;

/// What is known of where a file's bytes are.
#[derive(Debug, Default)]
pub struct Link {
    address: Mutex<Option<Url>>,
    /// Whether the store said that what looked like the MD5 of the bytes is something else.
    md5_withdrawn: AtomicBool,
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

    /// What the file's bytes have to hash to, by all that is known now.
    pub fn expected(&self, digest: &Digest) -> Digest {
        match digest {
            Digest::Md5(_) if self.md5_withdrawn.load(Relaxed) => Digest::Untold,
            known => known.clone(),
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
