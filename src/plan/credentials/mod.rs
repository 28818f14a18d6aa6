//! The credentials of a download Job, as KServe's credential builder injects them (K3): from an entry of the
//! storage secret, or from the secrets of a service account. A secret's values never stand in a Job: its
//! variables and files refer to their keys.

pub mod copy;
mod s3;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::names;
use super::pass::Problem;
use crate::api::cache::StorageSpec;
use crate::config::CredentialSettings;

/// KServe's name of the secret that `storage.key` is a key of.
const STORAGE_SECRET: &str = "storage-config";
/// KServe's key of a secret that holds credentials of Google's storage.
const GCS_FILE: &str = "gcloud-application-credentials.json";
/// The types of storage that an entry of the storage secret can be of.
const STORAGE_TYPES: [&str; 3] = ["s3", "hdfs", "webhdfs"];
/// The variables of Azure, and KServe's older key of each.
const AZURE: [(&str, Option<&str>); 9] = [
    ("AZURE_SUBSCRIPTION_ID", Some("AZ_SUBSCRIPTION_ID")),
    ("AZURE_TENANT_ID", Some("AZ_TENANT_ID")),
    ("AZURE_CLIENT_ID", Some("AZ_CLIENT_ID")),
    ("AZURE_CLIENT_SECRET", Some("AZ_CLIENT_SECRET")),
    ("AZURE_STORAGE_ACCESS_KEY", None),
    ("AZURE_ACCESS_TOKEN", None),
    ("AZURE_ACCESS_EXPIRES_ON_SECONDS", None),
    ("AZURE_ACCOUNT_NAME", None),
    ("AZURE_SERVICE_URL", None),
];
/// What KServe's storage initializer reads of a secret for HDFS.
const HDFS: [&str; 11] = [
    "HDFS_NAMENODE",
    "HDFS_ROOTPATH",
    "USER_PROXY",
    "HEADERS",
    "N_THREADS",
    "KERBEROS_PRINCIPAL",
    "KERBEROS_KEYTAB",
    "TLS_CERT",
    "TLS_KEY",
    "TLS_CA",
    "TLS_SKIP_VERIFY",
];
/// The volume of a file for Google's storage.
const GCS_VOLUME: &str = "user-gcp-sa";
/// The volume of files for HDFS.
const HDFS_VOLUME: &str = "hdfs-secrets";
/// Where KServe mounts which volume.
const FOLDERS: [(&str, &str); 2] =
    [(GCS_VOLUME, "/var/secrets"), (HDFS_VOLUME, "/var/secrets/kserve-hdfscreds")];
/// The annotation of a service account that takes a role of AWS's.
const AWS_ROLE: &str = "eks.amazonaws.com/role-arn";

/// What a cache says of its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish<'a> {
    /// Where they are kept.
    pub kept: Kept<'a>,
    /// What overrides them.
    pub parameters: Option<&'a BTreeMap<String, String>>,
}

/// Where credentials are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept<'a> {
    /// Under this key of the storage secret.
    Key(&'a str),
    /// In the secrets of this service account.
    Account(&'a str),
    /// In those of the namespace's own service account, if it has any.
    DefaultAccount,
}

/// What was read in the namespace of the credentials.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The namespace.
    pub namespace: String,
    /// The service account, if it is asked for and there.
    pub account: Option<ServiceAccount>,
    /// The secrets that are there, by name.
    pub secrets: BTreeMap<String, Secret>,
}

/// Where a variable's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Under a key of a secret.
    Key {
        /// The secret.
        secret: String,
        /// The key.
        key: String,
    },
    /// It is no secret.
    Text(String),
}

/// Files of a secret in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The folder.
    pub folder: String,
    /// The secret.
    pub secret: String,
    /// The keys and the files that they become, sorted.
    pub items: Vec<(String, String)>,
}

/// What a Job's container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// Variables by name.
    pub variables: BTreeMap<String, Origin>,
    /// Files by the name of their volume.
    pub volumes: BTreeMap<String, Files>,
}

/// What a cache says of its credentials, if it says anything. The key goes before the account, as in KServe.
pub fn wish<'a>(account: Option<&'a str>, storage: Option<&'a StorageSpec>) -> Option<Wish<'a>> {
    let account = account.filter(|name| !name.is_empty());
    let key = storage.and_then(|storage| storage.key.as_deref()).filter(|key| !key.is_empty());
    let kept = match (key, account) {
        (Some(key), _) => Kept::Key(key),
        (None, Some(account)) => Kept::Account(account),
        (None, None) => Kept::DefaultAccount,
    };
    let parameters = storage.and_then(|storage| storage.parameters.as_ref()).filter(|all| !all.is_empty());
    (account.is_some() || storage.is_some()).then_some(Wish { kept, parameters })
}

