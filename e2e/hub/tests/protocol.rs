//! What the mock answers, seen with a plain HTTP client.
#![allow(clippy::unwrap_used, reason = "the functions between the tests are tests, too")]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use localmodel_hub::{
    Access, Fault, FaultKind, Hub, Model, Origin, RateHeader, STRANGER_TOKEN, TOKEN, bytes,
};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, redirect};

/// A client that never uses a connection twice: the tests share one, but not their runtimes.
static CLIENT: LazyLock<Client> = LazyLock::new(|| builder().pool_max_idle_per_host(0).build().unwrap());

fn builder() -> ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().redirect(redirect::Policy::none()).no_proxy()
}

async fn send(request: RequestBuilder) -> Response {
    tokio::time::timeout(Duration::from_secs(20), request.send()).await.unwrap().unwrap()
}

async fn get(url: &str) -> Response {
    send(CLIENT.get(url)).await
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("no {name}: {response:?}")).to_str().unwrap()
}

/// The signed URL of a large file.
async fn signed(hub: &Hub, path: &str) -> String {
    header(&get(&format!("{}/{path}", hub.endpoint())).await, "location").to_owned()
}

fn acme() -> Model {
    Model::new("acme/a").file("sub/config.json", "{}").lfs("weights.bin", bytes(1, 100_000))
}

const WEIGHTS: &str = "acme/a/resolve/main/weights.bin";

#[tokio::test]
async fn a_large_file_is_a_signed_url_on_the_cdn_which_wants_no_token() {
    let hub = Hub::start(vec![acme()]).await;
    let [commit] = hub.commits("acme/a").try_into().unwrap();
    let redirect = get(&format!("{}/{WEIGHTS}", hub.endpoint())).await;
    assert_eq!(redirect.status(), StatusCode::FOUND);
    assert_eq!(header(&redirect, "x-repo-commit"), commit);
    assert_eq!(header(&redirect, "x-linked-size"), "100000");
    let url = header(&redirect, "location").to_owned();
    assert!(url.starts_with(&hub.cdn()) && hub.cdn() != hub.endpoint(), "{url}");

    let part = send(CLIENT.get(&url).header("Range", "bytes=10-19")).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&part, "content-range"), "bytes 10-19/100000");
    assert_eq!(part.bytes().await.unwrap()[..], bytes(1, 100_000)[10..20]);
    assert_eq!(send(CLIENT.get(&url).header("Range", "bytes=100000-")).await.status(), 416);
    assert_eq!(send(CLIENT.get(&url).bearer_auth(TOKEN)).await.status(), 400);
    assert_eq!(get(&url.replace("Signature=", "Signature=0")).await.status(), 403);
    assert_eq!(get(&url.replace("Expires=", "Expires=9")).await.status(), 403);

    let seen = hub.requests();
    assert_eq!(seen.iter().filter(|request| request.origin == Origin::Cdn).count(), 5);
    assert_eq!(seen[1].range.as_deref(), Some("bytes=10-19"));
    assert!(seen[3].authorized && !seen[1].authorized);
}

#[tokio::test]
async fn a_small_file_is_a_relative_redirect_to_the_hubs_own_cache() {
    let hub = Hub::start(vec![acme()]).await;
    let redirect = get(&format!("{}/acme/a/resolve/main/sub/config.json", hub.endpoint())).await;
    assert_eq!(redirect.status(), StatusCode::TEMPORARY_REDIRECT);
    let location = header(&redirect, "location");
    assert!(location.starts_with("/api/resolve-cache/models/acme/a/"), "{location}");
    let url = format!("{}{location}", hub.endpoint());
    assert_eq!(get(&url).await.text().await.unwrap(), "{}");
    let head = send(CLIENT.head(&url)).await;
    assert_eq!((header(&head, "content-length"), head.status()), ("2", StatusCode::OK));
}

#[tokio::test]
async fn a_tree_comes_in_pages_whose_links_lead_to_the_end() {
    let model = (0..5).fold(Model::new("acme/a"), |model, i| model.file(format!("dir/{i}.txt"), "x"));
    let hub = Hub::start(vec![model]).await;
    hub.set_page_size(2);
    let mut url = format!("{}/api/models/acme/a/tree/main?recursive=true", hub.endpoint());
    let mut paths = Vec::new();
    loop {
        let page = get(&url).await;
        let link = page.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let entries: Vec<serde_json::Value> = page.json().await.unwrap();
        assert!(entries.len() <= 2);
        paths.extend(entries.iter().map(|entry| entry["path"].as_str().unwrap().to_owned()));
        let Some(link) = link else { break };
        link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().clone_into(&mut url);
    }
    assert_eq!(paths, ["dir", "dir/0.txt", "dir/1.txt", "dir/2.txt", "dir/3.txt", "dir/4.txt"]);
}

