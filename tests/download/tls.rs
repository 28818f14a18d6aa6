//! Whose certificates are trusted: `SSL_CERT_FILE` and `REQUESTS_CA_BUNDLE` (F2).

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use localmodel::download::source::Trust;
use localmodel::download::{Reason, Settings, download};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{SOURCE, World};

const ANSWER: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nX-Error-Code: RevisionNotFound\r\nContent-Length: 0\r\n\r\n";

/// A hub of `https` that knows no revision: its endpoint, and its certificate as PEM.
async fn tls_hub() -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // A client that does not trust the certificate ends the handshake.
            if let Ok(mut stream) = acceptor.accept(connection).await {
                stream.write_all(ANSWER).await.unwrap();
                let _ = stream.shutdown().await;
            }
        }
    });
    (endpoint, cert.pem())
}

fn only(bundle: PathBuf) -> Trust {
    Trust { only: vec![bundle], ..Trust::default() }
}

#[tokio::test]
async fn a_certificate_is_trusted_when_the_bundle_says_so_and_else_not() {
    let world = World::llama().await;
    let (endpoint, pem) = tls_hub().await;
    let bundle = world.dir.path().join("ca.pem");
    fs::write(&bundle, pem).unwrap();
    let hub = Settings { retry: world.settings().retry, ..Settings::new(&endpoint).unwrap() };

    let error = download(&hub, SOURCE, &world.dest()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::CertificateNotTrusted, "{error}");
    assert!(error.to_string().contains("SSL_CERT_FILE") && error.to_string().contains(&endpoint), "{error}");

    for trusted in [bundle.clone(), world.dir.path().to_owned()] {
        let settings = Settings { trust: only(trusted), ..hub.clone() };
        let error = download(&settings, SOURCE, &world.dest()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RevisionNotFound, "{error}");
    }
}
