//! How long a source may take: each answer has an end, and none may come by the drop.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::source::Barrier;

/// Limits of time for what a source answers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A connection has to stand after so long.
    pub connect: Duration,
    /// A connection that sends no byte for so long is given up.
    pub stall: Duration,
    /// An answer that is no file has to be complete after so long: a page of a list, a token.
    pub answer: Duration,
    /// A list has to be complete after so long.
    pub listing: Duration,
    /// What a body has to bring at least.
    pub rate: Rate,
}

/// So many bytes in such a time.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The bytes.
    pub bytes: u64,
    /// The time.
    pub within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            answer: Duration::from_mins(2),
            listing: Duration::from_mins(10),
            rate: Rate { bytes: 1 << 20, within: Duration::from_mins(5) },
        }
    }
}

/// Holds a body to the limits. Only time that is spent waiting for it counts: a slow disk is not its fault.
#[derive(Debug)]
pub struct Pace {
    stall: Duration,
    rate: Rate,
    waited: Duration,
    got: u64,
}

impl Pace {
    /// For a body that begins now.
    pub fn new(limits: &Limits) -> Self {
        Self { stall: limits.stall, rate: limits.rate, waited: Duration::ZERO, got: 0 }
    }

    /// Waits for the next bytes of the body.
    pub async fn next<E>(
        &mut self,
        next: impl Future<Output = Result<Option<Bytes>, E>>,
    ) -> Result<Result<Option<Bytes>, E>, Barrier> {
        let left = self.rate.within.saturating_sub(self.waited);
        let begun = Instant::now();
        let came = timeout(self.stall.min(left), next).await;
        self.waited += begun.elapsed();
        self.got += came.as_ref().map_or(0, |chunk| length(chunk));
        if self.got >= self.rate.bytes {
            (self.waited, self.got) = (Duration::ZERO, 0);
        } else if self.waited >= self.rate.within {
            return Err(Barrier::TooSlow { got: self.got, within: self.rate.within });
        }
        came.map_err(|_| Barrier::Stalled(self.stall))
    }
}

fn length<E>(chunk: &Result<Option<Bytes>, E>) -> u64 {
    chunk.as_ref().ok().and_then(Option::as_ref).map_or(0, |bytes| bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::time::sleep;

    use super::*;

    const LIMITS: Limits = Limits {
        connect: Duration::from_secs(1),
        stall: Duration::from_secs(30),
        answer: Duration::from_mins(1),
        listing: Duration::from_mins(1),
        rate: Rate { bytes: 1000, within: Duration::from_mins(5) },
    };

    /// Reads a body that sends so many bytes at such a distance.
    async fn read(pace: &mut Pace, bytes: usize, every: Duration) -> Result<(), Barrier> {
        let next = async {
            sleep(every).await;
            Ok::<_, Infallible>(Some(Bytes::from(vec![0; bytes])))
        };
        pace.next(next).await.map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_every_second_and_a_half_ends_after_five_minutes() {
        let (mut pace, begun) = (Pace::new(&LIMITS), Instant::now());
        let error = loop {
            if let Err(error) = read(&mut pace, 1, Duration::from_millis(1500)).await {
                break error;
            }
        };
        assert_eq!(error, Barrier::TooSlow { got: 200, within: Duration::from_mins(5) });
        assert_eq!(begun.elapsed(), Duration::from_mins(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_at_the_least_rate_may_take_for_hours() {
        let mut pace = Pace::new(&LIMITS);
        for _ in 0..1000 {
            read(&mut pace, 100, Duration::from_secs(29)).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_says_nothing_stalls_and_time_that_nobody_waits_for_it_does_not_count() {
        let mut pace = Pace::new(&LIMITS);
        for _ in 0..20 {
            sleep(Duration::from_mins(4)).await;
            read(&mut pace, 1, Duration::from_secs(1)).await.unwrap();
        }
        let error = read(&mut pace, 1, Duration::from_mins(1)).await.unwrap_err();
        assert_eq!(error, Barrier::Stalled(LIMITS.stall));
    }
}
