//! Trees as hostile sources make them: what an agent spends on them, in a process of its own.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

use super::*;
use crate::download::store::STATS;

const TREES: u64 = 200;
/// Where the other process finds the disk.
const DISK: &str = "HOSTILE_DISK";
/// The most memory that an agent may take.
const MEMORY: u64 = 150 << 20;

/// Numbers that look like chance and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Folders in each other, further down than a path can name, with so many files at the end.
fn deep(top: &Path, depth: u64, files: u64) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut folder = openat(CWD, top, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&folder, c"d", Mode::RWXU).unwrap();
        folder = openat(&folder, c"d", flags, Mode::empty()).unwrap();
    }
    for file in 0..files {
        openat(&folder, file.to_string(), OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    }
}

/// Files of no bytes, some in folders, and a manifest that is right.
fn whole(top: &Path, folders: u64, files: u64) {
    let mut paths = Vec::new();
    for file in 0..files {
        let folder = format!("f{}", file % folders);
        fs::create_dir_all(top.join(&folder)).unwrap();
        File::create(top.join(&folder).join(file.to_string())).unwrap();
        paths.push(format!("{folder}/{file}"));
    }
    let file = |path: String| ManifestFile { path, size: 0, sha256: "00".repeat(32) };
    let files = paths.into_iter().map(file).collect();
    Manifest { source: "hf://o/m".into(), files, ..Manifest::default() }.write(top).unwrap();
}

/// A manifest of almost as many bytes as are read, which is one small thing again and again.
fn long(begin: &str, mut entry: impl FnMut(u64) -> String, end: &str) -> String {
    let mut text = begin.to_owned();
    for number in 0.. {
        let next = entry(number);
        if text.len() + next.len() + end.len() + 1 > usize::try_from(Manifest::LONGEST).unwrap() {
            break;
        }
        write!(text, "{}{next}", if number > 0 { "," } else { "" }).unwrap();
    }
    text + end
}

fn tree(top: &Path, kind: u64, numbers: &mut Numbers) {
    let manifest = top.join(Manifest::PATH);
    let state = manifest.parent().unwrap();
    fs::create_dir_all(state).unwrap();
    match kind {
        0 => whole(top, 1 + numbers.below(50), 500 + numbers.below(1500)),
        1 => whole(top, 1000, 1000 + numbers.below(1000)),
        2 => deep(top, 2030, 20),
        3 => {
            let sizes = r#"[{"path":"a","size":9223372036854775808,"sha256":""},{"path":"b","size":9223372036854775808,"sha256":""}]"#;
            fs::write(manifest, format!(r#"{{"source":"hf://o/m","files":{sizes}}}"#)).unwrap();
        }
        4 => File::create(manifest).unwrap().set_len(1 << 40).unwrap(),
        5 => {
            fs::remove_dir(state).unwrap();
            symlink("/", state).unwrap();
            symlink("/dev/zero", top.join("zero")).unwrap();
        }
        6 => symlink("/dev/zero", manifest).unwrap(),
        7 => mknodat(CWD, manifest, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        8 => fs::write(manifest, "[".repeat(1 << 20)).unwrap(),
        9 => {
            for name in 0..200_u8 {
                fs::write(top.join(OsStr::from_bytes(&[0xff, b'\n', name.max(1) | 0x80])), "").unwrap();
            }
            fs::create_dir(manifest).unwrap();
        }
        10 => {
            let files = long(
                r#"{"source":"","files":["#,
                |n| format!(r#"{{"path":"{n:x}","size":0,"sha256":""}}"#),
                "]}",
            );
            fs::write(manifest, files).unwrap();
        }
        11 => {
            let text = long(r#"{"source":"","files":[],"versions":{"#, |n| format!(r#""{n:x}":"""#), "}}");
            fs::write(manifest, text).unwrap();
        }
        12 => {
            let text = long(r#"{"source":"","files":[],"allowPatterns":["#, |_| r#""""#.into(), "]}");
            fs::write(manifest, text).unwrap();
        }
        _ => {
            whole(top, 3, 10);
            let corrupt = long("[", |n| format!(r#""{n:x}""#), "]");
            fs::write(top.join(".localmodel/corrupt.json"), corrupt).unwrap();
            File::create(top.join(".localmodel/scrub.json")).unwrap().set_len(1 << 40).unwrap();
        }
    }
}

#[test]
fn two_hundred_hostile_trees_take_little_memory_and_few_calls_and_all_go() {
    let disk = disk();
    let mut numbers = Numbers(16);
    for number in 0..TREES {
        tree(&disk.path(&format!("models/{number:016x}")), number % 14, &mut numbers);
    }
    let flat = disk.path(&format!("models/{TREES:016x}"));
    fs::create_dir(&flat).unwrap();
    deep(&flat, 2030, 2000);
    let many = disk.path(&format!("incoming/{:016x}", 0));
    fs::create_dir(&many).unwrap();
    deep(&many, 0, 50_000);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "agent::disk::tests::hostile::in_a_process_of_its_own", "--nocapture"])
        .env(DISK, disk.folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && told.contains("1 passed"), "{told}");
    for part in PARTS {
        assert_eq!(fs::read_dir(disk.path(part)).unwrap().count(), 0, "{part}");
    }
}

#[test]
#[ignore = "the test above runs it"]
fn in_a_process_of_its_own() {
    let Some(root) = std::env::var_os(DISK) else { return };
    let mut disk = Disk::new(root, None);
    disk.known = Arc::new(Known::settling(-1));
    let Inventory { models, incoming, .. } = disk.scan(&BTreeSet::new()).unwrap().inventory;
    let wanted: BTreeSet<CopyKey> = models.into_keys().chain(incoming.into_keys()).collect();
    assert_eq!(wanted.len() as u64, TREES + 1);
    let look = || {
        STATS.set(0);
        let (scan, before) = (disk.scan(&wanted).unwrap(), ticks());
        drop(disk.scan(&wanted).unwrap());
        (scan, STATS.get(), ticks() - before)
    };
    let (first, ..) = look();
    let whole = first.inventory.models.values().filter(|found| matches!(found, Folder::Complete { .. }));
    assert_eq!(whole.count(), 44, "kinds 0, 1 and 13");
    let looks: Vec<(usize, u64)> = (0..10).map(|_| look()).map(|(_, stats, ticks)| (stats, ticks)).collect();
    println!("stats and hundredths of a second of CPU of looks: {looks:?}");
    // Of each copy a few files of ours are asked for, and of all together 256 of the model's.
    assert!(looks.iter().all(|(stats, _)| *stats < 2 * (256 + 3 * wanted.len())), "{looks:?}");
    assert!(looks.iter().map(|(_, ticks)| ticks).sum::<u64>() < 10 * looks.len() as u64, "{looks:?}");
    for copy in &wanted {
        disk.erase_model(copy).unwrap();
        disk.erase_incoming(copy).unwrap();
    }
    let peak = peak();
    println!("peak of memory: {} MiB", peak >> 20);
    assert!(peak < MEMORY, "{} MiB", peak >> 20);
}

/// The most memory that this process has had.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The processor's time that this process has taken, in hundredths of a second.
fn ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
