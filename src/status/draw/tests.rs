//! What a person sees, at 80 and 200 columns, with and without colours.

use serde_json::json;

use super::*;
use crate::status::fleet::fleet as view_of;
use crate::status::objects::Seen;
use crate::status::pace::History;
use crate::status::samples::{self, from, now};
use crate::status::story::tests::{seen as seen_story, seen_on_kserve};
use crate::status::text::{Look, print};
use crate::status::{fleet as fleets, story as stories};

fn seen() -> Seen {
    let caches = samples::caches().into_iter().chain(samples::namespace_caches());
    Seen {
        caches: caches.map(from).collect(),
        groups: samples::groups().into_iter().map(from).collect(),
        nodes: samples::nodes().into_iter().map(from).collect(),
        notes: vec!["Events: events is forbidden: User \"reader\" cannot list resource \"events\"".into()],
        ..Seen::default()
    }
}

fn small() -> fleets::Fleet {
    view_of(&seen(), &History::default(), now())
}

fn one() -> stories::Story {
    stories::story(&seen_story(), &History::default(), now())
}

fn drawn(lines: &[Line], width: usize, colour: bool) -> String {
    let text = print(lines, Look { width, height: None, colour });
    for line in text.lines() {
        assert!(console::measure_text_width(line) <= width, "{width}: {line}");
    }
    // A snapshot has no control characters, so that a maintainer can read it.
    text.replace('\u{1b}', "␛")
}

#[test]
fn a_small_fleet_at_80_columns() {
    insta::assert_snapshot!(drawn(&fleet(&small(), 80), 80, false));
}

#[test]
fn a_small_fleet_at_200_columns() {
    insta::assert_snapshot!(drawn(&fleet(&small(), 200), 200, false));
}

#[test]
fn a_small_fleet_at_80_columns_in_colour() {
    insta::assert_snapshot!(drawn(&fleet(&small(), 80), 80, true));
}

#[test]
fn a_small_fleet_at_200_columns_in_colour() {
    insta::assert_snapshot!(drawn(&fleet(&small(), 200), 200, true));
}

#[test]
fn a_small_fleet_on_kserves_own_definitions() {
    let mut seen = seen();
    seen.caches = samples::caches().into_iter().map(samples::pruned).map(from).collect();
    seen.groups = samples::groups().into_iter().map(samples::pruned).map(from).collect();
    (seen.nodes, seen.notes) = (Vec::new(), Vec::new());
    let view = view_of(&seen, &History::default(), now());
    insta::assert_snapshot!(drawn(&fleet(&view, 80), 80, false));
}

#[test]
fn the_story_of_a_cache_at_80_columns() {
    insta::assert_snapshot!(drawn(&story(&one(), 80), 80, false));
}

#[test]
fn the_story_of_a_cache_at_200_columns() {
    insta::assert_snapshot!(drawn(&story(&one(), 200), 200, false));
}

#[test]
fn the_story_of_a_cache_at_80_columns_in_colour() {
    insta::assert_snapshot!(drawn(&story(&one(), 80), 80, true));
}

#[test]
fn the_story_of_a_cache_at_200_columns_in_colour() {
    insta::assert_snapshot!(drawn(&story(&one(), 200), 200, true));
}

#[test]
fn the_story_of_a_cache_on_kserves_own_definitions() {
    let story_of = stories::story(&seen_on_kserve(), &History::default(), now());
    insta::assert_snapshot!(drawn(&story(&story_of, 80), 80, false));
}

fn large(troubled: usize) -> Seen {
    Seen {
        caches: samples::large(troubled),
        groups: samples::groups().into_iter().map(from).collect(),
        ..Seen::default()
    }
}

#[test]
fn a_thousand_nodes_with_a_hundred_caches_stay_readable() {
    for (troubled, most) in [(0, 20), (3, 60), (30, 110), (100, 130)] {
        let view = view_of(&large(troubled), &History::default(), now());
        for width in [80, 200] {
            let text = drawn(&fleet(&view, width), width, false);
            let lines = text.lines().count();
            assert!(lines <= most, "{troubled} of 100 caches at {width} columns: {lines} lines\n{text}");
        }
    }
}

#[test]
fn a_large_fleet_with_three_caches_in_trouble() {
    let view = view_of(&large(3), &History::default(), now());
    insta::assert_snapshot!(drawn(&fleet(&view, 80), 80, false));
}

#[test]
fn the_story_of_a_cache_on_a_thousand_nodes_stays_readable() {
    let cache = samples::large(1).swap_remove(0);
    let seen = stories::Seen { cache, ..seen_story() };
    let view = stories::story(&seen, &History::default(), now());
    insta::assert_snapshot!(drawn(&story(&view, 80), 80, false));
}

#[test]
fn no_width_is_too_small() {
    let (fleet_of, story_of) = (small(), one());
    for most in (0..=40).chain([4000]) {
        drawn(&fleet(&fleet_of, most), most, true);
        drawn(&story(&story_of, most), most, true);
    }
}

#[test]
fn a_fleet_without_caches_says_how_to_begin() {
    let view = view_of(&Seen::default(), &History::default(), now());
    assert_eq!(
        drawn(&fleet(&view, 80), 80, false),
        "no model is to be kept warm: make a LocalModelCache, then look again\n"
    );
}

#[test]
fn names_that_take_no_room_or_too_much_are_no_trouble() {
    let long = "模".repeat(63);
    let cache = samples::cache(&long, "10Gi", &[(&long, samples::downloading(1, 0))], &[]);
    let odd = json!({"metadata": {"name": "a\u{1b}[31m"}, "status": {"nodeStatus": {"\u{7}": "Later"}}});
    let seen = Seen { caches: vec![from(cache), from(odd)], ..Seen::default() };
    let view = view_of(&seen, &History::default(), now());
    for width in [20, 80, 200] {
        let text = drawn(&fleet(&view, width), width, false);
        assert!(!text.contains(['\u{7}', '␛']), "{text}");
    }
}

#[test]
fn times_are_told_in_their_two_largest_units() {
    let cases = [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h 0m"), (90_000, "1d 1h")];
    for (seconds, expected) in cases {
        assert_eq!(duration(seconds), expected);
    }
    assert_eq!(number(1_234_567), "1,234,567");
    assert_eq!((percent(0.999), percent(1.0)), (" 99 %".into(), "100 %".into()));
}

#[test]
fn the_guide_shows_what_the_command_prints() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for lines in [fleet(&small(), 80), story(&one(), 80)] {
        assert!(guide.contains(&drawn(&lines, 80, false)), "docs/status.md shows another output");
    }
}
