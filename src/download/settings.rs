//! How downloads are made: where the hub is, who asks, through which proxy, how patiently.

use std::time::Duration;

use indicatif::MultiProgress;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::budget::Allowance;
use super::engine::buffers::ALIGNMENT;
use super::error::{Error, Result};
use super::limits::Limits;
use super::retry::Policy;
use super::select::{Selection, parse_patterns};
use super::source::{Trust, without_secrets};
use super::variables::Variables;

/// The hub that is asked unless `HF_ENDPOINT` names another.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// All that a download depends on besides its source and its folder.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub.
    pub endpoint: Url,
    /// The token for the hub, and for nobody else.
    pub token: Option<Token>,
    /// The files that are wanted.
    pub selection: Selection,
    /// The environment, in which credentials of object stores and web servers are looked up.
    pub variables: Variables,
    /// The proxies to go through.
    pub proxies: Proxies,
    /// Whose certificates are trusted.
    pub trust: Trust,
    /// Requests at the same time, for large files and for small ones each.
    pub streams: usize,
    /// The most bytes that are asked for in one request.
    pub segment: u64,
    /// The bytes of a chunk: what is hashed, written and recorded at once, a multiple of 4096.
    pub chunk: usize,
    /// Chunks in memory: with [`Self::chunk`] this is what a download takes, whatever the model's size.
    pub buffers: usize,
    /// Files of at most this many bytes are fetched whole, beside the large ones.
    pub small: u64,
    /// Paths in the folder that are kept free, since they are folders of other sources.
    pub reserved: Vec<String>,
    /// The most that the source may bring.
    pub allowance: Allowance,
    /// How long anything may take.
    pub limits: Limits,
    /// Where it may connect to.
    pub egress: Egress,
    /// How often a fault is answered by another attempt.
    pub retry: Policy,
    /// The time between two lines about the progress.
    pub progress_every: Duration,
    /// Where bars are drawn in place of such lines: on a terminal.
    pub bars: Option<MultiProgress>,
}

/// Where downloads may connect to. By default that is anywhere; the operator narrows it for the caches of
/// namespaces, whose sources are not the platform's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Whether loopback, link-local and metadata addresses are refused.
    pub refuses_internal: bool,
    /// Whether plain `http://` is refused, unless the platform has named the endpoint.
    pub refuses_plain_http: bool,
}

impl Egress {
    /// The variable for addresses.
    pub const INTERNAL_ADDRESSES: &str = "LOCALMODEL_INTERNAL_ADDRESSES";
    /// The variable for plain http.
    pub const PLAIN_HTTP: &str = "LOCALMODEL_PLAIN_HTTP";

    /// What the operator asks for. A value that is not known refuses, so that nothing opens by mistake.
    fn from_env(variables: &Variables) -> Self {
        let refused = |name| variables.get(name).is_some_and(|value| value != "allow");
        Self {
            refuses_internal: refused(Self::INTERNAL_ADDRESSES),
            refuses_plain_http: refused(Self::PLAIN_HTTP),
        }
    }
}

/// Addresses of proxies by the scheme of the request, as the usual environment variables name them; printed
/// without the passwords in them.
#[derive(Clone, Default)]
pub struct Proxies {
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `ALL_PROXY`.
    pub all: Option<String>,
    /// `NO_PROXY`: hosts that are asked directly.
    pub except: Option<String>,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = |url: &Option<String>| url.as_deref().map(without_secrets);
        f.debug_struct("Proxies")
            .field("http", &told(&self.http))
            .field("https", &told(&self.https))
            .field("all", &told(&self.all))
            .field("except", &self.except)
            .finish()
    }
}

