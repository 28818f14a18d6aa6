//! Where a bucket of Google's is, and who asks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::RetryConfig;
use object_store::client::HttpRequest;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::identity::{self, Cached, Connector, told};
use super::{below, invalid};
use crate::download::error::{Error, Result};
use crate::download::settings::Settings;
use crate::download::shared::Store;
use crate::download::source::client::Client;
use crate::download::variables::Variables;

/// Google's own host.
const HOST: &str = "https://storage.googleapis.com";
/// Where a machine of Google's cloud gets its credentials.
const METADATA: &str = "metadata.google.internal:80";
/// What a token is asked for.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";
/// What a token that may become another account's is asked for.
const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
const FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const PATIENCE: Duration = Duration::from_secs(4);

/// A bucket.
#[derive(Debug)]
pub struct Gcs {
    bucket: String,
    base: Url,
    who: Who,
}

/// Who asks.
#[derive(Debug)]
enum Who {
    Nobody,
    /// A service account, a user, or the machine.
    Known {
        provider: GcpCredentialProvider,
        connector: Connector,
    },
    /// Somebody whom Google knows by another's word.
    External {
        external: Box<External>,
        client: Box<Client>,
        cached: Mutex<Option<Cached<String>>>,
    },
}

impl Gcs {
    /// The bucket, as these variables say.
    pub async fn new(bucket: &str, settings: &Settings) -> Result<Self> {
        let variables = &settings.variables;
        let emulator = variables
            .get("STORAGE_EMULATOR_HOST")
            .map(|host| if host.contains("://") { host.to_owned() } else { format!("http://{host}") });
        let text = emulator.as_deref().or(variables.get("GOOGLE_BASE_URL")).unwrap_or(HOST);
        let base = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let name = if emulator.is_some() { "STORAGE_EMULATOR_HOST" } else { "GOOGLE_BASE_URL" };
        let base = base.ok_or_else(|| invalid(name, "it has to look like https://host".to_owned()))?;
        let who = if emulator.is_some() { Who::Nobody } else { who(bucket, settings).await? };
        Ok(Self { bucket: bucket.to_owned(), base, who })
    }

    /// Whether requests carry a token.
    pub fn signs(&self) -> bool {
        !matches!(self.who, Who::Nobody)
    }

    /// The address of an object, or of the bucket where the key is empty.
    pub fn url(&self, key: &str) -> Url {
        below(&self.base, [self.bucket.as_str(), key])
    }

    /// Puts a token into a request.
    pub async fn sign(&self, request: &mut HttpRequest, place: &str) -> Result<()> {
        let bearer = match &self.who {
            Who::Nobody => return Ok(()),
            Who::Known { provider, connector } => {
                connector.identity(place, provider.get_credential()).await?.bearer.clone()
            }
            Who::External { external, client, cached } => {
                let mut cached = cached.lock().await;
                if let Some(token) = cached.as_ref().and_then(Cached::get) {
                    token.as_ref().clone()
                } else {
                    let (token, until) = external.token(client, place).await?;
                    *cached = Some(Cached::new(Arc::new(token.clone()), Some(until)));
                    token
                }
            }
        };
        let mut header = bearer_header(&bearer)?;
        header.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, header);
        Ok(())
    }
}

fn bearer_header(token: &str) -> Result<HeaderValue> {
    let why = "its token holds characters that no header has".to_owned();
    HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| invalid(FILE, why))
}

/// Who asks, by what these variables name.
async fn who(bucket: &str, settings: &Settings) -> Result<Who> {
    let variables = &settings.variables;
    let file = variables.get(FILE);
    if let Some(external) = file.map(|file| External::read(Path::new(file))).transpose()?.flatten() {
        if variables.has_own(Store::Gcs) {
            // It would send a file of this process, or the answer of a service beside it, to whoever it names.
            let why =
                "the cache of a namespace needs the key of a service account, and not an external_account";
            return Err(invalid(FILE, why.to_owned()));
        }
        let client = Box::new(Client::for_identity(settings, &settings.trust, Store::Gcs)?);
        return Ok(Who::External { external: Box::new(external), client, cached: Mutex::default() });
    }
    let key = variables.get("GOOGLE_SERVICE_ACCOUNT_KEY");
    let paths = ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"];
    let path = paths.into_iter().find_map(|name| variables.get(name));
    let named = key.is_some() || path.is_some() || file.is_some();
    if !named && (variables.has_own(Store::Gcs) || !has_metadata(variables).await) {
        // As KServe does it.
        return Ok(Who::Nobody);
    }
    let client = Client::for_identity(settings, &settings.trust, Store::Gcs)?;
    let connector = Connector::new(Arc::new(client));
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_retry(RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() })
        .with_http_connector(connector.clone());
    match (key, path, file) {
        (Some(key), ..) => builder = builder.with_service_account_key(key),
        // KServe hands the key itself on in the variable that others use for its file.
        (None, Some(key), _) if key.starts_with('{') => builder = builder.with_service_account_key(key),
        (None, Some(path), _) => builder = builder.with_service_account_path(path),
        (None, None, Some(file)) => builder = builder.with_application_credentials(file),
        (None, None, None) => {}
    }
    let store = builder.build().map_err(|error| invalid("the account for Google's storage", why(&error)))?;
    Ok(Who::Known { provider: Arc::clone(store.credentials()), connector })
}

