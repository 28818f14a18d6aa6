//! The whole command against an API server that has answers by path.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::status::samples;
use crate::status::story::tests as stories;

const CACHES: &str = "/apis/serving.kserve.io/v1alpha1/localmodelcaches";
const NAMESPACE_CACHES: &str = "/apis/serving.kserve.io/v1alpha1/localmodelnamespacecaches";
const GROUPS: &str = "/apis/serving.kserve.io/v1alpha1/localmodelnodegroups";
const NODES: &str = "/apis/serving.kserve.io/v1alpha1/localmodelnodes";
const CACHE: &str = "/apis/serving.kserve.io/v1alpha1/localmodelcaches/mixtral-8x7b-instruct";
const NODE: &str = "/apis/serving.kserve.io/v1alpha1/localmodelnodes/gpu-b";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kserve/leases/localmodel-operator";
const KUBERNETES_NODES: &str = "/api/v1/nodes";
const CONFIG: &str = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config";
const JOBS: &str = "/apis/batch/v1/namespaces/jobs/jobs";
const PODS: &str = "/api/v1/namespaces/jobs/pods";
const LOG: &str = "/api/v1/namespaces/jobs/pods/mixtral-8x7b-instruct-gpu-b-x7k2p/log";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn arguments(line: &str) -> Args {
    Cli::parse_from(["status", "--width", "80"].into_iter().chain(line.split_whitespace())).args
}

/// An API server: its answers by path, and what it was asked.
struct Server {
    answers: BTreeMap<&'static str, (u16, String)>,
    asked: Arc<Mutex<Vec<String>>>,
}

fn list(items: impl IntoIterator<Item = Value>) -> String {
    let items: Vec<Value> = items.into_iter().collect();
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items})
        .to_string()
}

/// The operator's Lease, renewed so long ago.
fn lease(holder: &str, ago: jiff::SignedDuration) -> String {
    let renewed = (Timestamp::now() - ago).to_string();
    json!({"metadata": {"name": "localmodel-operator"}, "spec": {"holderIdentity": holder, "renewTime": renewed}})
        .to_string()
}

/// Nodes with the label of a copy, and one without.
fn labelled(names: &[&str]) -> String {
    let label = format!("{}{}", crate::plan::names::WARM_PREFIX, "70ec9458ee15a1dc");
    let node = |name: &&str| json!({"metadata": {"name": name, "labels": {(label.as_str()): "workers"}}});
    let plain = json!({"metadata": {"name": "plain", "labels": {"localmodel.kserve.io/other": "x"}}});
    let items: Vec<Value> = names.iter().map(node).chain([plain]).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items})
        .to_string()
}

/// A cluster with the sample fleet.
fn cluster() -> Server {
    let settings = json!({"jobNamespace": "jobs"}).to_string();
    let gated = stories::event("RepositoryGated", "on gpu-b: it is gated", "2026-01-02T11:58:20.000000Z");
    let answers = [
        (CACHES, list(samples::caches())),
        (NAMESPACE_CACHES, list(samples::namespace_caches())),
        (GROUPS, list(samples::groups())),
        (NODES, list(samples::nodes())),
        (CACHE, samples::mixtral().to_string()),
        (NODE, samples::nodes().swap_remove(1).to_string()),
        (LEASE, lease("operator-1", jiff::SignedDuration::ZERO)),
        (KUBERNETES_NODES, labelled(&["gpu-a", "gpu-b", "gpu-f"])),
        (EVENTS, list([gated])),
        (CONFIG, json!({"metadata": {}, "data": {"localModel": settings}}).to_string()),
        (JOBS, list([stories::failed("gpu-b")])),
        (PODS, list([stories::pod("gpu-b", &stories::words())])),
        (LOG, "looking for acme/mixtral-8x7b-instruct\nit is gated\n".to_owned()),
    ];
    let answers = answers.into_iter().map(|(path, body)| (path, (200, body))).collect();
    Server { answers, asked: Arc::default() }
}

impl Server {
    fn refuse(mut self, path: &'static str, code: u16, message: &str) -> Self {
        let status = json!({"kind": "Status", "status": "Failure", "code": code, "message": message});
        self.answers.insert(path, (code, status.to_string()));
        self
    }

    fn without(mut self, paths: &[&str]) -> Self {
        self.answers.retain(|path, _| !paths.contains(path));
        self
    }

    /// Runs the command; returns how it ended and what it printed.
    async fn shows(self, line: &str) -> (Result<(), Error>, String) {
        let mut out = Vec::new();
        let result = self.shows_to(line, &mut out).await;
        (result, String::from_utf8(out).unwrap())
    }

