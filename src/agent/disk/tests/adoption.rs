//! What another initializer leaves: files count, and nothing else that it brings.

use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// A manifest as a hostile source has it among its files: it hides one, and lies about the size of all.
const PLANTED: &str = r#"{"source":"hf://o/m","files":[{"path":"a","size":5,"sha256":"00"}]}"#;

/// What puts something hostile at a path.
type Plant<'a> = &'a dyn Fn(&Sample, &Path);

/// A folder that another initializer has written.
fn foreign() -> Sample {
    let disk = disk();
    disk.disk.prepare(&root(), false, false).unwrap();
    disk.write(&format!("incoming/{KEY}/a"), "12345");
    disk.write(&format!("incoming/{KEY}/sub/b"), "1");
    disk
}

#[test]
fn a_manifest_that_another_initializer_brings_is_not_believed() {
    let disk = foreign();
    let state = format!("incoming/{KEY}/.localmodel");
    for (file, content) in
        [("manifest.json", PLANTED), ("kept", ""), ("corrupt.json", "[\"a\"]"), ("lent.json", "[\"a\"]")]
    {
        disk.write(&format!("{state}/{file}"), content);
    }
    assert_eq!(disk.scan().unwrap().inventory.incoming[&root()], Folder::Bare);
    disk.disk.place(&root()).unwrap();
    assert!(disk.models().is_empty(), "it is no copy of anything yet");
    // Also by an agent that was not there when its Job was made.
    let later = Disk::new(disk.folder.path(), None);
    assert_eq!(later.scan(&BTreeSet::from([root()])).unwrap().inventory.incoming[&root()], Folder::Bare);
    assert_eq!(later.adopt(&root(), "hf://o/m").unwrap(), None);
    later.place(&root()).unwrap();
    let inventory = disk.scan().unwrap().inventory;
    assert_eq!(inventory.models[&root()], Folder::Complete { bytes: 6, files: 2 });
    assert!(inventory.kept.is_empty() && inventory.lent.is_empty() && inventory.incoming.is_empty());
    assert!(inventory.sealed.contains(&root()));
}

#[test]
fn our_downloader_does_not_take_up_what_another_initializer_began_nor_the_other_way_round() {
    let disk = foreign();
    disk.write(&format!("incoming/{KEY}/.localmodel/manifest.json"), PLANTED);
    disk.disk.prepare(&root(), true, false).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.incoming[&root()], Folder::Empty);
    disk.copy(&at(INCOMING, KEY), &["a"]);
    assert!(matches!(disk.scan().unwrap().inventory.incoming[&root()], Folder::Complete { .. }));
    disk.disk.prepare(&root(), false, false).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.incoming[&root()], Folder::Bare);
    disk.disk.erase_incoming(&root()).unwrap();
    assert_eq!(disk.scan().unwrap(), Scan::default(), "no mark is left");
}

#[test]
fn another_initializer_gets_no_links_to_files_that_services_read() {
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["a", "b"]);
    fs::remove_file(disk.path(&format!("models/{KEY}/b"))).unwrap();
    disk.disk.prepare(&root(), false, false).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.incoming[&root()], Folder::Empty);
}

#[test]
fn a_download_with_links_devices_sockets_or_files_of_others_is_refused_and_erased() {
    let fifo = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let hostile: [(&str, Plant); 7] = [
        ("is a symbolic link", &|disk, path| symlink(disk.path("elsewhere"), path).unwrap()),
        ("is a symbolic link", &|_, path| symlink("a", path).unwrap()),
        ("is a symbolic link", &|_, path| symlink("/dangling", path).unwrap()),
        ("is neither a file nor a folder", &|_, path| fifo(path)),
        ("is neither a file nor a folder", &|_, path| drop(UnixListener::bind(path).unwrap())),
        ("has another name outside", &|disk, path| fs::hard_link(disk.path("elsewhere"), path).unwrap()),
        ("holds a control character", &|_, path| fs::write(path.with_file_name("a\nb"), "1").unwrap()),
    ];
    for (why, plant) in hostile {
        for folder in ["", "sub/", ".cache/huggingface/"] {
            let disk = foreign();
            disk.write("elsewhere", "of others");
            disk.write(&format!("incoming/{KEY}/{folder}beside"), "1");
            plant(&disk, &disk.path(&format!("incoming/{KEY}/{folder}planted")));
            let problem = disk.disk.adopt(&root(), "hf://o/m").unwrap().unwrap();
            assert_eq!(problem.reason, "UnsafeFileName");
            assert!(problem.message.contains(why), "{}", problem.message);
            assert!(!disk.path(&at(INCOMING, KEY)).exists());
            assert_eq!(fs::read(disk.path("elsewhere")).unwrap(), b"of others");
        }
    }
    let disk = foreign();
    fs::hard_link(disk.path(&format!("incoming/{KEY}/a")), disk.path(&format!("incoming/{KEY}/c"))).unwrap();
    assert_eq!(disk.disk.adopt(&root(), "hf://o/m").unwrap(), None, "both names are the model's own");
}

#[test]
fn a_download_that_is_too_deep_or_has_too_many_files_is_refused() {
    let disk = foreign();
    fs::create_dir_all(disk.path(&at(INCOMING, KEY)).join(vec!["d"; 100].join("/"))).unwrap();
    assert_eq!(disk.disk.adopt(&root(), "hf://o/m").unwrap().unwrap().reason, "PathTooDeep");
    let disk = foreign();
    let folder = disk.path(&at(INCOMING, KEY));
    for number in 0..=Manifest::MOST_FILES {
        File::create(folder.join(number.to_string())).unwrap();
    }
    assert_eq!(disk.disk.adopt(&root(), "hf://o/m").unwrap().unwrap().reason, "TooManyFiles");
    assert!(!folder.exists());
}

#[test]
fn a_manifest_that_kserves_job_brought_is_replaced_and_what_cannot_be_served_stays_unadopted() {
    let disk = disk();
    let model = at(MODELS, KEY);
    disk.write(&format!("{model}/a"), "12345");
    disk.write(&format!("{model}/b"), "1");
    disk.write(&format!("{model}/.localmodel/manifest.json"), PLANTED);
    disk.disk.keep(KEY).unwrap();
    let inventory = disk.scan().unwrap().inventory;
    assert!(
        matches!(inventory.models[&root()], Folder::Complete { files: 1, .. }) && inventory.sealed.is_empty()
    );
    assert_eq!(disk.disk.adopt_model(&root(), "hf://o/m").unwrap(), None);
    let inventory = disk.scan().unwrap().inventory;
    assert_eq!(inventory.models[&root()], Folder::Complete { bytes: 6, files: 2 });
    assert!(inventory.sealed.contains(&root()) && inventory.kept.contains(KEY));
    symlink("/etc", disk.path(&format!("{model}/link"))).unwrap();
    let problem = disk.disk.adopt_model(&root(), "hf://o/m").unwrap().unwrap();
    assert_eq!(problem.reason, "UnsafeFileName");
    assert!(disk.path(&format!("{model}/a")).exists(), "services may read it");
}
