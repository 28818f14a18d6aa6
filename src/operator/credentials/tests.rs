//! The copying against an API server that keeps objects in a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::*;
use crate::api::cache::StorageSpec;

const TOKEN: &str = "/api/v1/namespaces/team/secrets/hf";
const ACCOUNT: &str = "/api/v1/namespaces/team/serviceaccounts/sa";
const JOBS: &str = "/api/v1/namespaces/kserve-localmodel-jobs/secrets";

/// Objects by path, what was asked of it, and the paths that it refuses.
#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    asked: Vec<String>,
    forbidden: Vec<&'static str>,
}

impl Server {
    fn answer(&mut self, method: &Method, uri: &Uri, body: &str) -> (StatusCode, Value) {
        let path = uri.path();
        self.asked.push(format!("{method} {path}"));
        if self.forbidden.contains(&path) {
            return (StatusCode::FORBIDDEN, status(403, "secrets \"hf\" is forbidden"));
        }
        let body = || serde_json::from_str::<Value>(body).unwrap();
        match *method {
            Method::POST => {
                let mut object = body();
                object["metadata"]["resourceVersion"] = json!("1");
                object["metadata"]["uid"] = json!("copy-uid");
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                self.objects.insert(format!("{path}/{name}"), object.clone());
                (StatusCode::CREATED, object)
            }
            Method::DELETE => match self.objects.remove(path) {
                Some(_) => {
                    (StatusCode::OK, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
                }
                None => (StatusCode::NOT_FOUND, status(404, "not found")),
            },
            Method::PATCH => {
                let object = self.objects.get_mut(path).unwrap();
                json_patch::merge(object, &body());
                (StatusCode::OK, object.clone())
            }
            _ => match self.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => (StatusCode::NOT_FOUND, status(404, "not found")),
            },
        }
    }

    fn writes(&mut self) -> Vec<String> {
        let asked = std::mem::take(&mut self.asked);
        asked.into_iter().filter(|line| !line.starts_with("GET")).collect()
    }
}

