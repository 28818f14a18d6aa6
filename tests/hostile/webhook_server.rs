//! Clients of the webhook server that anybody in the cluster's network can be.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use jiff::Timestamp;
use localmodel::plan::certificates::server_names;
use localmodel::webhook::{Identity, authority, serve};
use reqwest::{Certificate, Client};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A server that answers with what it is sent.
struct Server {
    address: SocketAddr,
    client: Client,
    _stop: oneshot::Sender<()>,
}

impl Server {
    async fn start() -> Self {
        // An error only says that a provider is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pair = authority::make("kserve", Timestamp::now()).unwrap();
        let identity = Arc::new(Identity::default());
        identity.set(pair.clone()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let router = Router::new().route("/echo", post(async |body: String| body));
        tokio::spawn(serve(listener, identity, router, stopped));
        let [name, _] = server_names("kserve");
        let authorities = Certificate::from_pem_bundle(pair.ca.as_bytes()).unwrap();
        let client = Client::builder().tls_certs_only(authorities).resolve(&name, address).build().unwrap();
        Self { address, client, _stop: stop }
    }

    async fn echo(&self, text: &str) -> String {
        let [name, _] = server_names("kserve");
        let url = format!("https://{name}:{}/echo", self.address.port());
        self.client.post(url).body(text.to_owned()).send().await.unwrap().text().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_begin_the_handshake_hold_up_nobody() {
    let server = Server::start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), server.echo("good")).await.unwrap();
    assert_eq!(answer, "good");
}
