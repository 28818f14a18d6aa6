//! The downloader against the mock hub: whole runs, what they ask for and what they leave on the disk.
#![allow(clippy::unwrap_used, reason = "clippy sees tests only inside their functions")]

mod budget;
mod cli;
mod copies;
mod egress;
mod faults;
mod lent;
mod mutated;
mod others;
mod refusals;
mod resume;
mod server;
mod tls;
mod unreachable;
mod verify;
mod web;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use localmodel::download::retry::Policy;
use localmodel::download::{Error, Manifest, Settings, download, is_complete};
use localmodel_hub::{Hub, Model, Origin, Request};
use tempfile::TempDir;

const REPO: &str = "acme/tiny";
const SOURCE: &str = "hf://acme/tiny";
const SHARD: &str = "model-00001-of-00002.safetensors";

/// A hub with one repository, and a folder that does not exist yet.
struct World {
    hub: Hub,
    dir: TempDir,
}

impl World {
    async fn new(model: Model) -> Self {
        // Another test of this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { hub: Hub::start(vec![model]).await, dir: tempfile::tempdir().unwrap() }
    }

    /// A Llama of two shards of 256 KiB, and the usual small files.
    async fn llama() -> Self {
        Self::new(Model::llama(REPO).size(512 << 10)).await
    }

    fn dest(&self) -> PathBuf {
        self.dir.path().join("models/k")
    }

    /// Settings for this hub with little patience.
    fn settings(&self) -> Settings {
        let retry =
            Policy { first: Duration::from_millis(1), longest: Duration::from_millis(4), attempts: 4 };
        Settings { retry, ..Settings::new(&self.hub.endpoint()).unwrap() }
    }

    async fn run(&self) -> Result<(), Error> {
        download(&self.settings(), SOURCE, &self.dest()).await
    }

    /// The paths of all requests, by origin.
    fn asked(&self, origin: Origin) -> Vec<String> {
        self.hub.requests().into_iter().filter(|request| request.origin == origin).map(|r| r.path).collect()
    }

    /// Panics unless the folder is a complete copy of this revision, and nothing but that.
    #[track_caller]
    fn assert_copy_of(&self, revision: &str) {
        let dest = self.dest();
        assert!(is_complete(&dest));
        let mut found = files_in(&dest);
        let manifest = Manifest::read(&dest).unwrap().unwrap();
        found.retain(|path, _| !path.starts_with(".localmodel/"));
        let expected = self.hub.files(REPO, revision);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert!(found == expected, "the bytes differ");
        let listed: Vec<_> = manifest.files.iter().map(|file| &file.path).collect();
        assert_eq!(listed, expected.keys().collect::<Vec<_>>());
        assert_eq!(state_of(&dest), ["lock", "manifest.json"]);
    }
}

/// Names and bytes of all files below a folder.
fn files_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

/// The names in our own folder of a copy.
fn state_of(dest: &Path) -> Vec<String> {
    let names = fs::read_dir(dest.join(".localmodel")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Where the ranges of these requests begin.
fn starts(requests: &[Request]) -> Vec<u64> {
    let start = |request: &Request| {
        let range = request.range.as_deref().unwrap().strip_prefix("bytes=").unwrap();
        range.split_once('-').unwrap().0.parse().unwrap()
    };
    requests.iter().map(start).collect()
}

/// Waits until `condition` holds, and panics when that takes too long.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
