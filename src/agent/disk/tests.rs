use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use rustix::process::Uid;

use super::*;
use crate::agent::folders::FOLDER_MODE;
use crate::download::manifest::ManifestFile;
use crate::plan::disk::Inventory;

pub(super) const KEY: &str = "c277d78a31bc6624";
pub(super) const OTHER: &str = "0123456789abcdef";

pub(super) fn root() -> CopyKey {
    CopyKey::root(KEY)
}

/// The same source's copy of a namespace.
pub(super) fn of_ns() -> CopyKey {
    CopyKey { namespace: Some("ns".into()), ..root() }
}

/// A disk in a folder of its own, which goes with it.
pub(super) struct Sample {
    pub(super) disk: Disk,
    folder: tempfile::TempDir,
}

pub(super) fn disk() -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), None);
    assert_eq!(disk.problem(None), None);
    Sample { disk, folder }
}

impl Sample {
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(super) fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A copy with a manifest of these files, which all have the content "12345".
    pub(super) fn copy(&self, folder: &str, files: &[&str]) {
        for file in files {
            self.write(&format!("{folder}/{file}"), "12345");
        }
        let file = |path: &&str| ManifestFile { path: (*path).into(), size: 5, sha256: "00".repeat(32) };
        let files = files.iter().map(file).collect();
        let manifest = Manifest { source: "hf://o/m".into(), files, ..Manifest::default() };
        manifest.write(&self.path(folder)).unwrap();
    }

    /// Does something with the disk as a user who is not root and owns everything on it.
    fn as_nobody<T: Send>(&self, act: impl FnOnce(&Disk) -> T + Send) -> T {
        self.as_nobody_but(&[], act)
    }

