use proptest::prelude::*;

use super::*;
use crate::plan::samples::at;

const WEEK: i64 = 7 * 24 * 3600;
const RATE: u64 = 20_000_000;

fn settings() -> Settings {
    Settings { interval: SignedDuration::from_secs(WEEK), bytes_per_second: RATE }
}

fn verified(second: i64) -> Scrubbed {
    Scrubbed { verified: Some(at(second)), record: Record::default() }
}

fn scrubbed(second: i64) -> Scrubbed {
    let last = Some(Done { at: at(second), bytes: 10, damaged: 0 });
    Scrubbed { record: Record { last, under_way: None }, ..verified(0) }
}

fn begun(after: &str) -> Scrubbed {
    let under_way = UnderWay { after: after.into(), bytes: 5, damaged: 1 };
    Scrubbed { record: Record { last: None, under_way: Some(under_way) }, ..verified(0) }
}

fn key(name: &str) -> CopyKey {
    CopyKey::root(name)
}

fn copies(of: &[(&str, Scrubbed)]) -> BTreeMap<CopyKey, Scrubbed> {
    of.iter().map(|(name, copy)| (key(name), copy.clone())).collect()
}

fn file(path: &str) -> ManifestFile {
    ManifestFile { path: path.into(), size: 1, sha256: String::new() }
}

#[test]
fn a_copy_is_read_a_week_after_it_was_downloaded_or_read_last() {
    let alone = |copy| copies(&[("a", copy)]);
    for copy in [verified(1000), scrubbed(1000)] {
        let due = 1000 + WEEK;
        assert_eq!(next(&alone(copy.clone()), &settings(), at(due - 1)), Step::Wait(Some(at(due))));
        assert_eq!(next(&alone(copy), &settings(), at(due)), Step::Read(key("a")));
    }
    assert_eq!(next(&copies(&[]), &settings(), at(0)), Step::Wait(None));
}

#[test]
fn the_copy_that_was_checked_longest_ago_comes_first_unless_another_has_begun() {
    let now = at(3 * WEEK);
    let three = [("a", scrubbed(1000)), ("b", scrubbed(500)), ("c", verified(700))];
    assert_eq!(next(&copies(&three), &settings(), now), Step::Read(key("b")));
    let mut with_begun = three.to_vec();
    with_begun.push(("d", begun("x")));
    assert_eq!(next(&copies(&with_begun), &settings(), now), Step::Read(key("d")));
    assert_eq!(next(&copies(&with_begun), &settings(), at(0)), Step::Read(key("d")), "due or not");
}

#[test]
fn a_time_that_is_yet_to_come_is_not_believed() {
    let now = at(WEEK);
    let from_the_future = Scrubbed { verified: Some(at(9 * WEEK)), ..Scrubbed::default() };
    assert_eq!(next(&copies(&[("a", from_the_future.clone())]), &settings(), now), Step::Read(key("a")));
    let read = Scrubbed { record: scrubbed(WEEK).record, ..from_the_future };
    assert_eq!(next(&copies(&[("a", read)]), &settings(), now), Step::Wait(Some(at(2 * WEEK))));
}

#[test]
fn at_no_bytes_a_second_nothing_is_read() {
    let off = Settings { bytes_per_second: 0, ..settings() };
    assert_eq!(next(&copies(&[("a", begun("x"))]), &off, at(9 * WEEK)), Step::Wait(None));
}

#[test]
fn files_are_read_in_the_order_of_their_names_from_where_it_stopped() {
    let files = [file("b"), file("a"), file("c/d")];
    let mut record = Record::default();
    let mut order = Vec::new();
    while let Some(next) = next_file(&files, &record) {
        assert!(order.len() < files.len(), "some file was read twice: {order:?}");
        order.push(next.path.clone());
        record.passed(&next.path, next.size, next.path == "b");
        // As after a restart.
        record = serde_json::from_value(serde_json::to_value(&record).unwrap()).unwrap();
    }
    assert_eq!(order, ["a", "b", "c/d"]);
    record.finish(at(5));
    assert_eq!(record, Record { last: Some(Done { at: at(5), bytes: 3, damaged: 1 }), under_way: None });
    assert_eq!(
        next_file(&files, &record).map(|file| file.path.as_str()),
        Some("a"),
        "the next time all again"
    );
}

#[test]
fn it_rests_so_long_that_bytes_come_evenly() {
    let second = Duration::from_secs(1);
    assert_eq!(rest(20_000_000, Duration::ZERO, RATE), second);
    assert_eq!(rest(10_000_000, Duration::from_millis(100), RATE), Duration::from_millis(400));
    assert_eq!(rest(1_000_000, second, RATE), Duration::ZERO, "no debt is carried on");
    assert_eq!(rest(1 << 20, Duration::ZERO, 0), Duration::from_secs(1 << 20));
    assert_eq!(rest(usize::MAX, Duration::ZERO, u64::MAX), Duration::ZERO);
}

#[test]
fn a_disk_is_as_well_checked_as_its_longest_unchecked_copy() {
    let now = at(100);
    let all = [scrubbed(50), scrubbed(40), verified(60), begun("x")];
    let expected = Summary { checked: Some(at(0)), bytes: 20, damaged: 1 };
    assert_eq!(summary(&all, now), expected, "what is under way was checked when it was made");
    assert_eq!(summary(&all[..3], now).checked, Some(at(40)));
    assert_eq!(summary(&[scrubbed(50), Scrubbed::default()], now).checked, None, "one nobody knows of");
    assert_eq!(summary(&[], now), Summary::default());
}

proptest! {
    /// Whatever there is and whenever it was checked: each copy is read once in an interval, none twice.
    #[test]
    fn every_copy_is_read_once_in_each_interval(
        made in prop::collection::vec(0..1000_i64, 1..6),
        sizes in prop::collection::vec(1..50_u64, 6),
    ) {
        let settings = Settings { interval: SignedDuration::from_secs(1000), bytes_per_second: 1 };
        let mut all: BTreeMap<_, _> =
            made.iter().enumerate().map(|(nr, second)| (key(&nr.to_string()), verified(*second))).collect();
        let mut now = 1000;
        let mut read: BTreeMap<CopyKey, Vec<i64>> = BTreeMap::new();
        while now < 10_000 {
            match next(&all, &settings, at(now)) {
                Step::Read(copy) => {
                    let index: usize = copy.key.parse().unwrap();
                    now += i64::try_from(sizes[index]).unwrap();
                    let record = &mut all.get_mut(&copy).unwrap().record;
                    record.passed("a", sizes[index], false);
                    record.finish(at(now));
                    read.entry(copy).or_default().push(now);
                }
                Step::Wait(until) => {
                    let until = until.unwrap();
                    prop_assert!(until > at(now), "a wait that is past never sleeps");
                    now = until.as_second();
                }
            }
        }
        for (copy, times) in read {
            for pair in times.windows(2) {
                prop_assert!((1000..1600).contains(&(pair[1] - pair[0])), "{}: {:?}", copy, times);
            }
        }
    }
}
