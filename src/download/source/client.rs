//! The HTTP client of all sources: through which proxy a request goes, which addresses it may reach, and how long
//! it may take. There is one for each source; nothing else here opens a connection.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::{IntoUrl, Method, RequestBuilder, StatusCode, Url};
use tokio::time::timeout;

use super::addresses::{self, Resolver};
use super::cause::{Barrier, error_of, words};
use super::http::plain;
use super::proxies::{Routes, told};
use super::trust::Trust;
use crate::download::error::{Error, Fault, Result};
use crate::download::limits::Limits;
use crate::download::settings::{Egress, Settings};
use crate::download::shared::Store;

/// Where machines and pods of clouds get their credentials from: never through a proxy, which would see them.
const IDENTITY: [&str; 6] = [
    "http://169.254.169.254",
    "http://169.254.170.2",
    "http://169.254.170.23",
    "http://[fd00:ec2::254]",
    "http://[fd00:ec2::23]",
    "http://metadata.google.internal",
];
/// Variables that name another such place.
const IDENTITY_VARIABLES: [&str; 9] = [
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_METADATA_ENDPOINT",
    "AZURE_MSI_ENDPOINT",
    "IDENTITY_ENDPOINT",
    "MSI_ENDPOINT",
    "GCE_METADATA_HOST",
    "GCE_METADATA_IP",
    "GCE_METADATA_ROOT",
];

/// What a source may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    /// Whether plain `http://` is allowed.
    pub(super) plain_http: bool,
    /// Whether the identity of this machine or pod may be asked for.
    pub(super) identity: bool,
}

/// A client with its proxies, its trust and its limits. It follows no redirect by itself.
#[derive(Debug)]
pub(super) struct Client {
    direct: reqwest::Client,
    proxied: reqwest::Client,
    routes: Routes,
    egress: Egress,
    rights: Rights,
    /// The origins of services for credentials.
    identity: BTreeSet<String>,
    /// Hosts that have answered: when they refuse a connection later on, that may pass.
    met: Mutex<BTreeSet<String>>,
    limits: Limits,
}

impl Client {
    pub(super) fn new(settings: &Settings, trust: &Trust, rights: Rights) -> Result<Self> {
        let routes = Routes::new(&settings.proxies)?;
        let egress = settings.egress;
        let invalid = |error: reqwest::Error| Error::InvalidSetting {
            name: "the HTTP client's configuration",
            why: words(&error.without_url()),
        };
        let tls = trust.client()?;
        let builder = |refuses_internal| {
            reqwest::Client::builder()
                .user_agent(concat!("localmodel/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(settings.limits.connect)
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(Resolver { refuses_internal })
                .no_proxy()
        };
        let direct = builder(egress.refuses_internal).build().map_err(invalid)?;
        // The proxy is the platform's, wherever it is.
        let proxied = routes.proxies().map_err(invalid)?.into_iter();
        let proxied = proxied.fold(builder(false), reqwest::ClientBuilder::proxy).build().map_err(invalid)?;
        let named = IDENTITY_VARIABLES.iter().filter_map(|name| settings.variables.get(name));
        let named = named.map(|at| if at.contains("://") { at.to_owned() } else { format!("http://{at}") });
        let identity = IDENTITY.into_iter().map(str::to_owned).chain(named);
        let identity = identity.filter_map(|at| Some(origin(&Url::parse(&at).ok()?))).collect();
        let (met, limits) = (Mutex::default(), settings.limits);
        Ok(Self { direct, proxied, routes, egress, rights, identity, met, limits })
    }

    /// For the services that give credentials for a store. Those of this machine or pod are not for a cache that brings
    /// its own.
    pub(super) fn for_identity(settings: &Settings, trust: &Trust, store: Store) -> Result<Self> {
        let own = settings.variables.has_own(store);
        let plain_http = !own || !settings.egress.refuses_plain_http;
        Self::new(settings, trust, Rights { plain_http, identity: !own })
    }

    /// A request to be built; it is sent by the client that [`Self::for_url`] gives.
    pub(super) fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        self.direct.request(method, url)
    }

    /// The client for requests to this address, if it may be asked at all.
    pub(super) fn for_url(&self, url: &Url) -> Result<&reqwest::Client> {
        self.check(url).map_err(|barrier| barrier.into_error(plain(url)))?;
        Ok(if self.proxy(url).is_some() { &self.proxied } else { &self.direct })
    }

    /// Waits for the head of an answer from this address.
    pub(super) async fn answer<T, E: StdError + 'static>(
        &self,
        url: &Url,
        sent: impl Future<Output = std::result::Result<T, E>>,
        status: impl FnOnce(&T) -> StatusCode,
    ) -> Result<T> {
        let stall = self.limits.stall;
        let stalled = || Barrier::Stalled(stall).into_error(plain(url));
        let answer = timeout(stall, sent).await.map_err(|_| stalled())?;
        let answer = answer.map_err(|error| self.failure(url, &error))?;
        if let (Some(proxy), StatusCode::PROXY_AUTHENTICATION_REQUIRED) = (self.proxy(url), status(&answer)) {
            let why = "it asks for a user and a password".to_owned();
            return Err(Error::ProxyFailed { what: plain(url), proxy: told(proxy), why });
        }
        self.met().insert(origin(url));
        Ok(answer)
    }

    /// What an error of a request to this address, or of its answer's body, means.
    pub(super) fn failure(&self, url: &Url, error: &(dyn StdError + 'static)) -> Error {
        let proxy = self.proxy(url).map(told);
        match error_of(plain(url), error, proxy.as_deref()) {
            // A host that answered before is only away for a while, and so is the proxy that led there.
            Error::Passing { what, fault: fault @ (Fault::ConnectionRefused | Fault::NoAddress { .. }) }
                if self.met().contains(&origin(url)) =>
            {
                Error::Passing { what, fault: Fault::Connection(fault.to_string()) }
            }
            Error::ProxyFailed { what, proxy, why } if self.met().contains(&origin(url)) => {
                Error::Passing { what, fault: Fault::Connection(format!("the proxy {proxy}: {why}")) }
            }
            error => error,
        }
    }

    fn proxy(&self, url: &Url) -> Option<&Url> {
        self.routes.proxy(url).filter(|_| !self.identity.contains(&origin(url)))
    }

    fn check(&self, url: &Url) -> std::result::Result<(), Barrier> {
        if self.rights.identity && self.identity.contains(&origin(url)) {
            return Ok(());
        }
        if url.scheme() != "https" && !self.rights.plain_http {
            return Err(Barrier::PlainHttp);
        }
        if self.egress.refuses_internal { addresses::check(url) } else { Ok(()) }
    }

    fn met(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}
