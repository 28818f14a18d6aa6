//! The areas of namespaces, what KServe left in the root for them, and the gate.

use serde_json::json;

use super::*;
use crate::api::ModelStatus;
use crate::plan::gate::GateStatus;

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(folder).unwrap().map(name).collect()
}

#[test]
fn a_namespaces_area_is_made_below_its_own_folder_and_removed_when_it_is_empty() {
    let disk = disk();
    assert_eq!(disk.disk.problem(Some("ns")), None);
    for folder in [
        "namespaces",
        "namespaces/ns",
        "namespaces/ns/models",
        "namespaces/ns/incoming",
        "namespaces/ns/gate",
    ] {
        assert_eq!(fs::metadata(disk.path(folder)).unwrap().mode() & 0o7777, FOLDER_MODE, "{folder}");
    }
    assert_eq!(disk.scan().unwrap().inventory.empty_areas, BTreeSet::from(["ns".to_owned()]));
    disk.disk.prepare(&of_ns(), true, false).unwrap();
    let scan = disk.scan().unwrap();
    assert_eq!(scan.inventory.incoming, BTreeMap::from([(of_ns(), Folder::Empty)]));
    assert_eq!(scan.inventory.empty_areas, BTreeSet::new());
    disk.disk.remove_area("ns").unwrap();
    assert!(disk.path(&format!("namespaces/ns/incoming/{KEY}")).exists(), "it is not empty");
    disk.disk.erase_incoming(&of_ns()).unwrap();
    disk.disk.remove_area("ns").unwrap();
    disk.disk.remove_area("ns").unwrap();
    assert!(!disk.path("namespaces/ns").exists() && disk.path("models").exists());
}

#[test]
fn the_copies_of_two_areas_have_nothing_to_do_with_each_other() {
    let disk = disk();
    disk.disk.problem(Some("ns"));
    disk.copy(&at(MODELS, KEY), &["a"]);
    disk.copy(&format!("namespaces/ns/incoming/{KEY}"), &["a", "b"]);
    disk.disk.place(&of_ns()).unwrap();
    let both = BTreeMap::from([
        (root(), Folder::Complete { bytes: 5, files: 1 }),
        (of_ns(), Folder::Complete { bytes: 10, files: 2 }),
    ]);
    assert_eq!(disk.models(), both);
    disk.disk.erase_model(&of_ns()).unwrap();
    assert_eq!(disk.models().into_keys().collect::<Vec<_>>(), [root()]);
}

#[test]
fn files_of_anothers_copy_are_lent_without_its_manifest_and_only_to_our_own_downloader() {
    let disk = disk();
    disk.disk.problem(Some("ns"));
    disk.copy(&at(MODELS, KEY), &["a", "sub/b"]);
    let incoming = format!("namespaces/ns/incoming/{KEY}");
    disk.disk.prepare(&of_ns(), true, false).unwrap();
    assert!(!disk.path(&format!("{incoming}/a")).exists());

    disk.disk.prepare(&of_ns(), true, true).unwrap();
    for file in ["a", "sub/b"] {
        let (theirs, lent) =
            (disk.inode(&format!("models/{KEY}/{file}")), disk.inode(&format!("{incoming}/{file}")));
        assert_eq!(theirs, lent, "{file}");
    }
    let inventory = disk.scan().unwrap().inventory;
    assert_eq!((inventory.incoming[&of_ns()], inventory.lent.contains(&of_ns())), (Folder::Bare, true));
    disk.disk.place(&of_ns()).unwrap();
    assert!(!disk.models().contains_key(&of_ns()), "it is no copy of anything yet");

    disk.disk.prepare(&of_ns(), false, false).unwrap();
    let inventory = disk.scan().unwrap().inventory;
    assert_eq!(
        (inventory.incoming[&of_ns()], inventory.lent.len()),
        (Folder::Empty, 0),
        "another initializer's"
    );
}

#[test]
fn files_that_cannot_be_linked_because_another_user_owns_them_are_copied_for_a_repair_and_not_lent() {
    let disk = disk();
    disk.disk.problem(Some("ns"));
    let model = at(MODELS, KEY);
    disk.copy(&model, &["a"]);
    disk.as_nobody_but(&[&model], |disk| disk.prepare(&of_ns(), true, true)).unwrap();
    let lent = disk.path(&format!("namespaces/ns/incoming/{KEY}/a"));
    disk.as_nobody_but(&[&model], |disk| disk.prepare(&root(), true, true)).unwrap();
    let copied = format!("{}/a", at(INCOMING, KEY));
    assert_eq!(fs::read_to_string(disk.path(&copied)).unwrap(), "12345");
    let is_link = disk.inode(&copied) == disk.inode(&format!("{model}/a"));
    assert_eq!(lent.exists(), is_link, "the system allows links to files of others, or the test is not root");
}

