//! Whether anything can download a cache's source, and may: what is wrong with its URI, told before a Job is made
//! (C7).

use std::borrow::Cow;

use reqwest::Url;

use super::conditions::Statement;
use super::job;
use super::names::CacheKey;
use crate::api::ClusterStorageContainer;
use crate::config::EgressSettings;
use crate::download::Error;
use crate::download::source::{Location, SUPPORTED, without_secrets};

/// The source is malformed, or nothing in the cluster downloads its scheme (C7).
pub const INVALID_SOURCE: &str = "InvalidSource";

/// The platform does not allow the source in the caches of namespaces.
pub const SOURCE_NOT_ALLOWED: &str = "SourceNotAllowed";

/// Why a cache's source cannot be downloaded, or may not.
pub fn problem(
    cache: &CacheKey,
    uri: &str,
    containers: &[&ClusterStorageContainer],
    egress: &EgressSettings,
) -> Option<Statement> {
    let not_allowed = || {
        let why = refusal(uri, egress).filter(|_| cache.namespace.is_some())?;
        Some(Statement::problem(SOURCE_NOT_ALLOWED, why))
    };
    unfetchable(uri, containers).or_else(not_allowed)
}

/// Why a cache of a namespace may not have this source. Its tenant chose it, and the Job that downloads it stands
/// in the platform's network and has the platform's files around it.
fn refusal(uri: &str, egress: &EgressSettings) -> Option<String> {
    let told = without_secrets(uri);
    let scheme = uri.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    if scheme == "file" {
        return Some(format!(
            "{told} is a file of the download Job itself, which only a LocalModelCache may name"
        ));
    }
    if scheme == "http" && !egress.plain_http {
        return Some(format!(
            "{told} is asked by plain http: use https, or ask the platform to set localModelEgress.plainHttp in ConfigMap inferenceservice-config"
        ));
    }
    let prefixes = egress.uri_prefixes.as_ref()?;
    if prefixes.iter().any(|prefix| begins_with(uri, prefix)) {
        return None;
    }
    let allowed = if prefixes.is_empty() {
        "none is".to_owned()
    } else {
        format!("allowed are {}", prefixes.join(", "))
    };
    Some(format!(
        "{told} is not among the sources that the platform allows for namespaces ({allowed}): use one of these, or ask the platform to add it to localModelEgress.uriPrefixes in ConfigMap inferenceservice-config"
    ))
}

/// Whether a URI is the prefix or lies below it: `s3://models` is no prefix of `s3://models-of-others`. A web
/// address counts as it will be asked for, without `..`.
fn begins_with(uri: &str, prefix: &str) -> bool {
    let uri = match Url::parse(uri) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Cow::Owned(url.to_string()),
        _ => Cow::Borrowed(uri),
    };
    let Some(rest) = uri.strip_prefix(prefix).filter(|_| !prefix.is_empty()) else { return false };
    rest.is_empty() || prefix.ends_with(['/', ':']) || rest.starts_with(['/', ':', '?'])
}

/// Why a source cannot be downloaded. Schemes that our downloader knows have to be well-formed, whatever
/// container fetches them; any other is for the cluster's storage containers to support.
fn unfetchable(uri: &str, containers: &[&ClusterStorageContainer]) -> Option<Statement> {
    let error = Location::parse(uri).err()?;
    let foreign = matches!(error, Error::UnsupportedScheme { .. }) || !uri.contains("://");
    if !foreign {
        return Some(Statement::problem(
            INVALID_SOURCE,
            format!("{error}; make a cache with another source"),
        ));
    }
    if job::choose(containers, uri).is_some() {
        return None;
    }
    let message = format!(
        "nothing downloads {}: sources look like {SUPPORTED}; or add a ClusterStorageContainer with workloadType localModelDownloadJob that supports it",
        without_secrets(uri)
    );
    Some(Statement::problem(INVALID_SOURCE, message))
}

#[cfg(test)]
mod tests;
