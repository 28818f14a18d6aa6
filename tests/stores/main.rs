//! The downloader against real servers of each store's protocol: s3s-fs, fake-gcs-server and azurite, which
//! `hack/stores` installs and puts on the PATH (F6).
#![allow(clippy::unwrap_used, reason = "clippy sees tests only inside their functions")]

mod servers;

use std::fs;
use std::path::Path;
use std::time::Duration;

use localmodel::download::retry::Policy;
use localmodel::download::variables::Variables;
use localmodel::download::{Manifest, Reason, Settings, download, is_complete, verify};
use servers::{ACCOUNT, KEY, Server, azure, gcs, model, s3};

fn settings<const N: usize>(variables: [(&str, &str); N]) -> Settings {
    // Another test of this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = Policy { first: Duration::from_millis(1), longest: Duration::from_millis(4), attempts: 3 };
    let settings = Settings::from_env(Variables::try_from(variables).unwrap()).unwrap();
    Settings { retry, chunk: 256 << 10, ..settings }
}

fn of_s3(server: &Server) -> Settings {
    settings([
        ("AWS_ENDPOINT_URL", &server.url()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ])
}

fn of_gcs(server: &Server) -> Settings {
    settings([("STORAGE_EMULATOR_HOST", &server.url())])
}

fn of_azure(server: &Server) -> Settings {
    let endpoint = format!("{}/{ACCOUNT}", server.url());
    settings([
        ("AZURE_STORAGE_ENDPOINT", &endpoint),
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
        ("AZURE_STORAGE_ACCESS_KEY", KEY),
    ])
}

#[track_caller]
fn assert_model(dest: &Path) {
    assert!(is_complete(dest));
    let manifest = Manifest::read(dest).unwrap().unwrap();
    let listed: Vec<_> = manifest.files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(listed, model().into_keys().collect::<Vec<_>>());
    for (path, bytes) in model() {
        assert!(fs::read(dest.join(&path)).unwrap() == bytes, "{path} has other bytes");
    }
}

/// A prefix gives all objects below it and no neighbour's, an object itself alone; a damaged copy is mended by
/// what is damaged, and a folder that is whole costs no request.
async fn serves_models(server: Server, settings: Settings, scheme: &str) {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("model");
    download(&settings, &format!("{scheme}bucket/model"), &dest).await.unwrap();
    assert_model(&dest);

    fs::write(dest.join("config.json"), "!!").unwrap();
    let damaged: Vec<_> = verify(&dest).await.unwrap().into_iter().map(|damage| damage.path).collect();
    assert_eq!(damaged, ["config.json"]);
    download(&settings, &format!("{scheme}bucket/model"), &dest).await.unwrap();
    assert_model(&dest);

    let single = dir.path().join("single");
    download(&settings, &format!("{scheme}bucket/single.bin"), &single).await.unwrap();
    assert_eq!(fs::read(single.join("single.bin")).unwrap(), vec![7; 300_000]);

    let archive = dir.path().join("archive");
    download(&settings, &format!("{scheme}bucket/packed/model.tar"), &archive).await.unwrap();
    assert_eq!(fs::read(archive.join("inside/a.txt")).unwrap(), b"from the archive");
    assert!(is_complete(&archive) && !archive.join("model.tar").exists());

    let error =
        download(&settings, &format!("{scheme}bucket/mode"), &dir.path().join("none")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound, "{error}");
    assert!(error.to_string().contains("mode"), "{error}");

    drop(server);
    download(&settings, &format!("{scheme}bucket/model"), &dest).await.unwrap();
}

#[tokio::test]
async fn s3_serves_models() {
    let server = s3();
    let settings = of_s3(&server);
    serves_models(server, settings, "s3://").await;
}

#[tokio::test]
async fn google_cloud_storage_serves_models() {
    let server = gcs();
    let settings = of_gcs(&server);
    serves_models(server, settings, "gs://").await;
}

#[tokio::test]
async fn azure_serves_models() {
    let server = azure().await;
    let settings = of_azure(&server);
    serves_models(server, settings, "abfs://").await;
}

#[tokio::test]
async fn credentials_come_from_kserves_storage_config_and_wrong_ones_are_told() {
    let server = s3();
    let dir = tempfile::tempdir().unwrap();
    let config = |secret: &str| {
        let url = server.url();
        format!(
            r#"{{"type": "s3", "endpoint_url": "{url}", "access_key_id": "key", "secret_access_key": "{secret}"}}"#
        )
    };
    let right = settings([("STORAGE_CONFIG", &config("secret"))]);
    download(&right, "s3://bucket/model", &dir.path().join("right")).await.unwrap();
    assert_model(&dir.path().join("right"));
    let wrong = settings([("STORAGE_CONFIG", &config("hunter2"))]);
    let error = download(&wrong, "s3://bucket/model", &dir.path().join("wrong")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::AccessDenied, "{error}");
    assert!(!error.to_string().contains("hunter2") && error.to_string().contains("credentials"), "{error}");
}

#[tokio::test]
async fn patterns_choose_among_objects() {
    let server = s3();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        selection: localmodel::download::select::Selection::new(vec!["*.json".into()], vec![]).unwrap(),
        ..of_s3(&server)
    };
    download(&settings, "s3://bucket/model", dir.path()).await.unwrap();
    let manifest = Manifest::read(dir.path()).unwrap().unwrap();
    assert_eq!(manifest.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["config.json"]);
}
