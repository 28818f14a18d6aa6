use proptest::prelude::*;

use super::*;
use crate::download::digest::Digest;

const CHUNKS: usize = 12;

fn chunks() -> Chunks {
    Chunks::new(CHUNKS as u64 * 10 - 3, 10)
}

fn file() -> PlannedFile {
    PlannedFile::new("a.bin", 117, Digest::Sha256("aa".into()))
}

fn of() -> String {
    key("https://hub c1", &file(), chunks())
}

fn journal(records: &[Record]) -> Vec<u8> {
    std::iter::once(&Record::Of(of())).chain(records).flat_map(line).collect()
}

fn boot(id: &str) -> Record {
    Record::Boot(id.to_owned())
}

fn checkpoint(chunk: usize) -> Checkpoint {
    Checkpoint { chunk, hash: vec!["00".into()] }
}

fn there(replay: &Replay) -> Vec<usize> {
    replay.on_disk.iter().enumerate().filter(|(_, there)| **there).map(|(chunk, _)| chunk).collect()
}

#[test]
fn after_a_kill_all_that_was_written_counts_and_after_a_reboot_what_was_synced() {
    use Record::{Synced, Written};
    let bytes = journal(&[boot("b1"), Written(0), Written(2), Synced(None), Written(1), Written(5)]);
    let killed = replay(&bytes, &of(), chunks(), Some("b1"));
    assert_eq!((there(&killed), killed.length), (vec![0, 1, 2, 5], bytes.len()));
    for rebooted in [Some("b2"), None] {
        assert_eq!(there(&replay(&bytes, &of(), chunks(), rebooted)), [0, 2]);
    }
}

#[test]
fn a_sync_after_a_reboot_says_nothing_of_what_was_written_before_it() {
    use Record::{Synced, Written};
    let bytes =
        journal(&[boot("b1"), Written(0), boot("b2"), Written(1), Synced(None), boot("b1"), Written(3)]);
    assert_eq!(there(&replay(&bytes, &of(), chunks(), Some("b1"))), [1, 3]);
    let killed_twice = journal(&[boot("b1"), Written(0), boot("b1"), Written(1), Synced(None)]);
    assert_eq!(there(&replay(&killed_twice, &of(), chunks(), Some("b9"))), [0, 1]);
}

#[test]
fn a_checkpoint_counts_only_when_all_before_it_is_synced() {
    use Record::{Synced, Written};
    let bytes = journal(&[
        boot("b1"),
        Written(0),
        Written(1),
        Synced(Some(checkpoint(2))),
        Written(3),
        Synced(Some(checkpoint(4))),
        Synced(Some(checkpoint(usize::MAX))),
    ]);
    assert_eq!(replay(&bytes, &of(), chunks(), None).checkpoint, Some(checkpoint(2)));
}

#[test]
fn a_journal_of_anything_else_proves_nothing() {
    let bytes = journal(&[boot("b1"), Record::Written(0), Record::Synced(None)]);
    let other = |change: fn(&mut PlannedFile)| {
        let mut other = file();
        change(&mut other);
        key("https://hub c1", &other, chunks())
    };
    for other in [
        key("https://mirror c1", &file(), chunks()),
        key("https://hub c1", &file(), Chunks::new(117, 11)),
        other(|file| file.path = "b.bin".into()),
        other(|file| file.size = 118),
        other(|file| file.digest = Digest::Sha256("ab".into())),
        other(|file| file.version = Some("etag".into())),
    ] {
        assert_eq!(there(&replay(&bytes, &other, chunks(), Some("b1"))), [] as [usize; 0]);
    }
    assert_eq!(replay(b"", &of(), chunks(), Some("b1")).length, 0);
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = prop_oneof![
        6 => (0..CHUNKS).prop_map(Record::Written),
        1 => (0_u8..3).prop_map(|id| Record::Boot(format!("b{id}"))),
        1 => prop::option::of((0..CHUNKS).prop_map(checkpoint)).prop_map(Record::Synced),
    ];
    prop::collection::vec(record, 0..40)
}

proptest! {
    /// Wherever a crash cuts the journal, and whatever it leaves behind the cut, only whole lines count.
    #[test]
    fn a_torn_tail_is_as_if_it_had_never_been_written(
        records in records(),
        cut in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let bytes = journal(&records);
        let mut torn = bytes[..cut.index(bytes.len() + 1)].to_vec();
        torn.extend(&garbage);
        // Garbage that happens to begin with what is missing of a line completes it.
        let same = bytes.iter().zip(&torn).take_while(|(byte, there)| byte == there).count();
        let whole = bytes[..same].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let expected = replay(&bytes[..whole], &of(), chunks(), Some("b1"));
        let found = replay(&torn, &of(), chunks(), Some("b1"));
        prop_assert_eq!(&found, &expected);
    }

    /// A longer journal of the same boot never says less, and no boot is told more than the one that wrote.
    #[test]
    fn chunks_are_only_ever_added_within_a_boot(records in records()) {
        let records: Vec<_> = records.into_iter().filter(|record| !matches!(record, Record::Boot(_))).collect();
        let all: Vec<_> = std::iter::once(boot("b1")).chain(records).collect();
        let mut before = vec![false; CHUNKS];
        for count in 0..=all.len() {
            let bytes = journal(&all[..count]);
            let same = replay(&bytes, &of(), chunks(), Some("b1")).on_disk;
            let other = replay(&bytes, &of(), chunks(), Some("b2")).on_disk;
            prop_assert!(before.iter().zip(&same).all(|(before, now)| now >= before));
            prop_assert!(other.iter().zip(&same).all(|(other, same)| same >= other));
            before = same;
        }
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let found = replay(&bytes, &of(), chunks(), Some("b1"));
        prop_assert_eq!(there(&found), [] as [usize; 0]);
    }
}