/// The secret that `storage.key` is a key of.
pub fn storage_secret(settings: &CredentialSettings) -> &str {
    Some(&*settings.storage_spec_secret_name).filter(|name| !name.is_empty()).unwrap_or(STORAGE_SECRET)
}

/// The secrets that a service account names.
pub fn secrets_of(account: &ServiceAccount) -> Vec<String> {
    account.secrets.iter().flatten().filter_map(|secret| secret.name.clone()).collect()
}

/// What the wish comes to, or why the download cannot begin.
pub fn injection(wish: &Wish, found: &Found, settings: &CredentialSettings) -> Result<Injection, Problem> {
    let mut injection = Injection::default();
    match wish.kept {
        Kept::Key(key) => from_key(key, wish.parameters, found, settings, &mut injection)?,
        Kept::Account(name) => {
            let account = found.account.as_ref().ok_or_else(|| no_account(name, &found.namespace))?;
            from_account(account, found, settings, &mut injection)?;
        }
        Kept::DefaultAccount => {
            if let Some(account) = &found.account {
                from_account(account, found, settings, &mut injection)?;
            }
        }
    }
    if let Some(parameters) = wish.parameters {
        injection.text("STORAGE_OVERRIDE_CONFIG", json!(parameters).to_string());
    }
    Ok(injection)
}

fn from_key(
    key: &str,
    parameters: Option<&BTreeMap<String, String>>,
    found: &Found,
    settings: &CredentialSettings,
    injection: &mut Injection,
) -> Result<(), Problem> {
    let name = storage_secret(settings);
    let secret = found.secret(name, &format!("storage.key {key:?} is a key of it"))?;
    let entry = found.value(secret, key, "the cache's storage.key names it")?;
    let of_parameters = parameters.and_then(|all| all.get("type"));
    let invalid = |why: String| {
        let place = format!("key {key:?} of Secret {}/{name}", found.namespace);
        Problem::new("SecretInvalid", format!("{place} {why}"))
    };
    // What stands there is a secret: it is told where it is wrong, not what it says.
    let entry: Map<String, Value> = serde_json::from_slice(&entry.0).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        invalid(format!("is not a JSON object of names and values: see line {line}, column {column}"))
    })?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let known = STORAGE_TYPES.join(", ");
    match of_parameters.map(String::as_str).or(text("type")) {
        Some(kind) if STORAGE_TYPES.contains(&kind) => {}
        Some(_) => return Err(invalid(format!("has a \"type\" that is none of {known}"))),
        None => return Err(invalid(format!("has no \"type\": give it one of {known}"))),
    }
    injection.key("STORAGE_CONFIG", name, key);
    if let Some(bundle) = text("cabundle_configmap") {
        injection.text("AWS_CA_BUNDLE_CONFIGMAP", bundle.to_owned());
    }
    Ok(())
}

fn from_account(
    account: &ServiceAccount,
    found: &Found,
    settings: &CredentialSettings,
    injection: &mut Injection,
) -> Result<(), Problem> {
    if account.annotations().contains_key(AWS_ROLE) {
        s3::settings(account.annotations(), None, &settings.s3, injection);
    }
    for name in secrets_of(account) {
        let secret = found.secret(&name, &format!("service account {} names it", account.name_any()))?;
        from_secret(secret, found, settings, injection)?;
    }
    Ok(())
}

