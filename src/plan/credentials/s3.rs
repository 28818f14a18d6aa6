//! What KServe says of S3 beside its keys: from annotations, else from the secret, else from the settings.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::{Injection, Origin};
use crate::config::S3Settings;

/// What KServe's annotations begin with.
const PREFIX: &str = "serving.kserve.io/";
/// The settings that are handed on as they are: annotation, and variable, which is also the secret's key.
const PLAIN: [(&str, &str); 7] = [
    ("s3-verifyssl", "S3_VERIFY_SSL"),
    ("s3-useanoncredential", "awsAnonymousCredential"),
    ("s3-region", "AWS_DEFAULT_REGION"),
    ("s3-usevirtualbucket", "S3_USER_VIRTUAL_BUCKET"),
    ("s3-useaccelerate", "S3_USE_ACCELERATE"),
    ("s3-cabundle", "AWS_CA_BUNDLE"),
    ("s3-cabundle-configmap", "AWS_CA_BUNDLE_CONFIGMAP"),
];

/// The keys under which a secret may hold the access key's name: the configured one; without it the one that
/// KServe knows by itself, and the one that it ships its settings with.
pub(super) fn access_key(settings: &S3Settings) -> impl Iterator<Item = &str> {
    names(&settings.s3_access_key_id_name, ["awsAccessKeyID", "AWS_ACCESS_KEY_ID"])
}

/// The same for the secret access key.
pub(super) fn secret_key(settings: &S3Settings) -> impl Iterator<Item = &str> {
    names(&settings.s3_secret_access_key_name, ["awsSecretAccessKey", "AWS_SECRET_ACCESS_KEY"])
}

fn names<'a>(configured: &'a str, usual: [&'a str; 2]) -> impl Iterator<Item = &'a str> {
    let usual = usual.into_iter().filter(|_| configured.is_empty());
    Some(configured).filter(|name| !name.is_empty()).into_iter().chain(usual)
}

/// Adds what is said of S3 beside its keys.
pub(super) fn settings(
    annotations: &BTreeMap<String, String>,
    secret: Option<&Secret>,
    settings: &S3Settings,
    injection: &mut Injection,
) {
    let said = Said { annotations, secret };
    said.endpoint(settings, injection);
    let defaults = [
        &settings.s3_verify_ssl,
        &settings.s3_use_anonymous_credential,
        &settings.s3_region,
        &settings.s3_use_virtual_bucket,
        &settings.s3_use_accelerate,
        &settings.s3_ca_bundle,
        &settings.s3_ca_bundle_config_map,
    ];
    for ((annotation, variable), default) in PLAIN.into_iter().zip(defaults) {
        if let Some(origin) = said.origin(annotation, variable, default) {
            injection.variables.insert(variable.to_owned(), origin);
        }
    }
}

struct Said<'a> {
    annotations: &'a BTreeMap<String, String>,
    secret: Option<&'a Secret>,
}

impl Said<'_> {
    fn annotation(&self, name: &str) -> Option<&String> {
        self.annotations.get(&format!("{PREFIX}{name}"))
    }

    fn data(&self, key: &str) -> Option<String> {
        let value = self.secret?.data.as_ref()?.get(key)?;
        Some(String::from_utf8_lossy(&value.0).into_owned())
    }

    fn origin(&self, annotation: &str, key: &str, default: &str) -> Option<Origin> {
        let text = |text: &str| Some(Origin::Text(text.to_owned())).filter(|_| !text.is_empty());
        if let Some(said) = self.annotation(annotation) {
            return text(said);
        }
        match (self.secret, self.data(key)) {
            (Some(secret), Some(value)) => {
                let origin = Origin::Key { secret: secret.name_any(), key: key.to_owned() };
                Some(origin).filter(|_| !value.is_empty())
            }
            _ => text(default),
        }
    }

    fn value(&self, annotation: &str, key: &str, default: &str) -> String {
        let said = self.annotation(annotation).cloned().or_else(|| self.data(key));
        said.unwrap_or_else(|| default.to_owned()).trim().to_owned()
    }

    /// The endpoint in the three forms that programs know it by: they are put together, so that they are
    /// text. An address is no secret.
    fn endpoint(&self, settings: &S3Settings, injection: &mut Injection) {
        let endpoint = self.value("s3-endpoint", "S3_ENDPOINT", &settings.s3_endpoint);
        if endpoint.is_empty() {
            return;
        }
        let scheme = endpoint.split_once("://").map(|(scheme, host)| (scheme.to_ascii_lowercase(), host));
        let (https, host, url) = match scheme {
            Some((scheme, host)) if scheme == "https" => ("1".to_owned(), host.to_owned(), endpoint.clone()),
            Some((scheme, host)) if scheme == "http" => ("0".to_owned(), host.to_owned(), endpoint.clone()),
            _ => {
                let https = self.value("s3-usehttps", "S3_USE_HTTPS", &settings.s3_use_https);
                let scheme = if https == "0" { "http" } else { "https" };
                (https, endpoint.clone(), format!("{scheme}://{endpoint}"))
            }
        };
        if !https.is_empty() {
            injection.text("S3_USE_HTTPS", https);
        }
        injection.text("S3_ENDPOINT", host);
        injection.text("AWS_ENDPOINT_URL", url);
    }
}
