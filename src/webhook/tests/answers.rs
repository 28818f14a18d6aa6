//! What is answered to which question.

use super::*;
use crate::plan::names::POD_MODEL;
use crate::plan::users::Kind;

fn cache(name: &str, uri: &str) -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelCache",
        "metadata": {"name": name},
        "spec": {"sourceModelUri": uri, "modelSize": "1Gi", "nodeGroups": ["workers"]},
    })
}

fn parsed<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn pod(model: &str) -> Value {
    json!({
        "metadata": {"name": "vllm-0", "labels": {POD_MODEL: model}},
        "spec": {"containers": [{"name": "vllm"}]},
    })
}

/// Two caches, a service of one of them and a namespace cache.
fn known() -> Known {
    let own: LocalModelNamespaceCache = parsed(json!({
        "metadata": {"name": "own", "namespace": "team"},
        "spec": {"sourceModelUri": "hf://o/own", "modelSize": "1Gi", "nodeGroups": ["workers"]},
    }));
    let mut leaving: LocalModelCache = parsed(cache("own", "hf://o/shared"));
    leaving.metadata.deletion_timestamp = parsed(json!("2026-01-01T00:00:00Z"));
    let user = User {
        cache: CacheKey::cluster("used"),
        kind: Kind::InferenceService,
        namespace: "team".into(),
        name: "svc".into(),
        group: None,
    };
    Known {
        caches: vec![
            Arc::new(parsed(cache("used", "hf://o/used"))),
            Arc::new(parsed(cache("free", "hf://o/free"))),
            Arc::new(leaving),
        ],
        namespace_caches: vec![Arc::new(own)],
        users: vec![user],
        ..Known::default()
    }
}

/// The response to a question.
async fn ask(known: Known, path: &str, question: &Value) -> Value {
    let (pair, identity) = (pair(), Arc::new(Identity::default()));
    identity.set(pair.clone()).unwrap();
    let server = Server::start(known, identity).await;
    let answer = server.post(&server.client(&pair.ca), path, question.to_string()).await.unwrap();
    let mut review: Value = answer.json().await.unwrap();
    assert_eq!(
        (&review["kind"], &review["apiVersion"]),
        (&json!("AdmissionReview"), &json!("admission.k8s.io/v1"))
    );
    assert_eq!(review["response"]["uid"], json!("question"));
    review["response"].take()
}

/// The words with which a question is refused.
async fn refusal(known: Known, path: &str, question: &Value) -> String {
    let response = ask(known, path, question).await;
    assert_eq!(response["allowed"], json!(false), "{response}");
    response["status"]["message"].as_str().unwrap().to_owned()
}

async fn claim(known: Known, model: &str) -> String {
    let mut pod = pod(model);
    let response = ask(known, webhooks::PODS_PATH, &review("CREATE", "Pod", &pod)).await;
    assert_eq!(
        (&response["allowed"], &response["patchType"]),
        (&json!(true), &json!("JSONPatch")),
        "{response}"
    );
    let patch: k8s_openapi::ByteString = parsed(response["patch"].clone());
    json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&patch.0).unwrap()).unwrap();
    parsed(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"].take())
}

#[tokio::test]
async fn a_labelled_pod_gets_the_claim_of_its_cache() {
    assert_eq!(claim(known(), "free").await, "free-workers");
    assert_eq!(claim(known(), "own").await, "own-workers");
}

#[tokio::test]
async fn a_cache_that_was_made_in_the_same_breath_as_the_pod_is_found() {
    let known = known();
    known.caches_made_now.lock().unwrap().push(Arc::new(parsed(cache("new", "hf://o/new"))));
    assert_eq!(claim(known, "new").await, "new-workers");
}

#[tokio::test]
async fn an_unknown_cache_refuses_the_pod_and_names_those_of_the_cluster_alone() {
    let message = refusal(known(), webhooks::PODS_PATH, &review("CREATE", "Pod", &pod("gone"))).await;
    let words = "in namespace team; there are LocalModelCaches free, own, used, and kubectl get localmodelnamespacecaches -n team lists those of the namespace";
    assert!(message.ends_with(words), "{message}");
}

#[tokio::test]
async fn a_pod_that_asks_for_nothing_is_answered_without_a_patch() {
    let bare = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web"}]}});
    for path in [webhooks::PODS_PATH, webhooks::KSERVE_PODS_PATH] {
        let response = ask(known(), path, &review("CREATE", "Pod", &bare)).await;
        assert_eq!((&response["allowed"], &response["patch"]), (&json!(true), &Value::Null));
    }
}

