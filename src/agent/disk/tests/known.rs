//! What a look costs, and what it notices of a copy that it knows.

use std::time::{Duration, Instant};

use super::*;
use crate::download::store::STATS;

impl Sample {
    /// Waits until what is written next gets a later time than what was written before.
    fn settle(&self) {
        let time = || {
            self.write("clock", "1");
            fs::metadata(self.path("clock")).unwrap().modified().unwrap()
        };
        let before = time();
        while time() == before {}
    }
}

/// A copy with so many files in a folder of their own each.
fn known(files: usize) -> Sample {
    let mut disk = disk();
    // A test has no seconds to wait.
    disk.disk.known = Arc::new(Known::settling(-1));
    let names: Vec<String> = (0..files).map(|number| format!("d{}/{number:05}", number % 100)).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    disk.copy(&at("models", KEY), &names);
    disk.settle();
    assert!(matches!(disk.models()[&root()], Folder::Complete { .. }));
    disk.settle();
    disk
}

fn stats(act: impl FnOnce()) -> usize {
    STATS.set(0);
    act();
    STATS.get()
}

#[test]
fn a_look_at_a_copy_that_has_not_changed_costs_no_stat_of_each_of_its_files() {
    let disk = known(5000);
    let wanted = BTreeSet::from([root()]);
    let of_look = || stats(|| drop(disk.disk.scan(&wanted).unwrap()));
    // The manifest is a large one: some more of its files are gone over once in a while.
    let first = of_look();
    assert!((1024..1100).contains(&first), "{first}");
    for _ in 0..5 {
        let again = of_look();
        assert!(again < 10, "{again}");
    }
}

#[test]
fn a_file_that_vanishes_is_replaced_or_is_cut_short_is_noticed_by_the_next_look() {
    let disk = known(200);
    let file = format!("{}/d7/00107", at("models", KEY));
    let damaged = |why: &str| {
        let scan = disk.scan().unwrap();
        assert_eq!(scan.inventory.models[&root()], Folder::Damaged);
        assert_eq!(scan.inventory.damage[&root()], format!("d7/00107 {why}"));
    };
    let mend = || {
        disk.write(&file, "12345");
        disk.settle();
        assert!(matches!(disk.models()[&root()], Folder::Complete { .. }));
        disk.settle();
    };
    // No folder changes.
    fs::OpenOptions::new().write(true).open(disk.path(&file)).unwrap().set_len(4).unwrap();
    damaged("has 4 bytes instead of 5");
    mend();
    fs::remove_file(disk.path(&file)).unwrap();
    damaged("is missing");
    mend();
    disk.write("other", "1234567");
    fs::rename(disk.path("other"), disk.path(&file)).unwrap();
    damaged("has 7 bytes instead of 5");
    mend();
    fs::rename(disk.path(&at("models", KEY)).join("d7"), disk.path("away")).unwrap();
    assert_eq!(disk.models()[&root()], Folder::Damaged);
}

#[test]
fn of_a_large_copy_each_file_is_seen_again_in_turn() {
    let disk = known(5000);
    let last = format!("{}/d99/04999", at("models", KEY));
    fs::OpenOptions::new().write(true).open(disk.path(&last)).unwrap().set_len(1).unwrap();
    let known = &disk.disk.known;
    let path = disk.path(&at("models", KEY));
    let is_known = || known.unchanged(&path, &Store::open(&path).unwrap().unwrap()).is_some();
    let begun = Instant::now();
    for turn in 0..4 {
        known.go_over(begun + turn * Duration::from_mins(10));
        assert!(is_known(), "the first files are as they were");
        known.go_over(begun + turn * Duration::from_mins(10) + Duration::from_secs(599));
        assert!(is_known(), "it is read at most once in ten minutes");
    }
    known.go_over(begun + Duration::from_mins(40));
    assert!(!is_known());
    assert_eq!(disk.models()[&root()], Folder::Damaged);
}

#[test]
fn what_the_scrub_cannot_read_has_the_next_look_see_each_file() {
    let disk = known(5000);
    let wanted = BTreeSet::from([root()]);
    let look = || disk.disk.scan(&wanted).unwrap().inventory.models[&root()];
    let last = format!("{}/d99/04999", at("models", KEY));
    assert!(matches!(look(), Folder::Complete { .. }));
    fs::OpenOptions::new().write(true).open(disk.path(&last)).unwrap().set_len(1).unwrap();
    assert!(matches!(look(), Folder::Complete { .. }), "its turn has not come");
    disk.disk.forget(&root());
    assert_eq!(look(), Folder::Damaged);
}

#[test]
fn what_nobody_wants_is_not_read_and_erased_by_its_name() {
    let disk = disk();
    let of = |part| disk.path(&at(part, KEY));
    for part in ["models", "incoming"] {
        disk.write(&format!("{}/.localmodel/manifest.json", at(part, KEY)), "{");
        disk.write(&format!("{}/a/b", at(part, KEY)), "1");
    }
    let scan = disk.disk.scan(&BTreeSet::from([CopyKey::root(OTHER)])).unwrap();
    assert_eq!(scan.inventory.models, BTreeMap::from([(root(), Folder::Unread)]));
    assert_eq!(scan.inventory.incoming, BTreeMap::from([(root(), Folder::Unread)]));
    assert_eq!(scan.inventory.damage, BTreeMap::new());
    disk.disk.erase_model(&root()).unwrap();
    disk.disk.erase_incoming(&root()).unwrap();
    assert!(!of("models").exists() && !of("incoming").exists());
}
