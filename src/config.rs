//! The settings: KServe's ConfigMap `inferenceservice-config`, of which this project reads the sections
//! `localModel`, `storageInitializer` and `credentials`. Unknown keys are ignored, and so are other sections.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, LocalObjectReference, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

use crate::api::quantity;
use crate::download::source::CA_FOLDER;
use crate::plan::scrub;

/// A section that cannot be read; whoever holds an earlier configuration keeps it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("key {key:?} of ConfigMap inferenceservice-config cannot be read: {problem}")]
pub struct ConfigError {
    /// The key of the ConfigMap.
    pub key: &'static str,
    /// What the parser says, with the place.
    pub problem: String,
}

/// The section `localModel`, with KServe's names and defaults.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Whether anything new is downloaded (C9).
    pub enabled: bool,
    /// The namespace of download Jobs and their claims.
    pub job_namespace: String,
    /// The image of a download Job where no `ClusterStorageContainer` fits.
    pub default_job_image: Option<String>,
    /// The group that owns the files on the disks; agents and Jobs run under the same number.
    pub fs_group: i64,
    /// Seconds after which a finished Job is removed.
    #[serde(rename = "jobTTLSecondsAfterFinished")]
    pub job_ttl_seconds: i32,
    /// Seconds between two passes of an agent (KServe's spelling).
    #[serde(rename = "reconcilationFrequencyInSecs")]
    pub pass_interval_seconds: u64,
    /// Whether serving volumes are somebody else's business: then none is made or deleted (S8).
    pub disable_volume_management: bool,
    /// The image of the agents.
    #[serde(rename = "localModelAgentImage")]
    pub agent_image: Option<String>,
    /// Their pull policy.
    #[serde(rename = "localModelAgentImagePullPolicy")]
    pub agent_image_pull_policy: Option<String>,
    /// Their CPU request.
    #[serde(rename = "localModelAgentCpuRequest")]
    pub agent_cpu_request: String,
    /// Their memory request.
    #[serde(rename = "localModelAgentMemoryRequest")]
    pub agent_memory_request: String,
    /// Their CPU limit.
    #[serde(rename = "localModelAgentCpuLimit")]
    pub agent_cpu_limit: String,
    /// Their memory limit.
    #[serde(rename = "localModelAgentMemoryLimit")]
    pub agent_memory_limit: String,
    /// Ours. What else their pods, and those of Jobs, need.
    #[serde(rename = "localModelAgentPod")]
    pub pod: PodSettings,
    /// Ours. The share of each namespace in node groups that set none.
    #[serde(rename = "localModelNamespaceStorageLimit")]
    pub namespace_storage_limit: Option<Quantity>,
    /// Ours. How often and how fast the bytes of complete copies are read again (A5).
    #[serde(rename = "localModelScrub")]
    pub scrub: ScrubSettings,
    /// Ours. What the caches of namespaces may download from.
    #[serde(rename = "localModelEgress")]
    pub egress: EgressSettings,
    /// `storageInitializer.image`: the image of a download Job where nothing above names one.
    #[serde(skip)]
    pub storage_initializer_image: Option<String>,
    /// `storageInitializer`: requests and limits of a download Job whose container names none.
    #[serde(skip)]
    pub job_resources: JobResources,
    /// `storageInitializer.caBundle…`: whom downloads trust beside the usual authorities.
    #[serde(skip)]
    pub ca_bundle: Option<CaBundle>,
    /// The section `credentials`: how secrets name what is in them (K3).
    #[serde(skip)]
    pub credentials: CredentialSettings,
}

/// The cluster's own certificate authorities, in KServe's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle {
    /// The ConfigMap of the job namespace whose key `cabundle.crt` holds them.
    pub config_map: String,
    /// The folder that download containers find it in.
    pub folder: String,
}

/// Request and limit of processors and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct JobResources {
    pub cpu: [String; 2],
    pub memory: [String; 2],
}

