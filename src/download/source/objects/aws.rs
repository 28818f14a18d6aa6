//! Who a process is for AWS: keys, a role by web identity (IRSA), a container's identity (EKS, ECS), or that of
//! the machine, in this order, as boto3 looks for them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::aws::AwsCredential;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::identity::{self, Cached};
use super::invalid;
use super::xml::texts;
use crate::download::error::{Error, Result};
use crate::download::settings::Settings;
use crate::download::shared::Store;
use crate::download::source::client::Client;
use crate::download::variables::Variables;

/// Where a machine of AWS's has its metadata.
const METADATA: &str = "http://169.254.169.254";
/// Where a container of ECS has its own.
const CONTAINER: &str = "http://169.254.170.2";
/// The machine's own service answers at once, or is not there.
const METADATA_PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(4);

/// Credentials, asked for when they are needed and kept until shortly before they end.
#[derive(Debug)]
pub struct Credentials {
    source: Source,
    client: Box<Client>,
    cached: Mutex<Option<Cached<AwsCredential>>>,
}

/// Where credentials come from.
#[derive(Debug)]
enum Source {
    Keys(Arc<AwsCredential>),
    WebIdentity { token: PathBuf, role: String, session: String, endpoint: String },
    Container { url: Url, token: Option<Token> },
    Machine { endpoint: String },
}

/// What a container shows for its identity.
enum Token {
    File(PathBuf),
    Text(String),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}

/// Credentials as containers and machines have them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Issued {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<jiff::Timestamp>,
}

impl Credentials {
    /// What the variables name; `sts` is the token service of the region.
    pub fn from_env(settings: &Settings, sts: &str) -> Result<Self> {
        let source = source(&settings.variables, sts)?;
        let trust = settings.trust.for_s3(&settings.variables);
        let client = Box::new(Client::for_identity(settings, &trust, Store::S3)?);
        Ok(Self { source, client, cached: Mutex::default() })
    }

    /// The credentials; `place` is what they are for.
    pub async fn get(&self, place: &str) -> Result<Arc<AwsCredential>> {
        let mut cached = self.cached.lock().await;
        if let Some(found) = cached.as_ref().and_then(Cached::get) {
            return Ok(found);
        }
        let (credential, until) = self.ask(place).await?;
        check("AWS_ACCESS_KEY_ID", &credential.key_id)?;
        check("AWS_SESSION_TOKEN", credential.token.as_deref().unwrap_or_default())?;
        let credential = Arc::new(credential);
        *cached = Some(Cached::new(Arc::clone(&credential), until));
        Ok(credential)
    }

    async fn ask(&self, place: &str) -> Result<(AwsCredential, Option<SystemTime>)> {
        match &self.source {
            Source::Keys(keys) => {
                let AwsCredential { key_id, secret_key, token } = keys.as_ref();
                let keys = AwsCredential {
                    key_id: key_id.clone(),
                    secret_key: secret_key.clone(),
                    token: token.clone(),
                };
                Ok((keys, None))
            }
            Source::WebIdentity { token, role, session, endpoint } => {
                let token = identity::token(token)?;
                let form = [
                    ("Action", "AssumeRoleWithWebIdentity"),
                    ("Version", "2011-06-15"),
                    ("DurationSeconds", "3600"),
                    ("RoleArn", role),
                    ("RoleSessionName", session),
                    ("WebIdentityToken", &token),
                ];
                let request = identity::post_form(&self.client, endpoint, &form);
                assumed(&self.send(place, request, PATIENCE).await?)
                    .ok_or_else(|| identity::odd(endpoint, "it holds no credentials"))
            }
            Source::Container { url, token } => {
                let mut request = self.client.request(Method::GET, url.clone());
                if let Some(token) = token {
                    request = request.header(AUTHORIZATION, token.header()?);
                }
                issued(url.as_str(), &self.send(place, request, PATIENCE).await?)
            }
            Source::Machine { endpoint } => self.of_machine(place, endpoint).await.map_err(|error| {
                let why = format!(
                    "no variable names any (AWS_ACCESS_KEY_ID, AWS_ROLE_ARN), and the machine has none ({error})"
                );
                Error::NoCredentials { place: place.to_owned(), why }
            }),
        }
    }

    /// The machine's role: by a token where its service gives one, else as its first version has it.
    async fn of_machine(&self, place: &str, endpoint: &str) -> Result<(AwsCredential, Option<SystemTime>)> {
        let roles = format!("{endpoint}/latest/meta-data/iam/security-credentials/");
        let token = self
            .client
            .request(Method::PUT, format!("{endpoint}/latest/api/token"))
            .header("X-aws-ec2-metadata-token-ttl-seconds", "600");
        let token = match self.send(place, token, METADATA_PATIENCE).await {
            Ok(token) => HeaderValue::from_bytes(token.trim_ascii()).ok(),
            Err(
                Error::Passing { .. }
                | Error::StoreRefused { .. }
                | Error::NoObjects { .. }
                | Error::Refused { .. },
            ) => None,
            Err(error) => return Err(error),
        };
        let get = async |url: &str| {
            let mut request = self.client.request(Method::GET, url);
            if let Some(token) = &token {
                request = request.header("X-aws-ec2-metadata-token", token);
            }
            self.send(place, request, METADATA_PATIENCE).await
        };
        let role = get(&roles).await?;
        let role = String::from_utf8_lossy(&role);
        let role = role.lines().next().unwrap_or_default().trim();
        let url = format!("{roles}{role}");
        issued(&url, &get(&url).await?)
    }

