//! Each kind of store, played by a server: what is asked of it, and what its answers come to.

mod identity;

use std::sync::{Arc, Mutex};

use rstest::rstest;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::*;
use crate::download::budget::Allowance;
use crate::download::error::Reason;
use crate::download::retry::Policy;
use crate::download::select::Selection;
use crate::download::source::Location;
use crate::download::variables::Variables;

/// A protocol, with the names that it has for things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    S3,
    Gcs,
    Azure,
}
use Protocol::{Azure as AzureKind, Gcs as GcsKind, S3 as S3Kind};

/// Where the next page of a list is.
#[derive(Clone, Copy, Debug)]
enum More<'a> {
    No,
    At(&'a str),
    /// There is one, and the store does not say where.
    Somewhere,
}

impl Protocol {
    fn uri(self, path: &str) -> String {
        match self {
            S3Kind => format!("s3://b/{path}"),
            GcsKind => format!("gs://b/{path}"),
            AzureKind => format!("abfs://b@acc/{path}"),
        }
    }

    fn page(self, objects: &[(&str, u64)], more: More<'_>) -> ResponseTemplate {
        let (objects, next): (String, _) = match self {
            S3Kind | GcsKind => {
                let object = |(key, size): &(&str, u64)| {
                    format!("<Contents><Key>{key}</Key><Size>{size}</Size><ETag>\"{size}\"</ETag></Contents>")
                };
                let next = match more {
                    More::No => "<IsTruncated>false</IsTruncated>".to_owned(),
                    More::At(token) => format!(
                        "<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
                    ),
                    More::Somewhere => "<IsTruncated>true</IsTruncated>".to_owned(),
                };
                (objects.iter().map(object).collect(), next)
            }
            AzureKind => {
                let object = |(key, size): &(&str, u64)| {
                    format!(
                        "<Blob><Name>{key}</Name><Properties><Content-Length>{size}</Content-Length>\
                         <Etag>{size}</Etag></Properties></Blob>"
                    )
                };
                let next = match more {
                    More::At(marker) => format!("<NextMarker>{marker}</NextMarker>"),
                    More::No | More::Somewhere => "<NextMarker/>".to_owned(),
                };
                (format!("<Blobs>{}</Blobs>", objects.iter().map(object).collect::<String>()), next)
            }
        };
        let root = if self == AzureKind { "EnumerationResults" } else { "ListBucketResult" };
        ResponseTemplate::new(200).set_body_string(format!("<{root}>{next}{objects}</{root}>"))
    }

    /// Where a list request asks to go on.
    fn cursor(self, request: &Request) -> Option<String> {
        let name = if self == AzureKind { "marker" } else { "continuation-token" };
        query(request, name).or_else(|| query(request, "marker"))
    }
}

