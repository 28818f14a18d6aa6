//! Clients of the webhook server that anybody in the cluster's network can be.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use jiff::Timestamp;
use localmodel::plan::certificates::server_names;
use localmodel::webhook::{Clients, Identity, authority, serve};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use reqwest::{Certificate, Client, ClientBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A server that answers with what it is sent; it stops with this value.
struct Server {
    address: SocketAddr,
    authority: String,
    _stop: oneshot::Sender<()>,
}

impl Server {
    async fn start(client_ca: Option<PathBuf>) -> Self {
        // An error only says that a provider is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pair = authority::make("kserve", Timestamp::now()).unwrap();
        let identity = Arc::new(Identity::default());
        identity.set(pair.clone()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let router = Router::new().route("/echo", post(async |body: String| body));
        tokio::spawn(serve(listener, Clients::new(identity, client_ca).unwrap(), router, stopped));
        Self { address, authority: pair.ca, _stop: stop }
    }

    /// Whether a new client, with this certificate, is answered.
    async fn answers(&self, certificate: Option<&str>) -> bool {
        let [name, _] = server_names("kserve");
        let authorities = Certificate::from_pem_bundle(self.authority.as_bytes()).unwrap();
        let client: ClientBuilder =
            Client::builder().tls_certs_only(authorities).resolve(&name, self.address);
        let client = match certificate {
            Some(pem) => client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap()),
            None => client,
        };
        let url = format!("https://{name}:{}/echo", self.address.port());
        match client.build().unwrap().post(url).body("good").send().await {
            Ok(answer) => answer.text().await.unwrap() == "good",
            Err(_) => false,
        }
    }
}

/// An authority, written to a file, and a certificate of it with its key.
fn certified(file: &Path) -> String {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(file, ca.pem()).unwrap();
    let mut params = CertificateParams::new(vec!["api-server".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    format!("{}{}", params.signed_by(&key, &ca).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_begin_the_handshake_hold_up_nobody() {
    let server = Server::start(None).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert!(server.answers(None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_client_ca_only_its_certificates_are_answered_also_after_it_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let (foreign, good) = (certified(&file), certified(&file));
    let server = Server::start(Some(file.clone())).await;
    assert!(!server.answers(None).await, "without a certificate");
    assert!(!server.answers(Some(&foreign)).await, "with one of another authority");
    assert!(server.answers(Some(&good)).await);

    let next = certified(&file);
    assert!(!server.answers(Some(&good)).await, "with one of the authority before");
    assert!(server.answers(Some(&next)).await);

    std::fs::write(&file, "garbled").unwrap();
    assert!(!server.answers(None).await, "a file that cannot be used opens nothing");
    assert!(server.answers(Some(&next)).await);
}

#[test]
fn a_client_ca_that_is_not_there_or_not_one_keeps_the_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let problem = || Clients::new(Arc::default(), Some(file.clone())).err().unwrap().to_string();
    assert!(problem().contains("ca.crt"), "{}", problem());
    std::fs::write(&file, "").unwrap();
    assert!(problem().contains("client CA"), "{}", problem());
}
