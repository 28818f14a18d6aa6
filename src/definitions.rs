//! Asks the API server for the definition of a kind of caches, by its name: its metadata says all.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};

use crate::error::{Doing, Error};
use crate::plan::definitions::{Definition, name};

/// The definition of namespace caches, or of cluster caches, as it is now.
pub async fn now(client: &Client, is_of_namespace: bool) -> Result<Definition, Error> {
    let name = name(is_of_namespace);
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let found =
        api.get_metadata_opt(name).await.doing(|| format!("reading CustomResourceDefinition {name}"))?;
    let metadata = found.map(|found| found.metadata).filter(|metadata| metadata.deletion_timestamp.is_none());
    Ok(metadata
        .and_then(|metadata| metadata.creation_timestamp)
        .map_or(Definition::Gone, |at| Definition::Since(at.0)))
}
