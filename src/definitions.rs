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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kube::Config;
    use serde_json::{Value, json};
    use wiremock::matchers::path;
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    async fn answered(status: u16, body: Value) -> Result<Definition, Error> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = MockServer::start().await;
        let place =
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/localmodelcaches.serving.kserve.io";
        let answer = ResponseTemplate::new(status).set_body_json(body);
        Mock::given(path(place)).respond_with(answer).mount(&server).await;
        let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
        now(&client, false).await
    }

    fn status(code: u16, reason: &str) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "no"})
    }

    #[tokio::test]
    async fn a_definition_counts_as_gone_from_when_it_is_in_deletion_and_one_that_cannot_be_read_as_nothing()
    {
        let since = |metadata: Value| json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
        let made = "1970-01-01T00:01:40Z";
        let there = since(json!({"name": "d", "creationTimestamp": made}));
        let made_at = Timestamp::from_second(100).unwrap();
        assert_eq!(answered(200, there).await.unwrap(), Definition::Since(made_at));
        let ending = since(
            json!({"name": "d", "creationTimestamp": made, "deletionTimestamp": "2026-01-01T00:00:00Z"}),
        );
        assert_eq!(answered(200, ending).await.unwrap(), Definition::Gone);
        assert_eq!(answered(404, status(404, "NotFound")).await.unwrap(), Definition::Gone);
        assert!(answered(403, status(403, "Forbidden")).await.is_err());
    }
}
