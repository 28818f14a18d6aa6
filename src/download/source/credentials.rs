//! Clients of object stores with the credentials that the environment names, as KServe's storage initializer
//! reads it.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::objects::{Connector, told};
use super::uri::{Account, Bucket};
use crate::download::error::{Error, Result};
use crate::download::variables::Variables;

/// Where a machine of Google's cloud gets its credentials.
const METADATA: &str = "metadata.google.internal:80";

/// Opens a bucket.
pub(super) async fn open(
    bucket: &Bucket,
    variables: &Variables,
    connector: Connector,
) -> Result<Arc<dyn ObjectStore>> {
    match &bucket.account {
        Account::S3 => s3(&bucket.name, variables, connector),
        Account::Gcs => gcs(&bucket.name, variables, connector).await,
        Account::Azure { name, signature } => {
            azure(&bucket.name, (name.as_deref(), signature.as_deref()), variables, connector)
        }
    }
}

/// Trying again is the engine's, which does it for all sources alike.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

fn s3(bucket: &str, variables: &Variables, connector: Connector) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_region("us-east-1");
    for (name, value) in variables.beginning_with("AWS_") {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let virtual_host = variables.is_true("S3_USER_VIRTUAL_BUCKET");
    if let Some(endpoint) = s3_endpoint(variables)? {
        let insecure = endpoint.scheme() == "http";
        let endpoint = if virtual_host { below(bucket, endpoint) } else { endpoint };
        let endpoint = endpoint.as_str().trim_end_matches('/').to_owned();
        builder = builder.with_endpoint(endpoint).with_allow_http(insecure);
    } else if variables.is_true("S3_USE_ACCELERATE") {
        builder = builder.with_endpoint(format!("https://{bucket}.s3-accelerate.amazonaws.com"));
    }
    let virtual_host = virtual_host || variables.is_true("S3_USE_ACCELERATE");
    let builder = builder
        .with_virtual_hosted_style_request(virtual_host)
        .with_skip_signature(variables.is_true("awsAnonymousCredential"))
        .with_retry(no_retries())
        .with_http_connector(connector);
    built(builder.build())
}

/// The endpoint, by the name that AWS gives it or by KServe's older ones.
fn s3_endpoint(variables: &Variables) -> Result<Option<Url>> {
    let (name, text) = match (variables.get("AWS_ENDPOINT_URL"), variables.get("S3_ENDPOINT")) {
        (Some(url), _) => ("AWS_ENDPOINT_URL", url.to_owned()),
        (None, Some(host)) if host.contains("://") => ("S3_ENDPOINT", host.to_owned()),
        (None, Some(host)) => {
            let scheme = if variables.is_false("S3_USE_HTTPS") { "http" } else { "https" };
            ("S3_ENDPOINT", format!("{scheme}://{host}"))
        }
        (None, None) => return Ok(None),
    };
    let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let why = "it has to look like https://host".to_owned();
    url.map(Some).ok_or(Error::InvalidSetting { name, why })
}

/// The endpoint with the bucket before its host, as virtual hosts have it.
fn below(bucket: &str, mut endpoint: Url) -> Url {
    let host = format!("{bucket}.{}", endpoint.host_str().unwrap_or_default());
    // A host that cannot have another before it, such as an address, stays as it is.
    let _ = endpoint.set_host(Some(&host));
    endpoint
}

async fn gcs(bucket: &str, variables: &Variables, connector: Connector) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_http_connector(connector);
    for (name, value) in variables.beginning_with("GOOGLE_") {
        if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(host) = variables.get("STORAGE_EMULATOR_HOST") {
        let url = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
        let options = ClientOptions::new().with_allow_http(true);
        builder = builder.with_base_url(&url).with_client_options(options).with_skip_signature(true);
    } else if variables.get("GOOGLE_APPLICATION_CREDENTIALS").is_none() && !has_metadata().await {
        builder = builder.with_skip_signature(true);
    }
    built(builder.build())
}

