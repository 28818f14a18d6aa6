//! Who asks: identities, credentials and what is said of those that cannot be used.

use super::*;

#[rstest]
#[case::it_gives_a_token(200)]
#[case::it_refuses(403)]
#[case::it_knows_none(404)]
#[case::it_knows_no_such_method(405)]
#[tokio::test]
async fn a_machine_is_asked_who_it_is_with_a_token_or_without(#[case] token: u16) {
    let server = serve(move |request| match (request.method.as_str(), request.url.path()) {
        ("PUT", _) => ResponseTemplate::new(token).set_body_string("session\n"),
        (_, path)
            if path.starts_with("/latest")
                && token == 200
                && request.headers.get("x-aws-ec2-metadata-token").is_none_or(|sent| sent != "session") =>
        {
            ResponseTemplate::new(401)
        }
        (_, path) if path.ends_with("/security-credentials/") => {
            ResponseTemplate::new(200).set_body_string("role\n")
        }
        (_, path) if path.ends_with("/security-credentials/role") => {
            ResponseTemplate::new(200).set_body_string(ISSUED)
        }
        _ => list(S3Kind, &[("m/a", 1)], 10, request),
    })
    .await;
    let url = server.uri();
    let variables = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    // A bucket's request has the key of the role, or the machine was not asked.
    let objects = open("s3://b/m", variables).await.unwrap();
    listed(&objects).await.unwrap();
    let asked = server.received_requests().await.unwrap();
    let listed = asked.iter().filter(|request| request.url.path() == "/b");
    assert!(listed.clone().count() == 2 && asked.len() == 5, "the identity is asked for once");
    for request in listed {
        assert!(request.headers["authorization"].to_str().unwrap().contains("Credential=ASIA/"));
        assert_eq!(request.headers["x-amz-security-token"], "t");
    }
}

#[rstest]
#[case::a_machine_that_refuses(Some(404))]
#[case::no_machine(None)]
#[tokio::test]
async fn that_there_are_no_credentials_is_told_soon(#[case] status: Option<u16>) {
    let server = serve(move |_| ResponseTemplate::new(status.unwrap_or(200))).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let url = if status.is_some() { server.uri() } else { refused };
    let variables = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_METADATA_ENDPOINT", url.as_str())];
    let begun = std::time::Instant::now();
    let error = listed(&open("s3://b/m", variables).await.unwrap()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::AccessDenied, "{error}");
    assert!(error.to_string().contains("no credentials") && begun.elapsed().as_secs() < 5, "{error}");
}

/// What was posted to the services that give tokens.
type Posted = Arc<Mutex<Vec<String>>>;

#[rstest]
#[case::in_the_file(r#"{"file": "TOKEN"}"#, false)]
#[case::in_json_of_an_address(
    r#"{"url": "URL/word", "headers": {"x": "y"}, "format": {"type": "json", "subject_token_field_name": "t"}}"#,
    false
)]
#[case::for_another_account(r#"{"file": "TOKEN"}"#, true)]
#[tokio::test]
async fn google_takes_anothers_word_for_who_asks(#[case] source: &str, #[case] other: bool) {
    let posted = Posted::default();
    let log = Arc::clone(&posted);
    let server = serve(move |request| match request.url.path() {
        "/word" => ResponseTemplate::new(200).set_body_string(r#"{"t": "a+word"}"#),
        "/token" => {
            log.lock().unwrap().push(String::from_utf8_lossy(&request.body).into_owned());
            ResponseTemplate::new(200).set_body_string(r#"{"access_token": "federated", "expires_in": 3600}"#)
        }
        "/other" => ResponseTemplate::new(200)
            .set_body_string(r#"{"accessToken": "other", "expireTime": "2099-01-01T00:00:00Z"}"#),
        _ => list(GcsKind, &[("m/a", 1)], 10, request),
    })
    .await;
    let (dir, url) = (tempfile::tempdir().unwrap(), server.uri());
    let token = dir.path().join("token");
    std::fs::write(&token, "a+word\n").unwrap();
    let source = source.replace("TOKEN", token.to_str().unwrap()).replace("URL", &url);
    let impersonated =
        if other { format!(r#""service_account_impersonation_url": "{url}/other","#) } else { String::new() };
    let json = format!(
        r#"{{"type": "external_account", "audience": "//iam/pool", "subject_token_type": "jwt",
            "token_url": "{url}/token", {impersonated} "credential_source": {source}}}"#
    );
    let file = dir.path().join("key.json");
    std::fs::write(&file, json).unwrap();
    let variables =
        [("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap()), ("GOOGLE_BASE_URL", url.as_str())];
    listed(&open("gs://b/m", variables).await.unwrap()).await.unwrap();
    let posted = posted.lock().unwrap().clone();
    assert!(posted.len() == 1 && posted[0].contains("subject_token=a%2Bword"), "{posted:?}");
    let asked = server.received_requests().await.unwrap();
    let bearer = if other { "Bearer other" } else { "Bearer federated" };
    let listed: Vec<_> = asked.iter().filter(|request| request.url.path() == "/b").collect();
    assert!(listed.len() == 2 && listed.iter().all(|request| request.headers["authorization"] == bearer));
}

#[rstest]
#[case::of_another_type(r#"{"type": "hunter2"}"#)]
#[case::with_an_odd_source(
    r#"{"type": "external_account", "audience": "a", "subject_token_type": "b", "token_url": "http://hunter2",
        "credential_source": {"executable": {}}}"#
)]
#[case::that_lacks_all(r#"{"type": "external_account", "hunter2": 1}"#)]
#[case::that_is_no_json("hunter2")]
#[case::that_is_no_key(r#"{"type": "service_account", "private_key": "hunter2"}"#)]
#[tokio::test]
async fn a_credentials_file_that_cannot_be_used_is_told_without_its_text(#[case] json: &str) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key.json");
    std::fs::write(&file, json).unwrap();
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap())];
    let error = open("gs://b/m", variables).await.unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidConfiguration, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

/// Secrets come from files and variables of users: a line break in one is told, and never a panic.
#[rstest]
#[case::a_session_token("AWS_SESSION_TOKEN")]
#[case::a_key("AWS_ACCESS_KEY_ID")]
#[case::azures_token("AZURE_STORAGE_TOKEN")]
#[case::azures_signature("AZURE_STORAGE_SAS_TOKEN")]
#[tokio::test]
async fn odd_bytes_in_a_secret_are_told(#[case] name: &str) {
    let server = serve(|_| ResponseTemplate::new(404)).await;
    let url = server.uri();
    let uri = if name.starts_with("AWS") { "s3://b/m" } else { "abfs://b@acc/m" };
    let variables = [
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AZURE_STORAGE_ENDPOINT", url.as_str()),
        (name, "hunter2\nhunter2"),
    ];
    let error = listed(&open(uri, variables).await.unwrap()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidConfiguration, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