/// What a client cannot be made of. What cannot be read as a key may be one that is only written wrongly.
fn why(error: &object_store::Error) -> String {
    const UNREADABLE: &str = "Unable to decode service account file";
    let text = told(error);
    text.split_once(UNREADABLE).map_or(text.clone(), |(before, _)| format!("{before}{UNREADABLE}"))
}

/// Whether this machine is one of Google's cloud, which has credentials by itself.
async fn has_metadata(variables: &Variables) -> bool {
    let named = variables.get("GCE_METADATA_HOST");
    let host = match named {
        Some(host) if host.contains(':') => host.to_owned(),
        Some(host) => format!("{host}:80"),
        None => METADATA.to_owned(),
    };
    timeout(Duration::from_secs(2), TcpStream::connect(host)).await.is_ok_and(|connected| connected.is_ok())
}

/// A file that says by whose word Google knows its holder (workload identity federation).
#[derive(Debug, Deserialize)]
struct External {
    audience: String,
    subject_token_type: String,
    token_url: String,
    service_account_impersonation_url: Option<String>,
    credential_source: Subject,
}

/// Where the word is.
#[derive(Debug, Deserialize)]
struct Subject {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    format: Format,
}

/// How the word is written.
#[derive(Debug, Default, Deserialize)]
struct Format {
    #[serde(default)]
    r#type: String,
    subject_token_field_name: Option<String>,
}

#[derive(Deserialize)]
struct Exchanged {
    access_token: String,
    #[serde(default = "an_hour")]
    expires_in: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: String,
    expire_time: jiff::Timestamp,
}

fn an_hour() -> u64 {
    3600
}

impl External {
    /// The file, if it is of this kind.
    fn read(path: &Path) -> Result<Option<Self>> {
        let text = std::fs::read(path).map_err(|error| Error::disk("read", path, error))?;
        // What stands there may be a secret.
        let wrong = |why: &str| invalid(FILE, format!("{} {why}", path.display()));
        let json: Value = serde_json::from_slice(&text).map_err(|_| wrong("is no JSON"))?;
        match json["type"].as_str() {
            Some("external_account") => {}
            Some("service_account" | "authorized_user") | None => return Ok(None),
            Some(_) => {
                let kinds = "is of another type than service_account, authorized_user and external_account";
                return Err(wrong(kinds));
            }
        }
        let external: Self =
            serde_json::from_value(json).map_err(|_| wrong("does not say who its holder is"))?;
        let source = &external.credential_source;
        if source.file.is_none() && source.url.is_none() {
            return Err(wrong(
                "has a credential_source that is neither a file nor a url, which are supported",
            ));
        }
        Ok(Some(external))
    }

    /// A token, and when it ends.
    async fn token(&self, client: &Client, place: &str) -> Result<(String, SystemTime)> {
        let subject = self.subject(client, place).await?;
        let scope = if self.service_account_impersonation_url.is_some() { CLOUD } else { SCOPE };
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", self.audience.as_str()),
            ("scope", scope),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token_type", self.subject_token_type.as_str()),
            ("subject_token", subject.as_str()),
        ];
        let request = identity::post_form(client, &self.token_url, &form).build();
        let Exchanged { access_token, expires_in } = ask(client, request, &self.token_url, place).await?;
        let until = SystemTime::now() + Duration::from_secs(expires_in.min(86_400));
        let Some(url) = &self.service_account_impersonation_url else { return Ok((access_token, until)) };
        let body = serde_json::json!({"scope": [SCOPE], "lifetime": "3600s"}).to_string();
        let request = client
            .request(Method::POST, url)
            .header(AUTHORIZATION, bearer_header(&access_token)?)
            .header(ACCEPT, "application/json")
            .header("Content-Type", "application/json")
            .body(body)
            .build();
        let Impersonated { access_token, expire_time } = ask(client, request, url, place).await?;
        Ok((access_token, expire_time.into()))
    }

    /// The word by which Google knows the holder.
    async fn subject(&self, client: &Client, place: &str) -> Result<String> {
        let Subject { file, url, headers, format } = &self.credential_source;
        let text = match (file, url) {
            (Some(path), _) => {
                std::fs::read(path).map_err(|error| Error::disk("read the token", path, error))?
            }
            (None, url) => {
                let url = url.as_deref().unwrap_or_default();
                let request =
                    headers.iter().fold(client.request(Method::GET, url), |request, (name, value)| {
                        request.header(name, value)
                    });
                let request = request.build().map_err(|_| identity::odd(url, "it cannot be asked for"))?;
                identity::send(client, request, PATIENCE, place).await?
            }
        };
        let text = String::from_utf8(text).unwrap_or_default();
        let token = if format.r#type == "json" {
            let field = format.subject_token_field_name.as_deref().unwrap_or("access_token");
            let json: Value = serde_json::from_str(&text).unwrap_or_default();
            json[field].as_str().unwrap_or_default().to_owned()
        } else {
            text.trim().to_owned()
        };
        if token.is_empty() {
            Err(invalid(FILE, "its credential_source holds no token".to_owned()))
        } else {
            Ok(token)
        }
    }
}

async fn ask<T: serde::de::DeserializeOwned>(
    client: &Client,
    request: reqwest::Result<reqwest::Request>,
    url: &str,
    place: &str,
) -> Result<T> {
    let request = request.map_err(|_| identity::odd(url, "it cannot be asked for"))?;
    let body = identity::send(client, request, PATIENCE, place).await?;
    serde_json::from_slice(&body).map_err(|_| identity::odd(url, "it holds no token"))
}
