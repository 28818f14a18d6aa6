//! Each answer of a good run is replaced once by each of a list of bad ones, for each kind of source. The run ends with
//! the right files or in words, in time; and whatever became of it, the next run over the same folder is right.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use localmodel::download::limits::Limits;
use localmodel::download::retry::Policy;
use localmodel::download::variables::Variables;
use localmodel::download::{Settings, download, is_complete};

use crate::files_in;
use crate::server::{Asked, Framing, Reply, Server};

const PAGE: &str =
    "<!DOCTYPE html><html><body>Please sign in, or wait for the maintenance to end.</body></html>";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Nothing takes longer: a pause that a store asks for lasts a second.
const LIMIT: Duration = Duration::from_mins(1);

type Files = BTreeMap<String, Vec<u8>>;

/// What an answer becomes.
type Mutation = (&'static str, fn(&Asked, Reply) -> Reply);

const MUTATIONS: [Mutation; 22] = [
    ("301 to itself", |asked, _| Reply::new(301, "").with("Location", asked.path.clone())),
    ("301 without a place", |_, _| Reply::new(301, "")),
    ("302 to a page", |_, _| Reply::new(302, "").with("Location", "/page")),
    ("400", |_, _| Reply::new(400, "")),
    ("401", |_, _| Reply::new(401, "")),
    ("403", |_, _| Reply::new(403, "")),
    ("404", |_, _| Reply::new(404, "")),
    ("416", |_, _| Reply::new(416, "")),
    ("429", |_, _| Reply::new(429, "").with("Retry-After", "0")),
    ("500", |_, _| Reply::new(500, "")),
    ("a page", |_, _| page()),
    ("a page in chunks", |_, _| Reply::new(200, PAGE.repeat(2000)).framed(Framing::Chunked)),
    ("204", |_, _| Reply::new(204, "").framed(Framing::Close)),
    ("an empty body", |_, good| Reply { body: Vec::new(), ..good }),
    ("an empty 200", |_, _| Reply::new(200, "")),
    ("a truncated body", |_, good| {
        let says = good.body.len();
        Reply { body: good.body[..says / 2].to_vec(), ..good }.framed(Framing::Says(says))
    }),
    ("half of its length", |_, good| {
        let says = good.body.len() / 2;
        good.framed(Framing::Says(says))
    }),
    ("more than its length", |_, good| {
        let says = good.body.len() + 10;
        good.framed(Framing::Says(says))
    }),
    ("bytes behind its end", |_, good| {
        Reply { body: [good.body.as_slice(), b"rest"].concat(), ..good }.framed(Framing::Chunked)
    }),
    ("gzip", |_, good| Reply { body: gzip(&good.body), ..good }.with("Content-Encoding", "gzip")),
    ("silence", |_, good| good.framed(Framing::Hangs(0))),
    ("silence in the middle", |_, good| {
        let half = good.body.len() / 2;
        good.framed(Framing::Hangs(half))
    }),
];

fn page() -> Reply {
    Reply::new(200, PAGE).with("Content-Type", "text/html; charset=utf-8")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A large file, a small one, and an empty one.
static MODEL: LazyLock<Files> = LazyLock::new(|| {
    let large: Vec<u8> =
        (0..40_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    [("config.json", b"{\"a\": 1}".to_vec()), ("empty", Vec::new()), ("sub/w.bin", large)]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into()
});

fn model() -> Files {
    MODEL.clone()
}

/// A kind of source: what it answers, where it is, and what is to come of it.
struct Kind {
    answers: fn(&Asked) -> Reply,
    uri: fn(&str) -> String,
    variables: fn(&str) -> Vec<(&'static str, String)>,
    files: fn() -> Files,
}

/// The answers of a kind, with one of them replaced.
async fn server(answers: fn(&Asked) -> Reply, replaced: Option<(usize, Mutation)>) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |asked| {
        if asked.path == "/page" {
            return page();
        }
        let (number, good) = (count.fetch_add(1, Relaxed), answers(asked));
        match replaced {
            Some((at, (_, mutation))) if at == number => mutation(asked, good),
            _ => good,
        }
    })
    .await
}

fn settings(kind: &Kind, url: &str) -> Settings {
    let retry = Policy { first: Duration::from_millis(1), longest: Duration::from_millis(4), attempts: 3 };
    let mut variables = (kind.variables)(url);
    variables.resize(4, ("NOTHING", String::new()));
    let variables: [(&str, &str); 4] = std::array::from_fn(|at| (variables[at].0, variables[at].1.as_str()));
    Settings {
        retry,
        streams: 1,
        chunk: 64 << 10,
        segment: 128 << 10,
        small: 1 << 10,
        limits: Limits { stall: Duration::from_secs(2), ..Limits::default() },
        ..Settings::from_env(Variables::try_from(variables).unwrap()).unwrap()
    }
}

/// The files that are in the folder beside our own.
fn there(dest: &Path) -> Files {
    let mut files = files_in(dest);
    files.retain(|name, _| !name.starts_with(".localmodel/"));
    files
}

/// What went wrong with a run in which one answer was replaced, if anything did.
async fn problem(kind: &Kind, at: usize, mutation: Mutation) -> Option<String> {
    let told = |what: String| Some(format!("answer {at} becomes {}: {what}", mutation.0));
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("model");
    let server = server(kind.answers, Some((at, mutation))).await;
    let (settings, uri) = (settings(kind, &server.url), (kind.uri)(&server.url));
    let Ok(done) = tokio::time::timeout(LIMIT, download(&settings, &uri, &dest)).await else {
        return told(format!("no end within {LIMIT:?}, after {} requests", server.asked().len()));
    };
    let error = done.as_ref().err().map(ToString::to_string);
    if error.as_ref().is_some_and(|error| error.contains("panicked")) {
        return told(error.unwrap_or_default());
    }
    if done.is_ok() != is_complete(&dest) {
        return told(format!("{error:?}, and the folder says otherwise"));
    }
    if done.is_ok() && there(&dest) != (kind.files)() {
        return told("it ends well with other bytes".to_owned());
    }
    if server.asked().len() <= at {
        return told("the answer was not asked for".to_owned());
    }
    // Whatever that run left behind.
    match download(&settings, &uri, &dest).await {
        Ok(()) if there(&dest) == (kind.files)() => None,
        done => told(format!("{error:?}, and the next run {done:?} left {:?}", there(&dest).keys())),
    }
}

/// One kind after the other: what waits for a processor must not look like a source that says nothing.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Tries every mutation of every answer of a good run.
async fn try_all(kind: Kind) {
    let _one = ONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let good = server(kind.answers, None).await;
    let uri = (kind.uri)(&good.url);
    download(&settings(&kind, &good.url), &uri, dir.path()).await.unwrap();
    assert!(there(dir.path()) == (kind.files)(), "a good run");
    let count = good.asked().len();
    let cases = (0..count).flat_map(|at| MUTATIONS.into_iter().map(move |mutation| (at, mutation)));
    let runs = futures::stream::iter(cases).map(|(at, mutation)| problem(&kind, at, mutation));
    let problems: Vec<String> = runs.buffer_unordered(8).filter_map(|found| async { found }).collect().await;
    assert!(problems.is_empty(), "{uri}: of {count} answers\n{}", problems.join("\n"));
}

fn digest<D: sha2::Digest>(bytes: &[u8]) -> String {
    hex::encode(D::digest(bytes))
}

fn hub(asked: &Asked) -> Reply {
    let files = model();
    if asked.path == "/api/models/acme/m/revision/main" {
        return Reply::new(200, format!("{{\"sha\": \"{COMMIT}\"}}"));
    }
    if asked.path == format!("/api/models/acme/m/tree/{COMMIT}") {
        let page: usize = asked.query.get("cursor").map_or(0, |cursor| cursor.parse().unwrap());
        let (name, bytes) = files.iter().nth(page).unwrap();
        let lfs = if bytes.len() > 1000 {
            let oid = digest::<sha2::Sha256>(bytes);
            format!(", \"lfs\": {{\"oid\": \"{oid}\", \"size\": {}}}", bytes.len())
        } else {
            String::new()
        };
        let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
        let oid = digest::<sha1::Sha1>(&blob);
        let list = format!(
            "[{{\"type\": \"file\", \"path\": \"{name}\", \"size\": {}, \"oid\": \"{oid}\"{lfs}}}]",
            bytes.len()
        );
        let reply = Reply::new(200, list);
        if page + 1 == files.len() {
            return reply;
        }
        return reply
            .with("Link", format!("<{}?recursive=true&cursor={}>; rel=\"next\"", asked.path, page + 1));
    }
    let resolve = format!("/acme/m/resolve/{COMMIT}/");
    if let Some(name) = asked.path.strip_prefix(&resolve) {
        return Reply::new(302, "").with("Location", format!("/cdn/{name}"));
    }
    let name = asked.path.strip_prefix("/cdn/").unwrap_or_default();
    files.get(name).map_or_else(|| Reply::new(404, ""), |bytes| asked.ranged(bytes))
}

#[tokio::test]
async fn a_hub_with_a_bad_answer() {
    try_all(Kind {
        answers: hub,
        uri: |_| "hf://acme/m".to_owned(),
        variables: |url| vec![("HF_ENDPOINT", url.to_owned())],
        files: model,
    })
    .await;
}

fn one() -> Files {
    Files::from([("w.bin".to_owned(), model()["sub/w.bin"].clone())])
}

fn one_with_a_length(asked: &Asked) -> Reply {
    asked.ranged(&one()["w.bin"]).with("Content-Type", "application/octet-stream")
}

// Where neither length nor version is said, nothing tells one answer from another.
#[tokio::test]
async fn a_web_server_with_a_bad_answer() {
    for answers in [
        one_with_a_length as fn(&Asked) -> Reply,
        |asked| one_with_a_length(asked).with("ETag", "\"v1\""),
        |_| Reply::new(200, one()["w.bin"].clone()),
    ] {
        let uri = |url: &str| format!("{url}/m/w.bin");
        try_all(Kind { answers, uri, variables: |_| Vec::new(), files: one }).await;
    }
}

fn in_archive() -> Files {
    Files::from([("a.json".to_owned(), b"{}".to_vec()), ("w.bin".to_owned(), model()["sub/w.bin"].clone())])
}

static ARCHIVE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in in_archive() {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    gzip(&builder.into_inner().unwrap())
});

fn archive(asked: &Asked) -> Reply {
    asked.ranged(&ARCHIVE).with("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
}

#[tokio::test]
async fn an_archive_of_a_web_server_with_a_bad_answer() {
    let uri = |url: &str| format!("{url}/m.tar.gz");
    try_all(Kind { answers: archive, uri, variables: |_| Vec::new(), files: in_archive }).await;
}

/// A bucket `b` with the model below `m/`, as S3 lists it: a file a page. Its tags are no digests.
fn bucket(asked: &Asked) -> Reply {
    let files = model();
    let key = asked.path.strip_prefix("/b/").or(asked.path.strip_prefix("/b")).unwrap_or_default();
    if let Some(bytes) = key.strip_prefix("m/").and_then(|name| files.get(name)) {
        let reply = if asked.method == "HEAD" { Reply::new(200, bytes.clone()) } else { asked.ranged(bytes) };
        return reply.with("ETag", "\"tag-2\"").with("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT");
    }
    if !key.is_empty() || asked.method == "HEAD" {
        return Reply::new(404, "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>");
    }
    let page: usize = asked.query.get("continuation-token").map_or(0, |token| token.parse().unwrap());
    let (name, bytes) = files.iter().nth(page).unwrap();
    let next = if page + 1 == files.len() {
        "<IsTruncated>false</IsTruncated>".to_owned()
    } else {
        format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>", page + 1)
    };
    let list = format!(
        "<ListBucketResult><Name>b</Name><Prefix>m/</Prefix>{next}<Contents><Key>m/{name}</Key>\
         <LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>\"tag-2\"</ETag><Size>{}</Size></Contents>\
         </ListBucketResult>",
        bytes.len()
    );
    Reply::new(200, list).with("Content-Type", "application/xml")
}

#[tokio::test]
async fn a_bucket_of_s3_with_a_bad_answer() {
    let variables = |url: &str| {
        vec![
            ("AWS_ENDPOINT_URL", url.to_owned()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
    };
    try_all(Kind { answers: bucket, uri: |_| "s3://b/m".to_owned(), variables, files: model }).await;
}

#[tokio::test]
async fn a_bucket_of_google_cloud_storage_with_a_bad_answer() {
    let variables = |url: &str| vec![("STORAGE_EMULATOR_HOST", url.to_owned())];
    try_all(Kind { answers: bucket, uri: |_| "gs://b/m".to_owned(), variables, files: model }).await;
}

/// A container `c` with the model below `m/`, as Azure lists it: a file a page.
fn container(asked: &Asked) -> Reply {
    let files = model();
    let times =
        |reply: Reply| reply.with("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT").with("ETag", "\"0x8D\"");
    if asked.query.get("comp").is_some_and(|comp| comp == "list") {
        let page: usize = asked.query.get("marker").map_or(0, |marker| marker.parse().unwrap());
        let (name, bytes) = files.iter().nth(page).unwrap();
        let next = if page + 1 == files.len() { String::new() } else { (page + 1).to_string() };
        let list = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Prefix>m/</Prefix><Blobs><Blob>\
             <Name>m/{name}</Name><Properties><Last-Modified>Mon, 01 Jan 2024 00:00:00 GMT</Last-Modified>\
             <Etag>0x8D</Etag><Content-Length>{}</Content-Length><Content-Type>x/y</Content-Type>\
             <BlobType>BlockBlob</BlobType></Properties></Blob></Blobs><NextMarker>{next}</NextMarker>\
             </EnumerationResults>",
            bytes.len()
        );
        return Reply::new(200, list).with("Content-Type", "application/xml");
    }
    let name = asked.path.rsplit_once("/c/m/").map_or("", |(_, name)| name);
    files.get(name).map_or_else(
        || Reply::new(404, "<Error><Code>BlobNotFound</Code><Message>none</Message></Error>"),
        |bytes| {
            times(if asked.method == "HEAD" { Reply::new(200, bytes.clone()) } else { asked.ranged(bytes) })
        },
    )
}

#[tokio::test]
async fn a_container_of_azure_with_a_bad_answer() {
    let variables = |url: &str| {
        vec![
            ("AZURE_STORAGE_ENDPOINT", url.to_owned()),
            ("AZURE_STORAGE_ACCESS_KEY", STANDARD.encode("secret")),
            ("AZURE_STORAGE_ACCOUNT_NAME", "account".to_owned()),
        ]
    };
    try_all(Kind { answers: container, uri: |_| "abfs://c/m".to_owned(), variables, files: model }).await;
}
