//! Which operator may write: what to do with the Lease that all of them look at (O1).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// The Lease, in the operator's namespace.
pub const NAME: &str = "localmodel-operator";
/// How long others wait for a holder that says nothing.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long the holder itself relies on what it said last: less than others wait, so that a write that it
/// began in time has arrived before another one's first.
pub const RELIED_ON: Duration = Duration::from_secs(10);
/// The pause between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a look waits for each of its two answers: a connection that hangs leaves time for one more look
/// before [`RELIED_ON`] is over.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What to do after a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write this: the lease is one's own, or free.
    Hold(LeaseSpec),
    /// Another one has it.
    Wait {
        /// Who.
        holder: String,
    },
}

/// The next step of the operator `me`, to whom the lease has looked the same for so long. Its holder's
/// clock is not looked at: it may be wrong.
pub fn step(lease: Option<&Lease>, me: &str, unchanged: Duration, now: Timestamp) -> Step {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let patience = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
    let patience = patience.map_or(DURATION, Duration::from_secs);
    match holder {
        Some(holder) if holder != me && unchanged < patience => Step::Wait { holder: holder.to_owned() },
        _ => Step::Hold(held(spec, holder == Some(me), me, now)),
    }
}

fn held(before: Option<&LeaseSpec>, mine: bool, me: &str, now: Timestamp) -> LeaseSpec {
    let before = before.cloned().unwrap_or_default();
    let changes = before.lease_transitions.unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        renew_time: Some(MicroTime(now)),
        acquire_time: if mine { before.acquire_time } else { Some(MicroTime(now)) },
        lease_transitions: Some(if mine { changes } else { changes.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

/// How long after its last word a holder is taken for gone by somebody who only looks once. Clocks may differ.
const SILENT: SignedDuration = SignedDuration::from_secs(60);

/// Whether an operator holds the lease, as far as one look can tell; else since when none does.
pub fn is_held(lease: Option<&Lease>, now: Timestamp) -> Result<(), Option<Timestamp>> {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let is_recent = renewed.is_some_and(|renewed| now.duration_since(renewed) < SILENT);
    if holder.is_some() && is_recent { Ok(()) } else { Err(renewed) }
}

/// What a holder writes that leaves: the next one need not wait.
pub fn released(before: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec { holder_identity: Some(String::new()), renew_time: Some(MicroTime(now)), ..before.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn lease(step: Step) -> Lease {
        let Step::Hold(spec) = step else { panic!("{step:?}") };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    fn of(me: &str) -> Lease {
        lease(step(None, me, Duration::ZERO, NOW))
    }

    #[test]
    fn a_lease_that_is_not_there_is_taken() {
        let spec = of("a").spec.unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some("a"));
        assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(1), Some(15)));
        assert_eq!((spec.acquire_time, spec.renew_time), (Some(MicroTime(NOW)), Some(MicroTime(NOW))));
    }

    #[test]
    fn a_holder_goes_on_and_says_so_without_taking_it_anew() {
        let later = NOW + DURATION;
        let spec = lease(step(Some(&of("a")), "a", Duration::from_hours(1), later)).spec.unwrap();
        assert_eq!((spec.lease_transitions, spec.acquire_time), (Some(1), Some(MicroTime(NOW))));
        assert_eq!(spec.renew_time, Some(MicroTime(later)));
    }

    #[test]
    fn another_one_waits_until_it_has_seen_no_change_for_the_leases_whole_time() {
        let almost = DURATION.saturating_sub(Duration::from_millis(1));
        assert_eq!(step(Some(&of("a")), "b", almost, NOW), Step::Wait { holder: "a".into() });
        let spec = lease(step(Some(&of("a")), "b", DURATION, NOW)).spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(2)));
    }

    #[test]
    fn the_time_that_a_lease_names_counts_for_those_who_wait_for_it() {
        let mut long = of("a");
        long.spec.as_mut().unwrap().lease_duration_seconds = Some(60);
        assert_eq!(step(Some(&long), "b", DURATION, NOW), Step::Wait { holder: "a".into() });
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let left = NOW + SignedDuration::from_secs(1);
        let back = released(&of("a").spec.unwrap(), left);
        assert_eq!(back.renew_time, Some(MicroTime(left)));
        let back = Lease { spec: Some(back), ..Lease::default() };
        let spec = lease(step(Some(&back), "b", Duration::ZERO, NOW)).spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(2)));
    }

    #[test]
    fn who_looks_once_takes_a_lease_for_held_while_its_holder_spoke_a_minute_ago() {
        let lease = of("a");
        let later = |seconds| NOW + SignedDuration::from_secs(seconds);
        assert_eq!(is_held(Some(&lease), later(59)), Ok(()));
        assert_eq!(is_held(Some(&lease), later(-3600)), Ok(()), "a clock that is behind");
        assert_eq!(is_held(Some(&lease), later(60)), Err(Some(NOW)));
        assert_eq!(is_held(None, NOW), Err(None));
        let back = Lease { spec: Some(released(&lease.spec.unwrap(), later(1))), ..Lease::default() };
        assert_eq!(is_held(Some(&back), later(2)), Err(Some(later(1))));
    }

    #[test]
    fn whoever_takes_over_has_waited_longer_than_the_one_before_relied_on_it() {
        assert!(RELIED_ON + 2 * LOOK_EVERY < DURATION, "time for a look, and for a write to arrive");
        assert!(DURATION + 2 * LOOK_EVERY < Duration::from_secs(20), "the next one leads within 20 s");
    }
}