    /// Sends a request; gives the body of an answer that is a good one.
    async fn send(&self, place: &str, request: RequestBuilder, patience: Duration) -> Result<Vec<u8>> {
        let request =
            request.build().map_err(|error| identity::odd("the identity's address", &error.to_string()))?;
        identity::send(&self.client, request, patience, place).await
    }
}

impl Token {
    fn header(&self) -> Result<HeaderValue> {
        let text = match self {
            Self::File(path) => identity::token(path)?,
            Self::Text(text) => text.clone(),
        };
        let mut header = HeaderValue::from_str(&text).map_err(|_| {
            invalid("AWS_CONTAINER_AUTHORIZATION_TOKEN", "it holds characters that no token has".into())
        })?;
        header.set_sensitive(true);
        Ok(header)
    }
}

fn source(variables: &Variables, sts: &str) -> Result<Source> {
    let owned = |name: &str| variables.get(name).map(str::to_owned);
    match (owned("AWS_ACCESS_KEY_ID"), owned("AWS_SECRET_ACCESS_KEY")) {
        (Some(key_id), Some(secret_key)) => {
            let token = owned("AWS_SESSION_TOKEN").or_else(|| owned("AWS_SECURITY_TOKEN"));
            return Ok(Source::Keys(Arc::new(AwsCredential { key_id, secret_key, token })));
        }
        (Some(_), None) => {
            return Err(invalid("AWS_SECRET_ACCESS_KEY", "it is not set, AWS_ACCESS_KEY_ID is".into()));
        }
        (None, Some(_)) => {
            return Err(invalid("AWS_ACCESS_KEY_ID", "it is not set, AWS_SECRET_ACCESS_KEY is".into()));
        }
        (None, None) => {}
    }
    if let (Some(token), Some(role)) = (owned("AWS_WEB_IDENTITY_TOKEN_FILE"), owned("AWS_ROLE_ARN")) {
        let session = owned("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "localmodel".to_owned());
        let endpoint = owned("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| sts.to_owned());
        return Ok(Source::WebIdentity { token: token.into(), role, session, endpoint });
    }
    let relative = owned("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{CONTAINER}{path}"));
    if let Some(url) = relative.or_else(|| owned("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
        let why = "it is not the address of a service";
        let url =
            Url::parse(&url).map_err(|_| invalid("AWS_CONTAINER_CREDENTIALS_FULL_URI", why.to_owned()))?;
        let file = owned("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| Token::File(path.into()));
        let token = file.or_else(|| owned("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Token::Text));
        return Ok(Source::Container { url, token });
    }
    if variables.is_true("AWS_EC2_METADATA_DISABLED") {
        let why =
            "no variable names any, and AWS_EC2_METADATA_DISABLED forbids to ask the machine".to_owned();
        return Err(Error::NoCredentials { place: "the bucket".to_owned(), why });
    }
    let named = ["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"].into_iter().find_map(owned);
    let endpoint = named.unwrap_or_else(|| METADATA.to_owned()).trim_end_matches('/').to_owned();
    Ok(Source::Machine { endpoint })
}

/// The credentials in the answer of the token service.
fn assumed(xml: &[u8]) -> Option<(AwsCredential, Option<SystemTime>)> {
    let names = ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"];
    let [key_id, secret_key, token, until] = texts(xml, names);
    let until = until.and_then(|until| until.parse::<jiff::Timestamp>().ok()).map(SystemTime::from);
    Some((AwsCredential { key_id: key_id?, secret_key: secret_key?, token }, until))
}

fn issued(url: &str, json: &[u8]) -> Result<(AwsCredential, Option<SystemTime>)> {
    // The text may hold a secret: what is wrong is told, not what stands there.
    let Issued { access_key_id: key_id, secret_access_key: secret_key, token, expiration } =
        serde_json::from_slice(json).map_err(|_| identity::odd(url, "it holds no credentials"))?;
    Ok((AwsCredential { key_id, secret_key, token }, expiration.map(SystemTime::from)))
}

/// A value that goes into a header.
fn check(name: &'static str, value: &str) -> Result<()> {
    HeaderValue::from_str(value)
        .map(|_| ())
        .map_err(|_| invalid(name, "it holds characters that no header has".to_owned()))
}
