use std::io::Write;

use super::*;
use crate::download::budget::Allowance;
use crate::download::error::Reason;

const REGULAR: tar::EntryType = tar::EntryType::Regular;
const SYMLINK: tar::EntryType = tar::EntryType::Symlink;
const HARD_LINK: tar::EntryType = tar::EntryType::Link;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(&dir.path().join("model")).unwrap();
    (dir, store)
}

/// Unpacks an archive of this name with these bytes.
fn unpacked(store: &Store, name: &str, bytes: &[u8], allowance: Allowance) -> Result<Vec<ManifestFile>> {
    store.write(name, bytes).unwrap();
    unpack(store, name, Budget::new(allowance, "https://host/m"))
}

/// Entries by name and kind, with their content, or the target of a link.
fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_old();
        // By hand: the library would refuse to write such names.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        let is_link = [SYMLINK, HARD_LINK].contains(kind);
        if is_link {
            header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content);
        }
        let content: &[u8] = if is_link { b"" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// `a.bin` with the bytes `data`, made by Python's `tarfile` in mode `w:xz`.
const XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a3e027ff005b5d00308b8846d41d468cd14a7944bb11\
    d7bfcfbaf98562a7b00beff20ce7073a02c89855e6e1519d512acedc830dac8947daa98e25784295c58647be17\
    4c7dba5a13332b9fe3c765e65ccd32da2914b9b6682cc18e13abff39e58036000000cdbe429bc078ee0c000177\
    8050000000945699afb1c467fb020000000004595a";

fn names(files: &[ManifestFile]) -> Vec<(&str, u64)> {
    files.iter().map(|file| (file.path.as_str(), file.size)).collect()
}

#[test]
fn an_archive_stands_for_the_files_in_it() {
    let entries: [(&str, _, &[u8]); 3] = [
        ("./model/", tar::EntryType::Directory, b""),
        ("./model//a.bin", REGULAR, b"aa"),
        ("b", REGULAR, b""),
    ];
    for (name, bytes) in [
        ("m.tar", tar(&entries)),
        ("m.tar.gz", gzip(&tar(&entries))),
        ("M.TGZ", gzip(&tar(&entries))),
        ("m.tar", gzip(&tar(&entries))),
        ("m.tar.bz2", bzip2(&tar(&entries))),
        ("m.zip", zip(&[("model/a.bin", b"aa"), ("b", b"")])),
    ] {
        let (_dir, store) = store();
        let files = unpacked(&store, name, &bytes, Allowance::default()).unwrap();
        assert_eq!(names(&files), [("b", 0), ("model/a.bin", 2)], "{name}");
        assert_eq!(store.read("model/a.bin", 1 << 20).unwrap().unwrap(), b"aa");
        assert_eq!(store.read(name, 1 << 20).unwrap(), None, "the archive itself is gone");
    }
    let (_dir, store) = store();
    let files = unpacked(&store, "m.tar.xz", &hex::decode(XZ).unwrap(), Allowance::default()).unwrap();
    assert_eq!(names(&files), [("a.bin", 4)]);
    assert_eq!(store.read("a.bin", 1 << 20).unwrap().unwrap(), b"data");
}

#[test]
fn a_link_becomes_the_file_that_it_leads_to() {
    let (_dir, store) = store();
    let bytes = tar(&[
        ("snapshots/a.bin", SYMLINK, b"../blobs/x"),
        ("blobs/x", REGULAR, b"data"),
        ("same", HARD_LINK, b"blobs/x"),
        ("again", SYMLINK, b"same"),
        ("latest", SYMLINK, b"snapshots/../blobs"),
    ]);
    let files = unpacked(&store, "m.tar", &bytes, Allowance::default()).unwrap();
    let expected = ["again", "blobs/x", "latest/x", "same", "snapshots/a.bin"];
    assert_eq!(names(&files), expected.map(|name| (name, 4)));
    for name in expected {
        assert_eq!(store.read(name, 1 << 20).unwrap().unwrap(), b"data", "{name}");
        assert!(std::fs::symlink_metadata(store.path().join(name)).unwrap().is_file(), "{name}");
    }
    assert_eq!(
        std::fs::read_dir(store.path().join(".localmodel")).unwrap().count(),
        0,
        "nothing is left over"
    );
}

#[test]
fn nothing_in_an_archive_leads_out_of_the_folder() {
    for (name, bytes) in [
        ("m.tar", tar(&[("../evil", REGULAR, b"x")])),
        ("m.tar", tar(&[("/evil", REGULAR, b"x")])),
        ("m.tar", tar(&[("a/../../evil", REGULAR, b"x")])),
        ("m.tar", tar(&[(".localmodel/manifest.json", REGULAR, b"x")])),
        ("m.tar", tar(&[("link", SYMLINK, b"/etc/passwd")])),
        ("m.tar", tar(&[("a/link", SYMLINK, b"../../x")])),
        ("m.tar", tar(&[("link", HARD_LINK, b"../x")])),
        ("m.tar", tar(&[("link", SYMLINK, b"nothing")])),
        ("m.tar", tar(&[("link", SYMLINK, b"link")])),
        ("m.tar", tar(&[("null", tar::EntryType::Char, b"")])),
        ("m.zip", zip(&[("../evil", b"x")])),
    ] {
        let (dir, store) = store();
        let error = unpacked(&store, name, &bytes, Allowance::default()).unwrap_err();
        assert_eq!(error.reason(), Reason::UnsafeFileName, "{error}");
        assert!(!dir.path().join("evil").exists());
    }
}

#[test]
fn an_archive_that_is_none_is_named() {
    for (name, bytes) in [
        ("m.tar", vec![7; 2000]),
        ("m.tgz", b"not gzip".to_vec()),
        ("m.zip", vec![0; 100]),
        ("m.tar.gz", gzip(&tar(&[("a", REGULAR, &[1; 4000])]))[..100].to_vec()),
    ] {
        let (_dir, store) = store();
        let error = unpacked(&store, name, &bytes, Allowance::default()).unwrap_err();
        let text = error.to_string();
        assert!(error.reason() == Reason::SourceRefused && text.contains(name), "{text}");
        assert_eq!(store.read("a", 1 << 20).unwrap(), None, "what came out of it does not stay");
    }
}

/// The files in the folder, the archive among them.
fn there(store: &Store) -> Vec<String> {
    let names = std::fs::read_dir(store.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_passes_a_limit_ends_the_unpacking_and_does_not_stay() {
    let large = vec![0; 5000];
    let many: Vec<String> = (0..20).map(|number| format!("sub/{number}")).collect();
    let files: Vec<(&str, tar::EntryType, &[u8])> =
        many.iter().map(|name| (name.as_str(), REGULAR, b"" as _)).collect();
    let folders: Vec<_> = vec![("d/", tar::EntryType::Directory, b"" as &[u8]); 600];
    let links: Vec<(&str, tar::EntryType, &[u8])> = [("d/a", REGULAR, b"x" as &[u8]), ("d/b", REGULAR, b"x")]
        .into_iter()
        .chain(many.iter().take(6).map(|name| (name.as_str(), SYMLINK, b"../d" as &[u8])))
        .collect();
    let deep = vec!["d"; 65].join("/");
    let allowance = Allowance { bytes: 9000, files: 10 };
    for (name, bytes, reason) in [
        ("m.tgz", gzip(&tar(&[("sub/a", REGULAR, &large), ("b", REGULAR, &large)])), Reason::TooLarge),
        ("m.zip", zip(&[("sub/a", &large), ("b", &large)]), Reason::TooLarge),
        ("m.tgz", gzip(&tar(&files)), Reason::TooManyFiles),
        ("m.tgz", gzip(&tar(&folders)), Reason::TooManyFiles),
        ("m.tgz", gzip(&tar(&links)), Reason::TooManyFiles),
        ("m.zip", zip(&[("a", b""), (&deep, b"")]), Reason::PathTooDeep),
    ] {
        let (_dir, store) = store();
        let error = unpacked(&store, name, &bytes, allowance).unwrap_err();
        assert_eq!(error.reason(), reason, "{name}: {error}");
        assert_eq!(there(&store), [".localmodel", name]);
    }
}

#[test]
fn an_archive_that_becomes_far_larger_is_refused_whatever_the_limit() {
    let zeros = vec![0; 70 << 20];
    for (name, bytes) in
        [("m.zip", zip(&[("a", &zeros)])), ("m.tar.bz2", bzip2(&tar(&[("a", REGULAR, &zeros)])))]
    {
        let (_dir, store) = store();
        let error = unpacked(&store, name, &bytes, Allowance::default()).unwrap_err();
        assert!(matches!(error, Error::Bomb { .. }), "{name}: {error}");
        assert_eq!(there(&store), [".localmodel", name]);
    }
}

#[test]
fn a_name_of_many_bytes_is_not_kept_in_memory() {
    let name = vec![b'n'; 8 << 20];
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(name.len() as u64);
    header.set_cksum();
    builder.append(&header, name.as_slice()).unwrap();
    let (_dir, store) = store();
    let bytes = gzip(&builder.into_inner().unwrap());
    let error = unpacked(&store, "m.tgz", &bytes, Allowance::default()).unwrap_err();
    assert!(error.to_string().contains("headers"), "{error}");
}

#[test]
fn an_archive_whose_checksum_is_wrong_is_refused() {
    let good = gzip(&tar(&[("a", REGULAR, b"data")]));
    let at = good.len() - 8;
    for (name, bytes) in
        [("m.tgz", [&good[..at], &[0; 4], &good[at + 4..]].concat()), ("m.tgz", good[..at].to_vec())]
    {
        let (_dir, store) = store();
        let error = unpacked(&store, name, &bytes, Allowance::default()).unwrap_err();
        assert_eq!(error.reason(), Reason::SourceRefused, "{error}");
        assert_eq!(there(&store), [".localmodel", name]);
    }
}

#[test]
fn a_directory_of_a_zip_that_is_larger_than_its_files_may_be_is_not_kept_in_memory() {
    let names: Vec<String> = (0..30_000).map(|number| format!("{number:0100}")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"" as _)).collect();
    let (_dir, store) = store();
    let error = unpacked(&store, "m.zip", &zip(&entries), Allowance { files: 100, ..Allowance::default() })
        .unwrap_err();
    assert!(error.to_string().contains("headers"), "{error}");
}

#[test]
fn an_archive_without_a_file_is_no_model() {
    let nothing = vec![0; 10_240];
    for (name, bytes) in [
        ("m.tar", Vec::new()),
        ("m.tar", nothing.clone()),
        ("m.tgz", gzip(&[])),
        ("m.tar.gz", gzip(&nothing)),
        ("m.tar.bz2", bzip2(&nothing)),
        ("m.zip", zip(&[])),
    ] {
        let (_dir, store) = store();
        let error = unpacked(&store, name, &bytes, Allowance::default()).unwrap_err();
        assert_eq!(error.reason(), Reason::SourceRefused, "{name}: {error}");
    }
}