#[tokio::test]
async fn while_the_operator_stands_back_a_labelled_pod_is_refused_with_the_reason() {
    let known = Known { standing_back: Some("KServe's own controller runs".into()), ..known() };
    let message = refusal(known, webhooks::PODS_PATH, &review("CREATE", "Pod", &pod("free"))).await;
    assert!(message.ends_with("KServe's own controller runs"), "{message}");
}

#[tokio::test]
async fn what_cannot_be_read_and_faults_of_ours_refuse_what_is_guarded_and_let_the_rest_pass() {
    let mut garbled = pod("free");
    garbled["spec"]["containers"] = json!("none");
    let fault = json!({
        "metadata": {"labels": {"internal.serving.kserve.io/localmodel": "panic", POD_MODEL: "panic"}},
    });
    for (object, words) in [(garbled, "cannot read the object"), (fault, "this is a fault in it")] {
        let question = review("CREATE", "Pod", &object);
        let message = refusal(known(), webhooks::PODS_PATH, &question).await;
        assert!(message.contains(words), "{message}");
        let response = ask(known(), webhooks::KSERVE_PODS_PATH, &question).await;
        assert_eq!((&response["allowed"], &response["patch"]), (&json!(true), &Value::Null));
    }
}

#[tokio::test]
async fn what_is_no_question_at_all_is_a_bad_request() {
    let (pair, identity) = (pair(), Arc::new(Identity::default()));
    identity.set(pair.clone()).unwrap();
    let server = Server::start(known(), identity).await;
    for body in ["", "{}", "no json"] {
        let answer = server.post(&server.client(&pair.ca), webhooks::CACHES_PATH, body.into()).await.unwrap();
        assert_eq!(answer.status(), 400, "{body}");
    }
}

#[tokio::test]
async fn a_source_that_was_taken_a_moment_ago_is_taken() {
    let taken: LocalModelCache = serde_json::from_value(cache("first", "hf://o/new")).unwrap();
    let caches_made_now = Mutex::new(vec![Arc::new(taken)]);
    let twice = review("CREATE", "LocalModelCache", &cache("second", "hf://o/new"));
    assert_eq!(
        refusal(Known { caches_made_now, ..known() }, webhooks::CACHES_PATH, &twice).await,
        "LocalModelCache first has the same StorageURI hf://o/new"
    );
}

#[tokio::test]
async fn caches_are_checked_when_they_are_made_and_when_they_go() {
    let twice = review("CREATE", "LocalModelCache", &cache("second", "hf://o/free"));
    assert_eq!(
        refusal(known(), webhooks::CACHES_PATH, &twice).await,
        "LocalModelCache free has the same StorageURI hf://o/free"
    );
    let used = review("DELETE", "LocalModelCache", &cache("used", "hf://o/used"));
    assert_eq!(
        refusal(known(), webhooks::CACHES_PATH, &used).await,
        "LocalModelCache used is being used by InferenceService (1) in 1 namespace"
    );
    let free = review("DELETE", "LocalModelCache", &cache("free", "hf://o/free"));
    assert_eq!(ask(known(), webhooks::CACHES_PATH, &free).await["allowed"], json!(true));
    let wrong = review("CREATE", "LocalModelCache", &cache("new", "hf://half"));
    let response = ask(known(), webhooks::CACHES_PATH, &wrong).await;
    assert_eq!(response["allowed"], json!(true));
    assert_eq!(response["warnings"].as_array().map(Vec::len), Some(2), "{response}");
}

#[tokio::test]
async fn a_cache_waits_a_moment_for_the_pods_of_a_service_that_is_gone_and_not_for_a_service() {
    let mut known = known();
    known.users[0].kind = Kind::ServicePod;
    known.users_go_after = 3;
    let used = review("DELETE", "LocalModelCache", &cache("used", "hf://o/used"));
    assert_eq!(ask(known, webhooks::CACHES_PATH, &used).await["allowed"], json!(true));

    let mut known = self::known();
    known.users_go_after = 1;
    assert_eq!(
        refusal(known, webhooks::CACHES_PATH, &used).await,
        "LocalModelCache used is being used by InferenceService (1) in 1 namespace",
        "at the first look"
    );
}

