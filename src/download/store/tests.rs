use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::download::engine::buffers::Buffer;
use crate::download::error::Reason;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(&dir.path().join("deep/down")).unwrap();
    (dir, store)
}

#[test]
fn names_that_lead_out_of_the_folder_or_into_our_own_are_refused() {
    let too_long = "x".repeat(256);
    for name in [
        "",
        "/",
        "/abs",
        "../x",
        "a/../../b",
        "a/..",
        "..",
        ".",
        "./a",
        "a//b",
        "a/",
        "a\0b",
        "a\nb",
        &too_long,
        ".localmodel/manifest.json",
        ".localmodel",
        ".LocalModel/x",
    ] {
        assert!(matches!(check_name(name), Err(Error::UnsafeName { .. })), "{name:?}");
    }
    for name in ["a", "a/b.c", "..a", "a..", "...", ".gitattributes", "a/.localmodel", "ü/%20 ?#", "a\\b"] {
        assert!(check_name(name).is_ok(), "{name:?}");
    }
}

#[test]
fn a_file_is_seen_only_when_it_is_placed() {
    let (_dir, store) = store();
    let mut file = store.unfinished("a/b/c").unwrap();
    file.write_all(b"hello").unwrap();
    assert_eq!(store.stat("a/b/c").unwrap(), Found::Nothing);
    file.place("a/b/c").unwrap();
    assert_eq!(store.stat("a/b/c").unwrap(), Found::File(5));
    assert_eq!(store.read("a/b/c", 99).unwrap().unwrap(), b"hello");
    drop(store.unfinished("a/b/d").unwrap());
    let left = fs::read_dir(store.path().join(STATE_DIR)).unwrap().count();
    assert_eq!(left, 0, "a dropped file leaves nothing");
}

#[test]
fn symlinks_are_never_followed_out_of_the_folder() {
    let (_dir, store) = store();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "kept").unwrap();
    symlink(outside.path(), store.path().join("away")).unwrap();
    symlink(outside.path().join("kept"), store.path().join("leaf")).unwrap();
    let error = store.write("away/kept", b"evil").unwrap_err();
    assert_eq!(error.reason(), Reason::UnsafeFileName);
    assert!(error.to_string().contains("away/kept"), "{error}");
    assert_eq!(store.read("leaf", 99).unwrap_err().reason(), Reason::UnsafeFileName);
    // A link in place of the file itself is replaced, not written through.
    store.write("leaf", b"ours").unwrap();
    assert!(fs::symlink_metadata(store.path().join("leaf")).unwrap().is_file());
    assert!(store.remove("away/kept").is_err());
    let names: Vec<_> = fs::read_dir(outside.path()).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"kept");
}

#[test]
fn our_own_folder_may_not_be_a_symlink() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), dir.path().join(STATE_DIR)).unwrap();
    assert_eq!(Store::create(dir.path()).unwrap_err().reason(), Reason::UnsafeFileName);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// Old kernels, and filters of system calls, know only one part of a path at a time.
#[test]
fn a_folder_is_found_part_by_part_as_it_is_in_one_call() {
    let (dir, store) = store();
    store.write("a/b/c", b"1").unwrap();
    symlink(dir.path(), store.path().join("away")).unwrap();
    symlink("a", store.path().join("inside")).unwrap();
    for (parts, expected) in [
        (&["a", "b"][..], None),
        (&["a", "none"], Some(Errno::NOENT)),
        (&["a", "b", "c"], Some(Errno::NOTDIR)),
        (&["a", "b", "c", "d"], Some(Errno::NOTDIR)),
    ] {
        assert_eq!(store.folder(parts, false).err(), expected, "{parts:?}");
        assert_eq!(store.walk(parts, false).err(), expected, "{parts:?}");
    }
    for parts in [&["away"][..], &["away", "deep"], &["inside", "b"]] {
        for found in [store.folder(parts, false), store.walk(parts, false)] {
            assert!(matches!(found, Err(Errno::LOOP | Errno::NOTDIR)), "{parts:?} {found:?}");
        }
    }
}

#[test]
fn a_second_name_of_an_unfinished_file_is_not_written_through() {
    let (_dir, store) = store();
    fs::write(store.path().join("other"), "other").unwrap();
    let planted = store.path().join(STATE_DIR).join(unfinished::stem("a") + ".incomplete");
    fs::hard_link(store.path().join("other"), planted).unwrap();
    store.write("a", b"ours").unwrap();
    assert_eq!(fs::read(store.path().join("other")).unwrap(), b"other");
}

