//! A server whose answers are values, so that a test can change each of them: one connection for each request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET` or another.
    pub method: String,
    /// The path, decoded.
    pub path: String,
    /// What stands behind the `?`, decoded, by name.
    pub query: BTreeMap<String, String>,
    /// The headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// With its length.
    Length,
    /// With another length than it has.
    Says(usize),
    /// In chunks.
    Chunked,
    /// Up to the end of the connection.
    Close,
    /// So many bytes of it, and then nothing.
    Hangs(usize),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers beside those of the framing.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How the body is sent.
    pub framing: Framing,
}

impl Reply {
    /// An answer with a body and its length.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), framing: Framing::Length }
    }

    /// The same with a header more.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same with another framing.
    pub fn framed(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }
}

impl Asked {
    /// A file, or the part of it that is asked for.
    pub fn ranged(&self, body: &[u8]) -> Reply {
        let range = self.headers.get("range").or(self.headers.get("x-ms-range"));
        let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'))
        else {
            return Reply::new(200, body);
        };
        let first: usize = first.parse().unwrap();
        if first >= body.len() {
            return Reply::new(416, "").with("Content-Range", format!("bytes */{}", body.len()));
        }
        let last = last.parse().map_or(body.len() - 1, |last: usize| last.min(body.len() - 1));
        let held = format!("bytes {first}-{last}/{}", body.len());
        Reply::new(206, &body[first..=last]).with("Content-Range", held)
    }
}

/// What answers each request.
type Answers = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// A server on an address of this machine, until it is dropped.
pub struct Server {
    /// Its address, as in `http://127.0.0.1:1234`.
    pub url: String,
    log: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Answers by this function.
    pub async fn start(answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answers, log): (Answers, _) = (Arc::new(answers), Arc::new(Mutex::default()));
        let (address, asked) = (url.clone(), Arc::clone(&log));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, asked, address) = (Arc::clone(&answers), Arc::clone(&asked), address.clone());
                tokio::spawn(async move {
                    // A client may go when it has seen enough.
                    let _ = answer(stream, &address, &answers, &asked).await;
                });
            }
        });
        Self { url, log, task }
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut stream: TcpStream,
    address: &str,
    answers: &Answers,
    log: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let asked = parsed(&String::from_utf8_lossy(&head), address);
    log.lock().unwrap().push(asked.clone());
    let reply = answers(&asked);
    stream.write_all(&bytes_of(&reply, asked.method == "HEAD")).await?;
    if matches!(reply.framing, Framing::Hangs(_)) {
        // As long as the client waits: it ends the connection.
        let _ = stream.read_u8().await;
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    stream.shutdown().await
}

fn parsed(head: &str, address: &str) -> Asked {
    let mut lines = head.lines();
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (request.next().unwrap_or_default(), request.next().unwrap_or_default());
    let url = reqwest::Url::parse(address).unwrap().join(target).unwrap();
    let headers = lines.filter_map(|line| line.split_once(':'));
    Asked {
        method: method.to_owned(),
        path: percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy().into_owned(),
        query: url.query_pairs().into_owned().collect(),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect(),
    }
}

fn bytes_of(reply: &Reply, only_head: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    let length = match reply.framing {
        Framing::Length | Framing::Hangs(_) => Some(reply.body.len()),
        Framing::Says(length) => Some(length),
        Framing::Chunked | Framing::Close => None,
    };
    if let Some(length) = length {
        write!(head, "Content-Length: {length}\r\n").unwrap();
    }
    if reply.framing == Framing::Chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    }
    let mut bytes = (head + "\r\n").into_bytes();
    match reply.framing {
        _ if only_head => {}
        Framing::Chunked => {
            for chunk in reply.body.chunks(10_000) {
                bytes.extend(
                    format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"),
                );
            }
            bytes.extend(b"0\r\n\r\n");
        }
        Framing::Hangs(sent) => bytes.extend(&reply.body[..sent.min(reply.body.len())]),
        Framing::Length | Framing::Says(_) | Framing::Close => bytes.extend(&reply.body),
    }
    bytes
}