    /// The same as a user who does not own these, which he can read.
    pub(super) fn as_nobody_but<T: Send>(&self, others: &[&str], act: impl FnOnce(&Disk) -> T + Send) -> T {
        const NOBODY: u32 = 65534;
        let user = Uid::from_raw(NOBODY);
        let is_root = geteuid().is_root();
        if is_root {
            give(self.folder.path(), NOBODY);
            for other in others {
                give(&self.path(other), 0);
            }
        }
        // Credentials are the thread's own.
        let work = || {
            if is_root {
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            }
            act(&self.disk)
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    /// A look at the disk, all of which somebody wants.
    pub(super) fn scan(&self) -> Result<Scan, Error> {
        let Inventory { models, incoming, gates, served, .. } = self.disk.scan(&BTreeSet::new())?.inventory;
        self.disk.scan(
            &models.into_keys().chain(incoming.into_keys()).chain(gates).chain(served.into_keys()).collect(),
        )
    }

    pub(super) fn models(&self) -> BTreeMap<CopyKey, Folder> {
        self.scan().unwrap().inventory.models
    }

    /// The names in a folder.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub(super) fn inode(&self, path: &str) -> u64 {
        fs::metadata(self.path(path)).unwrap().ino()
    }
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

pub(super) fn at(area: &str, key: &str) -> String {
    format!("{area}/{key}")
}

#[test]
fn a_new_disk_gets_its_folders_writable_for_the_group() {
    let disk = disk();
    for area in PARTS {
        assert_eq!(fs::metadata(disk.path(area)).unwrap().mode() & 0o7777, FOLDER_MODE);
    }
    assert_eq!(disk.scan().unwrap(), Scan::default());
    let usage = disk.disk.usage().unwrap();
    assert!(usage.capacity > 0 && usage.free <= usage.capacity);
}

#[test]
fn a_scan_tells_complete_damaged_bare_and_empty_folders_apart() {
    let disk = disk();
    let keys: Vec<String> = (0..8).map(|digit| digit.to_string().repeat(16)).collect();
    let folder = |at: usize| format!("models/{}", keys[at]);
    disk.copy(&folder(0), &["a", "sub/b"]);
    disk.copy(&folder(1), &["a", "b"]);
    disk.write(&format!("{}/b", folder(1)), "1234");
    disk.copy(&folder(2), &["a"]);
    fs::remove_file(disk.path(&format!("{}/a", folder(2)))).unwrap();
    disk.write(&format!("{}/.localmodel/manifest.json", folder(3)), "{");
    disk.write(&format!("{}/a", folder(4)), "12345");
    fs::create_dir(disk.path(&folder(5))).unwrap();
    disk.write(&format!("{}/.localmodel/0.incomplete", folder(6)), "1");
    disk.write(&format!("{}/.cache/huggingface/x", folder(7)), "1");
    let expected = [
        Folder::Complete { bytes: 10, files: 2 },
        Folder::Damaged,
        Folder::Damaged,
        Folder::Damaged,
        Folder::Bare,
        Folder::Empty,
        Folder::Empty,
        Folder::Empty,
    ];
    assert_eq!(disk.models(), keys.into_iter().map(CopyKey::root).zip(expected).collect());
}

#[test]
fn what_is_not_ours_is_reported_and_no_folder_of_the_inventory() {
    let disk = disk();
    disk.write("models/readme.txt", "theirs");
    disk.write("models/C277D78A31BC6624/a", "theirs");
    disk.write("incoming/0000000000000000", "a file with a key's name");
    disk.write("backup/a", "theirs");
    disk.write("namespaces/ns/models/x/a", "");
    disk.write("namespaces/ns/theirs", "");
    disk.write("namespaces/Not.A.Name/models/0000000000000000/a", "");
    disk.write("namespaces/file", "");
    fs::create_dir(disk.path("lost+found")).unwrap();
    symlink(disk.path("backup"), disk.path(&at(MODELS, KEY))).unwrap();
    let scan = disk.scan().unwrap();
    assert_eq!(scan.inventory, Inventory::default());
    let strangers: Vec<&str> = scan.strangers.iter().map(String::as_str).collect();
    let link = at(MODELS, KEY);
    assert_eq!(
        strangers,
        [
            "backup",
            "incoming/0000000000000000",
            "models/C277D78A31BC6624",
            &link,
            "models/readme.txt",
            "namespaces/Not.A.Name",
            "namespaces/file",
            "namespaces/ns/models/x",
            "namespaces/ns/theirs",
        ]
    );
}

#[test]
fn a_link_in_place_of_a_folder_is_never_followed() {
    let disk = disk();
    disk.copy("outside", &["a"]);
    for area in [MODELS, INCOMING] {
        symlink(disk.path("outside"), disk.path(&at(area, KEY))).unwrap();
    }
    disk.disk.erase_model(&root()).unwrap();
    disk.disk.erase_incoming(&root()).unwrap();
    disk.disk.place(&root()).unwrap();
    let error = disk.disk.prepare(&root(), true, true).unwrap_err().to_string();
    assert!(error.contains(KEY) && error.contains("not a folder of this disk"), "{error}");
    assert!(disk.path("outside/a").exists() && disk.path("outside/.localmodel/manifest.json").exists());
    assert!(disk.path(&at(MODELS, KEY)).is_symlink() && disk.path(&at(INCOMING, KEY)).is_symlink());
}

#[test]
fn a_link_in_place_of_the_models_folder_makes_the_disk_unusable_and_shows_nothing_behind_it() {
    let disk = disk();
    disk.copy(&format!("outside/{KEY}"), &["a"]);
    fs::remove_dir(disk.path(MODELS)).unwrap();
    symlink(disk.path("outside"), disk.path(MODELS)).unwrap();
    let problem = disk.disk.problem(None).unwrap();
    assert_eq!(problem.reason, "DiskNotWritable");
    assert!(problem.message.contains("not a folder of this disk"), "{}", problem.message);
    assert_eq!(disk.models(), BTreeMap::new());
}

#[test]
fn a_disk_that_cannot_be_written_is_reported_with_folder_and_user() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("file");
    fs::write(&root, "no folder").unwrap(); // nothing can be made below a file, not even by root
    let problem = Disk::new(&root, Some("/nvme/llm")).problem(None).unwrap();
    assert_eq!(problem.reason, "DiskNotWritable");
    let user = format!("user id {}", geteuid().as_raw());
    assert!(problem.message.contains("models/") && problem.message.contains(&user), "{}", problem.message);
    assert!(problem.message.contains("write access"), "{}", problem.message);
    assert!(problem.message.contains("on the node group's disk /nvme/llm"), "{}", problem.message);
}

#[test]
fn a_folder_that_only_others_may_write_is_reported() {
    let disk = disk();
    fs::set_permissions(disk.path(INCOMING), Permissions::from_mode(0o555)).unwrap();
    let problem = disk.as_nobody(|disk| disk.problem(None)).unwrap();
    assert!(problem.message.starts_with("incoming/"), "{}", problem.message);
    fs::set_permissions(disk.path(INCOMING), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(disk.as_nobody(|disk| disk.problem(None)), None);
}

#[test]
fn a_repair_starts_from_links_of_the_good_files() {
    let disk = disk();
    let (model, incoming) = (at(MODELS, KEY), at(INCOMING, KEY));
    disk.copy(&model, &["good", "sub/dir/good", "short", "gone"]);
    disk.write(&format!("{model}/short"), "1");
    fs::remove_file(disk.path(&format!("{model}/gone"))).unwrap();
    disk.disk.prepare(&root(), true, true).unwrap();
    for file in ["good", "sub/dir/good"] {
        assert_eq!(disk.inode(&format!("{model}/{file}")), disk.inode(&format!("{incoming}/{file}")));
    }
    assert!(!disk.path(&format!("{incoming}/short")).exists());
    assert_eq!(fs::metadata(disk.path(&format!("{incoming}/sub/dir"))).unwrap().mode() & 0o7777, FOLDER_MODE);
    assert_eq!(disk.scan().unwrap().inventory.incoming[&root()], Folder::Damaged, "it is not complete yet");
    disk.disk.prepare(&root(), true, true).unwrap();
}

#[test]
fn a_first_download_starts_from_an_empty_folder_and_keeps_what_is_in_it() {
    let disk = disk();
    disk.disk.prepare(&root(), true, true).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.incoming[&root()], Folder::Empty);
    disk.write(&format!("incoming/{KEY}/.localmodel/0.incomplete"), "half");
    disk.write(&format!("models/{KEY}/no-manifest"), "x");
    disk.disk.prepare(&root(), true, true).unwrap();
    assert!(disk.path(&format!("incoming/{KEY}/.localmodel/0.incomplete")).exists());
    assert!(!disk.path(&format!("incoming/{KEY}/no-manifest")).exists(), "nobody vouches for it");
}

#[test]
fn a_link_that_a_job_left_does_not_lead_a_repair_out_of_its_folder() {
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["good", "sub/good", "bad"]);
    disk.write(&format!("models/{KEY}/bad"), "1");
    disk.copy(&at(MODELS, OTHER), &["x"]);
    fs::create_dir(disk.path(&at(INCOMING, KEY))).unwrap();
    symlink(disk.path(&at(MODELS, OTHER)), disk.path(&format!("incoming/{KEY}/sub"))).unwrap();
    disk.disk.prepare(&root(), true, true).unwrap();
    assert!(disk.path(&format!("incoming/{KEY}/good")).exists());
    assert!(!disk.path(&format!("models/{OTHER}/good")).exists());
}

