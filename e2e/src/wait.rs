//! Waiting for a condition, never for a time.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(3);
/// The pause between the first two looks; it grows to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// Looks again and again until `look` returns a value. An error of `look` is a reason to look again; the
/// last one is told when patience ends.
pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        let looked = look().await;
        if let Ok(Some(value)) = looked {
            return Ok(value);
        }
        if Instant::now() > end {
            let last = looked.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("waited {} s for {what}{last}", PATIENCE.as_secs());
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}
