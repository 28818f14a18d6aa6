use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::super::tests::{KEY, OTHER, Sample, at, disk, of_ns, root};
use super::*;
use crate::plan::disk::Inventory;
use crate::plan::gate::GateStatus;
use crate::plan::names::{INCOMING, NAMESPACES};

/// Where a pod reads the documented model, from the root of the disk.
fn view() -> String {
    format!("serve/{KEY}/models/{KEY}")
}

fn served(disk: &Sample) -> Option<Served> {
    disk.scan().unwrap().inventory.served.get(&root()).copied()
}

/// Everything below a folder, by its path in it.
fn below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(folder.join(&at)).unwrap() {
            let path = at.join(entry.unwrap().file_name());
            found.push(path.display().to_string());
            if is_folder(&folder.join(&path)) {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_view_holds_links_to_the_models_files_and_its_gate_and_nothing_else() {
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["config.json", "sub/weights"]);
    disk.copy(&at(MODELS, OTHER), &["a"]);
    disk.write(&format!("models/{KEY}/.localmodel/scrub.json"), "{}");
    disk.write(&format!("models/{KEY}/.cache/huggingface/x"), "1");
    symlink(disk.path(&at(MODELS, OTHER)), disk.path(&format!("models/{KEY}/away"))).unwrap();
    let status: GateStatus = serde_json::from_value(json!({"phase": "ModelDownloaded"})).unwrap();
    disk.disk.write_served_gate(&root(), &status).unwrap();
    assert_eq!(served(&disk), Some(Served::Outdated), "a pod waits at its gate");
    disk.disk.serve(&root()).unwrap();
    assert_eq!(served(&disk), Some(Served::Current));
    let files = below(&disk.path(&format!("serve/{KEY}")));
    let expected = [
        "gate".to_owned(),
        format!("gate/{KEY}"),
        format!("gate/{KEY}/status.json"),
        "models".to_owned(),
        format!("models/{KEY}"),
        format!("models/{KEY}/.localmodel"),
        format!("models/{KEY}/.localmodel/manifest.json"),
        format!("models/{KEY}/config.json"),
        format!("models/{KEY}/sub"),
        format!("models/{KEY}/sub/weights"),
    ];
    assert_eq!(files, expected);
    for file in ["config.json", "sub/weights"] {
        assert_eq!(disk.inode(&format!("models/{KEY}/{file}")), disk.inode(&format!("{}/{file}", view())));
    }
    assert_eq!(disk.names("serve"), [KEY], "nothing is left of the work");
    let verified = Manifest::read(&disk.path(&view())).unwrap().unwrap();
    assert_eq!(verified.files.len(), 2, "a pod can verify what it reads");
}

#[test]
fn a_view_is_built_again_when_the_copy_or_the_view_has_changed_and_not_otherwise() {
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["a", "b"]);
    disk.disk.serve(&root()).unwrap();
    let first = disk.inode(&view());
    disk.disk.serve(&root()).unwrap();
    assert_eq!(disk.inode(&view()), first, "doing it twice changes nothing");

    fs::remove_file(disk.path(&format!("{}/a", view()))).unwrap();
    assert_eq!(served(&disk), Some(Served::Outdated), "a file has vanished from it");
    disk.disk.serve(&root()).unwrap();
    assert_eq!(served(&disk), Some(Served::Current));
    assert!(disk.path(&format!("{}/a", view())).exists());

    disk.write(&format!("models/{KEY}/a"), "1");
    disk.copy(&at(INCOMING, KEY), &["a", "b"]);
    disk.disk.place(&root()).unwrap();
    assert_eq!(served(&disk), Some(Served::Outdated), "the copy was repaired");
    disk.disk.serve(&root()).unwrap();
    assert_eq!(fs::read_to_string(disk.path(&format!("{}/a", view()))).unwrap(), "12345");
}

#[test]
fn an_exchange_leaves_open_files_of_the_earlier_view_readable() {
    use std::io::Read;
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["a"]);
    disk.disk.serve(&root()).unwrap();
    let mut open = File::open(disk.path(&format!("{}/a", view()))).unwrap();
    disk.copy(&at(INCOMING, KEY), &["b"]);
    fs::remove_file(disk.path(&format!("models/{KEY}/a"))).unwrap();
    disk.disk.place(&root()).unwrap();
    disk.disk.serve(&root()).unwrap();
    assert!(!disk.path(&format!("{}/a", view())).exists());
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content, "12345");
}

