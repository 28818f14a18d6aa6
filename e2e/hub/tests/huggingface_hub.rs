//! The proof that the mock is faithful: the real `huggingface_hub` downloads from it, byte by byte, and
//! raises the exceptions that it raises at the real hub.
#![allow(clippy::unwrap_used, reason = "the functions between the tests are tests, too")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use localmodel_hub::{
    Access, Fault, FaultKind, Hub, Model, Origin, RateHeader, STRANGER_TOKEN, TOKEN, bytes,
};

const VERSION: &str = "2.4.0";
const SCRIPT: &str = include_str!("snapshot.py");

/// The Python that has the pinned client, installed once a version.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").expect("HOME or XDG_CACHE_HOME names the cache"))
                .join(".cache")
        },
        PathBuf::from,
    );
    let folder = cache.join("localmodel").join(format!("huggingface_hub-{VERSION}"));
    fs::create_dir_all(&folder).unwrap();
    // One test installs, the others wait for it.
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let (python, complete) = (folder.join("bin/python"), folder.join("complete"));
    if !complete.exists() {
        let mut make = Command::new("python3");
        done(make.args(["-m", "venv", "--clear"]).arg(&folder), "Install python3 with its venv module.");
        let package = format!("huggingface_hub=={VERSION}");
        let mut install = Command::new(&python);
        done(install.args(["-m", "pip", "install", "--quiet", &package]), "PyPI must be reachable.");
        fs::write(complete, "").unwrap();
    }
    python
}

fn done(command: &mut Command, hint: &str) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}. {hint}"));
    assert!(output.status.success(), "{command:?}: {}\n{hint}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What the client makes of a snapshot: `ok` or an exception's name.
fn snapshot(hub: &Hub, repo: &str, revision: &str, token: &str, folder: &Path) -> String {
    let mut command = Command::new(python());
    command.arg("-c").arg(SCRIPT).args([repo, revision, token]).arg(folder);
    command.env("HF_ENDPOINT", hub.endpoint()).env("HF_HOME", folder.join(".cache"));
    command.env("HF_HUB_DISABLE_TELEMETRY", "1").env("NO_PROXY", "127.0.0.1").env_remove("HF_TOKEN");
    let output = done(&mut command, "");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// All files in a folder but the client's own, by path.
fn files(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != ".cache" {
            files(root, &path, found);
        } else if path.is_file() {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
}

fn models() -> Vec<Model> {
    vec![
        Model::llama("acme/open").size(3 << 20).shards(3).file("sub dir/a#b?.txt", "odd name").retrain(),
        Model::llama("acme/gated").size(1 << 20).access(Access::Gated),
        Model::llama("acme/private").size(1 << 20).access(Access::Private),
    ]
}

#[tokio::test]
#[ignore = "needs PyPI; run by `just hub-proof`"]
async fn the_real_client_downloads_every_byte() {
    let hub = Hub::start(models()).await;
    hub.set_page_size(4);
    let first = hub.commits("acme/open")[0].clone();
    for (repo, revision, token) in [
        ("acme/open", "main", ""),
        ("acme/open", first.as_str(), ""),
        ("acme/open", "main", TOKEN),
        ("acme/gated", "main", TOKEN),
        ("acme/private", "main", TOKEN),
    ] {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(snapshot(&hub, repo, revision, token, folder.path()), "ok", "{repo} at {revision}");
        let mut found = BTreeMap::new();
        files(folder.path(), folder.path(), &mut found);
        let wanted = hub.files(repo, revision);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            wanted.keys().collect::<Vec<_>>(),
            "{repo} at {revision}"
        );
        for (path, wanted) in wanted {
            assert!(found[&path] == wanted, "{path} of {repo} at {revision} differs");
        }
    }
    let cdn: Vec<_> = hub.requests().into_iter().filter(|request| request.origin == Origin::Cdn).collect();
    assert!(!cdn.is_empty() && cdn.iter().all(|request| !request.authorized && request.status == 200));
}

#[tokio::test]
#[ignore = "needs PyPI; run by `just hub-proof`"]
async fn the_real_client_raises_what_it_raises_at_the_real_hub() {
    let hub = Hub::start(models()).await;
    let folder = tempfile::tempdir().unwrap();
    for (repo, revision, token, exception) in [
        ("acme/gated", "main", "", "GatedRepoError"),
        ("acme/gated", "main", STRANGER_TOKEN, "GatedRepoError"),
        ("acme/gated", "main", "hf_wrong", "HfHubHTTPError"),
        ("acme/private", "main", "", "RepositoryNotFoundError"),
        ("acme/private", "main", STRANGER_TOKEN, "RepositoryNotFoundError"),
        ("acme/missing", "main", "", "RepositoryNotFoundError"),
        ("acme/missing", "main", TOKEN, "RepositoryNotFoundError"),
        ("acme/open", "nowhere", "", "RevisionNotFoundError"),
        ("acme/open", "0123456789012345678901234567890123456789", "", "RevisionNotFoundError"),
    ] {
        let folder = folder.path().join(format!("{repo}-{revision}-{token}"));
        assert_eq!(snapshot(&hub, repo, revision, token, &folder), exception, "{repo} {revision} {token:?}");
    }
}

#[tokio::test]
#[ignore = "needs PyPI; run by `just hub-proof`"]
async fn the_real_client_waits_for_a_rate_limit_and_resumes_after_a_cut() {
    // It keeps what it has in steps of 10 MiB.
    let weights = bytes(1, 12 << 20);
    let hub = Hub::start(vec![Model::new("acme/large").lfs("weights.bin", weights.clone())]).await;
    let limited = FaultKind::TooManyRequests { seconds: 1, header: RateHeader::RateLimit };
    hub.fault(Fault::once("acme/large/tree/", limited).at(Origin::Hub));
    hub.fault(Fault::once("weights.bin", FaultKind::Cut { after: 11 << 20 }).at(Origin::Cdn));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(snapshot(&hub, "acme/large", "main", "", folder.path()), "ok");
    assert!(fs::read(folder.path().join("weights.bin")).unwrap() == weights);
    let trees = hub.requests_of("/tree/").iter().map(|request| request.status).collect::<Vec<_>>();
    assert_eq!(trees, [429, 200]);
    let ranges = hub.requests_of("weights.bin").into_iter().filter_map(|request| request.range);
    assert_eq!(ranges.collect::<Vec<_>>(), [format!("bytes={}-", 10 << 20)]);
}