    async fn shows_to(self, line: &str, out: &mut impl Write) -> Result<(), Error> {
        let args = arguments(line);
        let server = Arc::new(self);
        let answer = |State(server): State<Arc<Self>>, uri: Uri| async move {
            server.asked.lock().unwrap().push(uri.to_string());
            // A path that is not known has no JSON, as in a real server.
            let missing = (404, "404 page not found\n".to_owned());
            let (code, body) = server.answers.get(uri.path()).cloned().unwrap_or(missing);
            (StatusCode::from_u16(code).unwrap(), body)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let app = Router::new().fallback(answer).with_state(server);
        let serving = tokio::spawn(async { axum::serve(listener, app).await });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(kube::Config::new(url)).unwrap();
        let result = show(&client, &args, Screen::default, out).await;
        serving.abort();
        result
    }
}

fn has_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_fleet_is_listed_from_what_the_server_has_at_hand_and_printed() {
    let server = cluster();
    let asked = server.asked.clone();
    let (result, text) = server.shows("").await;
    result.unwrap();
    has_all(
        &text,
        &["2 of 5 caches warm", "RepositoryGated", "DiskNotWritable", "search/reranker", "archive"],
    );
    let asked = asked.lock().unwrap();
    let (lists, objects): (Vec<&String>, Vec<&String>) =
        asked.iter().partition(|uri| uri.contains("resourceVersion=0"));
    assert_eq!((lists.len(), objects.len()), (5, 2), "{asked:?}");
    assert!(objects.iter().all(|uri| [LEASE, CONFIG].contains(&uri.as_str())), "{asked:?}");
}

#[tokio::test]
async fn without_an_operator_the_first_line_says_so_and_a_script_does_not_go_on() {
    let old = jiff::SignedDuration::from_mins(182);
    for (body, words) in [
        (Some(lease("operator-1", old)), "no operator is running (the last one reported 3h 2m ago): what is"),
        (
            Some(lease("", jiff::SignedDuration::from_secs(5))),
            "no operator is running (the last one reported 5s",
        ),
        (None, "no operator is running (there is no Lease, and the newest change is"),
    ] {
        for line in ["", "mixtral-8x7b-instruct", "-o json"] {
            let mut server = cluster();
            match &body {
                Some(body) => drop(server.answers.insert(LEASE, (200, body.clone()))),
                None => drop(server.answers.remove(LEASE)),
            }
            let (result, text) = server.shows(line).await;
            assert!(result.unwrap_err().to_string().contains(words), "{line}: {text}");
            let shown = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(line == "-o json" || shown.starts_with(words), "{text}");
            assert!(shown.contains("may be stale") && shown.contains("mixtral-8x7b-instruct"), "{text}");
        }
    }
    let (result, text) = cluster().refuse(LEASE, 403, "no leases for eve").shows("").await;
    result.unwrap();
    has_all(&text, &["NOT SEEN", "Lease localmodel-operator in kserve: no leases for eve"]);
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_told() {
    let mut server = cluster();
    let map = json!({"metadata": {}, "data": {"localModel": "{\"enabled\": tru"}}).to_string();
    server.answers.insert(CONFIG, (200, map));
    let (result, text) = server.shows("").await;
    result.unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    has_all(
        &text,
        &["ConfigMap inferenceservice-config in kserve: key \"localModel\"", "last good settings"],
    );
}

#[tokio::test]
async fn a_node_that_lost_its_label_and_keeps_its_copies_is_told() {
    let (result, text) = cluster().shows("").await;
    result.unwrap();
    assert!(!text.contains("NO AGENT"), "{text}");
    let mut server = cluster();
    server.answers.insert(KUBERNETES_NODES, (200, labelled(&["gpu-a", "gpu-x"])));
    let (result, text) = server.shows("").await;
    result.unwrap();
    has_all(&text, &["NODES WITH COPIES AND NO AGENT", "! gpu-x", "their files stay"]);
}

#[tokio::test]
async fn a_script_gets_the_fleet_as_json() {
    let (result, text) = cluster().shows("-o json").await;
    result.unwrap();
    let fleet: Value = serde_json::from_str(&text).unwrap();
    let first = &fleet["caches"][0];
    assert_eq!(first["name"], "mixtral-8x7b-instruct");
    assert_eq!((&first["state"], &first["warm"]), (&json!("failed"), &json!(false)));
    assert_eq!(first["copies"]["total"], 5);
    assert_eq!(first["nodes"][0]["phase"], "NodeDownloadError");
    assert_eq!(first["nodes"][0]["reason"], "RepositoryGated");
    assert_eq!(fleet["nodeGroups"][0]["problems"][0]["reason"], "AgentNotRunning");
    assert_eq!(fleet["disks"][0]["node"], "gpu-f");
}

#[tokio::test]
async fn one_cache_is_told_with_the_log_of_its_failed_job() {
    let server = cluster();
    let asked = server.asked.clone();
    let (result, text) = server.shows("mixtral-8x7b-instruct --log-lines 5").await;
    result.unwrap();
    let parts = [
        "hf://acme/mixtral-8x7b-instruct",
        "next try",
        "kubectl delete job -n jobs mixtral-8x7b-instruct-gpu-b",
        "InferenceService chat/assistant",
        "on gpu-b: it is gated",
        "looking for acme/mixtral-8x7b-instruct",
    ];
    has_all(&text, &parts);
    assert!(!text.contains("NOT SEEN"), "{text}");
    let asked = asked.lock().unwrap().join("\n");
    has_all(&asked, &["tailLines=5", "model%3Dmixtral-8x7b-instruct%2C%21modelNamespace", "job-name+in+"]);
}

#[tokio::test]
async fn a_cache_of_a_namespace_is_named_in_either_way() {
    let at = "/apis/serving.kserve.io/v1alpha1/namespaces/search/localmodelnamespacecaches/reranker";
    for line in ["search/reranker -o json", "reranker -n search -o json"] {
        let mut server = cluster();
        server.answers.insert(at, (200, samples::namespace_caches().swap_remove(0).to_string()));
        let (result, text) = server.shows(line).await;
        result.unwrap();
        let story: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&story["kind"], &story["warm"]), (&json!("LocalModelNamespaceCache"), &json!(true)));
    }
}

