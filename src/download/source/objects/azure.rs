//! Where a container of Azure's is, and who asks.

use std::sync::Arc;
use std::time::Duration;

use object_store::RetryConfig;
use object_store::azure::{
    AzureAuthorizer, AzureConfigKey, AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder,
};
use object_store::client::HttpRequest;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::identity::{Connector, told};
use super::{below, invalid};
use crate::download::error::Result;
use crate::download::settings::Settings;
use crate::download::shared::Store;
use crate::download::source::client::Client;

/// The version of the API, which every request names.
const VERSION: &str = "2023-11-03";

/// A container.
#[derive(Debug)]
pub struct Azure {
    container: String,
    account: String,
    base: Url,
    who: Who,
}

/// Who asks.
enum Who {
    Nobody,
    /// Whoever has this signature, which is sent as it is.
    Signature(String),
    Known {
        provider: AzureCredentialProvider,
        connector: Connector,
    },
}

impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Signature(_) => "Signature(…)",
            Self::Known { .. } => "Known",
        })
    }
}

/// Where an account is, by its URI.
#[derive(Clone, Copy, Debug)]
pub struct Where<'a> {
    /// The account, unless the variables name it.
    pub account: Option<&'a str>,
    /// The host of an `https` URI, which no variable replaces.
    pub host: Option<&'a str>,
    /// The same of an `abfs` URI.
    pub usual_host: Option<&'a str>,
    /// The URI's query.
    pub signature: Option<&'a str>,
}

impl Azure {
    /// The container, as its URI and the variables say.
    pub fn new(container: &str, uri: Where<'_>, settings: &Settings) -> Result<Self> {
        let mut builder = MicrosoftAzureBuilder::new().with_container_name(container);
        // The older of KServe's names first, so that the usual ones win.
        for (older, key) in [
            ("AZ_TENANT_ID", AzureConfigKey::AuthorityId),
            ("AZ_CLIENT_ID", AzureConfigKey::ClientId),
            ("AZ_CLIENT_SECRET", AzureConfigKey::ClientSecret),
            ("AZURE_STORAGE_ACCESS_KEY", AzureConfigKey::AccessKey),
            ("AZURE_ACCOUNT_NAME", AzureConfigKey::AccountName),
        ] {
            if let Some(value) = settings.variables.get(older) {
                builder = builder.with_config(key, value);
            }
        }
        for (name, value) in settings.variables.beginning_with("AZURE_") {
            match name.to_ascii_lowercase().parse() {
                // What is asked for is the URI's word alone.
                Ok(
                    AzureConfigKey::ContainerName | AzureConfigKey::UseEmulator | AzureConfigKey::Client(_),
                )
                | Err(_) => {}
                Ok(AzureConfigKey::AuthorityHost) => {
                    let value = value.trim_end_matches('/');
                    builder = builder.with_config(AzureConfigKey::AuthorityHost, value);
                }
                Ok(key) => builder = builder.with_config(key, value),
            }
        }
        if let Some(account) = uri.account {
            builder = builder.with_account(account);
        }
        let account = builder.get_config_value(&AzureConfigKey::AccountName).unwrap_or_default();
        let base = base(uri, &account, builder.get_config_value(&AzureConfigKey::Endpoint))?;
        let who = who(builder, uri.signature, settings)?;
        Ok(Self { container: container.to_owned(), account, base, who })
    }

    /// Whether requests are signed.
    pub fn signs(&self) -> bool {
        !matches!(self.who, Who::Nobody)
    }

    /// The address of a blob, or of the container where the key is empty.
    pub fn url(&self, key: &str) -> Url {
        below(&self.base, [self.container.as_str(), key])
    }

    /// Signs a request.
    pub async fn sign(&self, request: &mut HttpRequest, place: &str) -> Result<()> {
        match &self.who {
            Who::Nobody | Who::Signature(_) => {
                request.headers_mut().insert("x-ms-version", HeaderValue::from_static(VERSION));
            }
            Who::Known { provider, connector } => {
                let credential = connector.identity(place, provider.get_credential()).await?;
                if let AzureCredential::BearerToken(token) = credential.as_ref()
                    && HeaderValue::from_str(token).is_err()
                {
                    let why = "it holds characters that no header has".to_owned();
                    return Err(invalid("the token for Azure", why));
                }
                let signed = AzureAuthorizer::new(&credential, &self.account).try_authorize(request);
                signed.map_err(|error| invalid("the credentials of Azure", told(&error)))?;
            }
        }
        if let Who::Signature(signature) = &self.who {
            let separator = if request.uri().query().is_some() { '&' } else { '?' };
            let uri = format!("{}{separator}{signature}", request.uri()).parse();
            *request.uri_mut() = uri.map_err(|_| {
                invalid("the shared access signature", "it holds characters that no address has".to_owned())
            })?;
        }
        Ok(())
    }
}

