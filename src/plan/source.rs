//! Whether anything can download a cache's source: what is wrong with its URI, told before a Job is made
//! (C7).

use super::conditions::Statement;
use super::job;
use crate::api::ClusterStorageContainer;
use crate::download::Error;
use crate::download::source::{Location, SUPPORTED, without_secrets};

/// The source is malformed, or nothing in the cluster downloads its scheme (C7).
pub const INVALID_SOURCE: &str = "InvalidSource";

/// Why a source cannot be downloaded. Schemes that our downloader knows have to be well-formed, whatever
/// container fetches them; any other is for the cluster's storage containers to support.
pub fn problem(uri: &str, containers: &[&ClusterStorageContainer]) -> Option<Statement> {
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