#[tokio::test]
async fn a_pod_of_a_service_that_has_let_go_still_guards_its_cache() {
    let mut known = known();
    known.users[0].kind = Kind::ServicePod;
    let used = review("DELETE", "LocalModelCache", &cache("used", "hf://o/used"));
    assert_eq!(
        refusal(known, webhooks::CACHES_PATH, &used).await,
        "LocalModelCache used is being used by Pod (1) in 1 namespace"
    );
}

#[tokio::test]
async fn a_cache_larger_than_its_groups_limit_is_made_with_a_warning() {
    let mut group: LocalModelNodeGroup =
        serde_saphyr::from_str(include_str!("../../../fixtures/walkthrough/local-model-node-group.yaml"))
            .unwrap();
    group.spec.storage_limit.0 = "1G".into();
    let known = Known { groups: vec![Arc::new(group)], ..known() };
    let question = review("CREATE", "LocalModelCache", &cache("new", "hf://o/new"));
    let response = ask(known, webhooks::CACHES_PATH, &question).await;
    assert_eq!(response["allowed"], json!(true));
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("LocalModelCache new waits: needs 1Gi, more than the 1G"), "{response}");
}

#[tokio::test]
async fn a_namespace_cache_needs_its_group_also_one_that_was_made_a_moment_ago() {
    let mut object = cache("new", "hf://o/m");
    object["metadata"]["namespace"] = json!("team");
    let question = review("CREATE", "LocalModelNamespaceCache", &object);
    let message = refusal(known(), webhooks::NAMESPACE_CACHES_PATH, &question).await;
    assert!(
        message.starts_with("LocalModelNamespaceCache team/new names workers in nodeGroups"),
        "{message}"
    );
    let now = known();
    now.groups_made_now.lock().unwrap().push("workers".into());
    assert_eq!(ask(now, webhooks::NAMESPACE_CACHES_PATH, &question).await["allowed"], json!(true));
}

#[tokio::test]
async fn a_group_that_caches_name_is_kept_until_the_last_of_them_is_gone() {
    let group: Value =
        serde_saphyr::from_str(include_str!("../../../fixtures/walkthrough/local-model-node-group.yaml"))
            .unwrap();
    let question = review("DELETE", "LocalModelNodeGroup", &group);
    let message = refusal(known(), webhooks::GROUPS_PATH, &question).await;
    assert!(
        message.contains(
            "LocalModelCache free, LocalModelCache used, 1 LocalModelNamespaceCache in 1 namespace"
        ),
        "{message}"
    );
    let gone_now = vec![CacheKey::cluster("free")];
    let message = refusal(Known { gone_now, ..known() }, webhooks::GROUPS_PATH, &question).await;
    assert!(
        message.contains("used by LocalModelCache used, 1 LocalModelNamespaceCache in 1 namespace"),
        "{message}"
    );
    let gone_now =
        ["free", "used"].map(CacheKey::cluster).into_iter().chain([CacheKey::namespaced("team", "own")]);
    let known = Known { gone_now: gone_now.collect(), ..known() };
    assert_eq!(ask(known, webhooks::GROUPS_PATH, &question).await["allowed"], json!(true));
}

#[tokio::test]
async fn the_users_of_a_namespace_cache_are_named_to_who_knows_its_uid() {
    let mut own = json!({
        "metadata": {"name": "own", "namespace": "team", "uid": "the-right-one"},
        "spec": {"sourceModelUri": "hf://o/own", "modelSize": "1Gi", "nodeGroups": ["workers"]},
    });
    let there = own.clone();
    let known = || {
        let mut known = known();
        known.namespace_caches = vec![Arc::new(parsed(there.clone()))];
        known.users[0].cache = CacheKey::namespaced("team", "own");
        known
    };
    let genuine = review("DELETE", "LocalModelNamespaceCache", &own);
    let message = refusal(known(), webhooks::NAMESPACE_CACHES_PATH, &genuine).await;
    assert_eq!(message, "LocalModelNamespaceCache team/own is being used by InferenceService team/svc");
    for uid in [json!("another"), Value::Null] {
        own["metadata"]["uid"] = uid;
        let forged = review("DELETE", "LocalModelNamespaceCache", &own);
        let message = refusal(known(), webhooks::NAMESPACE_CACHES_PATH, &forged).await;
        assert!(!message.contains("svc"), "{message}");
    }
}