fn query(request: &Request, name: &str) -> Option<String> {
    request.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The objects of a bucket, listed as a store does it: by a prefix, in order, `size` at a time.
fn list(kind: Protocol, objects: &[(&str, u64)], size: usize, request: &Request) -> ResponseTemplate {
    let prefix = query(request, "prefix").unwrap_or_default();
    let most = query(request, "max-keys").or_else(|| query(request, "maxresults"));
    let most = most.and_then(|most| most.parse().ok()).unwrap_or(size);
    let from = kind.cursor(request).unwrap_or_default();
    let mut found: Vec<_> =
        objects.iter().filter(|(key, _)| key.starts_with(&prefix) && *key > from.as_str()).copied().collect();
    found.sort_unstable();
    let more = if found.len() > most { More::At(found[most - 1].0) } else { More::No };
    found.truncate(most);
    kind.page(&found, more)
}

async fn serve(respond: impl Fn(&Request) -> ResponseTemplate + Send + Sync + 'static) -> MockServer {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(respond).mount(&server).await;
    server
}

async fn open<const N: usize>(uri: &str, variables: [(&str, &str); N]) -> Result<Objects> {
    let retry = Policy { first: std::time::Duration::from_millis(1), attempts: 2, ..Policy::default() };
    let settings = Settings::from_env(Variables::try_from(variables)?)?;
    let Location::Bucket(bucket) = Location::parse(uri)? else { panic!("{uri} is no bucket") };
    Objects::new(&bucket, &Settings { retry, ..settings }).await
}

async fn of(kind: Protocol, path: &str, server: &MockServer) -> Result<Objects> {
    let (uri, url) = (kind.uri(path), server.uri());
    match kind {
        S3Kind => {
            let keys = [
                ("AWS_ACCESS_KEY_ID", "key"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
                ("AWS_ENDPOINT_URL", &url),
            ];
            open(&uri, keys).await
        }
        GcsKind => open(&uri, [("STORAGE_EMULATOR_HOST", &url)]).await,
        AzureKind => open(&uri, [("AZURE_STORAGE_ENDPOINT", &url)]).await,
    }
}

async fn listed(objects: &Objects) -> Result<Vec<PlannedFile>> {
    let empty = Listing::new(Allowance::default(), &Selection::default(), "the source");
    Ok(objects.files(empty).await?.into_files())
}

async fn files(kind: Protocol, path: &str, server: &MockServer) -> Result<Vec<String>> {
    let files = listed(&of(kind, path, server).await?).await?;
    Ok(files.into_iter().map(|file| file.path).collect())
}

#[rstest]
#[tokio::test]
async fn all_pages_of_a_list_are_asked_for_and_nothing_of_a_neighbour(
    #[values(S3Kind, GcsKind, AzureKind)] kind: Protocol,
) {
    let objects = [("m/a", 1), ("m/b+c", 2), ("m/d", 3), ("m/e", 4), ("m/f", 5), ("m-hf/a", 6), ("ma", 7)];
    let server = serve(move |request| list(kind, &objects, 2, request)).await;
    assert_eq!(files(kind, "m", &server).await.unwrap(), ["a", "b+c", "d", "e", "f"]);
    assert_eq!(files(kind, "m/", &server).await.unwrap().len(), 5);
    assert_eq!(files(kind, "", &server).await.unwrap().len(), 7);
    let error = files(kind, "x", &server).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound);
}

#[rstest]
#[tokio::test]
async fn a_name_of_an_object_means_that_object_whatever_else_begins_so(
    #[values(S3Kind, GcsKind, AzureKind)] kind: Protocol,
) {
    let objects =
        [("m/a", 1), ("m/a-b", 2), ("m/a.b", 3), ("m/a/c", 4), ("m/f", 0), ("m/f/g", 5), ("m/e", 0)];
    let server = serve(move |request| list(kind, &objects, 10, request)).await;
    let exact = listed(&of(kind, "m/a", &server).await.unwrap()).await.unwrap();
    assert_eq!((exact[0].path.as_str(), exact[0].key.as_deref(), exact.len()), ("a", Some("m/a"), 1));
    assert_eq!(files(kind, "m/a/", &server).await.unwrap(), ["c"], "the folder");
    assert_eq!(files(kind, "m/f", &server).await.unwrap(), ["g"], "an empty object that stands for a folder");
    assert_eq!(files(kind, "m/e", &server).await.unwrap(), ["e"], "an empty object");
    assert_eq!(files(kind, "m/a.", &server).await.unwrap_err().reason(), Reason::NotFound);
}

/// A store that never comes to an end, or names none, does not pass for one that has all.
#[rstest]
#[case::the_same_place_for_ever(More::At("t"))]
#[case::no_place_and_the_same_objects(More::Somewhere)]
#[tokio::test]
async fn a_list_that_does_not_end_is_an_error(
    #[values(S3Kind, GcsKind, AzureKind)] kind: Protocol,
    #[case] more: More<'static>,
) {
    if kind == AzureKind && matches!(more, More::Somewhere) {
        return; // it has no word for that
    }
    let server = serve(move |_| kind.page(&[("m/a", 1)], more)).await;
    let error = files(kind, "m", &server).await.unwrap_err();
    assert_eq!(error.reason(), Reason::SourceRefused, "{error}");
    assert!(error.to_string().contains("list"), "{error}");
}

#[rstest]
#[tokio::test]
async fn a_store_that_knows_the_first_version_of_the_list_alone_is_asked_in_that(
    #[values(S3Kind, GcsKind)] kind: Protocol,
) {
    let objects: Vec<String> = (0..25).map(|number| format!("m/{number:02}")).collect();
    let server = serve(move |request| {
        let from = query(request, "marker").unwrap_or_default();
        let rest: Vec<_> = objects.iter().filter(|key| **key > from).map(|key| (key.as_str(), 1)).collect();
        let (page, more) =
            if rest.len() > 10 { (&rest[..10], More::Somewhere) } else { (&rest[..], More::No) };
        kind.page(page, more)
    })
    .await;
    assert_eq!(files(kind, "m", &server).await.unwrap().len(), 25);
}

#[tokio::test]
async fn azures_empty_pages_are_no_end() {
    let server = serve(|request| match AzureKind.cursor(request).as_deref() {
        None => AzureKind.page(&[], More::At("1")),
        Some("1") => AzureKind.page(&[("m/a", 1)], More::At("2")),
        Some(_) => AzureKind.page(&[], More::No),
    })
    .await;
    assert_eq!(files(AzureKind, "m", &server).await.unwrap(), ["a"]);
}

#[rstest]
#[case::a_console(200, "<!DOCTYPE html><html><body>Sign in</body></html>", Reason::SourceRefused)]
#[case::nothing(200, "", Reason::SourceRefused)]
#[case::half_a_list(200, "<ListBucketResult><Contents><Key>m/a</Key>", Reason::SourceRefused)]
#[case::an_error_with_the_wrong_status(200, "<Error><Code>ExpiredToken</Code></Error>", Reason::AccessDenied)]
#[case::an_expired_token(400, "<Error><Code>ExpiredToken</Code></Error>", Reason::AccessDenied)]
#[case::a_console_that_refuses(405, "<html></html>", Reason::SourceRefused)]
#[case::no_bucket(404, "<Error><Code>NoSuchBucket</Code></Error>", Reason::NotFound)]
#[case::forbidden(403, "", Reason::AccessDenied)]
#[case::a_redirect(302, "", Reason::SourceRefused)]
#[tokio::test]
async fn an_answer_that_will_not_change_is_reported_at_once(
    #[values(S3Kind, GcsKind, AzureKind)] kind: Protocol,
    #[case] status: u16,
    #[case] body: &'static str,
    #[case] reason: Reason,
) {
    let server = serve(move |_| ResponseTemplate::new(status).set_body_string(body)).await;
    let error = files(kind, "m", &server).await.unwrap_err();
    assert_eq!(error.reason(), reason, "{error}");
    assert_eq!(server.received_requests().await.unwrap().len(), 1, "{error}");
}

#[tokio::test]
async fn sizes_that_a_list_leaves_out_are_asked_for() {
    let server = serve(|request| {
        if request.method == "HEAD" {
            return ResponseTemplate::new(200).set_body_bytes([0; 5]).insert_header("etag", "\"x\"");
        }
        ResponseTemplate::new(200).set_body_string(
            "<ListBucketResult><Contents><Key>m/</Key></Contents><Contents><Key>m/a</Key></Contents>\
             <Contents><Key>m/b</Key><Size>0</Size></Contents><Contents><Key>m/b/c</Key><Size>1</Size></Contents></ListBucketResult>",
        )
    })
    .await;
    let found = listed(&of(S3Kind, "m", &server).await.unwrap()).await.unwrap();
    let found: Vec<_> =
        found.iter().map(|file| (file.path.as_str(), file.size, file.version.as_deref())).collect();
    assert_eq!(found, [("a", 5, Some("\"x\"")), ("b/c", 1, None)]);
}

/// The region that each request was signed for.
fn region(request: &Request) -> String {
    let signed =
        request.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    signed.split('/').nth(2).unwrap_or_default().to_owned()
}

#[rstest]
#[case::by_a_header(400, "", Some("eu-central-1"))]
#[case::by_an_element(400, "<Error><Region>eu-central-1</Region></Error>", None)]
#[case::by_a_redirect(301, "", Some("eu-central-1"))]
#[tokio::test]
async fn a_request_that_was_signed_for_another_region_is_signed_for_the_right_one(
    #[case] status: u16,
    #[case] body: &'static str,
    #[case] header: Option<&'static str>,
) {
    let server = serve(move |request| {
        if region(request) == "eu-central-1" {
            return list(S3Kind, &[("m/a", 1)], 10, request);
        }
        let answer = ResponseTemplate::new(status).set_body_string(body);
        header.into_iter().fold(answer, |answer, region| answer.insert_header("x-amz-bucket-region", region))
    })
    .await;
    assert_eq!(files(S3Kind, "m", &server).await.unwrap(), ["a"]);
    let asked = server.received_requests().await.unwrap();
    assert_eq!(asked.iter().filter(|request| region(request) == "us-east-1").count(), 1, "it is learned");
}

#[rstest]
#[case::strong("\"v\"", Some("\"v\""), None)]
#[case::without_quotes("v", Some("\"v\""), None)]
#[case::weak("W/\"v\"", None, None)]
#[case::none("", None, None)]
#[case::another_version("\"old\"", Some("\"old\""), Some(Reason::SourceChanged))]
#[tokio::test]
async fn an_object_is_asked_for_as_the_version_that_was_listed(
    #[values(S3Kind, GcsKind, AzureKind)] kind: Protocol,
    #[case] listed: &str,
    #[case] asked: Option<&str>,
    #[case] reason: Option<Reason>,
) {
    let server =
        serve(|_| ResponseTemplate::new(200).set_body_string("abcde").insert_header("etag", "\"v\"")).await;
    let objects = of(kind, "m", &server).await.unwrap();
    let entry =
        Entry { key: "m/x y/ü?#+%41".into(), size: Some(5), tag: Some(listed.into()), folder: false };
    let file = Named { path: "x y/ü?#+%41".into(), object: entry }.planned(5, "m/", false);
    let opened = objects.open(&file, &(0..5), &Link::default()).await;
    assert_eq!(opened.err().map(|error| error.reason()), reason);
    let request = server.received_requests().await.unwrap().remove(0);
    assert_eq!(request.url.path(), "/b/m/x%20y/%C3%BC%3F%23%2B%2541");
    let sent = request.headers.get("if-match").map(|value| value.to_str().unwrap());
    assert_eq!(sent, asked);
}

/// Google unpacks such objects on the way, to another size than the list says, unless it is asked not to.
#[tokio::test]
async fn an_object_that_google_keeps_packed_comes_unpacked_and_whole() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, b"what it is").unwrap();
    let packed = packed.finish().unwrap();
    let size = packed.len() as u64;
    let server = serve(move |request| {
        if request.url.path() == "/b" {
            return list(GcsKind, &[("m/a", size), ("m/b", 5)], 10, request);
        }
        let as_it_is = request.headers["accept-encoding"].to_str().unwrap().contains("gzip");
        let answer = ResponseTemplate::new(200);
        match (request.url.path(), as_it_is) {
            ("/b/m/a", true) => {
                answer.insert_header("content-encoding", "gzip").set_body_bytes(packed.clone())
            }
            ("/b/m/a", false) => answer.set_body_string("what it is"),
            _ => answer.set_body_string("plain"),
        }
    })
    .await;
    let objects = of(GcsKind, "m", &server).await.unwrap();
    let before = listed(&objects).await.unwrap();
    let error = objects.open(&before[0], &(0..size), &Link::default()).await.err().unwrap();
    assert_eq!(error.reason(), Reason::SourceChanged, "so that it is listed once more");
    let files = listed(&objects).await.unwrap();
    let told: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.size, file.one_stream)).collect();
    assert_eq!(told, [("a", 0, true), ("b", 5, false)]);
    let unconditional = PlannedFile { version: None, ..files[0].clone() };
    let mut body = objects.open_whole(&unconditional).await.unwrap();
    let mut came = Vec::new();
    while let Some(bytes) = body.chunk().await.unwrap() {
        came.extend_from_slice(&bytes);
    }
    assert_eq!(came, b"what it is");
}

