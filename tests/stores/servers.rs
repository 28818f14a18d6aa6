//! Servers of the stores' protocols, with a model, a neighbour whose name begins like it, a single object and an
//! archive in bucket `bucket`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use object_store::ObjectStoreExt;
use object_store::azure::MicrosoftAzureBuilder;
use sha2::Sha256;
use tempfile::TempDir;

/// The account and key that every azurite has.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running server; it ends with this value.
pub struct Server {
    process: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Server {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The files of the model.
pub fn model() -> BTreeMap<String, Vec<u8>> {
    let weights = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let files: [(&str, Vec<u8>); 5] = [
        ("config.json", b"{}".to_vec()),
        ("empty.txt", Vec::new()),
        ("odd %41 name.txt", b"odd".to_vec()),
        ("ü/a+b&c#d~'[1].txt", b"more odd".to_vec()),
        ("weights/a.bin", weights),
    ];
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

fn objects() -> BTreeMap<String, Vec<u8>> {
    let below = model().into_iter().map(|(name, bytes)| (format!("model/{name}"), bytes));
    let beside = [
        ("model-hf/config.json".to_owned(), b"another".to_vec()),
        ("single.bin".to_owned(), vec![7; 300_000]),
        ("single.bin-log".to_owned(), b"beside an object of its name".to_vec()),
        ("packed/model.tar".to_owned(), archive()),
    ];
    below.chain(beside).collect()
}

fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let content: &[u8] = b"from the archive";
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, "inside/a.txt", content).unwrap();
    builder.into_inner().unwrap()
}

fn in_folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in objects() {
        let path = dir.path().join("bucket").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

/// Starts a server on a free port and waits until it listens.
fn start(dir: TempDir, command: impl FnOnce(&Path, &str) -> Command) -> Server {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = command(dir.path(), &address.port().to_string());
    let program = command.get_program().to_string_lossy().into_owned();
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let process = process.unwrap_or_else(|error| panic!("{program}: {error}; hack/stores installs it"));
    let server = Server { process, address, _dir: dir };
    let deadline = Instant::now() + Duration::from_mins(1);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{program} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

pub fn s3() -> Server {
    start(in_folder(), |dir, port| {
        let mut command = Command::new("s3s-fs");
        command.args([
            "--access-key",
            "key",
            "--secret-key",
            "secret",
            "--host",
            "127.0.0.1",
            "--port",
            port,
        ]);
        command.arg(dir);
        command
    })
}

pub fn gcs() -> Server {
    start(in_folder(), |dir, port| {
        let mut command = Command::new("fake-gcs-server");
        command.args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory", "-port", port]);
        command.args(["-public-host", &format!("127.0.0.1:{port}")]).arg("-data").arg(dir);
        command
    })
}

pub async fn azure() -> Server {
    let server = start(tempfile::tempdir().unwrap(), |dir, port| {
        let mut command = Command::new("azurite-blob");
        command.args(["--silent", "--skipApiVersionCheck", "--blobHost", "127.0.0.1"]);
        command.args(["--blobPort", port, "--location"]).arg(dir);
        command
    });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = format!("{}/{ACCOUNT}", server.url());
    make_container(&endpoint).await;
    let azure = MicrosoftAzureBuilder::new()
        .with_account(ACCOUNT)
        .with_access_key(KEY)
        .with_container_name("bucket")
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .build()
        .unwrap();
    for (name, bytes) in objects() {
        azure.put(&object_store::path::Path::parse(name).unwrap(), bytes.into()).await.unwrap();
    }
    server
}

/// The one request that `object_store` has no word for, signed with the account's key.
async fn make_container(endpoint: &str) {
    const DATE: &str = "x-ms-date";
    let now = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&jiff::Timestamp::now())
        .unwrap();
    let signed = format!(
        "PUT\n\n\n\n\n\n\n\n\n\n\n\n{DATE}:{now}\nx-ms-version:2021-12-02\n/{ACCOUNT}/{ACCOUNT}/bucket\nrestype:container"
    );
    let mut hmac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(KEY).unwrap()).unwrap();
    hmac.update(signed.as_bytes());
    let signature = BASE64_STANDARD.encode(hmac.finalize().into_bytes());
    let request = reqwest::Client::new().put(format!("{endpoint}/bucket?restype=container"));
    let request = request.header(DATE, now).header("x-ms-version", "2021-12-02").header("Content-Length", 0);
    let request = request.header("Authorization", format!("SharedKey {ACCOUNT}:{signature}"));
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}
