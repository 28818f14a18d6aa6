//! The definitions of the kinds of caches. Without its definition no cache is there, and that says nothing of what is
//! wanted: whoever deletes a definition, or restores a cluster, deletes all its objects without a word about any. So
//! nothing that was kept for caches goes before their definition is there, and has been for a while.

use jiff::{SignedDuration, Timestamp};

use super::names::CacheKey;
use crate::api::ModelEntry;

/// How long after a definition was made its objects may still be about to come back.
pub const RESTORED_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// A kind's definition as the API server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// It is not there, or is in deletion.
    Gone,
    /// It was made at this time.
    Since(Timestamp),
}

/// The name of the definition that the cache of a copy or entry is of.
pub const fn name(is_of_namespace: bool) -> &'static str {
    if is_of_namespace {
        "localmodelnamespacecaches.serving.kserve.io"
    } else {
        "localmodelcaches.serving.kserve.io"
    }
}

/// Until when nothing may go that was made for caches of this kind at a time, if known; never, where it may go now.
pub fn holds(definition: Definition, made: Option<Timestamp>, now: Timestamp) -> bool {
    match definition {
        Definition::Gone => true,
        Definition::Since(since) => made.is_some_and(|made| made < since) && now < since + RESTORED_WITHIN,
    }
}

/// The entries of a node's list that the plan has no more.
pub fn leaving<'a>(before: &'a [ModelEntry], planned: &[ModelEntry]) -> Vec<&'a ModelEntry> {
    let is_planned = |entry: &&ModelEntry| {
        planned.iter().any(|other| {
            CacheKey::of(other) == CacheKey::of(entry) && other.source_model_uri == entry.source_model_uri
        })
    };
    before.iter().filter(|entry| !is_planned(entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::samples::{at, entry_of};

    #[test]
    fn nothing_goes_without_a_definition_or_while_its_objects_may_be_about_to_come_back() {
        let now = at(10_000);
        assert!(holds(Definition::Gone, None, now) && holds(Definition::Gone, Some(at(0)), now));
        let since = |second| Definition::Since(at(second));
        for (definition, made, held) in [
            (since(0), Some(at(100)), false),
            (since(0), None, false),
            (since(9_900), Some(at(9_950)), false),
            (since(9_900), Some(at(100)), true),
            (since(9_900), None, false),
            (since(9_400), Some(at(100)), false),
        ] {
            assert_eq!(holds(definition, made, now), held, "{definition:?} {made:?}");
        }
    }

    #[test]
    fn an_entry_leaves_when_its_cache_or_its_source_is_planned_no_more() {
        let (one, other) = (entry_of("a", "hf://o/a"), entry_of("b", "hf://o/b"));
        let moved = ModelEntry { node_group: Some("other".into()), ..one.clone() };
        let of_namespace = ModelEntry { namespace: Some("ns".into()), ..one.clone() };
        let before = [one.clone(), other.clone(), of_namespace.clone()];
        assert_eq!(leaving(&before, &[moved]), [&other, &of_namespace]);
        assert_eq!(leaving(&before, &[entry_of("a", "hf://o/c"), other]), [&one, &of_namespace]);
    }
}
