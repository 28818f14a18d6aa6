//! When to try again: which answers pass, how long to wait, and when to give up (F4).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until};

use super::error::{Error, Fault, Result};

/// A server that asks for a longer wait than this fails the run: whoever started it backs off by itself.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// How often a host is tried that has never answered. What a user has mistyped is to be known within seconds; what
/// passes by itself has mostly passed by then.
const UNMET_ATTEMPTS: usize = 3;
/// The longest wait between such attempts.
const UNMET_WAIT: Duration = Duration::from_secs(1);

/// How often, and at what distance, something is tried again without any progress.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The first wait; each further one is twice as long. Up to its own length is added at random.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Attempts in all.
    pub attempts: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(30), attempts: 8 }
    }
}

impl Policy {
    /// The attempts at one thing.
    pub fn begin<'a>(&self, pause: &'a Pause) -> Attempts<'a> {
        Attempts { policy: *self, pause, delays: self.delays(), made: 0, trouble: None }
    }

    fn delays(&self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_max_times(self.attempts.saturating_sub(1))
            .with_jitter()
            .build()
    }
}

/// Counts the attempts at one thing.
pub struct Attempts<'a> {
    policy: Policy,
    pause: &'a Pause,
    delays: ExponentialBackoff,
    made: usize,
    /// The number of the trouble that they have told of.
    trouble: Option<u64>,
}

impl Attempts<'_> {
    /// Attempts that came to nothing since the last progress.
    pub fn made(&self) -> usize {
        self.made
    }

    /// Something was achieved: the count begins anew.
    pub fn progressed(&mut self) {
        self.delays = self.policy.delays();
        self.made = 0;
        self.end_trouble();
    }

    fn end_trouble(&mut self) {
        if let Some(number) = self.trouble.take() {
            self.pause.state().troubles.retain(|(known, _)| *known != number);
        }
    }

    /// Waits until it is time for the next attempt; gives `error` back when there is none.
    pub async fn again(&mut self, error: Error) -> Result<()> {
        let Error::Passing { fault, .. } = &error else { return Err(error) };
        self.made += 1;
        let asked = asked_wait(fault);
        let unmet = matches!(fault, Fault::NoAddress { .. } | Fault::ConnectionRefused);
        let is_tried_again = asked <= Some(LONGEST_WAIT) && !(unmet && self.made >= UNMET_ATTEMPTS);
        let (Some(delay), true) = (self.delays.next(), is_tried_again) else {
            return Err(Error::GaveUp { attempts: self.made, last: Box::new(error) });
        };
        let delay = if unmet { delay.min(UNMET_WAIT) } else { delay };
        tracing::warn!(attempt = self.made, %error, "a fault that may pass, trying again");
        self.end_trouble();
        self.trouble = Some(self.pause.tell(Trouble::new(&error, self.made)));
        match (asked, matches!(fault, Fault::RateLimited { .. })) {
            // All streams wait, and each a little differently, so that they do not come back as one.
            (Some(wait), _) => self.pause.extend(wait + delay.min(Duration::from_secs(1))),
            (None, true) => self.pause.extend(delay),
            (None, false) => sleep(delay).await,
        }
        Ok(())
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        self.end_trouble();
    }
}

/// Why something is tried again just now (A8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The reason that the download would fail with, in one word.
    pub reason: String,
    /// The same for a person.
    pub message: String,
}

impl Trouble {
    /// Who waits for a download needs no more of it.
    const LONGEST: usize = 400;

    fn new(error: &Error, attempts: usize) -> Self {
        let said: String = error.to_string().chars().take(Self::LONGEST).collect();
        let times = if attempts == 1 { "once".to_owned() } else { format!("{attempts} times") };
        let message = format!("{said} (tried {times} so far, and again before long)");
        Self { reason: format!("{:?}", error.reason()), message }
    }
}

fn asked_wait(fault: &Fault) -> Option<Duration> {
    match fault {
        Fault::RateLimited { wait } | Fault::Status { wait, .. } => *wait,
        _ => None,
    }
}

/// One pause for all streams: while it lasts no request is sent. It also knows what they are waiting for.
#[derive(Debug, Default)]
pub struct Pause(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    /// By number, the latest one last.
    troubles: Vec<(u64, Trouble)>,
    count: u64,
}

impl Pause {
    /// Makes the pause last at least `wait` from now.
    pub fn extend(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.state();
        state.until = state.until.max(Some(until));
    }

    /// Returns when there is no pause.
    pub async fn over(&self) {
        loop {
            let end = self.state().until;
            match end {
                Some(end) if end > Instant::now() => sleep_until(end).await,
                _ => return,
            }
        }
    }

    /// The latest trouble that is not over.
    pub fn trouble(&self) -> Option<Trouble> {
        self.state().troubles.last().map(|(_, trouble)| trouble.clone())
    }

