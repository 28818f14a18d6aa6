//! How KServe matches services to caches (S1 to S5): what we rely on, asked of its own webhooks.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, ResourceExt};
use localmodel_e2e::objects::apply;
use localmodel_e2e::walkthrough::config_map;
use localmodel_e2e::world::{World, alone, beside_others};
use serde_json::{Value, json};

const MODEL: &str = "internal.serving.kserve.io/localmodel";
const NAMESPACE: &str = "internal.serving.kserve.io/localmodel-namespace";
const SOURCE: &str = "internal.serving.kserve.io/localmodel-sourceuri";
const CLAIM: &str = "internal.serving.kserve.io/localmodel-pvc-name";
const GROUP: &str = "serving.kserve.io/nodegroup";
const DISABLE: &str = "serving.kserve.io/disable-localmodel";

/// A cache as KServe marks a service with it; `None` where it leaves no mark.
type Marks = Option<Marked>;

#[derive(Debug, PartialEq, Eq)]
struct Marked {
    cache: String,
    namespace: Option<String>,
    source: String,
    claim: String,
}

/// A service: where it is, what it serves, how it is annotated, and how KServe should mark it.
struct Case {
    sentence: &'static str,
    namespace: &'static str,
    serves: &'static str,
    annotations: &'static [(&'static str, &'static str)],
    /// The cache, and the node group whose claim it gets.
    marked: Option<(&'static str, &'static str)>,
}

const fn case(
    sentence: &'static str,
    serves: &'static str,
    marked: Option<(&'static str, &'static str)>,
) -> Case {
    Case { sentence, namespace: "other", serves, annotations: &[], marked }
}

/// The caches: name, namespace, source. Each has the node groups `one` and `two`.
const CACHES: [(&str, Option<&str>, &str); 5] = [
    ("model", None, "hf://matching/model"),
    ("slash", None, "s3://matching/bucket/"),
    ("both", None, "hf://matching/both"),
    ("own", Some("team"), "hf://matching/both"),
    ("secret", Some("team"), "hf://matching/secret"),
];

const CASES: [Case; 19] = [
    case("the cache's own source", "hf://matching/model", Some(("model", "one"))),
    case("with a slash behind it", "hf://matching/model/", Some(("model", "one"))),
    case("a folder below it", "hf://matching/model/sub/folder", Some(("model", "one"))),
    case("the folder above it", "hf://matching", None),
    case("a name that only begins like it", "hf://matching/model2", None),
    case("a name that goes on with a dash", "hf://matching/model-evil", None),
    case("a revision of it", "hf://matching/model:main", None),
    case("the same in other letters", "hf://matching/Model", None),
    case("the same below another scheme", "s3://matching/model", None),
    case("without the slash that the cache has", "s3://matching/bucket", Some(("slash", "one"))),
    case("with the slash that the cache has", "s3://matching/bucket/", Some(("slash", "one"))),
    case("below a cache whose source ends in a slash", "s3://matching/bucket/sub", Some(("slash", "one"))),
    Case {
        annotations: &[(DISABLE, "true")],
        ..case("turned off by annotation", "hf://matching/model", None)
    },
    Case {
        annotations: &[(DISABLE, "false")],
        ..case("turned off by the annotation's presence, whatever it says", "hf://matching/model", None)
    },
    Case {
        annotations: &[(GROUP, "matching-two")],
        ..case("the node group that it asks for", "hf://matching/model", Some(("model", "two")))
    },
    Case {
        annotations: &[(GROUP, "matching-elsewhere")],
        ..case("a node group that the cache does not have", "hf://matching/model", None)
    },
    Case {
        namespace: "team",
        ..case("its own namespace's cache before the cluster's", "hf://matching/both", Some(("own", "one")))
    },
    case("the cluster's cache where the namespace has none", "hf://matching/both", Some(("both", "one"))),
    case("a cache of another namespace", "hf://matching/secret", None),
];