impl Default for JobResources {
    /// KServe's own of its initializer.
    fn default() -> Self {
        Self { cpu: ["100m", "1"].map(Into::into), memory: ["100Mi", "1Gi"].map(Into::into) }
    }
}

/// The section `credentials`, with KServe's names. Its `storageSecretNameAnnotation` is of services, which
/// alone have such an annotation.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CredentialSettings {
    /// The secret that `storage.key` is a key of.
    pub storage_spec_secret_name: String,
    /// Of Google's storage.
    pub gcs: GcsSettings,
    /// Of S3.
    pub s3: S3Settings,
}

/// Settings of Google's storage.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct GcsSettings {
    /// The key of a secret that holds the credentials file.
    pub gcs_credential_file_name: String,
}

/// Settings of S3. Names of keys, and values for what neither annotation nor secret say; empty is unset.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the names say it, and KServe's own documentation
pub struct S3Settings {
    #[serde(rename = "s3AccessKeyIDName")]
    pub s3_access_key_id_name: String,
    pub s3_secret_access_key_name: String,
    pub s3_endpoint: String,
    pub s3_use_https: String,
    pub s3_region: String,
    #[serde(rename = "s3VerifySSL")]
    pub s3_verify_ssl: String,
    pub s3_use_virtual_bucket: String,
    pub s3_use_accelerate: String,
    pub s3_use_anonymous_credential: String,
    #[serde(rename = "s3CABundleConfigMap")]
    pub s3_ca_bundle_config_map: String,
    #[serde(rename = "s3CABundle")]
    pub s3_ca_bundle: String,
}

impl S3Settings {
    /// The endpoint with its scheme.
    pub fn endpoint_url(&self) -> Option<String> {
        let endpoint = Some(self.s3_endpoint.trim()).filter(|endpoint| !endpoint.is_empty())?;
        let scheme = if self.s3_use_https.trim() == "0" { "http" } else { "https" };
        Some(if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") })
    }
}

/// Settings of agent and Job pods that KServe's section has no keys for.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSettings {
    /// Taints that are tolerated; by default that of GPU nodes.
    pub tolerations: Vec<Toleration>,
    /// The priority class.
    pub priority_class_name: Option<String>,
    /// Secrets to pull images with.
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// What the caches of namespaces may download from. A key that is not known is an error here: mistyped, it would
/// allow what it was to forbid.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EgressSettings {
    /// Whether loopback, link-local and metadata addresses may be asked.
    pub internal_addresses: bool,
    /// Whether plain `http://` may be used where the platform has not named the endpoint.
    pub plain_http: bool,
    /// What their source URIs have to begin with; without it anything.
    pub uri_prefixes: Option<Vec<String>>,
}

/// Settings of the scrub.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScrubSettings {
    /// Seconds from one check of a copy to the next; a week without it.
    pub interval_in_secs: u32,
    /// The most that an agent reads in a second; 0 turns the scrub off.
    pub bytes_per_second: u64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct StorageInitializer {
    image: Option<String>,
    cpu_request: Option<String>,
    cpu_limit: Option<String>,
    memory_request: Option<String>,
    memory_limit: Option<String>,
    ca_bundle_config_map_name: Option<String>,
    ca_bundle_volume_mount_path: Option<String>,
}

impl StorageInitializer {
    /// What it names, else the defaults. A limit is never below its request.
    fn job_resources(&self) -> Result<JobResources, ConfigError> {
        let read = |named: &Option<String>, default: &str| {
            let text = named.as_deref().filter(|text| !text.is_empty()).unwrap_or(default);
            let problem = |error: quantity::InvalidQuantity| ConfigError {
                key: "storageInitializer",
                problem: error.to_string(),
            };
            quantity::bytes(&Quantity(text.into())).map(|_| text.to_owned()).map_err(problem)
        };
        let pair = |named: [&Option<String>; 2], defaults: &[String; 2]| {
            let request = read(named[0], &defaults[0])?;
            let limit = read(named[1], &defaults[1])?;
            let limit = quantity::larger(&limit, &request).to_owned();
            Ok([request, limit])
        };
        let defaults = JobResources::default();
        Ok(JobResources {
            cpu: pair([&self.cpu_request, &self.cpu_limit], &defaults.cpu)?,
            memory: pair([&self.memory_request, &self.memory_limit], &defaults.memory)?,
        })
    }

