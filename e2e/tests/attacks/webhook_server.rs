//! Whoever reaches the port of the webhooks, which is anybody in the cluster's network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use localmodel::plan::certificates::{CA, server_names};
use localmodel::plan::names::{POD_MODEL, WEBHOOK_SECRET};
use localmodel_e2e::attack::{Platform, alone_with_certificates, attack, pod, try_create};
use localmodel_e2e::sweep::objects::{OPERATOR, cache};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOSTILE: usize = 500;
const HEAD: &str = "POST /mutate-pods HTTP/1.1\r\nHost: localmodel\r\n";
/// What a client holds open, whatever it is.
type Held = Box<dyn Stream>;
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Attacker {
    address: SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Attacker {
    async fn new(platform: &Platform) -> Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(platform.client.clone(), OPERATOR);
        let data = secrets.get(WEBHOOK_SECRET).await?.data.context("data")?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&data[CA].0) {
            roots.add(certificate?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let [name, _] = server_names(OPERATOR);
        let (address, port): (IpAddr, u16) = platform.operator.webhooks;
        Ok(Self {
            address: (address, port).into(),
            name: name.try_into()?,
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The n-th connection, in one of the ways to be a burden. An error means that it was cut off already.
    async fn hold(&self, n: usize) -> Result<Held> {
        let stream = TcpStream::connect(self.address).await?;
        if n.is_multiple_of(5) {
            return Ok(Box::new(stream));
        }
        let mut stream = self.connector.connect(self.name.clone(), stream).await?;
        let body = "x".repeat(2 << 20);
        let begun = match n % 5 {
            1 => String::new(),
            2 => format!("{HEAD}X-Long: {}", "x".repeat(60 << 10)),
            3 => format!("{HEAD}Content-Length: {}\r\n\r\n{body}", 8 << 20),
            _ => format!("{HEAD}Content-Length: {}\r\n\r\n{body}", 3 << 20),
        };
        stream.write_all(begun.as_bytes()).await?;
        stream.flush().await?;
        Ok(Box::new(stream))
    }
}

#[test]
fn hundreds_of_hostile_connections_cost_little_memory_and_no_review_waits_for_them() {
    attack(async |platform| {
        let tenant = platform.tenant("tenant").await?;
        let model = platform.unique("model");
        let shared = cache(&model, &format!("acme/{model}"), 1);
        try_create(&platform.client, &shared).await?.map_err(anyhow::Error::msg)?;
        let before = platform.operator.memory().await?;
        let attacker = Attacker::new(platform).await?;
        let (mut held, mut times, mut most) = (Vec::new(), Vec::new(), 0);
        for n in 0..HOSTILE {
            held.extend(attacker.hold(n).await.ok());
            most = most.max(platform.operator.memory().await?);
            if n % 25 == 24 {
                let asking = pod(&tenant.namespace, &format!("good-{n}"), &json!({POD_MODEL: model}));
                let begun = Instant::now();
                let made = try_create(&tenant.client, &asking).await?.map_err(anyhow::Error::msg)?;
                times.push(begun.elapsed());
                ensure!(made["spec"]["volumes"].is_array(), "the webhook did not answer: {made}");
            }
        }
        times.sort();
        println!("{before} bytes before, {most} at most; {times:?}; {} held", held.len());
        ensure!(most < 128 << 20, "{} MiB resident", most >> 20);
        let median = times[times.len() / 2];
        ensure!(median < Duration::from_millis(100), "a good request takes {median:?}");
        Ok(())
    });
}

#[test]
fn with_a_client_ca_the_api_server_is_answered_and_nobody_else() {
    alone_with_certificates(async |platform| {
        let tenant = platform.tenant("tenant").await?;
        let model = platform.unique("model");
        try_create(&platform.client, &cache(&model, &format!("acme/{model}"), 1))
            .await?
            .map_err(anyhow::Error::msg)?;
        let asking = pod(&tenant.namespace, "good", &json!({POD_MODEL: model}));
        let made = try_create(&tenant.client, &asking).await?.map_err(anyhow::Error::msg)?;
        ensure!(made["spec"]["volumes"].is_array(), "the webhook did not answer: {made}");

        // In TLS 1.3 a client learns that its certificate is missed when it reads.
        let mut answer = Vec::new();
        if let Ok(mut stream) = Attacker::new(platform).await?.hold(1).await {
            let sent = stream.write_all(format!("{HEAD}Content-Length: 2\r\n\r\n{{}}").as_bytes()).await;
            let read = stream.read_to_end(&mut answer).await;
            ensure!(
                sent.is_err() || read.is_err() || answer.is_empty(),
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
        ensure!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"), "an answer without a certificate");
        Ok(())
    });
}