#[test]
fn a_complete_download_is_moved_in_one_rename() {
    let disk = disk();
    disk.copy(&at(INCOMING, KEY), &["a"]);
    let inode = disk.inode(&at(INCOMING, KEY));
    disk.disk.place(&root()).unwrap();
    assert_eq!(disk.inode(&at(MODELS, KEY)), inode);
    assert!(!disk.path(&at(INCOMING, KEY)).exists());
    disk.disk.place(&root()).unwrap();
    assert_eq!(disk.models()[&root()], Folder::Complete { bytes: 5, files: 1 });
}

#[test]
fn a_repaired_copy_changes_places_with_the_damaged_one_and_open_files_stay() {
    use std::io::Read;
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["a", "b"]);
    fs::remove_file(disk.path(&format!("models/{KEY}/b"))).unwrap();
    let mut open = File::open(disk.path(&format!("models/{KEY}/a"))).unwrap();
    disk.copy(&at(INCOMING, KEY), &["a", "b"]);
    let inode = disk.inode(&at(INCOMING, KEY));
    disk.disk.place(&root()).unwrap();
    assert_eq!(disk.inode(&at(MODELS, KEY)), inode);
    let scan = disk.scan().unwrap().inventory;
    assert_eq!(
        (scan.models[&root()], scan.incoming[&root()]),
        (Folder::Complete { bytes: 10, files: 2 }, Folder::Damaged)
    );
    disk.disk.place(&root()).unwrap();
    assert_eq!(disk.inode(&at(MODELS, KEY)), inode, "doing it twice does not bring the damaged one back");
    disk.disk.erase_incoming(&root()).unwrap();
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content, "12345");
}

