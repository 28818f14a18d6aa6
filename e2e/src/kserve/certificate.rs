//! The certificate of KServe's webhook servers, which cert-manager would make: one for all of them, its
//! own authority, kept in the cluster for as long as that lives.

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::command::kubectl;

/// The secret of each server and the service in front of it.
const SERVERS: [(&str, &str); 3] = [
    ("kserve-webhook-server-cert", "kserve-webhook-server-service"),
    ("llmisvc-webhook-server-cert", "llmisvc-webhook-server-service"),
    ("localmodel-webhook-server-cert", "localmodel-webhook-server-service"),
];
/// The definitions whose versions are converted by a webhook.
const CONVERTED: [&str; 2] = ["llminferenceservices", "llminferenceserviceconfigs"];

/// Certificate and key in base64 of PEM, as objects of the API hold them.
pub(super) struct Certificate {
    certificate: String,
    key: String,
}

impl Certificate {
    /// The cluster's, or a new one where it has none.
    pub(super) async fn in_cluster() -> Result<Self> {
        let (secret, _) = SERVERS[0];
        let found =
            kubectl(&["get", "secret", secret, "-n", "kserve", "-o", "json", "--ignore-not-found"]).await?;
        if found.trim().is_empty() {
            return Self::new();
        }
        let secret: Value = serde_json::from_str(&found)?;
        let part = |name: &str| {
            secret["data"][name].as_str().map(Into::into).with_context(|| format!("{name} of the secret"))
        };
        Ok(Self { certificate: part("tls.crt")?, key: part("tls.key")? })
    }

    fn new() -> Result<Self> {
        let names = SERVERS.iter().map(|(_, service)| format!("{service}.kserve.svc"));
        let mut parameters = CertificateParams::new(names.collect::<Vec<_>>())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?;
        Ok(Self {
            certificate: base64(certificate.pem().as_bytes()),
            key: base64(key.serialize_pem().as_bytes()),
        })
    }

    /// The secrets that the servers mount.
    pub(super) fn secrets(&self) -> Vec<Value> {
        let secret = |(name, _): &(&str, &str)| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": {"name": name, "namespace": "kserve"},
                "data": {"tls.crt": self.certificate, "tls.key": self.key},
            })
        };
        SERVERS.iter().map(secret).collect()
    }

    /// The objects, with this authority in their webhooks.
    pub(super) fn with_bundle(&self, mut objects: Vec<Value>) -> Vec<Value> {
        for webhook in
            objects.iter_mut().filter_map(|object| object.get_mut("webhooks")?.as_array_mut()).flatten()
        {
            webhook["clientConfig"]["caBundle"] = self.certificate.clone().into();
        }
        objects
    }

    /// Puts this authority into the definitions that are converted by a webhook.
    pub(super) async fn put_in_conversions(&self) -> Result<()> {
        for kind in CONVERTED {
            let client = json!({"caBundle": self.certificate});
            let patch = json!({"spec": {"conversion": {"webhook": {"clientConfig": client}}}}).to_string();
            let name = format!("customresourcedefinition/{kind}.serving.kserve.io");
            kubectl(&["patch", &name, "--type=merge", "-p", &patch]).await?;
        }
        Ok(())
    }
}

/// Base64 by way of the type that the API has for it.
fn base64(bytes: &[u8]) -> String {
    let text = json!(k8s_openapi::ByteString(bytes.to_vec()));
    text.as_str().unwrap_or_default().to_owned()
}