#[test]
fn only_complete_copies_are_lent_and_nothing_to_a_download_that_has_begun() {
    let disk = disk();
    disk.disk.problem(Some("ns"));
    disk.copy(&at(MODELS, KEY), &["a", "b"]);
    fs::remove_file(disk.path(&format!("models/{KEY}/b"))).unwrap();
    disk.disk.prepare(&of_ns(), true, true).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.incoming[&of_ns()], Folder::Empty);
    disk.write(&format!("models/{KEY}/b"), "12345");
    disk.write(&format!("namespaces/ns/incoming/{KEY}/.localmodel/plan.json"), "{}");
    disk.disk.prepare(&of_ns(), true, true).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.incoming[&of_ns()], Folder::Empty);

    disk.disk.problem(Some("other"));
    let other = CopyKey { namespace: Some("other".into()), ..root() };
    disk.disk.erase_model(&root()).unwrap();
    disk.copy(&format!("namespaces/ns/models/{KEY}"), &["a"]);
    disk.disk.prepare(&other, true, true).unwrap();
    let lent = disk.scan().unwrap().inventory.lent;
    assert_eq!(lent.into_iter().collect::<Vec<_>>(), [other], "from one namespace to another, too");
}

#[test]
fn a_link_in_place_of_a_namespaces_folder_is_never_followed() {
    let disk = disk();
    disk.copy(&format!("outside/models/{KEY}"), &["a"]);
    disk.copy(&format!("outside/incoming/{KEY}"), &["a"]);
    fs::create_dir(disk.path("namespaces")).unwrap();
    symlink(disk.path("outside"), disk.path("namespaces/ns")).unwrap();
    let problem = disk.disk.problem(Some("ns")).unwrap();
    assert!(problem.message.starts_with("namespaces/ns/"), "{}", problem.message);
    let scan = disk.scan().unwrap();
    assert_eq!(scan.inventory, Inventory::default());
    assert!(scan.strangers.contains("namespaces/ns"));
    disk.disk.erase_model(&of_ns()).unwrap();
    disk.disk.erase_incoming(&of_ns()).unwrap();
    disk.disk.erase_gate(&of_ns()).unwrap();
    disk.disk.place(&of_ns()).unwrap();
    disk.disk.adopt(&of_ns(), "hf://o/m").unwrap();
    disk.disk.remove_area("ns").unwrap();
    assert!(disk.disk.prepare(&of_ns(), true, false).is_err());
    let told = GateStatus { phase: ModelStatus::ModelDownloaded, ..gate() };
    disk.disk.write_gate(&of_ns(), &told).unwrap();
    let inside: Vec<String> = names(&disk.path("outside"));
    assert_eq!(inside.len(), 2, "{inside:?}");
    assert!(disk.path(&format!("outside/models/{KEY}/a")).exists());
    assert!(disk.path(&format!("outside/incoming/{KEY}/a")).exists());
}

#[test]
fn a_namespace_that_is_no_name_never_reaches_the_disk() {
    let disk = disk();
    let problem = disk.disk.problem(Some("../../outside")).unwrap();
    assert_eq!(problem.reason, "InvalidNamespace");
    assert!(!disk.path("namespaces").exists());
    fs::create_dir_all(disk.path("namespaces/Ours/models")).unwrap();
    disk.disk.remove_area("Ours").unwrap();
    assert!(disk.path("namespaces/Ours/models").exists(), "somebody else's folder");
}

