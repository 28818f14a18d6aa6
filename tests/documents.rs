//! What the pages say can be relied on: tests that they name exist, links lead somewhere, no page is out of reach, and
//! the objects of the operating guide do what it says.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside the tests

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use localmodel::api::{ClusterStorageContainer, LocalModelCache, LocalModelNodeGroup, ModelEntry};
use localmodel::config::{CaBundle, Config};
use localmodel::download::Settings;
use localmodel::download::variables::Variables;
use localmodel::plan::credentials::Injection;
use localmodel::plan::entries::PlannedCache;
use localmodel::plan::job::{self, Download};
use localmodel::plan::names::CacheKey;
use localmodel::plan::pod::{self, Facts};
use localmodel::plan::recipe::Versions;
use localmodel::plan::{agent, capacity, source};
use regex::Regex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// All files below a folder, those of builds left out.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn below(folders: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders {
        files(&Path::new(ROOT).join(folder), &mut found);
    }
    found.retain(|path| extension.is_empty() || path.extension().is_some_and(|of| of == extension));
    found.sort();
    found
}

/// The README and every page of `docs`.
fn pages() -> Vec<(PathBuf, String)> {
    let all = [Path::new(ROOT).join("README.md")].into_iter().chain(below(&["docs"], "md"));
    all.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let function = Regex::new(r"fn (\w+)\(").unwrap();
    let mut functions = BTreeSet::new();
    for path in below(&["src", "tests", "e2e"], "rs") {
        let text = fs::read_to_string(path).unwrap();
        functions.extend(function.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    // Tests are sentences; of all else in code quotes only metrics look like one.
    let name = Regex::new(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`").unwrap();
    let mut named = 0;
    for (path, text) in pages() {
        for found in name.captures_iter(&text).filter(|found| !found[1].starts_with("localmodel_")) {
            let name = &found[1];
            assert!(functions.contains(name), "{}: there is no test {name}", path.display());
            named += 1;
        }
    }
    assert!(named > 60, "the names of tests are found: {named}");
}

/// The anchors of a page's headings, as they are made from them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// Where a page's links within the repository lead: file and anchor.
fn links(path: &Path, text: &str) -> Vec<(PathBuf, Option<String>)> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let targets = link.captures_iter(text).map(|found| found[1].to_owned());
    let targets = targets.filter(|target| !target.contains("://"));
    let resolve = |target: String| {
        let (file, anchor) = target.split_once('#').map_or((&*target, None), |(file, at)| (file, Some(at)));
        let file = if file.is_empty() { path.to_owned() } else { path.parent().unwrap().join(file) };
        let file =
            file.canonicalize().unwrap_or_else(|_| panic!("{}: {target} is not there", path.display()));
        (file, anchor.map(str::to_owned))
    };
    targets.map(resolve).collect()
}

#[test]
fn links_lead_somewhere_and_from_the_readme_to_every_file_of_docs() {
    let mut reached = BTreeSet::from([Path::new(ROOT).join("README.md").canonicalize().unwrap()]);
    let mut next: Vec<PathBuf> = reached.iter().cloned().collect();
    while let Some(path) = next.pop() {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (file, anchor) in links(&path, &text) {
            let wrong = || format!("{}: no #{anchor:?} in {}", path.display(), file.display());
            let is_there = |anchor: &String| anchors(&fs::read_to_string(&file).unwrap()).contains(anchor);
            assert!(anchor.as_ref().is_none_or(is_there), "{}", wrong());
            if file.is_file() && reached.insert(file.clone()) {
                next.push(file);
            }
        }
    }
    let all = below(&["docs"], "").into_iter().map(|path| path.canonicalize().unwrap());
    let lost: Vec<PathBuf> = all.filter(|path| !reached.contains(path)).collect();
    assert!(lost.is_empty(), "nothing leads to {lost:?}");
}

/// The objects of the operating guide by kind; each kind stands there once.
fn guide() -> (String, BTreeMap<String, Value>) {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/operating.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let objects: Vec<Value> = blocks.flat_map(|block| serde_saphyr::from_multiple(block).unwrap()).collect();
    let count = objects.len();
    let kind = |object: &Value| object["kind"].as_str().unwrap().to_owned();
    let objects: BTreeMap<_, _> = objects.into_iter().map(|object| (kind(&object), object)).collect();
    assert_eq!(objects.len(), count, "a kind stands there twice");
    (page, objects)
}

/// The objects of the README's own example.
fn example() -> BTreeMap<String, Value> {
    let page = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let block = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(block).unwrap();
    objects.into_iter().map(|object| (object["kind"].as_str().unwrap().to_owned(), object)).collect()
}

#[test]
fn the_deployment_of_the_readme_gets_the_model_of_its_cache() {
    let objects = example();
    let group: LocalModelNodeGroup = object(&objects, "LocalModelNodeGroup");
    let cache: LocalModelCache = object(&objects, "LocalModelCache");
    let deployment: Deployment = object(&objects, "Deployment");
    assert!(agent::problems(&group).is_empty());
    assert_eq!(capacity::never_fits(&cache.spec, &group), None);
    let key = CacheKey::cluster(cache.metadata.name.as_deref().unwrap());
    assert!(source::problem(&key, &cache.spec.source_model_uri, &[], &Config::default().egress).is_none());
    let template = deployment.spec.unwrap().template;
    let made = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
    let facts = Facts {
        namespace: "default",
        cache: Some(PlannedCache::from(&cache)),
        known: &[],
        groups: &[std::sync::Arc::new(group)],
        nodes: &[],
        image: "localmodel:1",
        standing_back: None,
    };
    let patch = pod::additions(&made, &pod::wish(&made).unwrap(), &facts).unwrap();
    let mut got = json!(made);
    json_patch::patch(&mut got, &patch).unwrap();
    let spec = &got["spec"];
    assert_eq!(spec["volumes"][0]["persistentVolumeClaim"]["claimName"], "smollm2-135m-workers");
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/models");
    assert_eq!(spec["initContainers"][0]["name"], "localmodel-wait");
    assert!(spec["containers"][0]["command"][2].as_str().unwrap().contains("/models"));
}

/// An object of the guide as its type, which holds all of it and nothing else.
fn object<T: DeserializeOwned + Serialize>(objects: &BTreeMap<String, Value>, kind: &str) -> T {
    let object: T = serde_json::from_value(objects[kind].clone()).unwrap();
    assert_eq!(serde_json::to_value(&object).unwrap(), objects[kind]);
    object
}

/// The downloader understands what its container is told; the address of the proxy is the secret's.
fn is_understood(container: &Value, bundle: &CaBundle, proxy: &str) {
    let said = |name: &str| {
        let variables = container["env"].as_array().unwrap();
        let variable = variables.iter().find(|variable| variable["name"] == name).unwrap();
        variable["value"].as_str().unwrap_or(proxy).to_owned()
    };
    let names = [
        "HF_ENDPOINT",
        "HTTPS_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "STORAGE_IGNORE_PATTERNS",
        "CA_BUNDLE_CONFIGMAP_NAME",
        "CA_BUNDLE_VOLUME_MOUNT_POINT",
    ];
    let values = names.map(said);
    let mut pairs = names.map(|name| (name, ""));
    for (pair, value) in pairs.iter_mut().zip(&values) {
        pair.1 = value;
    }
    let settings = Settings::from_env(Variables::try_from(pairs).unwrap()).unwrap();
    assert_eq!(settings.endpoint.as_str(), "https://hub.example.com/hf");
    assert_eq!(settings.proxies.https.as_ref(), Some(&proxy.to_owned()));
    assert!(settings.proxies.except.unwrap().contains(".example.com"));
    let authorities = Path::new(&bundle.folder).join("cabundle.crt");
    assert_eq!((settings.trust.only, settings.trust.cluster), (vec![authorities.clone()], Some(authorities)));
    assert!(!settings.selection.wants("original/consolidated.00.pth"));
}

#[test]
fn the_guides_objects_make_a_job_with_its_authorities_proxy_and_mirror() {
    let (page, objects) = guide();
    let config = Config::read(Some(&object::<ConfigMap>(&objects, "ConfigMap"))).unwrap();
    let group: LocalModelNodeGroup = object(&objects, "LocalModelNodeGroup");
    let cache: LocalModelCache = object(&objects, "LocalModelCache");
    let container: ClusterStorageContainer = object(&objects, "ClusterStorageContainer");
    let secret: Secret = object(&objects, "Secret");
    assert!(config.enabled && agent::problems(&group).is_empty());
    assert_eq!(cache.spec.node_groups, ["workers"]);
    assert_eq!(capacity::never_fits(&cache.spec, &group), None);

    let entry = ModelEntry {
        model_name: "llama3-70b".into(),
        source_model_uri: cache.spec.source_model_uri.clone(),
        ..ModelEntry::default()
    };
    let owner = json!({"apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode", "name": "n", "uid": "u"});
    let download = Download {
        entry: &entry,
        group: "workers",
        first: true,
        node: "n",
        owner: serde_json::from_value(owner).unwrap(),
        config: &config,
        containers: &[&container],
        own_image: "localmodel:1",
        restricted: true,
        credentials: &Injection::default(),
    };
    let job = job::job(&download, &job::recipe(&download, &Versions::new()), "job").unwrap();
    let pod = json!(job)["spec"]["template"]["spec"].clone();
    let bundle = config.ca_bundle.as_ref().unwrap();
    assert_eq!(pod["volumes"][1]["configMap"]["name"], bundle.config_map);
    assert_eq!(pod["containers"][0]["volumeMounts"][1]["mountPath"], bundle.folder);
    let made = format!(
        "kubectl create configmap {} -n {} --from-file=cabundle.crt=",
        bundle.config_map, config.job_namespace
    );
    assert!(page.contains(&made), "the guide makes the ConfigMap that its settings name");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
    assert_eq!(job::secrets(&download).into_iter().collect::<Vec<_>>(), ["hf-secret", "proxy"]);
    assert_eq!(secret.metadata.namespace.as_ref(), Some(&config.job_namespace));
    is_understood(&pod["containers"][0], bundle, &secret.string_data.unwrap()["address"]);
}

#[test]
fn the_guides_overlay_names_what_is_there() {
    let (_, objects) = guide();
    let overlay = &objects["Kustomization"];
    let resource = overlay["resources"][0].as_str().unwrap().strip_prefix("localmodel/").unwrap();
    assert!(Path::new(ROOT).join(resource).join("kustomization.yaml").exists(), "{resource}");
    let deployment = fs::read_to_string(Path::new(ROOT).join("deploy/base/operator.yaml")).unwrap();
    let image = overlay["images"][0]["name"].as_str().unwrap();
    assert!(deployment.contains(&format!("image: {image}\n")), "{image}");
}

#[test]
fn workflows_use_actions_by_commit() {
    let used = Regex::new(r"(?m)^\s*-?\s*uses:\s*(\S+)(.*)$").unwrap();
    let by_commit = Regex::new(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$").unwrap();
    let mut count = 0;
    for path in below(&[".github/workflows"], "yaml") {
        let text = fs::read_to_string(&path).unwrap();
        for found in used.captures_iter(&text) {
            assert!(by_commit.is_match(&found[1]), "{}: {} is no commit", path.display(), &found[1]);
            assert!(
                found[2].trim().starts_with("# v"),
                "{}: which version is {}?",
                path.display(),
                &found[1]
            );
            count += 1;
        }
    }
    assert!(count > 0);
}