fn status(code: u16, message: &str) -> Value {
    let reason = if code == 404 { "NotFound" } else { "Forbidden" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": reason})
}

type Shared = Arc<Mutex<Server>>;

async fn serve(server: Server) -> (Shared, Client) {
    let server = Arc::new(Mutex::new(server));
    let answer = |State(server): State<Shared>, method: Method, uri: Uri, body: String| async move {
        let (code, object) = server.lock().unwrap().answer(&method, &uri, &body);
        (code, object.to_string())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let app = Router::new().fallback(answer).with_state(server.clone());
    tokio::spawn(async { axum::serve(listener, app).await });
    let _ = rustls::crypto::ring::default_provider().install_default();
    (server, Client::try_from(kube::Config::new(url)).unwrap())
}

/// A namespace with a token that a service account names.
fn team() -> Server {
    let token = json!({"metadata": {"name": "hf"}, "data": {"HF_TOKEN": "b25l", "unrelated": "dQ=="}});
    let account = json!({"metadata": {"name": "sa"}, "secrets": [{"name": "hf"}]});
    Server { objects: [(TOKEN.to_owned(), token), (ACCOUNT.to_owned(), account)].into(), ..Server::default() }
}

fn spec(account: Option<&str>) -> CacheSpec {
    CacheSpec {
        source_model_uri: "hf://o/m".into(),
        model_size: k8s_openapi::apimachinery::pkg::api::resource::Quantity("1Gi".into()),
        node_groups: vec!["workers".into()],
        service_account_name: account.map(Into::into),
        storage: None,
    }
}

fn key() -> CacheKey {
    CacheKey::namespaced("team", "m")
}

fn copy_path() -> String {
    format!("{JOBS}/{}", names::credentials(&key()))
}

async fn followed(client: &Client, spec: &CacheSpec) -> Option<Problem> {
    follow(client, &Config::default(), &key(), "uid", spec).await.unwrap()
}

#[tokio::test]
async fn credentials_are_copied_follow_their_source_and_a_second_look_writes_nothing() {
    let (server, client) = serve(team()).await;
    let spec = spec(Some("sa"));
    assert_eq!(followed(&client, &spec).await, None);
    let copy = server.lock().unwrap().objects[&copy_path()].clone();
    assert_eq!(copy["data"], json!({"env.HF_TOKEN": "b25l"}), "no key that is not needed");
    assert_eq!(server.lock().unwrap().writes(), [format!("POST {JOBS}")]);

    assert_eq!(followed(&client, &spec).await, None);
    assert_eq!(server.lock().unwrap().writes(), Vec::<String>::new());

    server.lock().unwrap().objects.get_mut(TOKEN).unwrap()["data"]["HF_TOKEN"] = json!("dHdv");
    assert_eq!(followed(&client, &spec).await, None);
    assert_eq!(server.lock().unwrap().objects[&copy_path()]["data"], json!({"env.HF_TOKEN": "dHdv"}));
}

#[tokio::test]
async fn what_is_gone_or_forbidden_is_told_and_its_copy_holds_nothing_any_more() {
    let (server, client) = serve(team()).await;
    let spec = spec(Some("sa"));
    followed(&client, &spec).await;
    let token = server.lock().unwrap().objects.remove(TOKEN).unwrap();
    assert_eq!(followed(&client, &spec).await.unwrap().reason, "SecretNotFound");
    assert_eq!(server.lock().unwrap().objects[&copy_path()]["data"], json!({}));

    server.lock().unwrap().objects.insert(TOKEN.into(), token);
    assert_eq!(followed(&client, &spec).await, None);
    server.lock().unwrap().forbidden = vec![TOKEN];
    let problem = followed(&client, &spec).await.unwrap();
    assert_eq!(problem.reason, "CredentialsForbidden");
    assert!(problem.message.contains("localmodel-operator-credentials") && problem.message.contains("team"));
    assert_eq!(server.lock().unwrap().objects[&copy_path()]["data"], json!({}));
}

#[tokio::test]
async fn a_cache_that_names_no_credentials_any_more_loses_its_copy_and_one_that_never_did_has_none() {
    let (server, client) = serve(team()).await;
    assert_eq!(followed(&client, &spec(None)).await, None);
    assert_eq!(
        server.lock().unwrap().asked,
        [format!("GET {}", copy_path())],
        "nothing of the team's is read"
    );
    followed(&client, &spec(Some("sa"))).await;
    followed(&client, &spec(None)).await;
    assert!(!server.lock().unwrap().objects.contains_key(&copy_path()));
}

#[tokio::test]
async fn nothing_is_read_outside_the_caches_own_namespace_but_the_copy() {
    let (server, client) = serve(team()).await;
    let by_key = CacheSpec {
        storage: Some(StorageSpec { key: Some("k".into()), parameters: None }),
        ..spec(Some("sa"))
    };
    assert_eq!(followed(&client, &by_key).await.unwrap().reason, "SecretNotFound");
    followed(&client, &spec(Some("of-the-jobs"))).await;
    for line in &server.lock().unwrap().asked {
        assert!(
            line.contains("/namespaces/team/")
                || line.contains(&names::credentials(&key()))
                || line.starts_with("POST"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn somebody_elses_secret_of_the_copys_name_is_left_alone() {
    let mut server = team();
    let theirs = json!({"metadata": {"name": names::credentials(&key())}, "data": {"a": "YQ=="}});
    server.objects.insert(copy_path(), theirs.clone());
    let (server, client) = serve(server).await;
    assert_eq!(followed(&client, &spec(Some("sa"))).await.unwrap().reason, "NameConflict");
    assert_eq!(server.lock().unwrap().objects[&copy_path()], theirs);
}

#[test]
fn a_look_counts_for_a_while_and_for_one_generation() {
    let looks = Looks::default();
    let look = |wished| Look { generation: Some(1), at: Instant::now(), wished, problem: None };
    looks.remember("a", look(true));
    assert!(looks.last("a", Some(1)).is_some());
    assert!(looks.last("a", Some(2)).is_none());
    looks.remember("a", Look { at: Instant::now().checked_sub(COUNTS).unwrap(), ..look(true) });
    assert!(looks.last("a", Some(1)).is_none());
    looks.remember("a", Look { at: Instant::now().checked_sub(COUNTS).unwrap(), ..look(false) });
    assert!(looks.last("a", Some(1)).is_some(), "nothing of it can change by itself");
    looks.forget("a");
    assert!(looks.last("a", Some(1)).is_none());
}