#[test]
fn a_copy_of_the_root_is_linked_into_a_namespace_and_stays_where_it_is() {
    let disk = disk();
    disk.disk.problem(Some("ns"));
    let model = at(MODELS, KEY);
    disk.write(&format!("{model}/config.json"), "{}");
    disk.write(&format!("{model}/sub/weights"), "12345");
    disk.disk.link(&of_ns()).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.incoming[&of_ns()], Folder::Empty, "nobody vouches for it");
    disk.disk.adopt_model(&root(), "hf://o/m").unwrap();
    assert_eq!(disk.models()[&root()], Folder::Complete { bytes: 7, files: 2 });
    disk.write(&format!("{model}/sub/weights"), "1234");
    disk.disk.link(&of_ns()).unwrap();
    let linked = disk.scan().unwrap().inventory.incoming[&of_ns()];
    assert_eq!(linked, Folder::Empty, "what is damaged is not handed on");
    disk.write(&format!("{model}/sub/weights"), "12345");
    let half = format!("namespaces/ns/incoming/{KEY}/config.json");
    disk.write(&half, "cut short");
    disk.disk.link(&of_ns()).unwrap();
    disk.disk.place(&of_ns()).unwrap();
    assert_eq!(disk.models()[&of_ns()], Folder::Complete { bytes: 7, files: 2 });
    for file in ["config.json", "sub/weights"] {
        let theirs = format!("namespaces/ns/{model}/{file}");
        assert_eq!(disk.inode(&theirs), disk.inode(&format!("{model}/{file}")));
    }
    disk.disk.erase_model(&root()).unwrap();
    assert_eq!(disk.models()[&of_ns()], Folder::Complete { bytes: 7, files: 2 });
}

#[test]
fn the_mark_of_a_copy_that_is_kept_outlives_a_repair() {
    let disk = disk();
    disk.disk.keep(KEY).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.kept, BTreeSet::new(), "there is nothing to keep");
    disk.copy(&at(MODELS, KEY), &["a", "b"]);
    assert_eq!(disk.scan().unwrap().inventory.kept, BTreeSet::new());
    disk.disk.keep(KEY).unwrap();
    disk.disk.keep(KEY).unwrap();
    let kept = BTreeSet::from([KEY.to_owned()]);
    assert_eq!(disk.scan().unwrap().inventory.kept, kept);
    assert_eq!(disk.models()[&root()], Folder::Complete { bytes: 10, files: 2 });
    disk.copy(&at(INCOMING, KEY), &["a", "b"]);
    disk.disk.place(&root()).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.kept, kept);
    disk.copy(&format!("namespaces/ns/models/{OTHER}"), &["a"]);
    mark_kept(&disk.path(&format!("namespaces/ns/models/{OTHER}"))).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.kept, kept, "KServe kept copies in the root alone");
}

fn gate() -> GateStatus {
    serde_json::from_value(json!({"phase": "ModelDownloading", "bytesDone": 1, "bytesTotal": 2})).unwrap()
}

#[test]
fn the_gate_is_written_when_it_changes_and_anybody_may_read_it() {
    let disk = disk();
    disk.disk.problem(Some("ns"));
    for copy in [root(), of_ns()] {
        disk.disk.write_gate(&copy, &gate()).unwrap();
        let folder = disk.disk.path(GATE, &copy);
        let file = folder.join("status.json");
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, r#"{"phase":"ModelDownloading","bytesDone":1,"bytesTotal":2}"#);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o644);
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o005, 0o005);
        let inode = fs::metadata(&file).unwrap().ino();
        disk.disk.write_gate(&copy, &gate()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "the same again is not written");
        let complete = GateStatus { phase: ModelStatus::ModelDownloaded, ..gate() };
        disk.disk.write_gate(&copy, &complete).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains("ModelDownloaded"));
        assert_eq!(names(&folder), ["status.json"]);
    }
    assert_eq!(disk.scan().unwrap().inventory.gates, BTreeSet::from([root(), of_ns()]));
    disk.disk.erase_gate(&of_ns()).unwrap();
    disk.disk.erase_gate(&of_ns()).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.gates, BTreeSet::from([root()]));
}

#[test]
fn the_progress_of_a_download_is_read_from_its_own_folder() {
    let disk = disk();
    assert_eq!(disk.disk.progress(&root()), None);
    let report = r#"{"bytesDone":3,"bytesTotal":9}"#;
    disk.write(&format!("incoming/{KEY}/.localmodel/progress.json"), report);
    let progress = disk.disk.progress(&root()).unwrap();
    assert_eq!((progress.bytes_done, progress.bytes_total), (3, 9));
}

/// Every path below a folder, with what is in it.
fn tree(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        let content = if kind.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_file() {
            fs::read_to_string(&path).unwrap()
        } else {
            tree(&path, found);
            "folder".to_owned()
        };
        found.insert(path, content);
    }
}

