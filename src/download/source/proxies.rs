//! Which requests go through a proxy: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and all forms of `NO_PROXY`.

use std::net::IpAddr;

use reqwest::{Proxy, Url};

use super::addresses::literal;
use crate::download::error::{Error, Result};
use crate::download::settings::Proxies;
use crate::download::source::without_secrets;

/// The proxy of each scheme, and what is asked directly.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    http: Option<Url>,
    https: Option<Url>,
    except: Vec<Exception>,
}

/// What is asked without a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    /// Addresses that begin with the same bits.
    Network(IpAddr, u8),
    /// An address or a name and what is below it, at a port or at all of them.
    Host {
        host: String,
        port: Option<u16>,
    },
}

impl Routes {
    /// What the environment says; a proxy that cannot be used is refused.
    pub(super) fn new(proxies: &Proxies) -> Result<Self> {
        let all = address("ALL_PROXY", proxies.all.as_deref())?;
        let except = proxies.except.as_deref().unwrap_or_default();
        let except = except.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
        Ok(Self {
            http: address("HTTP_PROXY", proxies.http.as_deref())?.or_else(|| all.clone()),
            https: address("HTTPS_PROXY", proxies.https.as_deref())?.or(all),
            except: except.filter_map(Exception::parse).collect(),
        })
    }

    /// The proxy that such a request goes through.
    pub(super) fn proxy(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.except.iter().any(|exception| exception.holds(url)))
    }

    /// The proxies as the client wants them; none where there is none.
    pub(super) fn proxies(&self) -> reqwest::Result<Vec<Proxy>> {
        let http = self.http.clone().map(Proxy::http);
        let https = self.https.clone().map(Proxy::https);
        http.into_iter().chain(https).collect()
    }
}

/// The address of a proxy, which may be written without its scheme. It may hold a password: it is not repeated.
fn address(name: &'static str, text: Option<&str>) -> Result<Option<Url>> {
    let Some(text) = text else { return Ok(None) };
    let invalid = |why: &str| Error::InvalidSetting { name, why: why.to_owned() };
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&text).map_err(|_| invalid("it is not the address of a proxy"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(Some(url)),
        scheme if scheme.starts_with("socks") => {
            Err(invalid("SOCKS proxies are not supported: name a proxy that speaks HTTP"))
        }
        _ => Err(invalid("it has to look like http://proxy:3128")),
    }
}

/// The address of a proxy as it may be told.
pub(super) fn told(proxy: &Url) -> String {
    without_secrets(proxy.as_str()).trim_end_matches('/').to_owned()
}

impl Exception {
    /// An entry of `NO_PROXY`; one that makes no sense excepts nothing.
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some((network, bits)) = entry.split_once('/') {
            let network: IpAddr = network.parse().ok()?;
            let most = if network.is_ipv4() { 32 } else { 128 };
            return bits.parse().ok().filter(|bits| *bits <= most).map(|bits| Self::Network(network, bits));
        }
        let (host, port) = match entry.parse::<IpAddr>() {
            Ok(_) => (entry, None),
            Err(_) => match entry.rsplit_once(':') {
                Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
                _ => (entry, None),
            },
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_start_matches("*.");
        let host = host.trim_matches('.').to_ascii_lowercase();
        (!host.is_empty()).then_some(Self::Host { host, port })
    }

