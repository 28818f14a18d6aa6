//! Downloads that fail: `kubectl describe` of the cache, by itself, tells a person what to do.

use anyhow::{Context, Result};
use localmodel_e2e::command::kubectl;
use localmodel_e2e::objects::apply;
use localmodel_e2e::tokens::WRONG;
use localmodel_e2e::walkthrough::JOBS;
use localmodel_e2e::world::{WORKERS, World, beside_others_then};
use localmodel_hub::{Access, ModelSpec, STRANGER_TOKEN, TOKEN};
use serde_json::{Value, json};

use crate::reader;

/// A download that cannot succeed, and what a person reads of it.
struct Failure {
    cache: &'static str,
    /// What follows the repository's name in its URI.
    revision: &'static str,
    /// What its storage container has in place of the usual.
    container: Container,
    /// Whether the hub has it, and for whom.
    model: Option<Access>,
    words: &'static [&'static str],
}

/// How a storage container differs from the usual.
enum Container {
    Usual,
    Token(&'static str),
    Hub(&'static str),
    Image(&'static str),
    Resource(&'static str),
}

const RESOURCE: &str = "example.com/broken";
const FAILURES: [Failure; 9] = [
    Failure {
        cache: "token",
        revision: "",
        container: Container::Token(WRONG),
        model: Some(Access::Gated),
        words: &["TokenInvalid", "broken/token", "HF_TOKEN"],
    },
    Failure {
        cache: "gated",
        revision: "",
        container: Container::Token(STRANGER_TOKEN),
        model: Some(Access::Gated),
        words: &["RepositoryGated", "broken/gated", "accept"],
    },
    Failure {
        cache: "missing",
        revision: "",
        container: Container::Token(TOKEN),
        model: None,
        words: &["RepositoryNotFound", "broken/missing"],
    },
    Failure {
        cache: "branch",
        revision: ":v9",
        container: Container::Usual,
        model: Some(Access::Public),
        words: &["RevisionNotFound", "broken/branch", "v9"],
    },
    Failure {
        cache: "untrusted",
        revision: "",
        // A server with a certificate of nobody's.
        container: Container::Hub("https://kubernetes.default.svc"),
        model: None,
        words: &["CertificateNotTrusted", "kubernetes.default.svc", "SSL_CERT_FILE"],
    },
    Failure {
        cache: "image",
        revision: "",
        container: Container::Image("nowhere.invalid/initializer:1"),
        model: None,
        words: &["ImagePull", "nowhere.invalid/initializer:1"],
    },
    Failure {
        cache: "quota",
        revision: "",
        container: Container::Resource(RESOURCE),
        model: Some(Access::Public),
        words: &["PodRefused", "exceeded quota: broken", RESOURCE],
    },
    Failure {
        cache: "refused",
        revision: "",
        container: Container::Usual,
        model: Some(Access::Public),
        words: &["JobRefused", "no downloads today"],
    },
    Failure {
        cache: "route",
        revision: "",
        container: Container::Hub("http://hub:9"),
        model: None,
        words: &["ConnectionRefused", "hub:9", "tried 3 times"],
    },
];

#[tokio::test]
async fn each_failure_is_described_with_what_to_do_while_another_cache_succeeds() {
    let test = |world: World| async move {
        world.group().await?;
        world.join(WORKERS[0]).await?;
        apply(OBSTACLES).await?;
        for failure in &FAILURES {
            prepare(&world, failure).await.with_context(|| failure.cache.to_owned())?;
        }
        world.cache("good", &world.model("good").await?).await?;
        world.until_available("good", 1, 1).await?;
        for failure in &FAILURES {
            world.until_described(failure.cache, failure.words).await?;
        }
        reader::sees(&world, "missing", "good").await.context("localmodel status")?;
        // What was in the way goes, and nothing else has to be done.
        remove_obstacles().await?;
        world.until_available("refused", 1, 1).await.map(drop)
    };
    beside_others_then("broken", test, async |_| remove_obstacles().await).await;
}

/// Makes the failing cache, and what makes it fail.
async fn prepare(world: &World, failure: &Failure) -> Result<()> {
    let cache = failure.cache;
    let repository = format!("broken/{cache}");
    if let Some(access) = failure.model {
        world.hub.add_model(&ModelSpec { access, ..ModelSpec::new(&repository, 1_000_000, 1) }).await?;
    }
    let (mut hub, mut image) = ("http://hub:8080", world.setup.image.as_str());
    let (mut token, mut resources) = (Value::Null, json!({}));
    match failure.container {
        Container::Usual => {}
        Container::Token(value) => {
            let name = world.name(cache);
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": JOBS},
                "stringData": {"HF_TOKEN": value},
            });
            apply(&secret.to_string()).await?;
            token = json!({"secretKeyRef": {"name": name, "key": "HF_TOKEN"}});
        }
        Container::Hub(other) => hub = other,
        Container::Image(other) => image = other,
        Container::Resource(name) => resources = json!({"limits": {name: "1"}}),
    }
    let mut env = vec![json!({"name": "HF_ENDPOINT", "value": hub})];
    if !token.is_null() {
        env.push(json!({"name": "HF_TOKEN", "valueFrom": token}));
    }
    let container = json!({
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {"name": world.name(cache)},
        "spec": {
            "container": {
                "name": "storage-initializer",
                "image": image,
                "env": env,
                "resources": resources,
            },
            "supportedUriFormats": [{"prefix": format!("hf://{repository}")}],
            "workloadType": "localModelDownloadJob",
        },
    });
    apply(&container.to_string()).await?;
    world.cache(cache, &format!("hf://{repository}{}", failure.revision)).await
}

/// A quota that one of the pods exceeds, and a policy that refuses one of the Jobs.
const OBSTACLES: &str = "
apiVersion: v1
kind: ResourceQuota
metadata: {name: broken, namespace: kserve-localmodel-jobs}
spec: {hard: {requests.example.com/broken: 0}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: broken.example.com}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [batch], apiVersions: [v1], resources: [jobs], operations: [CREATE]}]
  matchConditions: [{name: one, expression: object.metadata.name.startsWith('broken-refused')}]
  validations: [{expression: 'false', message: no downloads today}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: broken.example.com}
spec: {policyName: broken.example.com, validationActions: [Deny]}
";

async fn remove_obstacles() -> Result<()> {
    for kind in [
        "secret/broken-token",
        "secret/broken-gated",
        "secret/broken-missing",
        "resourcequota/broken",
        "validatingadmissionpolicybinding/broken.example.com",
        "validatingadmissionpolicy/broken.example.com",
    ] {
        kubectl(&["delete", kind, "-n", JOBS, "--ignore-not-found"]).await?;
    }
    Ok(())
}
