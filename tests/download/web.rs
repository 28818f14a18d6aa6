//! Files of web servers as they are: without a length, behind several back ends, login pages, archives by other names.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use localmodel::download::budget::Allowance;
use localmodel::download::limits::Limits;
use localmodel::download::retry::Policy;
use localmodel::download::{Error, Reason, Settings, download, is_complete};
use tempfile::TempDir;

use crate::files_in;
use crate::server::{Asked, Framing, Reply, Server};

/// Settings with little patience.
fn settings() -> Settings {
    let retry = Policy { first: Duration::from_millis(1), longest: Duration::from_millis(4), attempts: 3 };
    Settings { retry, small: 1 << 10, chunk: 8 << 10, ..Settings::new("http://hub").unwrap() }
}

/// The model that comes of this path, or why it does not.
async fn fetched(
    server: &Server,
    path: &str,
    settings: &Settings,
) -> (Result<BTreeMap<String, Vec<u8>>, Error>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("model");
    let done = download(settings, &format!("{}{path}", server.url), &dest).await;
    assert_eq!(done.is_ok(), is_complete(&dest), "{path}");
    let mut files = files_in(&dest);
    files.retain(|name, _| !name.starts_with(".localmodel/"));
    (done.map(|()| files), dir)
}

/// The reason, and that nothing of it is on the disk.
async fn refused(server: &Server, path: &str, settings: &Settings) -> Error {
    let (done, dir) = fetched(server, path, settings).await;
    let left: Vec<_> = files_in(dir.path()).into_keys().collect();
    assert_eq!(left, ["model/.localmodel/lock"], "{path}");
    done.unwrap_err()
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

#[tokio::test]
async fn a_page_for_people_is_no_model() {
    const PAGE: &str = "<!DOCTYPE html><html><body>Please sign in</body></html>";
    let server = Server::start(|asked| {
        let page = |kind| Reply::new(200, PAGE).with("Content-Type", kind);
        match asked.path.as_str() {
            "/login" | "/page.html" => page("text/html; charset=utf-8"),
            "/xhtml.bin" => page("Application/XHTML+xml"),
            "/octets.bin" => page("application/octet-stream"),
            "/untyped.bin" => Reply::new(200, PAGE).framed(Framing::Chunked),
            _ => Reply::new(302, "").with("Location", "/login"),
        }
    })
    .await;
    for path in
        ["/m/model.joblib", "/download?id=7", "/xhtml.bin", "/octets.bin", "/untyped.bin", "/m.tar.gz"]
    {
        let error = refused(&server, path, &settings()).await;
        let text = error.to_string();
        assert!(error.reason() == Reason::SourceRefused && text.contains("html"), "{path}: {text}");
        assert!(text.contains("127.0.0.1-headers"), "{text}");
    }
    let (page, _dir) = fetched(&server, "/page.html", &settings()).await;
    assert_eq!(page.unwrap()["page.html"], PAGE.as_bytes());
}

#[tokio::test]
async fn a_file_of_unknown_length_comes_whole_or_not_at_all() {
    let server = Server::start(|asked| {
        let reply = Reply::new(200, bytes(300_000));
        match asked.path.as_str() {
            "/unknown.bin" if asked.headers.contains_key("range") => {
                Reply::new(206, bytes(512)).with("Content-Range", "bytes 0-511/*")
            }
            "/unknown.bin" | "/chunked.bin" => reply.framed(Framing::Chunked),
            "/cut.bin" => {
                let mut cut = reply.framed(Framing::Close).with("Transfer-Encoding", "chunked");
                cut.body = [b"2710\r\n".as_slice(), &bytes(10_000), b"\r\n"].concat();
                cut
            }
            _ => reply.framed(Framing::Close),
        }
    })
    .await;
    for path in ["/chunked.bin", "/unknown.bin"] {
        let (files, _dir) = fetched(&server, path, &settings()).await;
        assert!(files.unwrap()[&path[1..]] == bytes(300_000), "{path}");
    }
    let error = refused(&server, "/without-an-end.bin", &settings()).await;
    assert!(error.to_string().contains("neither how large"), "{error}");
    let (done, _dir) = fetched(&server, "/cut.bin", &settings()).await;
    assert_eq!(done.unwrap_err().reason(), Reason::SourceUnavailable);

    let little = Settings { allowance: Allowance { bytes: 100_000, files: 1 }, ..settings() };
    let error = refused(&server, "/chunked.bin", &little).await;
    assert_eq!(error.reason(), Reason::TooLarge, "{error}");
}

#[tokio::test]
async fn a_file_that_passes_the_limit_is_not_begun() {
    let server = Server::start(|asked| asked.ranged(&bytes(100_001))).await;
    let little = Settings { allowance: Allowance { bytes: 100_000, files: 1 }, ..settings() };
    let error = refused(&server, "/a.bin", &little).await;
    assert_eq!((error.reason(), server.asked().len()), (Reason::TooLarge, 1), "{error}");
    assert!(error.to_string().contains("100000 bytes") && error.to_string().contains("modelSize"), "{error}");
}

#[tokio::test]
async fn a_file_of_unknown_length_that_stops_coming_ends_in_words() {
    let server = Server::start(|asked| match asked.headers.get("range") {
        Some(_) => Reply::new(200, bytes(100_000)).framed(Framing::Chunked),
        None => Reply::new(200, bytes(100_000)).framed(Framing::Hangs(50_000)),
    })
    .await;
    let impatient =
        Settings { limits: Limits { stall: Duration::from_millis(100), ..Limits::default() }, ..settings() };
    let (done, dir) = fetched(&server, "/a.bin", &impatient).await;
    assert_eq!(done.unwrap_err().reason(), Reason::SourceUnavailable);
    assert!(!dir.path().join("model/a.bin").exists());
}

#[tokio::test]
async fn back_ends_that_disagree_on_the_version_give_the_file_in_one_answer() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let number = count.fetch_add(1, Relaxed);
        asked.ranged(&bytes(100_000)).with("ETag", format!("\"back end {}\"", number % 2))
    })
    .await;
    let (files, _dir) = fetched(&server, "/a.bin", &settings()).await;
    assert!(files.unwrap()["a.bin"] == bytes(100_000));
    let last = server.asked().pop().unwrap();
    assert!(!last.headers.contains_key("range"), "{last:?}");
}