    fn holds(&self, url: &Url) -> bool {
        let address = literal(url).map(|address| address.to_canonical());
        match self {
            Self::Everything => true,
            Self::Network(network, bits) => {
                address.is_some_and(|address| has_prefix(address, *network, *bits))
            }
            Self::Host { port: Some(port), .. } if url.port_or_known_default() != Some(*port) => false,
            Self::Host { host, .. } => match (address, url.host_str()) {
                (Some(address), _) => host.parse() == Ok(address),
                (None, Some(name)) => {
                    let name = name.trim_end_matches('.');
                    name.strip_suffix(host.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                }
                (None, None) => false,
            },
        }
    }
}

fn has_prefix(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let left = |all: u32| all.saturating_sub(u32::from(bits));
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (one.to_bits() ^ other.to_bits()).checked_shr(left(32)).unwrap_or_default() == 0
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (one.to_bits() ^ other.to_bits()).checked_shr(left(128)).unwrap_or_default() == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(except: &str) -> Routes {
        let proxy = Some("http://proxy:3128".to_owned());
        Routes::new(&Proxies { all: proxy, except: Some(except.to_owned()), ..Proxies::default() }).unwrap()
    }

    fn is_direct(except: &str, url: &str) -> bool {
        routes(except).proxy(&Url::parse(url).unwrap()).is_none()
    }

    #[test]
    fn every_form_of_an_exception_is_understood() {
        for (except, url) in [
            ("*", "http://anything.example"),
            ("hub.example", "https://hub.example/x"),
            ("HUB.example", "https://hub.example"),
            ("hub.example", "https://cdn.hub.example"),
            (".example", "https://hub.example"),
            ("*.example", "https://hub.example"),
            (".hub.example", "https://hub.example"),
            ("hub.example.", "https://hub.example"),
            ("hub.example", "https://hub.example."),
            ("hub.example:443", "https://hub.example"),
            ("hub.example:8080", "http://hub.example:8080"),
            ("a, .svc ,hub.example", "http://m.ns.svc"),
            ("a b", "http://b"),
            (" , ,hub.example,", "http://hub.example"),
            ("10.1.2.3", "http://10.1.2.3:9000"),
            ("10.1.2.3:9000", "http://10.1.2.3:9000"),
            ("10.0.0.0/8", "http://10.255.0.1"),
            ("0.0.0.0/0", "http://10.255.0.1"),
            ("10.1.2.3/32", "http://10.1.2.3"),
            ("::1", "http://[::1]:80"),
            ("[::1]", "http://[::1]"),
            ("[fd00::1]:9000", "http://[fd00::1]:9000"),
            ("fd00::/8", "http://[fd12::1]"),
            ("10.0.0.0/8", "http://[::ffff:10.0.0.1]"),
        ] {
            assert!(is_direct(except, url), "{except:?} and {url}");
        }
    }

    #[test]
    fn what_is_not_excepted_goes_through_the_proxy() {
        for (except, url) in [
            ("", "http://hub.example"),
            ("hub.example", "http://nothub.example"),
            ("hub.example", "http://hub.example.evil"),
            ("hub.example:8080", "http://hub.example"),
            ("10.1.2.3:9000", "http://10.1.2.3"),
            ("10.0.0.0/8", "http://11.0.0.1"),
            ("10.0.0.0/8", "http://10.0.0.1.example"),
            ("10.0.0.0/33", "http://10.0.0.1"),
            ("fd00::/8", "http://10.0.0.1"),
            ("0.0.0.0/0", "http://[2606:4700::1]"),
            ("10", "http://10.example"),
            ("/8", "http://10.0.0.1"),
            (".", "http://hub.example"),
        ] {
            assert!(!is_direct(except, url), "{except:?} and {url}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy_and_the_general_one_is_for_the_rest() {
        let proxies = Proxies {
            http: Some("me:hunter2@small:1".into()),
            all: Some("https://all:2".into()),
            ..Proxies::default()
        };
        let routes = Routes::new(&proxies).unwrap();
        let told = |url: &str| routes.proxy(&Url::parse(url).unwrap()).map(told);
        assert_eq!(told("http://hub").as_deref(), Some("http://small:1"));
        assert_eq!(told("https://hub").as_deref(), Some("https://all:2"));
        assert!(
            Routes::new(&Proxies::default()).unwrap().proxy(&Url::parse("http://hub").unwrap()).is_none()
        );
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_without_its_password() {
        for (proxy, words) in [
            ("socks5://me:hunter2@proxy:1080", "SOCKS proxies are not supported"),
            ("socks5h://proxy", "SOCKS"),
            ("SOCKS4://proxy", "SOCKS"),
            ("ftp://me:hunter2@proxy", "http://proxy:3128"),
            ("http://me:hunter2@", "not the address"),
            ("me:hunter2@proxy:none", "not the address"),
        ] {
            let proxies = Proxies { all: Some(proxy.into()), ..Proxies::default() };
            let error = Routes::new(&proxies).unwrap_err().to_string();
            assert!(error.starts_with("ALL_PROXY is not valid") && error.contains(words), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
