use serde_json::json;
use tempfile::TempDir;

use super::*;

fn model(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut entries = Vec::new();
    for (path, text) in files {
        let file = folder.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        let sha256 = hex::encode(Sha256::digest(text));
        entries.push(json!({"path": path, "size": text.len(), "sha256": sha256}));
    }
    fs::create_dir(folder.path().join(".localmodel")).unwrap();
    let manifest = json!({"source": "hf://a/b", "files": entries}).to_string();
    fs::write(folder.path().join(".localmodel/manifest.json"), manifest).unwrap();
    folder
}

fn refused(folder: &Path) -> String {
    format!("{:#}", Model::read(folder).unwrap_err())
}

#[test]
fn a_whole_model_is_told_with_the_digest_of_each_file() {
    let folder = model(&[("config.json", "{}"), ("sub/weights", "abc")]);
    let read = Model::read(folder.path()).unwrap();
    assert_eq!(read.source, "hf://a/b");
    assert_eq!(read.files.keys().collect::<Vec<_>>(), ["config.json", "sub/weights"]);
    assert_eq!(read.files["sub/weights"], hex::encode(Sha256::digest("abc")));
}

#[test]
fn anything_less_than_a_whole_model_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(empty.path()).contains("is empty"));
    assert!(refused(&empty.path().join("nowhere")).contains("nowhere"));

    let without_manifest = model(&[("weights", "abc")]);
    fs::remove_dir_all(without_manifest.path().join(".localmodel")).unwrap();
    assert!(refused(without_manifest.path()).contains("no manifest"));

    let missing = model(&[("a", "abc"), ("b", "abc")]);
    fs::remove_file(missing.path().join("b")).unwrap();
    assert_eq!(refused(missing.path()), "b is missing");

    let short = model(&[("a", "abc")]);
    fs::write(short.path().join("a"), "ab").unwrap();
    assert_eq!(refused(short.path()), "a has 2 bytes, not 3");

    let flipped = model(&[("a", "abc")]);
    fs::write(flipped.path().join("a"), "abd").unwrap();
    assert_eq!(refused(flipped.path()), "a has other bytes than its manifest says");

    let more = model(&[("a", "abc")]);
    fs::write(more.path().join("a.incomplete"), "ab").unwrap();
    assert_eq!(refused(more.path()), "not in the manifest: a.incomplete");
}
