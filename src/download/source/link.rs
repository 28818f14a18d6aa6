//! The address behind a file's redirects: asked for once, for all ranges of the file.

use std::future::Future;

use reqwest::Url;
use tokio::sync::Mutex;

use super::http::Answer;
use crate::download::error::Result;

/// What is known of where a file's bytes are.
#[derive(Debug, Default)]
pub struct Link(Mutex<Option<Url>>);

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
        let mut known = self.0.lock().await;
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

    /// Forgets the address.
    pub async fn forget(&self) {
        *self.0.lock().await = None;
    }

    /// Forgets the address if it is still this one: another stream may have a better one already.
    pub async fn forget_if(&self, url: &Url) {
        let mut known = self.0.lock().await;
        if known.as_ref() == Some(url) {
            *known = None;
        }
    }
}