    fn tell(&self, trouble: Trouble) -> u64 {
        let mut state = self.state();
        state.count += 1;
        let number = state.count;
        state.troubles.push((number, trouble));
        number
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the answer asks to wait: `RateLimit: "api";r=0;t=55` means a second more than 55,
/// `Retry-After` is a number of seconds or a date.
pub fn wait_in(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let rate_limit = headers.get("ratelimit").and_then(|value| value.to_str().ok()).and_then(|value| {
        let parameter = |name| value.split(';').find_map(|part| part.trim().strip_prefix(name)?.parse().ok());
        (parameter("r=") == Some(0_u64)).then(|| parameter("t=")).flatten()
    });
    if let Some(seconds) = rate_limit {
        return Some(Duration::from_secs(seconds.saturating_add(1)));
    }
    let retry_after = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = retry_after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(retry_after).ok()?;
    Some(SystemTime::from(date.timestamp()).duration_since(now).unwrap_or_default())
}

/// The fault that a status means by itself, whoever answers it; `None` if trying again will not help.
pub fn passing_status(status: u16, headers: &HeaderMap) -> Option<Fault> {
    let wait = wait_in(headers, SystemTime::now());
    match status {
        429 => Some(Fault::RateLimited { wait }),
        408 | 500 | 502..=504 | 506..=599 => Some(Fault::Status { status, wait }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn the_wait_is_read_from_either_header() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 60);
        for (name, value, expected) in [
            ("ratelimit", r#""api";r=0;t=55"#, Some(56)),
            ("ratelimit", r#""resolvers"; r=0; t=0"#, Some(1)),
            ("ratelimit", r#""api";r=12;t=55"#, None),
            ("ratelimit", "nonsense", None),
            ("retry-after", "7", Some(7)),
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", Some(60)),
            ("retry-after", "Sat, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("retry-after", "soon", None),
        ] {
            let wait = wait_in(&headers(name, value), now).map(|wait| wait.as_secs());
            assert_eq!(wait, expected, "{name}: {value}");
        }
    }

    #[test]
    fn only_statuses_that_pass_are_tried_again() {
        let passing: Vec<u16> =
            (100..=600).filter(|status| passing_status(*status, &HeaderMap::new()).is_some()).collect();
        assert!(passing.contains(&408) && passing.contains(&429) && passing.contains(&500));
        assert!(passing.iter().all(|status| matches!(status, 408 | 429 | 500..=599)));
        assert!(!passing.contains(&501) && !passing.contains(&505));
    }

    fn passing(fault: Fault) -> Error {
        Error::Passing { what: "GET /".into(), fault }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end_unless_there_is_progress() {
        let pause = Pause::default();
        let policy = Policy { attempts: 3, ..Policy::default() };
        let mut attempts = policy.begin(&pause);
        for _ in 0..5 {
            attempts.again(passing(Fault::Connection("reset".into()))).await.unwrap();
            attempts.again(passing(Fault::Connection("reset".into()))).await.unwrap();
            attempts.progressed();
        }
        attempts.again(passing(Fault::Stalled(Duration::from_secs(30)))).await.unwrap();
        attempts.again(passing(Fault::Stalled(Duration::from_secs(30)))).await.unwrap();
        let error = attempts.again(passing(Fault::Stalled(Duration::from_secs(30)))).await.unwrap_err();
        assert!(matches!(error, Error::GaveUp { attempts: 3, .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_is_told_until_there_is_progress_or_an_end() {
        let pause = Pause::default();
        let told = || pause.trouble().map(|trouble| (trouble.reason, trouble.message));
        let mut one = Policy::default().begin(&pause);
        assert_eq!(told(), None);
        one.again(passing(Fault::Connection("reset".into()))).await.unwrap();
        one.again(passing(Fault::Connection("refused".into()))).await.unwrap();
        let (reason, message) = told().unwrap();
        assert_eq!(reason, "SourceUnavailable");
        assert!(message.contains("refused") && message.contains("tried 2 times so far"), "{message}");
        let mut other = Policy::default().begin(&pause);
        other.again(passing(Fault::RateLimited { wait: None })).await.unwrap();
        assert_eq!(told().unwrap().0, "RateLimited", "the latest");
        other.progressed();
        assert_eq!(told().unwrap().0, "SourceUnavailable", "the one that is not over");
        drop(one);
        assert_eq!(told(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_stay_below_twice_the_longest() {
        let pause = Pause::default();
        let policy = Policy::default();
        let mut attempts = policy.begin(&pause);
        let mut waits = Vec::new();
        loop {
            let before = Instant::now();
            if attempts.again(passing(Fault::Connection("reset".into()))).await.is_err() {
                break;
            }
            waits.push(before.elapsed());
        }
        assert_eq!(waits.len(), policy.attempts - 1);
        assert!(waits[0] >= policy.first && waits[6] >= policy.longest, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= policy.longest * 2 + Duration::from_millis(2)), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_never_answered_is_given_up_within_seconds() {
        let pause = Pause::default();
        let unknown = || Fault::NoAddress { host: "hub".into(), why: "not known".into() };
        for fault in [|| Fault::ConnectionRefused, unknown] {
            let (mut attempts, begun) = (Policy::default().begin(&pause), Instant::now());
            let error = loop {
                if let Err(error) = attempts.again(passing(fault())).await {
                    break error;
                }
            };
            assert!(matches!(error, Error::GaveUp { attempts: UNMET_ATTEMPTS, .. }), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_streams_rate_limit_pauses_all() {
        let pause = Pause::default();
        let wait = Some(Duration::from_secs(56));
        Policy::default().begin(&pause).again(passing(Fault::RateLimited { wait })).await.unwrap();
        let before = Instant::now();
        pause.over().await;
        assert!(before.elapsed() >= Duration::from_secs(56) && before.elapsed() < Duration::from_mins(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_of_hours_fails_at_once() {
        let pause = Pause::default();
        let wait = Some(Duration::from_hours(2));
        let error =
            Policy::default().begin(&pause).again(passing(Fault::RateLimited { wait })).await.unwrap_err();
        assert!(matches!(error, Error::GaveUp { attempts: 1, .. }), "{error}");
    }

    #[tokio::test]
    async fn what_does_not_pass_is_not_tried_again() {
        let pause = Pause::default();
        let error = Error::TokenMissing { repository: "o/m".into() };
        let error = Policy::default().begin(&pause).again(error).await.unwrap_err();
        assert!(matches!(error, Error::TokenMissing { .. }));
    }
}