#[test]
fn what_a_crash_left_of_a_view_is_finished_or_goes_with_the_model() {
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["a"]);
    disk.disk.serve(&root()).unwrap();
    disk.write(&format!("serve/{KEY}.new/half"), "1");
    assert_eq!(served(&disk), Some(Served::Outdated));
    let before = disk.inode(&view());
    disk.disk.serve(&root()).unwrap();
    assert_eq!((served(&disk), disk.inode(&view())), (Some(Served::Current), before));

    disk.write(&format!("serve/{OTHER}.new/half"), "1");
    let other = CopyKey::root(OTHER);
    let scan = disk.scan().unwrap();
    assert_eq!(scan.inventory.served.get(&other), Some(&Served::Outdated));
    assert!(scan.strangers.is_empty(), "{:?}", scan.strangers);
    disk.disk.erase_served(&other).unwrap();
    disk.disk.erase_served(&root()).unwrap();
    assert_eq!(disk.names("serve"), Vec::<String>::new());
    assert!(disk.path(&format!("models/{KEY}/a")).exists());
}

#[test]
fn only_a_complete_copy_is_served() {
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["a", "b"]);
    fs::remove_file(disk.path(&format!("models/{KEY}/b"))).unwrap();
    disk.disk.serve(&root()).unwrap();
    assert_eq!(disk.names("serve"), Vec::<String>::new());
}

#[test]
fn a_namespaces_view_lies_in_its_own_area() {
    let disk = disk();
    disk.disk.problem(Some("ns"));
    let model = format!("{NAMESPACES}/ns/models/{KEY}");
    disk.copy(&model, &["a"]);
    disk.disk.serve(&of_ns()).unwrap();
    assert!(disk.path(&format!("{NAMESPACES}/ns/serve/{KEY}/models/{KEY}/a")).exists());
    assert_eq!(disk.names("serve"), Vec::<String>::new());
    disk.disk.erase_model(&of_ns()).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.empty_areas.len(), 0, "pods may still read it");
    disk.disk.erase_served(&of_ns()).unwrap();
    assert_eq!(disk.scan().unwrap().inventory.empty_areas.len(), 1);
}

#[test]
fn no_link_is_followed_to_the_folder_that_pods_mount() {
    let disk = disk();
    disk.copy(&at(MODELS, KEY), &["a"]);
    fs::create_dir(disk.path("outside")).unwrap();
    fs::remove_dir(disk.path("serve")).unwrap();
    symlink(disk.path("outside"), disk.path("serve")).unwrap();
    assert!(disk.disk.serve(&root()).is_err());
    disk.disk.erase_served(&root()).unwrap();
    let status = serde_json::from_value(json!({"phase": "ModelDownloaded"})).unwrap();
    disk.disk.write_served_gate(&root(), &status).unwrap();
    assert_eq!(disk.names("outside"), Vec::<String>::new());
    assert_eq!(disk.scan().unwrap().inventory.served, Inventory::default().served);
}

#[test]
fn a_file_that_cannot_be_linked_is_copied_and_its_bytes_are_stored_once() {
    let disk = disk();
    let model = at(MODELS, KEY);
    disk.copy(&model, &["a", "sub/b"]);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    File::open(disk.path(&format!("{model}/a"))).unwrap().set_modified(long_ago).unwrap();
    let files = ["a", "sub/b", ".localmodel/manifest.json"].map(|file| format!("{model}/{file}"));
    let before = disk.inode(&files[0]);
    let folder = format!("{model}/sub");
    let others: Vec<&str> = files.iter().chain([&folder]).map(String::as_str).collect();
    disk.as_nobody_but(&others, |disk| disk.serve(&root())).unwrap();
    assert_eq!(served(&disk), Some(Served::Current));
    for file in ["a", "sub/b"] {
        let path = disk.path(&format!("{}/{file}", view()));
        assert_eq!(fs::read_to_string(path).unwrap(), "12345", "{file}");
    }
    let (stored, shown) = (disk.inode(&files[0]), disk.inode(&format!("{}/a", view())));
    assert_eq!(stored, shown, "the copy has taken the place of the file");
    assert_eq!(fs::metadata(disk.path(&files[0])).unwrap().modified().unwrap(), long_ago);
    if stored == before {
        return; // the system allows links to files of others, or the test is not root
    }
    let owner = |file: &str| fs::metadata(disk.path(file)).unwrap().uid();
    assert_ne!(owner(&files[0]), owner(&files[1]), "a folder of another user's keeps its file");
    assert_eq!(fs::metadata(disk.path(&files[0])).unwrap().permissions().mode() & 0o444, 0o444);
    assert_eq!(disk.models()[&root()], Folder::Complete { bytes: 10, files: 2 });
}

#[test]
fn a_view_that_cannot_be_finished_leaves_nothing_behind() {
    let disk = disk();
    let model = at(MODELS, KEY);
    disk.copy(&model, &["a"]);
    fs::set_permissions(disk.path(&format!("{model}/a")), fs::Permissions::from_mode(0o0)).unwrap();
    let error = disk.as_nobody_but(&[&format!("{model}/a")], |disk| disk.serve(&root())).unwrap_err();
    let error = error.to_string();
    assert!(error.contains(&format!("models/{KEY}")) && error.contains("Permission denied"), "{error}");
    assert_eq!(disk.names(&format!("serve/{KEY}/models")), Vec::<String>::new());
    assert_eq!(disk.names("serve"), [KEY]);
}