#[tokio::test]
async fn kserve_marks_services_of_both_kinds_by_these_rules() {
    beside_others("matching", |world| async move {
        caches(&world).await?;
        for kind in ["InferenceService", "LLMInferenceService"] {
            for case in &CASES {
                let namespace = world.name(case.namespace);
                let object = service(kind, &namespace, case.serves, case.annotations);
                let marks = marks(&dry_run(&world, kind, &namespace, &object).await?)?;
                let wanted = wanted(&world, case);
                ensure!(marks == wanted, "{kind}, {}: {marks:?}, not {wanted:?}", case.sentence);
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn without_the_feature_kserve_takes_its_marks_away() {
    let test = |world: World| async move {
        world.group().await?;
        let namespace = world.namespace("a").await?;
        world.cache("m", "hf://unmarked/m").await?;
        let settings = config_map(&world.setup.image)?;
        for kind in ["InferenceService", "LLMInferenceService"] {
            let object = service(kind, &namespace, "hf://unmarked/m", &[]);
            let marked = dry_run(&world, kind, &namespace, &object).await?;
            ensure!(marks(&marked)?.is_some(), "{kind}: not marked with the feature on");
            apply(&settings.replace("\"enabled\": true", "\"enabled\": false")).await?;
            let unmarked = dry_run(&world, kind, &namespace, &with_marks(object, &marked)).await?;
            apply(&settings).await?;
            ensure!(marks(&unmarked)?.is_none(), "{kind}: {:?}", marks(&unmarked)?);
        }
        Ok(())
    };
    alone("unmarked", test, async |world| apply(&config_map(&world.setup.image)?).await).await;
}

/// Two node groups without a node, so that nothing is downloaded, and the caches.
async fn caches(world: &World) -> Result<()> {
    for group in ["one", "two"] {
        apply(&world.group_yaml(&world.name(group))).await?;
    }
    for namespace in ["team", "other"] {
        world.namespace(namespace).await?;
    }
    for (name, namespace, source) in CACHES {
        let kind = if namespace.is_some() { "LocalModelNamespaceCache" } else { "LocalModelCache" };
        let object = json!({
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": world.name(name), "namespace": namespace.map(|n| world.name(n))},
            "spec": {
                "sourceModelUri": source,
                "modelSize": "1Gi",
                "nodeGroups": [world.name("one"), world.name("two")],
            },
        });
        apply(&object.to_string()).await?;
    }
    Ok(())
}

fn service(kind: &str, namespace: &str, serves: &str, annotations: &[(&str, &str)]) -> Value {
    let (version, spec) = match kind {
        "InferenceService" => (
            "v1beta1",
            json!({"predictor": {"model": {"modelFormat": {"name": "huggingface"}, "storageUri": serves}}}),
        ),
        _ => ("v1alpha2", json!({"model": {"uri": serves}})),
    };
    json!({
        "apiVersion": format!("serving.kserve.io/{version}"),
        "kind": kind,
        "metadata": {
            "name": "asked",
            "namespace": namespace,
            "annotations": annotations.iter().copied().collect::<BTreeMap<_, _>>(),
        },
        "spec": spec,
    })
}

/// The service as KServe would store it.
async fn dry_run(world: &World, kind: &str, namespace: &str, object: &Value) -> Result<DynamicObject> {
    let version = object["apiVersion"].as_str().and_then(|v| v.split_once('/')).context("a version")?.1;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("serving.kserve.io", version, kind));
    let api = Api::<DynamicObject>::namespaced_with(world.client.clone(), namespace, &resource);
    let options = PostParams { dry_run: true, field_manager: None };
    Ok(api.create(&options, &serde_json::from_value(object.clone())?).await?)
}

fn marks(service: &DynamicObject) -> Result<Marks> {
    let (labels, annotations) = (service.labels(), service.annotations());
    let Some(cache) = labels.get(MODEL).cloned() else {
        let left = labels.contains_key(NAMESPACE)
            || annotations.contains_key(CLAIM)
            || annotations.contains_key(SOURCE);
        ensure!(!left, "half a mark: {labels:?}, {annotations:?}");
        return Ok(None);
    };
    Ok(Some(Marked {
        cache,
        namespace: labels.get(NAMESPACE).cloned(),
        source: annotations.get(SOURCE).cloned().context("no source")?,
        claim: annotations.get(CLAIM).cloned().context("no claim")?,
    }))
}

fn wanted(world: &World, case: &Case) -> Marks {
    let (cache, group) = case.marked?;
    let (_, namespace, source) = CACHES.into_iter().find(|(name, ..)| *name == cache)?;
    Some(Marked {
        cache: world.name(cache),
        namespace: namespace.map(|namespace| world.name(namespace)),
        source: source.into(),
        claim: format!("{}-{}", world.name(cache), world.name(group)),
    })
}

/// A service that carries the marks of another.
fn with_marks(mut object: Value, marked: &DynamicObject) -> Value {
    object["metadata"]["labels"] = json!(marked.labels());
    object["metadata"]["annotations"] = json!(marked.annotations());
    object
}