#[test]
fn whatever_lies_on_a_disk_only_folders_of_storage_keys_are_ever_touched() {
    let (disk, outside) = (disk(), tempfile::tempdir().unwrap());
    disk.disk.problem(Some("ns"));
    let away = outside.path();
    fs::create_dir_all(away.join(format!("models/{KEY}"))).unwrap();
    fs::write(away.join(format!("models/{KEY}/theirs")), "precious").unwrap();
    let theirs = [
        "models/backup/a",
        "models/0123456789ABCDEF/a",
        "models/0123456789abcde/a",
        "models/0123456789abcdef0/a",
        "incoming/.hidden/a",
        "gate/notes.txt",
        "namespaces/ns/models/important/a",
        "lost+found/a",
        "etc/passwd",
    ];
    for path in theirs {
        disk.write(path, "theirs");
    }
    symlink(away, disk.path("namespaces/away")).unwrap();
    symlink(away.join("models"), disk.path("models/link")).unwrap();
    for part in PARTS {
        symlink(away.join(format!("models/{KEY}")), disk.path(&at(part, OTHER))).unwrap();
    }
    // Ours, with links that lead out of them.
    for folder in [at(MODELS, KEY), at(INCOMING, KEY), format!("namespaces/ns/{}", at(MODELS, KEY))] {
        disk.copy(&folder, &["a"]);
        symlink(away, disk.path(&format!("{folder}/out"))).unwrap();
        symlink(away.join(format!("models/{KEY}/theirs")), disk.path(&format!("{folder}/file"))).unwrap();
    }
    let ours = |path: &PathBuf| path.to_string_lossy().contains(KEY);
    let (mut before, mut behind) = (BTreeMap::new(), BTreeMap::new());
    tree(disk.folder.path(), &mut before);
    tree(away, &mut behind);
    before.retain(|path, _| !ours(path));

    let scan = disk.scan().unwrap();
    assert_eq!(scan.inventory.models.keys().collect::<Vec<_>>(), [&root(), &of_ns()]);
    let of_away = CopyKey { namespace: Some("away".into()), ..root() };
    let linked = CopyKey::root(OTHER);
    for copy in [root(), of_ns(), of_away, linked] {
        // Each fails or does nothing where there is a link in place of a folder.
        let told: GateStatus = gate();
        drop((
            disk.disk.prepare(&copy, true, false),
            disk.disk.write_gate(&copy, &told),
            disk.disk.keep(&copy.key),
        ));
        drop((disk.disk.adopt(&copy, "hf://o/m"), disk.disk.adopt_model(&copy, "hf://o/m")));
        drop((disk.disk.link(&copy), disk.disk.place(&copy), disk.disk.open_copy(&copy)));
        drop((disk.disk.erase_incoming(&copy), disk.disk.erase_model(&copy), disk.disk.erase_gate(&copy)));
        drop(copy.namespace.map(|namespace| disk.disk.remove_area(&namespace)));
    }
    let (mut after, mut behind_after) = (BTreeMap::new(), BTreeMap::new());
    tree(disk.folder.path(), &mut after);
    tree(away, &mut behind_after);
    assert_eq!(behind_after, behind, "nothing behind a link is touched");
    assert_eq!(after, before, "and nothing that is not ours; what is ours is gone");
}

#[test]
fn damage_is_told_file_by_file_and_a_damaged_manifest_costs_no_good_file() {
    let disk = disk();
    let model = at(MODELS, KEY);
    disk.copy(&model, &["a", "b", "c", "d", "e", "f", "sub/g"]);
    for file in ["a", "b", "c", "d", "e", "f"] {
        disk.write(&format!("{model}/{file}"), "1234");
    }
    let damage = disk.scan().unwrap().inventory.damage[&root()].clone();
    assert!(damage.starts_with("a has 4 bytes instead of 5, b has"), "{damage}");
    assert!(damage.ends_with(" and 1 more"), "{damage}");
    disk.write(&format!("{model}/.localmodel/manifest.json"), "{");
    let damage = disk.scan().unwrap().inventory.damage[&root()].clone();
    assert!(damage.contains("manifest.json is damaged"), "{damage}");
    disk.disk.prepare(&root(), true, false).unwrap();
    for file in ["a", "sub/g"] {
        assert_eq!(disk.inode(&format!("{model}/{file}")), disk.inode(&format!("incoming/{KEY}/{file}")));
    }
    assert_eq!(disk.scan().unwrap().inventory.incoming[&root()], Folder::Bare, "the Job checks each");
}
