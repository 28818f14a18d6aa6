//! The documented walkthrough against what the plan makes of it: every YAML as it stands, every name
//! and every output as printed. Each assertion stands below the documented line that it is for.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside the tests

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::{Resource, ResourceExt};
use localmodel::api::cache::CacheStatus;
use localmodel::api::node::{LocalModelNodeStatus, ModelDetail};
use localmodel::api::{
    ClusterStorageContainer, LocalModelCache, LocalModelNode, LocalModelNodeGroup, ModelEntry, ModelStatus,
};
use localmodel::config::{Config, agent_image};
use localmodel::plan::copies::Copy;
use localmodel::plan::credentials::Injection;
use localmodel::plan::entries::PlannedCache;
use localmodel::plan::job::Download;
use localmodel::plan::names::{self, CacheKey};
use localmodel::plan::recipe::Versions;
use localmodel::plan::{agent, cache, entries, job, local_status, volumes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const OWN_IMAGE: &str = "localmodel:1";

/// A documented text, word for word.
macro_rules! documented {
    ($name:literal) => {
        include_str!(concat!("../fixtures/walkthrough/", $name))
    };
}

/// Where the walkthrough is stale its own earlier steps win: the samples of the Job and of the cache's
/// status belong to a cache whose name ends in `-gptq`, and the status sample prints `nodeGroup`, which
/// is `nodeGroups` in the step that creates the cache.
fn mended(sample: &str) -> String {
    sample.replace("-gptq", "").replace("nodeGroup: workers", "nodeGroups:\n    - workers")
}

fn parsed<T: DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).expect("the documented YAML parses")
}

/// A documented object as one of our types, which must hold all of it and nothing else.
fn lossless<T: DeserializeOwned + Serialize>(yaml: &str) -> T {
    let object: T = parsed(yaml);
    assert_eq!(serde_json::to_value(&object).unwrap(), parsed::<Value>(yaml));
    object
}

/// The column of a printed table.
fn column<'a>(table: &'a str, name: &str) -> &'a str {
    let cells = |line: &'a str| line.trim().split("  ").map(str::trim).filter(|cell| !cell.is_empty());
    let mut lines = table.lines();
    let (header, row) = (lines.next().unwrap(), lines.next().unwrap());
    let at = cells(header).position(|cell| cell == name).expect("the table has the column");
    cells(row).nth(at).expect("the row has the column")
}

fn with_uid<K: Resource>(mut object: K) -> K {
    object.meta_mut().uid = Some("uid".into());
    object
}

fn group() -> LocalModelNodeGroup {
    with_uid(parsed(documented!("local-model-node-group.yaml")))
}

fn documented_cache() -> LocalModelCache {
    with_uid(parsed(documented!("local-model-cache.yaml")))
}

fn config() -> Config {
    let data: Value = parsed(documented!("inferenceservice-config.yaml"));
    Config::read(Some(&serde_json::from_value(json!({ "data": data })).unwrap())).unwrap()
}

/// The node of the walkthrough: `kind-worker`, with the label of the node group.
fn worker() -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": "kind-worker", "labels": {"nvidia.com/gpu-product": "NVIDIA-A100-SXM4-80GB"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

fn planned() -> Vec<ModelEntry> {
    entries::entries(&worker(), &[&group()], &[PlannedCache::from(&documented_cache())], &[], true).entries
}

/// The node's object once its agent has the model.
fn local_node() -> LocalModelNode {
    let sample: LocalModelNode = parsed(documented!("local-model-node-status.yaml"));
    let said = (ModelStatus::ModelDownloaded, ModelDetail::default());
    let said = [("meta-llama3-8b-instruct".to_owned(), said)].into();
    let disk = local_status::disk(&local_status::DiskView::default());
    let mut local = LocalModelNode { status: None, ..sample };
    local.spec.local_models = planned();
    local.status =
        Some(local_status::status(&LocalModelNodeStatus::default(), &planned(), "workers", &said, disk));
    local
}

#[test]
fn every_documented_yaml_is_read_without_losing_a_field() {
    lossless::<Secret>(documented!("hf-secret.yaml"));
    lossless::<ClusterStorageContainer>(documented!("cluster-storage-container.yaml"));
    lossless::<LocalModelNodeGroup>(documented!("local-model-node-group.yaml"));
    lossless::<LocalModelCache>(documented!("local-model-cache.yaml"));
    lossless::<LocalModelCache>(&mended(documented!("local-model-cache-status.yaml")));
    lossless::<LocalModelNode>(documented!("local-model-node-status.yaml"));
}

#[test]
fn the_stale_lines_are_in_the_documented_samples() {
    assert!(documented!("get-job.txt").contains("meta-llama3-8b-instruct-gptq-kind-worker"));
    assert!(documented!("local-model-cache-status.yaml").contains("  name: meta-llama3-8b-instruct-gptq\n"));
    assert!(documented!("local-model-cache-status.yaml").contains("  nodeGroup: workers\n"));
}