#[test]
fn unfinished_files_are_cleaned_up_unless_they_are_wanted() {
    let (_dir, store) = store();
    store.write(".localmodel/plan.json", b"{}").unwrap();
    for path in ["kept", "gone"] {
        store.part(path).unwrap();
        store.journal(path).unwrap();
    }
    store.remove_left_over(&["kept", "other"]).unwrap();
    let mut left: Vec<_> = fs::read_dir(store.path().join(STATE_DIR))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let stem = unfinished::stem("kept");
    assert_eq!(left, [format!("{stem}.incomplete"), format!("{stem}.journal"), "plan.json".to_owned()]);
}

#[test]
fn a_part_takes_bytes_anywhere_and_is_found_again() {
    let (_dir, store) = store();
    let (part, new) = store.part("a/b").unwrap();
    assert!(new);
    part.reserve(10_000).unwrap();
    let mut buffer = Buffer::of_its_own(8192);
    buffer.append(&[2; 1808], usize::MAX);
    buffer.pad();
    part.write(&buffer, 8192).unwrap();
    drop(part);
    let (part, new) = store.part("a/b").unwrap();
    assert!(!new && part.length().unwrap() == 12_288);
    let mut buffer = Buffer::of_its_own(8192);
    buffer.append(&[1; 8192], usize::MAX);
    part.write(&buffer, 0).unwrap();
    part.read(&mut buffer, 8192, 1808).unwrap();
    assert_eq!(buffer.filled(), [2; 1808]);
    part.finish(10_000).unwrap();
    store.place(&part, "a/b").unwrap();
    assert_eq!(store.read("a/b", 99_999).unwrap().unwrap(), [[1; 8192].as_slice(), &[2; 1808]].concat());
}

#[test]
fn a_part_with_a_second_name_or_in_a_links_place_is_begun_anew() {
    let (_dir, store) = store();
    let (first, _) = store.part("a").unwrap();
    let name = store.path().join(STATE_DIR).join(unfinished::stem("a") + ".incomplete");
    fs::write(store.path().join("other"), "other").unwrap();
    for link in [true, false] {
        fs::remove_file(&name).unwrap();
        let plant = if link { symlink } else { fs::hard_link };
        plant(store.path().join("other"), &name).unwrap();
        let (part, new) = store.part("a").unwrap();
        assert!(new);
        part.reserve(1).unwrap();
        part.finish(0).unwrap();
    }
    assert_eq!(fs::read(store.path().join("other")).unwrap(), b"other");
    drop(first);
}

#[test]
fn a_folder_that_exists_keeps_its_mode_and_gives_its_group_on() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2770)).unwrap();
    let store = Store::create(dir.path()).unwrap();
    store.write("sub/a", b"1").unwrap();
    assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o7777, 0o2770);
    let sub = fs::metadata(dir.path().join("sub")).unwrap();
    assert_eq!(sub.mode() & 0o2000, 0o2000, "setgid is inherited");
}

#[test]
fn the_lock_is_one_processs_until_it_is_released() {
    let (_dir, store) = store();
    let other = Store::open(store.path()).unwrap().unwrap();
    let lock = store.try_lock().unwrap();
    assert!(lock.is_some() && other.try_lock().unwrap().is_none());
    drop(lock);
    assert!(other.try_lock().unwrap().is_some());
}

/// Names of parts that mean something to a file system, or to us, and of some that mean nothing.
fn names() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        Just(STATE_DIR.to_owned()),
        Just(STATE_DIR.to_uppercase()),
        "[a-c .~é\\\\\\x00\\n]{1,3}",
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a source calls its files: a name is refused, or what is written there lies below the folder and
    /// not in our own.
    #[test]
    fn no_name_leads_out_of_the_folder_or_into_our_own(name in names()) {
        let (dir, store) = store();
        if check_name(&name).is_ok() {
            store.write(&name, b"x").unwrap();
            let place = fs::canonicalize(store.path().join(&name)).unwrap();
            let folder = fs::canonicalize(store.path()).unwrap();
            let below = place.strip_prefix(&folder).unwrap();
            prop_assert_eq!(below, Path::new(&name));
            prop_assert!(!below.starts_with(STATE_DIR));
        }
        let beside: Vec<_> = fs::read_dir(dir.path().join("deep")).unwrap().collect();
        prop_assert_eq!(beside.len(), 1);
    }
}
