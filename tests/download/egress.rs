//! What the downloads of namespaces' caches may connect to: no internal address, also behind redirects and names, and
//! no plain http to an endpoint that the cache names. What is the platform's does not go to an endpoint of the cache's.

use localmodel::download::settings::Egress;
use localmodel::download::variables::Variables;
use localmodel::download::{Error, Reason, Settings, download};
use tempfile::TempDir;
use wiremock::matchers::{any, header_exists, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::files_in;

/// Nothing is allowed that a tenant chooses.
const NARROW: Egress = Egress { refuses_internal: true, refuses_plain_http: true };
/// Plain http is, since servers in tests have no other.
const NO_INTERNAL: Egress = Egress { refuses_internal: true, refuses_plain_http: false };
const NO_PLAIN_HTTP: Egress = Egress { refuses_internal: false, refuses_plain_http: true };

async fn fetch(settings: Settings, uri: &str) -> (Result<(), Error>, TempDir) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    (download(&settings, uri, dir.path()).await, dir)
}

fn settings(egress: Egress) -> Settings {
    Settings { egress, ..Settings::new("https://hub.invalid").unwrap() }
}

/// A server of one file, which counts as internal because it is on this machine.
async fn server() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_bytes("secret")).mount(&server).await;
    server
}

#[tokio::test]
async fn an_internal_address_is_refused_by_number_and_by_name_before_a_byte_is_sent() {
    let server = server().await;
    let port = server.address().port();
    for host in ["127.0.0.1", "127.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "localhost", "0.0.0.0"] {
        let uri = format!("http://{host}:{port}/model.bin");
        let (result, dir) = fetch(settings(NO_INTERNAL), &uri).await;
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Reason::AddressRefused, "{uri}: {error}");
        assert!(error.to_string().contains("localModelEgress.internalAddresses"), "{error}");
        assert!(!files_in(dir.path()).into_keys().any(|name| name == "model.bin"));
    }
    assert!(server.received_requests().await.unwrap().is_empty());
    let (result, dir) =
        fetch(settings(Egress::default()), &format!("http://127.0.0.1:{port}/model.bin")).await;
    result.unwrap();
    assert_eq!(files_in(dir.path())["model.bin"], b"secret", "it is there for whom it is not refused");
}

#[tokio::test]
async fn an_internal_address_behind_a_redirect_is_refused() {
    // What asks stands behind a proxy, so that there is a server that is not internal.
    let proxy = MockServer::start().await;
    for (at, target) in [
        ("/address", "http://169.254.169.254/latest/meta-data"),
        ("/loopback", "http://[::ffff:127.0.0.1]/x"),
        ("/name", "http://localhost/x"),
    ] {
        let redirect = ResponseTemplate::new(302).insert_header("location", target);
        Mock::given(path(at)).respond_with(redirect).expect(1).mount(&proxy).await;
        let mut settings = settings(NO_INTERNAL);
        settings.proxies.http = Some(proxy.uri());
        let (result, _dir) = fetch(settings, &format!("http://files.invalid{at}")).await;
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Reason::AddressRefused, "{target}: {error}");
    }
}

#[tokio::test]
async fn metadata_services_are_refused_without_waiting_for_one() {
    for host in
        ["169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "100.100.100.200", "[fe80::1]"]
    {
        let (result, _dir) = fetch(settings(NO_INTERNAL), &format!("http://{host}/latest/meta-data/x")).await;
        assert_eq!(result.unwrap_err().reason(), Reason::AddressRefused, "{host}");
    }
}

#[tokio::test]
async fn the_hub_and_the_stores_are_held_to_it_too() {
    let server = server().await;
    let hub = Settings { egress: NO_INTERNAL, ..Settings::new(&server.uri()).unwrap() };
    let (result, _dir) = fetch(hub, "hf://o/m").await;
    assert_eq!(result.unwrap_err().reason(), Reason::AddressRefused);
    for (uri, variable) in [
        ("s3://b/m", "AWS_ENDPOINT_URL"),
        ("gs://b/m", "STORAGE_EMULATOR_HOST"),
        ("abfs://c@acc.dfs.core.windows.net/m", "AZURE_STORAGE_ENDPOINT"),
    ] {
        let variables = Variables::try_from([
            (variable, server.uri().as_str()),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ]);
        let settings = Settings { variables: variables.unwrap(), ..settings(NO_INTERNAL) };
        let (result, _dir) = fetch(settings, uri).await;
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Reason::AddressRefused, "{uri}: {error}");
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn plain_http_is_refused_where_the_cache_names_the_server_and_not_where_the_platform_does() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(404)).mount(&server).await;
    let url = server.uri();
    let (result, _dir) = fetch(settings(NO_PLAIN_HTTP), &format!("{url}/model.bin")).await;
    assert_eq!(result.unwrap_err().reason(), Reason::PlainHttpRefused);
    assert!(server.received_requests().await.unwrap().is_empty());

    let hub = Settings { egress: NO_PLAIN_HTTP, ..Settings::new(&url).unwrap() };
    let (result, _dir) = fetch(hub, "hf://o/m").await;
    assert_eq!(result.unwrap_err().reason(), Reason::RepositoryNotFound, "the hub was asked");

    for (of_cache, refused) in
        [("AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY", false), ("AWS_ENDPOINT_URL", true)]
    {
        let variables = Variables::try_from([
            ("AWS_ENDPOINT_URL", url.as_str()),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("LOCALMODEL_CACHE_VARIABLES", of_cache),
        ]);
        let settings = Settings { variables: variables.unwrap(), ..settings(NO_PLAIN_HTTP) };
        let (result, _dir) = fetch(settings, "s3://b/m").await;
        let error = result.unwrap_err();
        assert_eq!(error.reason() == Reason::PlainHttpRefused, refused, "{of_cache}: {error}");
    }
}