#[tokio::test]
async fn a_cache_that_is_not_there_is_told_with_those_that_are() {
    let (result, _) = cluster().shows("reranker").await;
    let error = result.unwrap_err().to_string();
    assert_eq!(error, "no LocalModelCache is named \"reranker\"; there is search/reranker");
    let (result, _) = cluster().shows("nothing").await;
    has_all(&result.unwrap_err().to_string(), &["falcon-180b, llama3-8b, mixtral-8x7b-instruct"]);
}

#[tokio::test]
async fn a_name_that_can_be_none_is_refused() {
    for name in ["/m", "a/b/c", "a/"] {
        let (result, _) = cluster().shows(name).await;
        has_all(&result.unwrap_err().to_string(), &["names no cache"]);
    }
}

#[tokio::test]
async fn where_the_kinds_are_not_defined_one_line_says_what_to_do() {
    let (result, _) = cluster().without(&[CACHES, NAMESPACE_CACHES, GROUPS, NODES]).shows("").await;
    let error = result.unwrap_err().to_string();
    has_all(&error, &["listing LocalModelCaches", "does not know the kind", "install localmodel"]);
    assert!(!error.contains('\n'), "{error}");
    let all = [CACHES, NAMESPACE_CACHES, GROUPS, NODES, CACHE];
    let (result, _) = cluster().without(&all).shows("mixtral-8x7b-instruct").await;
    has_all(&result.unwrap_err().to_string(), &["install localmodel"]);
}

#[tokio::test]
async fn who_may_not_list_caches_learns_which_rights_to_ask_for() {
    let refused = "localmodelcaches.serving.kserve.io is forbidden: User \"eve\" cannot list";
    let server = cluster().refuse(CACHES, 403, refused).refuse(NAMESPACE_CACHES, 403, refused);
    let (result, _) = server.shows("").await;
    has_all(&result.unwrap_err().to_string(), &["User \"eve\" cannot list", "docs/status.md"]);
}

#[tokio::test]
async fn what_else_is_refused_is_told_and_the_rest_is_shown() {
    let server = cluster().refuse(NODES, 403, "no nodes for eve").refuse(CACHES, 403, "no caches for eve");
    let (result, text) = server.shows("").await;
    result.unwrap();
    has_all(
        &text,
        &["NOT SEEN", "LocalModelNodes: no nodes for eve", "no caches for eve", "search/reranker"],
    );
    let server =
        cluster().refuse(EVENTS, 403, "no events").refuse(JOBS, 403, "no jobs").refuse(NODE, 403, "no node");
    let (result, text) = server.shows("mixtral-8x7b-instruct").await;
    result.unwrap();
    has_all(
        &text,
        &["Events: no events", "Jobs in jobs: no jobs", "LocalModelNodes: no node", "RepositoryGated"],
    );
}

#[tokio::test]
async fn definitions_of_an_older_kserve_have_no_namespace_caches() {
    let (result, text) = cluster().without(&[NAMESPACE_CACHES, GROUPS]).shows("").await;
    result.unwrap();
    assert!(!text.contains("NOT SEEN") && !text.contains("reranker"), "{text}");
}