/// The address of the account. An `https` URI names it itself.
fn base(uri: Where<'_>, account: &str, endpoint: Option<String>) -> Result<Url> {
    let outside = |host: &str| {
        let why = format!(
            "{host} is no host of Azure's storage: write abfs://container@account.dfs.core.windows.net/prefix, or name the \
             server in AZURE_STORAGE_ENDPOINT"
        );
        Err(invalid("the account in the URI", why))
    };
    let text = match (uri.host, endpoint, uri.usual_host) {
        // Credentials go to this host, and whoever writes the URI chooses it.
        (None, None, Some(host)) if !is_azures(host) => return outside(host),
        (Some(host), ..) | (None, None, Some(host)) => format!("https://{host}"),
        (None, Some(endpoint), _) => endpoint,
        (None, None, None) if account.is_empty() => {
            let why = "it is not set, and the URI names no account".to_owned();
            return Err(invalid("AZURE_STORAGE_ACCOUNT_NAME", why));
        }
        (None, None, None) => format!("https://{account}.blob.core.windows.net"),
    };
    let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| invalid("AZURE_STORAGE_ENDPOINT", "it has to look like https://host".to_owned()))
}

/// Whether a host is one of an account, in any of Azure's clouds.
fn is_azures(host: &str) -> bool {
    const ENDS: [&str; 4] =
        [".core.windows.net", ".storage.azure.net", ".core.chinacloudapi.cn", ".core.usgovcloudapi.net"];
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    host.chars().all(is_of_host) && ENDS.iter().any(|end| host.ends_with(end))
}

fn who(builder: MicrosoftAzureBuilder, signature: Option<&str>, settings: &Settings) -> Result<Who> {
    let given = |key: AzureConfigKey| builder.get_config_value(&key);
    if let Some(signature) = signature {
        return Ok(Who::Signature(signature.to_owned()));
    }
    let known = [
        AzureConfigKey::AccessKey,
        AzureConfigKey::ClientId,
        AzureConfigKey::Token,
        AzureConfigKey::FederatedTokenFile,
        AzureConfigKey::MsiEndpoint,
    ];
    // With a client's id alone the identity of the machine is asked for; it is not for a cache's own account.
    let secrets = [AzureConfigKey::AccessKey, AzureConfigKey::Token, AzureConfigKey::ClientSecret];
    let has_secret = secrets.into_iter().any(|key| given(key).is_some());
    let not_the_machine = settings.variables.has_own(Store::Azure) && !has_secret;
    if not_the_machine || known.into_iter().all(|key| given(key).is_none()) {
        let signature = given(AzureConfigKey::SasKey);
        return Ok(signature
            .map_or(Who::Nobody, |text| Who::Signature(text.trim().trim_start_matches('?').to_owned())));
    }
    let client = Client::for_identity(settings, &settings.trust, Store::Azure)?;
    let connector = Connector::new(Arc::new(client));
    let has_account = given(AzureConfigKey::AccountName).is_some();
    let builder = if has_account { builder } else { builder.with_account("account") };
    let store = builder
        .with_retry(RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() })
        .with_http_connector(connector.clone())
        .with_allow_http(true)
        .build()
        .map_err(|error| invalid("the credentials of Azure", told(&error)))?;
    Ok(Who::Known { provider: Arc::clone(store.credentials()), connector })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_no_host_that_only_the_writer_of_an_abfs_uri_names() {
        let at = |host| Where { account: Some("acc"), host: None, usual_host: Some(host), signature: None };
        for host in ["acc.evil.example", "acc.core.windows.net.evil.example", "acc:p@evil.core.windows.net"] {
            let error = base(at(host), "acc", None).unwrap_err().to_string();
            assert!(error.contains("AZURE_STORAGE_ENDPOINT"), "{error}");
            let platforms = base(at(host), "acc", Some("https://store.example".into())).unwrap();
            assert_eq!(platforms.as_str(), "https://store.example/");
        }
        for host in ["acc.blob.core.windows.net", "acc.z7.blob.storage.azure.net"] {
            assert_eq!(base(at(host), "acc", None).unwrap().host_str(), Some(host));
        }
    }
}
