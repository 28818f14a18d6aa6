//! Clients that send too much, too slowly or nothing, against the server of webhooks, health checks and metrics.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use localmodel::server::{Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

const LIMITS: Limits = Limits { connections: 50, body: 1 << 20, all_bodies: 4 << 20, answered: 2 << 20 };
const LINE: &str = "POST /echo HTTP/1.1\r\nHost: localmodel\r\n";
/// Longer than any bound that a client without a whole request has.
const PATIENCE: Duration = Duration::from_secs(15);

/// A server that answers with what it is sent; it stops with this value.
struct Server {
    address: SocketAddr,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/echo", post(async |body: String| body));
        let secure = |stream| std::future::ready(Ok(stream));
        tokio::spawn(serve(listener, secure, router, LIMITS, stopped));
        Self { address, _stop: stop }
    }

    /// A connection on which this has been sent.
    async fn sent(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    async fn assert_answers(&self) {
        let mut stream = self.sent(&format!("{LINE}Content-Length: 4\r\n\r\ngood")).await;
        let mut answer = vec![0; 1 << 10];
        let length = timeout(Duration::from_secs(1), stream.read(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("good"), "{answer}");
    }
}

/// What comes until the server closes the connection, which it has to do in time.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // An error is another way to close it.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_first_bytes_its_head_or_its_body_is_cut_off() {
    let server = Server::start().await;
    let mut waiting = Vec::new();
    for begun in ["", "POST", LINE, &format!("{LINE}Content-Length: 9\r\n\r\nhalf")] {
        let mut stream = server.sent(begun).await;
        waiting.push(tokio::spawn(async move { until_closed(&mut stream).await }));
    }
    server.assert_answers().await;
    for closed in waiting {
        let answer = closed.await.unwrap();
        assert!(!answer.contains(" 200 "), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_sends_a_byte_now_and_then_is_cut_off_all_the_same() {
    let server = Server::start().await;
    let mut stream = server.sent(LINE).await;
    let mut pause = tokio::time::interval(Duration::from_millis(200));
    let dripping = async {
        while stream.write_all(b"X: 1\r\n").await.is_ok() {
            pause.tick().await;
        }
    };
    timeout(PATIENCE, dripping).await.expect("the connection stays open");
}

#[tokio::test]
async fn a_client_is_as_slow_again_after_an_answer_and_is_cut_off_then() {
    let server = Server::start().await;
    let mut stream = server.sent(&format!("{LINE}Content-Length: 4\r\n\r\ngood")).await;
    let mut answer = vec![0; 1 << 10];
    assert!(stream.read(&mut answer).await.unwrap() > 0);
    stream.write_all(LINE.as_bytes()).await.unwrap();
    assert_eq!(until_closed(&mut stream).await, "");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_by_its_declared_length_and_by_its_bytes() {
    let server = Server::start().await;
    let mut declared = server.sent(&format!("{LINE}Content-Length: {}\r\n\r\nhalf", (1 << 20) + 1)).await;
    let answer = until_closed(&mut declared).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let mut endless = server.sent(&format!("{LINE}Transfer-Encoding: chunked\r\n\r\n")).await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    let mut sent = 0;
    while sent <= 64 && endless.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 64, "{sent} chunks of 64 KiB were taken");
    server.assert_answers().await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let server = Server::start().await;
    let mut endless = server.sent(LINE).await;
    let header = format!("X: {}\r\n", "x".repeat(1 << 12));
    let mut sent = 0;
    while sent <= 200 && endless.write_all(header.as_bytes()).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 200, "{sent} headers of 4 KiB were taken");
    server.assert_answers().await;
}

#[tokio::test]
async fn more_clients_than_there_may_be_end_each_other_and_not_who_comes_after_them() {
    let server = Server::start().await;
    let mut held = Vec::new();
    for n in 0..300 {
        let begun =
            ["", "POST", LINE, &format!("{LINE}Content-Length: 1048576\r\n\r\n{}", "x".repeat(1 << 15))];
        held.push(TcpStream::connect(server.address).await.unwrap());
        // An error means that another one has taken its place.
        let _ = held[n].write_all(begun[n % 4].as_bytes()).await;
        if n % 50 == 49 {
            server.assert_answers().await;
        }
    }
}