#[test]
fn the_documented_settings_are_valid_as_they_stand() {
    let config = config();
    // "enabled": true,
    assert!(config.enabled);
    // "jobNamespace": "kserve-localmodel-jobs",
    assert_eq!(config.job_namespace, "kserve-localmodel-jobs");
    // "defaultJobImage" : "kserve/storage-initializer:latest",
    assert_eq!(config.default_job_image.as_deref(), Some("kserve/storage-initializer:latest"));
    // "fsGroup": 1000,
    assert_eq!(config.fs_group, 1000);
    // "localModelAgentImage": "kserve/kserve-localmodelnode-agent:latest" (KServe's own cannot run as ours)
    let kserves = "kserve/kserve-localmodelnode-agent:latest";
    assert_eq!(agent_image(&config, OWN_IMAGE), (OWN_IMAGE, Some(kserves)));
    // "localModelAgentCpuRequest": "100m", "localModelAgentMemoryRequest": "200Mi",
    assert_eq!((&*config.agent_cpu_request, &*config.agent_memory_request), ("100m", "200Mi"));
    // "localModelAgentCpuLimit": "100m", "localModelAgentMemoryLimit": "300Mi"
    assert_eq!((&*config.agent_cpu_limit, &*config.agent_memory_limit), ("100m", "300Mi"));
}

#[test]
fn the_agents_daemon_set_is_what_kubectl_prints() {
    let (group, printed) = (group(), documented!("get-daemonset.txt"));
    let owner = group.controller_owner_ref(&()).unwrap();
    let agents = agent::daemon_set(&group, &owner, &config(), "kserve", OWN_IMAGE).unwrap();
    // kubectl get daemonset -n kserve workers-agent
    assert_eq!((agents.name_any(), agents.namespace().as_deref()), ("workers-agent".into(), Some("kserve")));
    // NAME: workers-agent
    assert_eq!(agents.name_any(), column(printed, "NAME"));
    // NODE SELECTOR: <none>
    let pod = agents.spec.unwrap().template.spec.unwrap();
    assert_eq!(column(printed, "NODE SELECTOR"), "<none>");
    assert_eq!(pod.node_selector, None);
    // "an agent DaemonSet on each node (nodes matching the nodeAffinity specified in LocalModelNodeGroup)"
    let required = pod.affinity.unwrap().node_affinity.unwrap();
    assert_eq!(
        required.required_during_scheduling_ignored_during_execution.as_ref(),
        group.spec.node_selector()
    );
}

#[test]
fn the_download_job_has_the_documented_name_and_container() {
    let (config, container) =
        (config(), parsed::<ClusterStorageContainer>(documented!("cluster-storage-container.yaml")));
    let owner = with_uid(local_node()).owner_ref(&()).unwrap();
    let download = Download {
        entry: &planned()[0],
        group: "workers",
        first: true,
        node: "kind-worker",
        owner,
        config: &config,
        containers: &[&container],
        own_image: OWN_IMAGE,
        restricted: false,
        credentials: &Injection::default(),
    };
    let recipe = job::recipe(&download, &Versions::new());
    let name = names::job(&CacheKey::cluster("meta-llama3-8b-instruct"), "kind-worker");
    let job = job::job(&download, &recipe, &name).unwrap();
    // kubectl get jobs meta-llama3-8b-instruct-kind-worker -n kserve-localmodel-jobs
    assert_eq!(job.name_any(), "meta-llama3-8b-instruct-kind-worker");
    assert_eq!(job.namespace().as_deref(), Some("kserve-localmodel-jobs"));
    // NAME: meta-llama3-8b-instruct-gptq-kind-worker
    assert_eq!(job.name_any(), column(&mended(documented!("get-job.txt")), "NAME"));
    // COMPLETIONS: 1/1
    let spec = job.spec.unwrap();
    assert_eq!((spec.completions.unwrap_or(1), spec.parallelism.unwrap_or(1)), (1, 1));
    assert_eq!(column(documented!("get-job.txt"), "COMPLETIONS"), "1/1");
    // name: storage-initializer, image: kserve/storage-initializer:latest, env: HF_TOKEN, resources
    let pod = spec.template.spec.unwrap();
    let (made, theirs) = (&pod.containers[0], &container.spec.spec.container);
    assert_eq!((&made.name, &made.image), (&theirs.name, &theirs.image));
    assert_eq!((&made.env, &made.resources), (&theirs.env, &theirs.resources));
    assert_eq!(made.args.as_deref().unwrap(), ["hf://meta-llama/meta-llama-3-8b-instruct", "/mnt/models"]);
    // "The download job is created using the provisioned PV/PVC."
    let claim = pod.volumes.unwrap()[0].persistent_volume_claim.clone().unwrap();
    assert_eq!(claim.claim_name, column(documented!("get-pvc.txt"), "NAME"));
}