#[tokio::test]
async fn neither_shared_keys_nor_the_pods_identity_go_to_an_endpoint_of_the_caches_own() {
    let identity = server().await;
    let store = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(403)).mount(&store).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "token-of-the-pod").unwrap();
    let credentials = format!("{}/credentials", identity.uri());
    let with_identity = |of_cache: &str| {
        Variables::try_from([
            ("AWS_ENDPOINT_URL", store.uri().as_str()),
            ("AWS_SESSION_TOKEN", "the platform's"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials.as_str()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.path().to_str().unwrap()),
            ("LOCALMODEL_CACHE_VARIABLES", of_cache),
        ])
        .unwrap()
    };
    for of_cache in ["AWS_ENDPOINT_URL", "STORAGE_CONFIG,AWS_ENDPOINT_URL", "S3_ENDPOINT,AWS_ENDPOINT_URL"] {
        let settings = Settings { variables: with_identity(of_cache), ..settings(Egress::default()) };
        let (result, _dir) = fetch(settings, "s3://b/m").await;
        assert_eq!(result.unwrap_err().reason(), Reason::AccessDenied, "{of_cache}");
    }
    let signed = |request: &Request| {
        request.headers.contains_key("authorization") || request.headers.contains_key("x-amz-security-token")
    };
    let asked = store.received_requests().await.unwrap();
    assert!(!asked.is_empty() && !asked.iter().any(signed), "asked without any credentials");
    assert!(identity.received_requests().await.unwrap().is_empty());

    // The platform's own endpoint gets them.
    let settings = Settings { variables: with_identity(""), ..settings(Egress::default()) };
    drop(fetch(settings, "s3://b/m").await);
    assert!(!identity.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_of_the_download_job_is_nothing_that_a_namespace_may_cache() {
    let variables = Variables::try_from([("LOCALMODEL_CACHE_VARIABLES", "")]).unwrap();
    let (result, dir) = fetch(Settings { variables, ..settings(NARROW) }, "file:///proc/self/environ").await;
    assert_eq!(result.unwrap_err().reason(), Reason::InvalidSource);
    assert!(!files_in(dir.path()).contains_key("environ"));
}

#[tokio::test]
async fn the_pods_identity_is_never_asked_for_through_a_proxy_and_stores_are() {
    let proxy = MockServer::start().await;
    Mock::given(header_exists("authorization")).respond_with(ResponseTemplate::new(403)).mount(&proxy).await;
    let identity = MockServer::start().await;
    let answer = serde_json::json!({"AccessKeyId": "ASIAPOD", "SecretAccessKey": "s", "Token": "t",
        "Expiration": "2099-01-01T00:00:00Z"});
    let answer = ResponseTemplate::new(200).set_body_json(answer);
    Mock::given(path("/credentials")).respond_with(answer).expect(1..).mount(&identity).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "token-of-the-pod").unwrap();
    let variables = Variables::try_from([
        ("AWS_ENDPOINT_URL", "http://store.invalid"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/credentials", identity.uri())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.path().to_str().unwrap()),
    ]);
    let mut settings = Settings { variables: variables.unwrap(), ..settings(Egress::default()) };
    settings.proxies.http = Some(proxy.uri());
    let (result, _dir) = fetch(settings, "s3://b/m").await;
    assert_eq!(result.unwrap_err().reason(), Reason::AccessDenied, "the proxy answered for the store");
    let seen = proxy.received_requests().await.unwrap();
    assert!(seen.iter().all(|request| request.url.host_str() == Some("store.invalid")), "{seen:?}");
    assert!(!format!("{seen:?}").contains("token-of-the-pod"));
}