    fn ca_bundle(self) -> Option<CaBundle> {
        let set = |value: Option<String>| value.filter(|value| !value.is_empty());
        Some(CaBundle {
            config_map: set(self.ca_bundle_config_map_name)?,
            folder: set(self.ca_bundle_volume_mount_path).unwrap_or_else(|| CA_FOLDER.into()),
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            job_namespace: "kserve-localmodel-jobs".into(),
            default_job_image: None,
            fs_group: 1000,
            job_ttl_seconds: 3600,
            pass_interval_seconds: 60,
            disable_volume_management: false,
            agent_image: None,
            agent_image_pull_policy: None,
            agent_cpu_request: "100m".into(),
            agent_memory_request: "200Mi".into(),
            agent_cpu_limit: "100m".into(),
            agent_memory_limit: "300Mi".into(),
            pod: PodSettings::default(),
            namespace_storage_limit: None,
            scrub: ScrubSettings::default(),
            egress: EgressSettings::default(),
            storage_initializer_image: None,
            job_resources: JobResources::default(),
            ca_bundle: None,
            credentials: CredentialSettings::default(),
        }
    }
}

impl Default for PodSettings {
    fn default() -> Self {
        let gpu = Toleration {
            key: Some("nvidia.com/gpu".into()),
            operator: Some("Exists".into()),
            effect: Some("NoSchedule".into()),
            ..Toleration::default()
        };
        Self { tolerations: vec![gpu], priority_class_name: None, image_pull_secrets: Vec::new() }
    }
}

impl Default for ScrubSettings {
    fn default() -> Self {
        Self { interval_in_secs: 7 * 24 * 3600, bytes_per_second: 20_000_000 }
    }
}

impl From<&ScrubSettings> for scrub::Settings {
    fn from(settings: &ScrubSettings) -> Self {
        Self {
            interval: SignedDuration::from_secs(settings.interval_in_secs.into()),
            bytes_per_second: settings.bytes_per_second,
        }
    }
}

impl Config {
    /// Reads the ConfigMap. No map, or no section, means the defaults: nothing is downloaded.
    pub fn read(map: Option<&ConfigMap>) -> Result<Self, ConfigError> {
        let data = map.and_then(|m| m.data.as_ref());
        let section = |key: &str| data.and_then(|d| d.get(key)).map(String::as_str);
        let mut config: Self = parse("localModel", section("localModel"))?;
        if config.job_namespace.is_empty() {
            config.job_namespace = Self::default().job_namespace;
        }
        config.pass_interval_seconds = config.pass_interval_seconds.max(1);
        // A Job that went at once could tell no agent how it ended.
        config.job_ttl_seconds = config.job_ttl_seconds.max(60);
        if let Some(share) = &config.namespace_storage_limit {
            quantity::bytes(share).map_err(|error| ConfigError {
                key: "localModel",
                problem: format!("localModelNamespaceStorageLimit: {error}"),
            })?;
        }
        let initializer: StorageInitializer = parse("storageInitializer", section("storageInitializer"))?;
        config.storage_initializer_image = initializer.image.clone().filter(|image| !image.is_empty());
        config.job_resources = initializer.job_resources()?;
        config.ca_bundle = initializer.ca_bundle();
        config.credentials = parse("credentials", section("credentials"))?;
        Ok(config)
    }
}

fn parse<T: Default + serde::de::DeserializeOwned>(
    key: &'static str,
    text: Option<&str>,
) -> Result<T, ConfigError> {
    let Some(text) = text else { return Ok(T::default()) };
    serde_json::from_str(text).map_err(|e| ConfigError { key, problem: e.to_string() })
}

/// The agents' image. KServe's own agent cannot run as ours, so that the operator's image takes its
/// place; the second value is then the image that was left out.
pub fn agent_image<'a>(config: &'a Config, own: &'a str) -> (&'a str, Option<&'a str>) {
    let Some(wanted) = config.agent_image.as_deref().filter(|image| !image.is_empty()) else {
        return (own, None);
    };
    let repository = wanted.rsplit('/').next().unwrap_or(wanted);
    let name = repository.split(['@', ':']).next().unwrap_or(repository);
    if name == "kserve-localmodelnode-agent" { (own, Some(wanted)) } else { (wanted, None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(data: &serde_json::Value) -> ConfigMap {
        serde_json::from_value(json!({ "data": data })).unwrap()
    }

    #[test]
    fn what_namespaces_may_download_from_is_narrow_by_default_and_no_mistyped_key_opens_it() {
        let read = |section: &str| Config::read(Some(&map(&json!({"localModel": section}))));
        assert_eq!(read("{}").unwrap().egress, EgressSettings::default());
        let some =
            read(r#"{"localModelEgress": {"plainHttp": true, "uriPrefixes": ["hf://acme/"]}}"#).unwrap();
        let prefixes = Some(vec!["hf://acme/".to_owned()]);
        let wanted = EgressSettings { plain_http: true, uri_prefixes: prefixes, internal_addresses: false };
        assert_eq!(some.egress, wanted);
        let error = read(r#"{"localModelEgress": {"uriPrefix": ["hf://acme/"]}}"#).unwrap_err();
        assert!(error.to_string().contains("uriPrefix"), "{error}");
    }

    #[test]
    fn the_documented_section_is_read_as_it_stands() {
        let text = include_str!("../fixtures/walkthrough/inferenceservice-config.yaml");
        let data: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        let config = Config::read(Some(&map(&data))).unwrap();
        assert!(config.enabled);
        assert_eq!(config.job_namespace, "kserve-localmodel-jobs");
        assert_eq!(config.default_job_image.as_deref(), Some("kserve/storage-initializer:latest"));
        assert_eq!((config.fs_group, config.job_ttl_seconds, config.pass_interval_seconds), (1000, 3600, 60));
        assert_eq!(config.agent_memory_limit, "300Mi");
    }

    #[test]
    fn without_a_map_or_a_section_nothing_is_downloaded() {
        assert_eq!(Config::read(None), Ok(Config::default()));
        assert_eq!(Config::read(Some(&map(&json!({"other": "{}"})))), Ok(Config::default()));
        assert!(!Config::default().enabled);
    }

    #[test]
    fn the_scrub_reads_all_in_a_week_unless_told_otherwise() {
        let settings = |section: &str| {
            let config = Config::read(Some(&map(&json!({"localModel": section})))).unwrap();
            let scrub::Settings { interval, bytes_per_second } = (&config.scrub).into();
            (interval.as_secs(), bytes_per_second)
        };
        assert_eq!(settings("{}"), (604_800, 20_000_000));
        assert_eq!(settings(r#"{"localModelScrub": {"bytesPerSecond": 0}}"#), (604_800, 0));
        assert_eq!(settings(r#"{"localModelScrub": {"intervalInSecs": 60}}"#), (60, 20_000_000));
    }

    #[test]
    fn unknown_keys_are_ignored_and_unreadable_ones_named() {
        let config =
            Config::read(Some(&map(&json!({"localModel": r#"{"enabled": true, "new": 1}"#})))).unwrap();
        assert!(config.enabled);
        let error = Config::read(Some(&map(&json!({"localModel": r#"{"enabled": "yes"}"#})))).unwrap_err();
        assert_eq!(error.key, "localModel");
        assert!(error.to_string().contains("localModel") && error.to_string().contains("line 1"), "{error}");
    }

    #[test]
    fn kserves_section_of_credentials_is_read_as_kserve_ships_it() {
        let shipped = r#"{"storageSpecSecretName": "storage-config",
            "storageSecretNameAnnotation": "serving.kserve.io/storageSecretName",
            "gcs": {"gcsCredentialFileName": "gcloud-application-credentials.json"},
            "s3": {"s3AccessKeyIDName": "AWS_ACCESS_KEY_ID", "s3SecretAccessKeyName": "AWS_SECRET_ACCESS_KEY",
                "s3Endpoint": "", "s3VerifySSL": "0", "s3CABundle": "/ca", "s3CABundleConfigMap": "ca"}}"#;
        let config = Config::read(Some(&map(&json!({ "credentials": shipped })))).unwrap().credentials;
        assert_eq!(config.storage_spec_secret_name, "storage-config");
        assert_eq!(config.gcs.gcs_credential_file_name, "gcloud-application-credentials.json");
        let s3 = config.s3;
        assert_eq!((&*s3.s3_access_key_id_name, &*s3.s3_verify_ssl), ("AWS_ACCESS_KEY_ID", "0"));
        assert_eq!((&*s3.s3_ca_bundle, &*s3.s3_ca_bundle_config_map), ("/ca", "ca"));
        let error = Config::read(Some(&map(&json!({"credentials": "{"})))).unwrap_err();
        assert_eq!(error.key, "credentials");
    }

    #[test]
    fn kserves_bundle_of_authorities_is_read_and_an_empty_name_is_none() {
        let bundle = |section: &str| {
            let config = Config::read(Some(&map(&json!({ "storageInitializer": section })))).unwrap();
            config.ca_bundle.map(|bundle| (bundle.config_map, bundle.folder))
        };
        let shipped = r#"{"caBundleConfigMapName": "", "caBundleVolumeMountPath": "/etc/ssl/custom-certs"}"#;
        assert_eq!(bundle(shipped), None);
        assert_eq!(
            bundle(r#"{"caBundleConfigMapName": "ca"}"#),
            Some(("ca".to_owned(), "/etc/ssl/custom-certs".to_owned()))
        );
        let elsewhere = r#"{"caBundleConfigMapName": "ca", "caBundleVolumeMountPath": "/certs"}"#;
        assert_eq!(bundle(elsewhere), Some(("ca".to_owned(), "/certs".to_owned())));
    }

    #[test]
    fn requests_and_limits_of_jobs_are_those_of_kserves_initializer() {
        let resources = |section: &str| {
            Config::read(Some(&map(&json!({"storageInitializer": section}))))
                .map(|config| config.job_resources)
        };
        let shipped =
            r#"{"memoryRequest": "100Mi", "memoryLimit": "1Gi", "cpuRequest": "100m", "cpuLimit": "1"}"#;
        assert_eq!(resources(shipped), Ok(JobResources::default()));
        assert_eq!(resources("{}"), Ok(JobResources::default()));
        let named = resources(r#"{"memoryRequest": "2Gi", "cpuLimit": "500m", "cpuRequest": ""}"#).unwrap();
        assert_eq!(named.memory, ["2Gi", "2Gi"], "a limit is never below its request");
        assert_eq!(named.cpu, ["100m", "500m"]);
        let error = resources(r#"{"memoryLimit": "much"}"#).unwrap_err();
        assert_eq!(error.key, "storageInitializer");
        assert!(error.to_string().contains("\"much\" is not a quantity"), "{error}");
    }

    #[test]
    fn kserves_agent_image_is_replaced_by_ours_and_any_other_is_kept() {
        let with = |image: &str| Config { agent_image: Some(image.into()), ..Config::default() };
        for theirs in
            ["kserve/kserve-localmodelnode-agent:latest", "r.io:5000/x/kserve-localmodelnode-agent@sha256:00"]
        {
            assert_eq!(agent_image(&with(theirs), "ours:1"), ("ours:1", Some(theirs)));
        }
        assert_eq!(agent_image(&with("r.io/localmodel:2"), "ours:1"), ("r.io/localmodel:2", None));
        assert_eq!(agent_image(&Config::default(), "ours:1"), ("ours:1", None));
    }
}