#[tokio::test]
async fn an_answer_with_other_bytes_than_it_says_is_not_taken() {
    for (status, range, framing) in
        [(206, "bytes 0-99999/100000", Framing::Says(100_001)), (200, "", Framing::Chunked)]
    {
        let server = Server::start(move |asked| {
            let looks = asked.headers.get("range").is_some_and(|range| range == "bytes=0-511");
            let (body, rest) = (bytes(100_000), bytes(10));
            if looks {
                return asked.ranged(&body).with("ETag", "\"v\"");
            }
            Reply::new(status, [body, rest].concat())
                .with("Content-Range", range)
                .with("ETag", "\"v\"")
                .framed(framing)
        })
        .await;
        let once = Settings { streams: 1, chunk: 256 << 10, ..settings() };
        let (done, _dir) = fetched(&server, "/a.bin", &once).await;
        assert_eq!(done.unwrap_err().reason(), Reason::SourceUnavailable, "{status} {framing:?}");
    }
}

fn tar_gz() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    builder.append_data(&mut header, "sub/a.bin", b"data".as_slice()).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&builder.into_inner().unwrap()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn an_archive_is_unpacked_wherever_its_name_stands() {
    let archive = |asked: &Asked| match asked.path.as_str() {
        "/latest" => Reply::new(302, "").with("Location", "/cdn/m.tar.gz"),
        "/disposed" => asked.ranged(&tar_gz()).with("Content-Disposition", "attachment; filename=\"m.tgz\""),
        "/packed.tar.gz" => asked.ranged(&tar_gz()).with("Content-Encoding", "gzip"),
        "/chunked.tgz" => Reply::new(200, tar_gz()).framed(Framing::Chunked),
        _ => asked.ranged(&tar_gz()),
    };
    let server = Server::start(archive).await;
    for path in [
        "/m.tar.gz",
        "/M.TGZ",
        "/download?file=m.tar.gz",
        "/get.php?sig=x&name=dir%2Fm.TAR.GZ&x=1",
        "/files/m.tgz/download",
        "/latest",
        "/disposed",
        "/packed.tar.gz",
        "/chunked.tgz",
    ] {
        let (files, _dir) = fetched(&server, path, &settings()).await;
        assert_eq!(files.unwrap(), BTreeMap::from([("sub/a.bin".to_owned(), b"data".to_vec())]), "{path}");
    }
    let (files, _dir) = fetched(&server, "/weights.pkl.gz", &settings()).await;
    assert!(files.unwrap()["weights.pkl.gz"] == tar_gz(), "what is packed alone stays as it is");
}

#[tokio::test]
async fn an_archive_that_nobody_unpacks_is_refused_before_a_byte_is_stored() {
    let server = Server::start(|asked| asked.ranged(&bytes(1000))).await;
    for path in ["/m.tar.zst", "/m.7z", "/M.TAR.LZ4", "/download?file=m.rar", "/m.tar.Z"] {
        let error = refused(&server, path, &settings()).await;
        let text = error.to_string();
        assert!(error.reason() == Reason::SourceRefused && text.contains("not supported"), "{path}: {text}");
    }
}

#[tokio::test]
async fn an_archive_that_passes_a_limit_leaves_nothing() {
    let server = Server::start(|asked| asked.ranged(&tar_gz())).await;
    let size = u64::try_from(tar_gz().len()).unwrap();
    let allowed = |bytes| Settings { allowance: Allowance { bytes, files: 1 }, ..settings() };
    let error = refused(&server, "/m.tar.gz", &allowed(size + 3)).await;
    assert_eq!(error.reason(), Reason::TooLarge, "{error}");
    let (files, _dir) = fetched(&server, "/m.tar.gz", &allowed(size + 4)).await;
    assert_eq!(files.unwrap().len(), 1, "the archive is none of its files");
}

#[tokio::test]
async fn a_body_that_was_compressed_unasked_is_refused() {
    let server = Server::start(|asked| asked.ranged(&bytes(1000)).with("Content-Encoding", "gzip")).await;
    let error = refused(&server, "/a.bin", &settings()).await;
    assert!(error.to_string().contains("compressed (gzip)"), "{error}");
}
