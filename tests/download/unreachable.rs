//! Sources that cannot be reached or never end: each is reported as what it is, within its time.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use localmodel::download::limits::{Limits, Rate};
use localmodel::download::retry::Policy;
use localmodel::download::settings::Proxies;
use localmodel::download::variables::Variables;
use localmodel::download::{Error, Reason, Settings, download};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// The sources that an endpoint can be asked for, with the settings that name it.
fn sources(endpoint: &str) -> Vec<(String, Settings)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let hub = || Settings::new("https://hub.invalid").unwrap();
    let with = |variables: &[(&str, &str); 3]| Settings {
        variables: Variables::try_from(*variables).unwrap(),
        ..hub()
    };
    let none = ("A", "");
    vec![
        ("hf://acme/model".into(), Settings::new(endpoint).unwrap()),
        (format!("{endpoint}/model.bin"), hub()),
        (
            "s3://b/m".into(),
            with(&[
                ("AWS_ENDPOINT_URL", endpoint),
                ("AWS_ACCESS_KEY_ID", "a"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
            ]),
        ),
        ("gs://b/m".into(), with(&[("STORAGE_EMULATOR_HOST", endpoint), none, none])),
        (
            "abfs://c@a.dfs.core.windows.net/m".into(),
            with(&[("AZURE_STORAGE_ENDPOINT", endpoint), none, none]),
        ),
    ]
}

async fn error_of(settings: &Settings, uri: &str) -> Error {
    let dir = tempfile::tempdir().unwrap();
    download(settings, uri, dir.path()).await.unwrap_err()
}

/// A server that answers each connection with `answer`, a byte at a time where it is told so.
async fn serve<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection));
        }
    });
    endpoint
}

/// Reads the head of a request.
async fn request(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = connection.read_u8().await else { break };
        head.push(byte);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Limits of a few milliseconds, and no patience.
fn hasty(settings: Settings) -> Settings {
    let short = Duration::from_millis(300);
    let limits = Limits {
        stall: Duration::from_millis(200),
        answer: short,
        listing: Duration::from_secs(1),
        rate: Rate { bytes: 1000, within: short },
        ..Limits::default()
    };
    let retry = Policy { first: Duration::from_millis(1), longest: Duration::from_millis(1), attempts: 2 };
    Settings { limits, retry, ..settings }
}

#[tokio::test]
async fn a_host_that_refuses_connections_is_named_within_seconds_by_every_source() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (begun, sources) = (Instant::now(), sources(&endpoint));
    let errors = sources.iter().map(|(uri, settings)| error_of(settings, uri));
    for error in futures::future::join_all(errors).await {
        assert_eq!(error.reason(), Reason::ConnectionRefused, "{error}");
        assert!(error.to_string().contains(&endpoint), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_name_without_address_is_named_by_every_source() {
    for (uri, settings) in sources("http://no-such-host.invalid") {
        let error = error_of(&hasty(settings), &uri).await;
        assert_eq!(error.reason(), Reason::HostNotFound, "{uri}: {error}");
        assert!(error.to_string().contains("no-such-host.invalid cannot be resolved"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_away_refuses_or_wants_a_password_is_named_by_every_source() {
    let unauthorized = serve(|mut connection| async move {
        request(&mut connection).await;
        let answer =
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = connection.write_all(answer).await;
    })
    .await;
    let refusing = serve(|mut connection| async move {
        request(&mut connection).await;
        let _ = connection
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
    })
    .await;
    let away = "http://127.0.0.1:1".to_owned();
    for (scheme, proxy, words) in [
        ("http", &unauthorized, "a user and a password"),
        ("https", &unauthorized, "a user and a password"),
        ("https", &refusing, "refuses to connect"),
        ("http", &away, "refuses the connection"),
        ("https", &away, "refuses the connection"),
    ] {
        for (uri, settings) in sources(&format!("{scheme}://store.invalid")) {
            let proxies = Proxies { all: Some(proxy.clone()), ..Proxies::default() };
            let error = error_of(&Settings { proxies, ..settings }, &uri).await;
            assert_eq!(error.reason(), Reason::ProxyFailed, "{scheme}, {uri}: {error}");
            let text = error.to_string();
            assert!(
                text.contains(words) && text.contains(proxy.as_str()) && text.contains("NO_PROXY"),
                "{text}"
            );
        }
    }
}

#[tokio::test]
async fn a_source_that_says_nothing_ends_within_its_limits() {
    let endpoint = serve(|connection| async move {
        sleep(Duration::from_hours(1)).await;
        drop(connection);
    })
    .await;
    for (uri, settings) in sources(&endpoint) {
        let error = error_of(&hasty(settings), &uri).await;
        assert_eq!(error.reason(), Reason::SourceUnavailable, "{uri}: {error}");
        assert!(error.to_string().contains("sent nothing for 0.2 s"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_by_the_drop_ends_as_too_slow() {
    let endpoint = serve(|mut connection| async move {
        request(&mut connection).await;
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
        while connection.write_all(b" ").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for (uri, settings) in sources(&endpoint) {
        let begun = Instant::now();
        let error = error_of(&hasty(settings), &uri).await;
        assert_eq!(error.reason(), Reason::SourceTooSlow, "{uri}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{uri}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_list_without_end_ends() {
    static PAGES: AtomicUsize = AtomicUsize::new(0);
    let endpoint = serve(|mut connection| async move {
        while !request(&mut connection).await.is_empty() {
            let token = PAGES.fetch_add(1, Relaxed);
            let page = format!(
                "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{token}\
                        </NextContinuationToken><Contents><Key>m/a</Key><Size>1</Size><ETag>\"e\"</ETag>\
                        <LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>"
            );
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
            if connection.write_all((head + &page).as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let (uri, settings) = sources(&endpoint).remove(2);
    let error = error_of(&hasty(settings), &uri).await;
    assert_eq!(error.reason(), Reason::SourceRefused, "{error}");
    assert!(error.to_string().contains("no end"), "{error}");
}

#[tokio::test]
async fn bytes_one_by_one_with_a_cut_after_each_do_not_count_as_progress() {
    let endpoint = serve(|mut connection| async move {
        let head = request(&mut connection).await;
        let from: u64 = head.split("bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok()).unwrap_or(0);
        let answer = format!(
            "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\nContent-Range: bytes {from}-99999/100000\r\nContent-Length: {}\r\n\r\nx",
            100_000 - from
        );
        let _ = connection.write_all(answer.as_bytes()).await;
    })
    .await;
    let (uri, settings) = sources(&endpoint).remove(1);
    let error = error_of(&hasty(settings), &uri).await;
    assert_eq!(error.reason(), Reason::SourceUnavailable, "{error}");
}