/// The bucket is the one that the URI names, whatever other programs' variables say.
#[tokio::test]
async fn no_variable_names_another_bucket_container_or_account() {
    let server = serve(|_| ResponseTemplate::new(404)).await;
    let url = server.uri();
    let s3 = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_BUCKET_NAME", "other"),
        ("AWS_BUCKET", "other"),
        ("S3_BUCKET", "other"),
    ];
    let gcs = [
        ("STORAGE_EMULATOR_HOST", url.as_str()),
        ("GOOGLE_BUCKET_NAME", "other"),
        ("GOOGLE_BUCKET", "other"),
    ];
    let azure = [
        ("AZURE_STORAGE_ENDPOINT", url.as_str()),
        ("AZURE_CONTAINER_NAME", "other"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "other"),
        ("AZURE_STORAGE_USE_EMULATOR", "true"),
    ];
    let opened = [
        open("s3://b/m", s3).await.unwrap(),
        open("gs://b/m", gcs).await.unwrap(),
        open("abfs://b@acc/m", azure).await.unwrap(),
    ];
    for objects in opened {
        listed(&objects).await.unwrap_err();
    }
    let asked = server.received_requests().await.unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|request| request.url.path() == "/b"), "{asked:?}");
    let zone = "https://acc.z7.blob.storage.azure.net/b/m?sv=1&sig=a%2Bb";
    let zone = open(zone, [("AZURE_STORAGE_ENDPOINT", url.as_str())]).await.unwrap();
    let asked = zone.request(Method::GET, Asked::Object("m/a"), HeaderMap::new()).await.unwrap();
    assert_eq!(asked.url().as_str(), "https://acc.z7.blob.storage.azure.net/b/m/a?sv=1&sig=a%2Bb");
}

/// What a machine or container of AWS's answers about its identity.
const ISSUED: &str =
    r#"{"AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}"#;