/// A secret that prints as dots.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token; white space around it, as secrets made from files have it, is dropped. `None` if it is empty.
    pub fn new(value: &str) -> Option<Self> {
        let value = value.trim();
        (!value.is_empty()).then(|| Self(value.to_owned()))
    }

    pub(crate) fn header(&self) -> Result<HeaderValue> {
        let why = "it holds characters that no token has";
        let mut header = HeaderValue::from_str(&format!("Bearer {}", self.0))
            .map_err(|_| Error::InvalidSetting { name: "HF_TOKEN", why: why.to_owned() })?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Settings {
    /// The defaults, with this hub.
    pub fn new(endpoint: &str) -> Result<Self> {
        Ok(Self {
            endpoint: parse_endpoint(endpoint)?,
            token: None,
            selection: Selection::default(),
            variables: Variables::default(),
            proxies: Proxies::default(),
            trust: Trust::default(),
            streams: 8,
            segment: 256 << 20,
            chunk: 4 << 20,
            buffers: 12,
            small: 128 << 10,
            reserved: Vec::new(),
            allowance: Allowance::default(),
            limits: Limits::default(),
            egress: Egress::default(),
            retry: Policy::default(),
            progress_every: Duration::from_secs(10),
            bars: None,
        })
    }

    /// The same with so many bytes of memory for what is on its way to the disk.
    #[must_use]
    pub fn with_memory(self, bytes: usize) -> Self {
        // Chunks that are too small cost a request each, those that are too large a lot after a kill.
        let chunk = (bytes / self.buffers).clamp(64 << 10, 8 << 20).next_multiple_of(ALIGNMENT);
        Self { chunk, buffers: (bytes / chunk).max(2), ..self }
    }

    /// The settings that the environment asks for.
    pub fn from_env(variables: Variables) -> Result<Self> {
        let get = |name: &str| variables.get(name).map(str::to_owned);
        // Proxies are written in small letters by some and in capitals by others.
        let either = |name: &str| get(&name.to_lowercase()).or_else(|| get(name));
        let patterns = |name| get(name).map(|value| parse_patterns(&value)).unwrap_or_default();
        let token = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(get);
        Ok(Self {
            token: token.as_deref().and_then(Token::new),
            selection: Selection::new(
                patterns("STORAGE_ALLOW_PATTERNS"),
                patterns("STORAGE_IGNORE_PATTERNS"),
            )?,
            proxies: Proxies {
                http: either("HTTP_PROXY"),
                https: either("HTTPS_PROXY"),
                all: either("ALL_PROXY"),
                except: either("NO_PROXY"),
            },
            trust: Trust::from_env(&variables),
            egress: Egress::from_env(&variables),
            ..Self::new(get("HF_ENDPOINT").as_deref().unwrap_or(DEFAULT_ENDPOINT))?
        }
        .with_variables(variables))
    }

    fn with_variables(self, variables: Variables) -> Self {
        Self { variables, ..self }
    }
}

fn parse_endpoint(endpoint: &str) -> Result<Url> {
    let invalid = |why: String| Error::InvalidSetting { name: "HF_ENDPOINT", why };
    let url = Url::parse(endpoint.trim()).map_err(|error| invalid(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it has to look like https://huggingface.co".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it holds a user or a password; use HF_TOKEN".to_owned()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn from<const N: usize>(variables: &[(&str, &str); N]) -> Result<Settings> {
        Settings::from_env(Variables::try_from(*variables)?)
    }

    #[test]
    fn the_environment_says_how_to_download() {
        let settings = from(&[
            ("HF_ENDPOINT", "http://hub:8080/"),
            ("HF_TOKEN", "hf_secret\n"),
            ("https_proxy", "http://small:1"),
            ("HTTPS_PROXY", "http://capital:1"),
            ("HTTP_PROXY", "me:hunter2@capital:2"),
            ("NO_PROXY", "hub"),
            ("SSL_CERT_FILE", "/etc/ca.pem"),
            ("STORAGE_ALLOW_PATTERNS", "*.json,*.txt"),
            ("STORAGE_IGNORE_PATTERNS", ""),
        ])
        .unwrap();
        assert_eq!(settings.endpoint.as_str(), "http://hub:8080/");
        assert_eq!(settings.token.as_ref().unwrap().header().unwrap(), "Bearer hf_secret");
        assert_eq!(settings.proxies.https.as_deref(), Some("http://small:1"));
        assert_eq!(settings.proxies.http.as_deref(), Some("me:hunter2@capital:2"));
        assert_eq!(settings.proxies.except.as_deref(), Some("hub"));
        assert_eq!(settings.trust.only, [PathBuf::from("/etc/ca.pem")]);
        assert_eq!(settings.selection.allow_patterns(), ["*.json", "*.txt"]);
        assert!(settings.selection.ignore_patterns().is_empty());
        let printed = format!("{settings:?}");
        assert!(!printed.contains("hf_secret") && !printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn an_empty_environment_means_the_public_hub_without_a_token() {
        let settings = from(&[("HF_TOKEN", " \n"), ("HF_ENDPOINT", "")]).unwrap();
        assert_eq!(settings.endpoint.as_str(), "https://huggingface.co/");
        assert!(settings.token.is_none());
        let old = from(&[("HUGGING_FACE_HUB_TOKEN", "old")]).unwrap();
        assert_eq!(old.token.unwrap().header().unwrap(), "Bearer old");
    }

    #[test]
    fn where_downloads_may_connect_to_is_narrowed_by_any_value_but_allow() {
        assert_eq!(from(&[]).unwrap().egress, Egress::default());
        for (value, refused) in [("refuse", true), ("allow", false), ("Allow", true), ("1", true)] {
            let variables = [("LOCALMODEL_INTERNAL_ADDRESSES", value), ("LOCALMODEL_PLAIN_HTTP", value)];
            let wanted = Egress { refuses_internal: refused, refuses_plain_http: refused };
            assert_eq!(from(&variables).unwrap().egress, wanted, "{value}");
        }
    }

    #[test]
    fn memory_is_parted_into_buffers_that_fit_in_it() {
        let settings = || Settings::new("http://hub").unwrap();
        let usual = settings();
        let parted = settings().with_memory(48 << 20);
        assert_eq!((parted.chunk, parted.buffers), (usual.chunk, usual.buffers));
        for mib in [1, 3, 7, 64, 100, 4096] {
            let Settings { chunk, buffers, .. } = settings().with_memory(mib << 20);
            assert!(chunk.is_multiple_of(ALIGNMENT) && chunk <= 8 << 20, "{mib}: {chunk}");
            assert!(buffers >= 2 && chunk * buffers <= mib << 20, "{mib}: {buffers} of {chunk}");
        }
    }

    #[test]
    fn an_endpoint_that_cannot_be_one_is_refused() {
        for endpoint in ["hub:8080", "ftp://hub", "not an address", "https://hub/?x=1", "https://user:pw@hub"]
        {
            let error = from(&[("HF_ENDPOINT", endpoint)]).unwrap_err().to_string();
            assert!(error.starts_with("HF_ENDPOINT is not valid") && !error.contains("pw"), "{error}");
        }
    }
}