#[test]
fn what_is_not_complete_is_never_placed() {
    let disk = disk();
    disk.write(&format!("incoming/{KEY}/a"), "12345");
    disk.disk.place(&root()).unwrap();
    assert_eq!(disk.models(), BTreeMap::new());
}

#[test]
fn a_folder_is_erased_whole_and_its_neighbours_stay() {
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["a", "sub/b"]);
    disk.copy(&at(MODELS, OTHER), &["a"]);
    disk.disk.erase_model(&root()).unwrap();
    disk.disk.erase_model(&root()).unwrap();
    assert_eq!(disk.models().keys().collect::<Vec<_>>(), [&CopyKey::root(OTHER)]);
    assert!(!disk.path(&at(MODELS, KEY)).exists());
}

#[test]
fn what_is_half_erased_does_not_look_complete() {
    let disk = disk();
    let model = at(MODELS, KEY);
    let locked: Vec<String> = (0..20).map(|number| format!("locked-{number}/file")).collect();
    disk.copy(&model, &locked.iter().map(String::as_str).collect::<Vec<_>>());
    if !geteuid().is_root() {
        return; // only root can make folders that this process may not empty
    }
    let others: Vec<String> = (0..20).map(|number| format!("{model}/locked-{number}")).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let error = disk.as_nobody_but(&others, |disk| disk.erase_model(&root())).unwrap_err().to_string();
    assert!(error.contains("erasing") && error.contains(KEY), "{error}");
    assert_ne!(disk.models()[&root()], Folder::Complete { bytes: 100, files: 20 });
    assert!(disk.path(&format!("{model}/locked-0/file")).exists());
}

#[test]
fn links_inside_a_folder_are_erased_and_not_followed() {
    let disk = disk();
    disk.copy("outside", &["a"]);
    disk.write(&format!("models/{KEY}/x"), "1");
    symlink(disk.path("outside"), disk.path(&format!("models/{KEY}/link"))).unwrap();
    symlink(disk.path("outside/.localmodel"), disk.path(&format!("models/{KEY}/.localmodel"))).unwrap();
    disk.disk.erase_model(&root()).unwrap();
    assert!(!disk.path(&at(MODELS, KEY)).exists());
    assert!(disk.path("outside/a").exists() && disk.path("outside/.localmodel/manifest.json").exists());
}

#[test]
fn an_adopted_copy_has_a_manifest_of_its_files_and_not_of_the_downloaders_books() {
    let disk = disk();
    let incoming = at(INCOMING, KEY);
    disk.write(&format!("{incoming}/config.json"), "{}");
    disk.write(&format!("{incoming}/sub/.cache/kept"), "1");
    disk.write(&format!("{incoming}/.cache/huggingface/config.json.metadata"), "x");
    assert_eq!(disk.disk.adopt(&root(), "hf://o/m").unwrap(), None);
    let manifest = Manifest::read(&disk.path(&incoming)).unwrap().unwrap();
    assert!(manifest.adopted);
    assert_eq!(manifest.source, "hf://o/m");
    let file =
        |path: &str, size, sha256: &str| ManifestFile { path: path.into(), size, sha256: sha256.into() };
    assert_eq!(
        manifest.files,
        [
            file("config.json", 2, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
            file("sub/.cache/kept", 1, "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"),
        ]
    );
    disk.disk.place(&root()).unwrap();
    assert_eq!(disk.models()[&root()], Folder::Complete { bytes: 3, files: 2 });
    disk.write(&format!("models/{KEY}/config.json"), "");
    assert_eq!(disk.models()[&root()], Folder::Damaged, "later damage shows");
}

mod adoption;
mod areas;
mod hostile;
mod known;