#[tokio::test]
async fn each_refusal_has_the_status_and_code_of_the_real_hub() {
    let of = |access, name: &str| Model::new(name).file("f", "x").access(access);
    let hub = Hub::start(vec![
        of(Access::Public, "a/public"),
        of(Access::Private, "a/private"),
        of(Access::Gated, "a/gated"),
    ])
    .await;
    let (none, stranger, member) = (None, Some(STRANGER_TOKEN), Some(TOKEN));
    for (path, token, status, code) in [
        ("a/public/resolve/main/f", none, 307, ""),
        ("a/public/resolve/main/f", Some("hf_wrong"), 401, ""),
        ("a/public/resolve/main/nothing", none, 404, "EntryNotFound"),
        ("api/models/a/public/revision/nowhere", none, 404, "RevisionNotFound"),
        ("api/models/a/missing/revision/main", none, 401, "RepoNotFound"),
        ("api/models/a/private/revision/main", none, 401, "RepoNotFound"),
        ("api/models/a/private/revision/main", stranger, 404, "RepoNotFound"),
        ("api/models/a/private/revision/main", member, 200, ""),
        ("api/models/a/gated/tree/main?recursive=true", none, 200, ""),
        ("a/gated/resolve/main/f", none, 401, "GatedRepo"),
        ("a/gated/resolve/main/f", stranger, 403, "GatedRepo"),
        ("a/gated/resolve/main/f", member, 307, ""),
    ] {
        let mut request = CLIENT.get(format!("{}/{path}", hub.endpoint()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = send(request).await;
        let found = answer.headers().get("x-error-code").map_or("", |code| code.to_str().unwrap());
        assert_eq!((answer.status().as_u16(), found), (status, code), "{path} with {token:?}");
    }
}

#[tokio::test]
async fn a_moved_branch_is_another_commit_and_a_forced_push_forgets_the_old_one() {
    let hub = Hub::start(vec![acme().commit().file("new", "x").branch("feature/x")]).await;
    let [first, second] = hub.commits("acme/a").try_into().unwrap();
    let sha = async |revision: &str| {
        let answer = get(&format!("{}/api/models/acme/a/revision/{revision}", hub.endpoint())).await;
        answer.json::<serde_json::Value>().await.unwrap()["sha"].as_str().map(str::to_owned)
    };
    assert_eq!(sha("feature%2Fx").await, Some(second.clone()));
    hub.move_branch("acme/a", "main", &first);
    assert_eq!(sha("main").await, Some(first.clone()));
    hub.force_push("acme/a", "main", &second);
    assert_eq!((sha("main").await, sha(&first).await), (Some(second), None));
}

#[tokio::test]
async fn a_branch_can_move_between_two_pages_of_its_tree() {
    let hub = Hub::start(vec![Model::new("a/b").file("a", "1").file("b", "1").commit().file("a", "2")]).await;
    let [old, new] = hub.commits("a/b").try_into().unwrap();
    hub.move_branch("a/b", "main", &old);
    hub.set_page_size(1);
    let [repo, branch, commit] = ["a/b".to_owned(), "main".to_owned(), new];
    hub.fault(Fault::once("/tree/", FaultKind::MoveBranch { repo, branch, commit, forget: true }));
    hub.fault(Fault::once("/tree/", FaultKind::ForeignLink));
    let tree = |revision: &str| format!("{}/api/models/a/b/tree/{revision}?recursive=true", hub.endpoint());
    let first = get(&tree("main")).await;
    assert!(header(&first, "link").contains(&hub.endpoint()));
    let entries: serde_json::Value = first.json().await.unwrap();
    assert_eq!(entries[0]["oid"], "56a6051ca2b02b04ef92d5150c9ef600403cb1de", "that of `1`");
    let again = get(&tree("main")).await;
    assert!(header(&again, "link").starts_with("<https://huggingface.co/api/models/a/b/tree/main?"));
    let entries: serde_json::Value = again.json().await.unwrap();
    assert_eq!(entries[0]["oid"], "d8263ee9860594d2806b0dfd1bfd17528b0ba2a4", "that of `2`");
    assert_eq!(get(&tree(&old)).await.status(), 404, "the forced push took the old commit away");
}

#[tokio::test]
async fn hostile_names_are_listed_as_they_are() {
    let model = Model::new("a/b").file("../evil", "x").file("/etc/evil", "x").lfs("sub/../../evil", "x");
    let hub = Hub::start(vec![model]).await;
    let tree = get(&format!("{}/api/models/a/b/tree/main?recursive=true", hub.endpoint())).await;
    let entries: Vec<serde_json::Value> = tree.json().await.unwrap();
    let files =
        entries.iter().filter(|entry| entry["type"] == "file").map(|entry| entry["path"].as_str().unwrap());
    assert_eq!(files.collect::<Vec<_>>(), ["../evil", "/etc/evil", "sub/../../evil"]);
    let url = signed(&hub, "a/b/resolve/main/sub%2F..%2F..%2Fevil").await;
    assert_eq!(get(&url).await.text().await.unwrap(), "x", "{url}");
}

#[tokio::test]
async fn faults_of_a_body_spoil_it_as_often_as_they_say() {
    let hub = Hub::start(vec![acme()]).await;
    let good = bytes(1, 100_000);
    let url = signed(&hub, WEIGHTS).await;
    // One connection for all, as far as it lasts: a fault must end with its answer.
    let client = builder().build().unwrap();
    let fetch = async || send(client.get(&url).header("Range", "bytes=0-99999")).await;

    hub.fault(Fault::once("weights.bin", FaultKind::FlipByte));
    hub.fault(Fault::once("weights.bin", FaultKind::ShortBody));
    hub.fault(Fault::once("weights.bin", FaultKind::Cut { after: 5 }));
    hub.fault(Fault::once("weights.bin", FaultKind::IgnoreRange));
    hub.fault(Fault::once("weights.bin", FaultKind::Throttle { bytes_per_second: 400_000 }));
    let flipped = fetch().await.bytes().await.unwrap();
    assert_eq!(flipped.iter().zip(&good).filter(|(is, was)| is != was).count(), 1);
    assert_eq!(fetch().await.bytes().await.unwrap().len(), 50_000);
    assert!(fetch().await.bytes().await.is_err(), "cut");
    assert_eq!(fetch().await.status(), 200);
    let start = Instant::now();
    assert_eq!(fetch().await.bytes().await.unwrap(), good, "throttled");
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert_eq!(fetch().await.status(), 206);
}

#[tokio::test]
async fn faults_of_a_head_stand_in_for_the_answer() {
    let hub = Hub::start(vec![acme()]).await;
    let url = format!("{}/{WEIGHTS}", hub.endpoint());
    hub.fault(Fault::always("acme/a", FaultKind::Status(503)).times(2));
    let limited = |header| FaultKind::TooManyRequests { seconds: 7, header };
    hub.fault(Fault::once("acme/a", limited(RateHeader::RateLimit)));
    hub.fault(Fault::once("acme/a", limited(RateHeader::RetryAfter)));
    hub.fault(Fault::once("acme/a", FaultKind::Delay(100)));
    hub.fault(Fault::once("acme/a", FaultKind::ExpiredSignature).at(Origin::Hub));
    hub.fault(Fault::once("acme/a", FaultKind::ExpiredSignature).at(Origin::Cdn));
    assert_eq!([get(&url).await.status(), get(&url).await.status()], [503, 503]);
    assert_eq!(header(&get(&url).await, "ratelimit"), "\"api\";r=0;t=7");
    assert_eq!(header(&get(&url).await, "retry-after"), "7");
    let start = Instant::now();
    assert_eq!(get(&url).await.status(), 302, "late, but right");
    assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
    let [expired, good] = [signed(&hub, WEIGHTS).await, signed(&hub, WEIGHTS).await];
    assert_eq!(get(&good).await.status(), 403, "the CDN refuses a good one once");
    assert_eq!(get(&good).await.status(), 200);
    assert_eq!(get(&expired).await.status(), 403);
}

#[tokio::test]
async fn what_is_held_or_stalled_goes_on_when_faults_are_cleared() {
    let hub = Hub::start(vec![acme()]).await;
    let url = signed(&hub, WEIGHTS).await;
    hub.fault(Fault::once("", FaultKind::Stall { after: 10 }).at(Origin::Cdn));
    let mut stalled = get(&url).await;
    let first = stalled.chunk().await.unwrap().unwrap();
    assert_eq!(first.len(), 10);
    hub.fault(Fault::always("", FaultKind::Hold));
    let held = tokio::spawn(CLIENT.get(&url).send());
    let deadline = Instant::now() + Duration::from_secs(20);
    while hub.requests().len() < 3 {
        assert!(Instant::now() < deadline, "the held request never arrived");
        tokio::task::yield_now().await;
    }
    assert!(!held.is_finished());
    hub.clear_faults();
    assert_eq!(held.await.unwrap().unwrap().bytes().await.unwrap().len(), 100_000);
    assert_eq!(stalled.bytes().await.unwrap().len(), 99_990);
}
