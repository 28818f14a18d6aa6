//! What an earlier version installed and this one does not need: nothing that installs it knows of it any more.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::DeleteParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::cache_volumes::ignore_missing;

/// The policies about mounts, and their bindings. Each names the definition of a cache: without it the API server
/// refuses every pod of the cluster that mounts a claim.
const MOUNT_POLICIES: [&str; 2] =
    ["cache-mounts.localmodel.kserve.io", "namespace-cache-mounts.localmodel.kserve.io"];

/// Takes it away, bindings first: a binding without its policy, or a policy without its binding, says nothing.
pub(super) async fn remove(client: &Client) {
    for name in MOUNT_POLICIES {
        delete::<ValidatingAdmissionPolicyBinding>(client, name).await;
        delete::<ValidatingAdmissionPolicy>(client, name).await;
    }
}

async fn delete<K>(client: &Client, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let deleted = ignore_missing(api.delete(name, &DeleteParams::default()).await.map(drop));
    if let Err(error) = deleted {
        let kind = K::kind(&());
        tracing::warn!(%error, %kind, name, "a policy of an earlier version is still there: delete it");
    }
}

#[cfg(test)]
mod tests {
    use kube::Config;
    use wiremock::matchers::method;
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    #[tokio::test]
    async fn policies_of_an_earlier_version_go_after_their_bindings_and_one_that_stays_keeps_no_other() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = MockServer::start().await;
        Mock::given(method("DELETE")).respond_with(ResponseTemplate::new(403)).mount(&server).await;
        remove(&Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap()).await;
        let asked = server.received_requests().await.unwrap();
        let paths: Vec<&str> = asked.iter().map(|request| request.url.path()).collect();
        let group = "/apis/admissionregistration.k8s.io/v1";
        let expected = MOUNT_POLICIES.map(|name| {
            ["validatingadmissionpolicybindings", "validatingadmissionpolicies"]
                .map(|plural| format!("{group}/{plural}/{name}"))
        });
        assert_eq!(paths, expected.concat());
    }
}