#[tokio::test]
async fn a_log_that_has_gone_with_its_pod_is_no_trouble() {
    let (result, text) = cluster().without(&[LOG]).shows("mixtral-8x7b-instruct").await;
    result.unwrap();
    assert!(!text.contains("LOG of") && !text.contains("NOT SEEN"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_what_to_look_at() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(kube::Config::new(url)).unwrap();
    let error = read::fleet(&client, None).await.unwrap_err().to_string();
    has_all(&error, &["listing LocalModelCaches", "refused", "kubectl cluster-info"]);
    assert!(!error.contains('\n'), "{error}");
}

/// A pipe whose reader leaves after so many flushes.
struct Pipe(usize, Vec<u8>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0 = self.0.checked_sub(1).ok_or(ErrorKind::BrokenPipe)?;
        Ok(())
    }
}

#[tokio::test]
async fn who_watches_for_a_script_gets_a_line_for_each_look() {
    let mut pipe = Pipe(1, Vec::new());
    let result = cluster().shows_to("--watch -o json --every 1", &mut pipe).await;
    assert!(matches!(result, Err(Error::Disk { source, .. }) if source.kind() == ErrorKind::BrokenPipe));
    let text = String::from_utf8(pipe.1).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[tokio::test]
async fn on_a_terminal_each_look_is_drawn_over_the_one_before_and_fits_the_window() {
    let seen = objects::Seen {
        caches: samples::caches().into_iter().map(samples::from).collect(),
        ..objects::Seen::default()
    };
    let view = View::Fleet(fleet::fleet(&seen, &History::default(), samples::now()));
    let args = arguments("--watch");
    let screen = Screen { is_terminal: true, size: Some((10, 80)), colour: false };
    let look = args.look(screen);
    for (problem, said) in [(None, "every 5 s"), (Some("no route"), "no longer what is: no route")] {
        let mut out = Vec::new();
        draw_anew(&view, problem, &args, look, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(HOME) && text.ends_with(CLEAR_BELOW) && text.contains(said), "{text}");
        assert_eq!(text.matches(CLEAR_LINE).count(), 9, "a line is left for the cursor");
    }
}

#[test]
fn a_width_that_is_asked_for_wins_over_the_terminals() {
    let screen = Screen { is_terminal: true, size: Some((24, 200)), colour: true };
    assert_eq!(arguments("").look(screen).width, 80);
    let args = Args { width: None, ..arguments("") };
    assert_eq!(args.look(screen), Look { width: 200, height: None, colour: true });
    assert_eq!(args.look(Screen::default()), Look { width: NO_TERMINAL, height: None, colour: false });
}

/// What somebody may do or does: API group, resource, verb, and the namespace where it is not all of them.
type Right = (String, String, String, Option<String>);

/// What a request does, in the words of roles.
fn right(uri: &str) -> Right {
    let path = uri.split('?').next().unwrap();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => panic!("{uri}"),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] => {
            (Some(namespace.replace("jobs", "kserve-localmodel-jobs")), rest)
        }
        rest => (None, rest),
    };
    let (resource, verb) = match rest {
        [resource] => ((*resource).to_owned(), "list"),
        [resource, _] => ((*resource).to_owned(), "get"),
        [resource, _, sub] => (format!("{resource}/{sub}"), "get"),
        _ => panic!("{uri}"),
    };
    (group.to_owned(), resource, verb.to_owned(), namespace)
}

/// The rights that the roles in docs/status.md give.
fn documented() -> Vec<Right> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.md")).unwrap();
    let roles = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let roles: Vec<Value> = serde_saphyr::from_multiple(roles).unwrap();
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = Vec::new();
    for role in &roles {
        let namespace = role["metadata"]["namespace"].as_str().map(str::to_owned);
        for rule in role["rules"].as_array().unwrap() {
            let group = rule["apiGroups"][0].as_str().unwrap();
            for resource in texts(&rule["resources"]) {
                let verbs = texts(&rule["verbs"]).into_iter();
                rights
                    .extend(verbs.map(|verb| (group.to_owned(), resource.clone(), verb, namespace.clone())));
            }
        }
    }
    rights
}

#[tokio::test]
async fn the_documented_roles_allow_what_is_asked_and_nothing_else() {
    let mut asked = Vec::new();
    for command in ["", "mixtral-8x7b-instruct", "search/reranker"] {
        let server = cluster();
        let requests = server.asked.clone();
        let _ = server.shows(command).await;
        asked.extend(requests.lock().unwrap().iter().map(|uri| right(uri)));
    }
    let documented = documented();
    let allows = |given: &Right, wanted: &Right| {
        (&given.0, &given.1, &given.2) == (&wanted.0, &wanted.1, &wanted.2)
            && (given.3.is_none() || given.3 == wanted.3)
    };
    for wanted in &asked {
        assert!(documented.iter().any(|given| allows(given, wanted)), "not documented: {wanted:?}");
    }
    for given in &documented {
        assert!(asked.iter().any(|wanted| allows(given, wanted)), "never asked for: {given:?}");
    }
}
