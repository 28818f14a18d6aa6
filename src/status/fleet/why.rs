//! Why copies and caches are not warm: each reason once, with all that it holds back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{CacheView, CopyView, State, Told};

/// One reason, of however many copies and caches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// What comes of it.
    pub state: State,
    /// The reason; nobody has told any where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The message that is told most often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many copies.
    pub copies: usize,
    /// Of which caches.
    pub caches: BTreeSet<String>,
    /// On which nodes.
    pub nodes: BTreeSet<String>,
}

/// The reasons of copies that are not complete, or on their way but held up, and of caches: the worst and
/// most frequent first.
pub fn why(caches: &[CacheView]) -> Vec<Why> {
    let mut groups =
        BTreeMap::<(State, Option<&str>), Vec<(&CacheView, Option<&CopyView>, Option<&str>)>>::new();
    for cache in caches {
        // What a copy tells is not told a second time.
        let is_told = |problem: &&Told| {
            let mut reasons = cache.nodes.iter().map(|copy| copy.detail.reason.as_deref());
            reasons.any(|reason| reason == Some(&problem.reason))
        };
        for problem in cache.problems.iter().filter(|problem| !is_told(problem)) {
            let group = groups.entry((State::Blocked, Some(&problem.reason))).or_default();
            group.push((cache, None, Some(&problem.message)));
        }
        for copy in cache.nodes.iter().filter(|copy| copy.is_held_up()) {
            let group = groups.entry((copy.state, copy.detail.reason.as_deref())).or_default();
            group.push((cache, Some(copy), copy.detail.message.as_deref()));
        }
    }
    let mut all: Vec<Why> = groups
        .into_iter()
        .map(|((state, reason), told)| Why {
            state,
            reason: reason.map(Into::into),
            message: most_frequent(told.iter().filter_map(|(_, _, message)| *message)).map(Into::into),
            copies: told.iter().filter(|(_, copy, _)| copy.is_some()).count(),
            caches: told.iter().map(|(cache, _, _)| cache.key().to_string()).collect(),
            nodes: told.iter().filter_map(|(_, copy, _)| Some(copy.as_ref()?.node.clone())).collect(),
        })
        .collect();
    all.sort_by_key(|why| (why.state, Reverse((why.copies, why.caches.len()))));
    all
}

fn most_frequent<'a>(messages: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for message in messages {
        *counts.entry(message).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(message, count)| (*count, Reverse(*message))).map(|(message, _)| message)
}