/// Whether this machine is one of Google's cloud, which has credentials by itself; else all is asked for
/// without any, as KServe does it.
async fn has_metadata() -> bool {
    timeout(Duration::from_secs(2), TcpStream::connect(METADATA))
        .await
        .is_ok_and(|connected| connected.is_ok())
}

fn azure(
    container: &str,
    (account, signature): (Option<&str>, Option<&str>),
    variables: &Variables,
    connector: Connector,
) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_retry(no_retries())
        .with_http_connector(connector);
    // The older of KServe's names first, so that the usual ones win.
    for (older, key) in [
        ("AZ_TENANT_ID", AzureConfigKey::AuthorityId),
        ("AZ_CLIENT_ID", AzureConfigKey::ClientId),
        ("AZ_CLIENT_SECRET", AzureConfigKey::ClientSecret),
        ("AZURE_STORAGE_ACCESS_KEY", AzureConfigKey::AccessKey),
    ] {
        if let Some(value) = variables.get(older) {
            builder = builder.with_config(key, value);
        }
    }
    for (name, value) in variables.beginning_with("AZURE_") {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    if let Some(signature) = signature {
        builder = builder.with_config(AzureConfigKey::SasKey, signature);
    }
    let insecure =
        builder.get_config_value(&AzureConfigKey::Endpoint).is_some_and(|url| url.starts_with("http:"));
    let known = [
        AzureConfigKey::AccessKey,
        AzureConfigKey::ClientId,
        AzureConfigKey::SasKey,
        AzureConfigKey::Token,
        AzureConfigKey::FederatedTokenFile,
        AzureConfigKey::MsiEndpoint,
    ];
    let anonymous = known.iter().all(|key| builder.get_config_value(key).is_none());
    built(builder.with_allow_http(insecure).with_skip_signature(anonymous).build())
}

fn built<S: ObjectStore>(built: object_store::Result<S>) -> Result<Arc<dyn ObjectStore>> {
    match built {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => {
            Err(Error::InvalidSetting { name: "the environment of the object store", why: why(&error) })
        }
    }
}

/// What a client cannot be made of. What cannot be read as a key may be one that is only written wrongly.
fn why(error: &object_store::Error) -> String {
    const UNREADABLE: &str = "Unable to decode service account file";
    let text = told(error);
    text.split_once(UNREADABLE).map_or(text.clone(), |(before, _)| format!("{before}{UNREADABLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_read_is_not_told() {
        let key = r#""-----BEGIN PRIVATE KEY-----hunter2""#;
        let builder = GoogleCloudStorageBuilder::new().with_bucket_name("b").with_service_account_key(key);
        let error = built(builder.build()).unwrap_err().to_string();
        assert!(error.contains("Unable to decode") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_endpoint_of_s3_is_found_by_both_of_its_names() {
        for (variables, expected) in [
            (vec![("AWS_ENDPOINT_URL", "http://minio:9000")], Some("http://minio:9000/")),
            (vec![("S3_ENDPOINT", "minio:9000"), ("S3_USE_HTTPS", "0")], Some("http://minio:9000/")),
            (vec![("S3_ENDPOINT", "minio:9000")], Some("https://minio:9000/")),
            (vec![], None),
        ] {
            let variables = match variables.as_slice() {
                [one] => Variables::try_from([*one]),
                [one, two] => Variables::try_from([*one, *two]),
                _ => Ok(Variables::default()),
            };
            let url = s3_endpoint(&variables.unwrap()).unwrap();
            assert_eq!(url.as_ref().map(Url::as_str), expected);
        }
        let wrong = Variables::try_from([("AWS_ENDPOINT_URL", "minio:9000")]).unwrap();
        assert!(s3_endpoint(&wrong).unwrap_err().to_string().starts_with("AWS_ENDPOINT_URL"));
    }

    #[test]
    fn a_virtual_host_has_the_bucket_before_it() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert_eq!(below("b", url("https://s3.eu.amazonaws.com")).as_str(), "https://b.s3.eu.amazonaws.com/");
    }
}