#[test]
fn the_download_claim_is_what_kubectl_prints() {
    let (documented, group, printed) = (documented_cache(), group(), documented!("get-pvc.txt"));
    let owner = documented.controller_owner_ref(&()).unwrap();
    let key = CacheKey::cluster(documented.name_any());
    let pair = volumes::download(&key, &documented.spec, owner, &group, &config().job_namespace);
    let (volume, claim) = (json!(pair.volume), json!(pair.claim));
    // kubectl get pvc meta-llama3-8b-instruct -n kserve-localmodel-jobs
    assert_eq!(claim["metadata"]["namespace"], "kserve-localmodel-jobs");
    // NAME: meta-llama3-8b-instruct
    assert_eq!(claim["metadata"]["name"], column(printed, "NAME"));
    // VOLUME: meta-llama3-8b-instruct-download
    assert_eq!(volume["metadata"]["name"], column(printed, "VOLUME"));
    assert_eq!(volume["spec"]["claimRef"]["name"], claim["metadata"]["name"]);
    assert_eq!(volume["spec"]["claimRef"]["namespace"], claim["metadata"]["namespace"]);
    // CAPACITY: 10Gi
    assert_eq!(volume["spec"]["capacity"]["storage"], column(printed, "CAPACITY"));
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], column(printed, "CAPACITY"));
    // ACCESS MODES: RWO
    assert_eq!(column(printed, "ACCESS MODES"), "RWO");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(volume["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    // STORAGECLASS: local-storage
    assert_eq!(claim["spec"]["storageClassName"], column(printed, "STORAGECLASS"));
    assert_eq!(volume["spec"]["storageClassName"], column(printed, "STORAGECLASS"));
    // VOLUMEATTRIBUTESCLASS: <unset>
    assert_eq!(column(printed, "VOLUMEATTRIBUTESCLASS"), "<unset>");
    assert_eq!(claim["spec"]["volumeAttributesClassName"], Value::Null);
    // local: path: /models
    assert_eq!(volume["spec"]["local"], json!({"path": "/models"}));
    // volumeName: models (the group's, which no claim of a cache can have)
    assert_eq!(claim["spec"]["volumeName"], Value::Null);
}

#[test]
fn the_caches_status_is_the_documented_one() {
    let sample = mended(documented!("local-model-cache-status.yaml"));
    let (sample, made): (Value, LocalModelCache) = (parsed(&sample), documented_cache());
    // metadata: name, spec: modelSize, nodeGroup, sourceModelUri
    assert_eq!(sample["metadata"]["name"], json!(made.name_any()));
    assert_eq!(sample["spec"], json!(made.spec));
    let (node, local) = (worker(), local_node());
    let status = cache::status(&cache::View {
        key: &CacheKey::cluster(made.name_any()),
        generation: Some(1),
        before: &CacheStatus::default(),
        enabled: true,
        copies: &[Copy { node: &node, local: Some(&local) }],
        users: &[],
        problems: Vec::new(),
        lacking: 0,
        stuck: &std::collections::BTreeMap::new(),
        now: Timestamp::UNIX_EPOCH,
    });
    // copies: available: 1, total: 1
    assert_eq!(json!(status)["copies"], sample["status"]["copies"]);
    // nodeStatus: kind-worker: NodeDownloaded
    assert_eq!(json!(status)["nodeStatus"], sample["status"]["nodeStatus"]);
    // and on KServe's own definition nothing else
    assert_eq!(json!(status.without_ours()), sample["status"]);
}

#[test]
fn the_nodes_object_is_the_documented_one() {
    let (sample, local) = (parsed::<Value>(documented!("local-model-node-status.yaml")), local_node());
    // metadata: name: kind-worker
    assert_eq!(sample["metadata"]["name"], json!(worker().name_any()));
    // localModels: modelName and sourceModelUri, exactly these two fields
    assert_eq!(json!(local.spec), sample["spec"]);
    let fields = sample["spec"]["localModels"][0].as_object().unwrap();
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["modelName", "sourceModelUri"]);
    // modelStatus: meta-llama3-8b-instruct: ModelDownloaded
    let status = local.status.unwrap();
    assert_eq!(json!(status)["modelStatus"], sample["status"]["modelStatus"]);
    // and on KServe's own definition nothing else
    assert_eq!(json!(status.without_ours()), sample["status"]);
}

#[test]
fn the_documented_service_names_the_caches_model() {
    let service: Value = parsed(documented!("inference-service.yaml"));
    // storageUri: hf://meta-llama/meta-llama-3-8b-instruct
    let uri = service["spec"]["predictor"]["model"]["storageUri"].as_str().unwrap();
    assert_eq!(uri, documented_cache().spec.source_model_uri);
}