/// What a secret holds is told by its keys, in KServe's order; one that holds nothing known is left out.
fn from_secret(
    secret: &Secret,
    found: &Found,
    settings: &CredentialSettings,
    injection: &mut Injection,
) -> Result<(), Problem> {
    let name = secret.name_any();
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    let gcs = Some(&*settings.gcs.gcs_credential_file_name).filter(|key| !key.is_empty()).unwrap_or(GCS_FILE);
    let s3 = s3::secret_key(&settings.s3).find(|key| has(key));
    if let Some(secret_key) = s3 {
        let known: Vec<&str> = s3::access_key(&settings.s3).collect();
        let access_key = known.iter().copied().find(|key| has(key));
        let access_key =
            access_key.ok_or_else(|| found.no_key(&name, &known.join(" or "), "it is for S3"))?;
        injection.key("AWS_ACCESS_KEY_ID", &name, access_key);
        injection.key("AWS_SECRET_ACCESS_KEY", &name, secret_key);
        s3::settings(secret.annotations(), Some(secret), &settings.s3, injection);
    } else if has(gcs) {
        injection.files(FOLDERS[0], &name, vec![gcs.to_owned()]);
        injection.text("GOOGLE_APPLICATION_CREDENTIALS", format!("/var/secrets/{gcs}"));
    } else if ["AZ_CLIENT_ID", "AZURE_CLIENT_ID", "AZURE_ACCESS_TOKEN"].into_iter().any(has) {
        for (variable, older) in AZURE {
            let key = older.filter(|key| has(key)).or(Some(variable).filter(|key| has(key)));
            if let Some(key) = key {
                injection.key(variable, &name, key);
            }
        }
    } else if has("AZURE_STORAGE_ACCESS_KEY") {
        injection.key("AZURE_STORAGE_ACCESS_KEY", &name, "AZURE_STORAGE_ACCESS_KEY");
    } else if has("https-host") {
        let host = found.value(secret, "https-host", "it is for a web server")?;
        found.value(secret, "headers", "it is for a web server")?;
        let host = String::from_utf8_lossy(&host.0).trim().to_owned();
        if !is_host(&host) {
            let place = format!("key \"https-host\" of Secret {}/{name}", found.namespace);
            return Err(Problem::new("SecretInvalid", format!("{place} is no host name")));
        }
        injection.key(&format!("{host}-headers"), &name, "headers");
    } else if has("HDFS_NAMENODE") {
        let keys = HDFS.into_iter().filter(|key| has(key)).map(Into::into).collect();
        injection.files(FOLDERS[1], &name, keys);
    } else if has("HF_TOKEN") {
        injection.key("HF_TOKEN", &name, "HF_TOKEN");
    }
    Ok(())
}

/// What can begin the name of a variable, and is a host's.
fn is_host(host: &str) -> bool {
    let is_of_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !host.is_empty() && host.len() <= 240 && host.bytes().all(is_of_host)
}

fn no_account(name: &str, namespace: &str) -> Problem {
    let message = format!(
        "ServiceAccount {name} does not exist in namespace {namespace}: make it, or take it out of the cache's serviceAccountName"
    );
    Problem::new("ServiceAccountNotFound", message)
}

impl Found {
    fn secret(&self, name: &str, why: &str) -> Result<&Secret, Problem> {
        self.secrets.get(name).ok_or_else(|| {
            let message =
                format!("Secret {name} does not exist in namespace {}: make it ({why})", self.namespace);
            Problem::new("SecretNotFound", message)
        })
    }

    fn value<'a>(&self, secret: &'a Secret, key: &str, why: &str) -> Result<&'a ByteString, Problem> {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value.ok_or_else(|| self.no_key(&secret.name_any(), &format!("{key:?}"), why))
    }

    fn no_key(&self, secret: &str, key: &str, why: &str) -> Problem {
        let message = format!("Secret {}/{secret} has no key {key}: add it ({why})", self.namespace);
        Problem::new("SecretKeyNotFound", message)
    }
}

impl Injection {
    fn key(&mut self, variable: &str, secret: &str, key: &str) {
        let origin = Origin::Key { secret: secret.to_owned(), key: key.to_owned() };
        self.variables.insert(variable.to_owned(), origin);
    }

    fn text(&mut self, variable: &str, text: String) {
        self.variables.insert(variable.to_owned(), Origin::Text(text));
    }

    /// Puts keys of a secret into a folder; of several secrets of one kind the first counts, as in KServe.
    fn files(&mut self, (volume, folder): (&str, &str), secret: &str, keys: Vec<String>) {
        let items = keys.into_iter().map(|key| (key.clone(), key)).collect();
        let files = Files { folder: folder.to_owned(), secret: secret.to_owned(), items };
        self.volumes.entry(volume.to_owned()).or_insert(files);
    }

    /// The variables as a container has them.
    pub fn env(&self) -> Vec<Value> {
        let variable = |(name, origin): (&String, &Origin)| match origin {
            Origin::Text(text) => json!({"name": name, "value": names::literal(text)}),
            Origin::Key { secret, key } => {
                json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
            }
        };
        self.variables.iter().map(variable).collect()
    }

    /// The mounts as a container has them.
    pub fn mounts(&self) -> Vec<Value> {
        let mount = |(name, files): (&String, &Files)| json!({"name": name, "mountPath": files.folder, "readOnly": true});
        self.volumes.iter().map(mount).collect()
    }

    /// The volumes as a pod has them: with no more of a secret than is needed.
    pub fn pod_volumes(&self) -> Vec<Value> {
        let item = |(key, path): &(String, String)| json!({"key": key, "path": path});
        let volume = |(name, files): (&String, &Files)| {
            let items: Vec<Value> = files.items.iter().map(item).collect();
            json!({"name": name, "secret": {"secretName": files.secret, "items": items}})
        };
        self.volumes.iter().map(volume).collect()
    }
}

#[cfg(test)]
mod tests;
