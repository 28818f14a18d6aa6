//! Whose certificates a client trusts, as KServe's environment says it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;

use super::verifier::{self, Trusted};
use crate::download::error::{Error, Result};
use crate::download::variables::Variables;

/// Where KServe mounts the cluster's own bundle, unless it says otherwise.
pub const CA_FOLDER: &str = "/etc/ssl/custom-certs";

/// The certificate authorities that count.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Files or folders of authorities in place of the usual ones.
    pub only: Vec<PathBuf>,
    /// The cluster's own authorities, beside all others; the file need not be there.
    pub cluster: Option<PathBuf>,
    /// Whether no certificate is looked at.
    pub anybody: bool,
}

impl Trust {
    /// What counts for all sources.
    pub fn from_env(variables: &Variables) -> Self {
        let named = ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"].into_iter();
        let mount = variables.get("CA_BUNDLE_VOLUME_MOUNT_POINT").unwrap_or(CA_FOLDER);
        let is_mounted = variables.get("CA_BUNDLE_CONFIGMAP_NAME").is_some();
        Self {
            only: named.filter_map(|name| variables.get(name)).map(PathBuf::from).collect(),
            cluster: is_mounted.then(|| Path::new(mount).join("cabundle.crt")),
            anybody: false,
        }
    }

    /// The same for S3, which has variables of its own.
    #[must_use]
    pub fn for_s3(&self, variables: &Variables) -> Self {
        let own = variables.get("AWS_CA_BUNDLE").map(PathBuf::from);
        Self {
            only: own.map_or_else(|| self.only.clone(), |bundle| vec![bundle]),
            cluster: self.cluster.clone(),
            anybody: variables.is_false("S3_VERIFY_SSL"),
        }
    }

    /// The configuration of clients that trust these.
    pub(super) fn client(&self) -> Result<ClientConfig> {
        let invalid = |why| Error::InvalidSetting { name: "the certificate authorities", why };
        let provider = CryptoProvider::get_default().cloned();
        let provider =
            provider.ok_or_else(|| invalid("no provider of cryptography is installed".to_owned()))?;
        verifier::client(self.trusted()?, &provider).map_err(invalid)
    }

    /// The authorities: the named bundles, or the system's store, or (as in an image without one) Mozilla's
    /// list, which the binary carries; and those of the cluster.
    fn trusted(&self) -> Result<Trusted> {
        let mut authorities = Vec::new();
        for bundle in &self.only {
            authorities.extend(certificates(bundle).map_err(|why| {
                let name = "SSL_CERT_FILE, REQUESTS_CA_BUNDLE or AWS_CA_BUNDLE";
                Error::InvalidSetting { name, why }
            })?);
        }
        let mut named: HashSet<_> = authorities.iter().cloned().collect();
        if self.only.is_empty() {
            authorities = rustls_native_certs::load_native_certs().certs;
        }
        if authorities.is_empty() {
            authorities = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
        }
        match self.cluster.as_deref().map(certificates) {
            Some(Ok(cluster)) => {
                named.extend(cluster.iter().cloned());
                authorities.extend(cluster);
            }
            Some(Err(why)) => tracing::warn!(why, "the cluster's own certificate authorities cannot be read"),
            None => {}
        }
        Ok(Trusted { authorities, named, anybody: self.anybody })
    }
}

/// The certificates in a file or folder, or why there are none.
fn certificates(bundle: &Path) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let (file, folder) = if bundle.is_dir() { (None, Some(bundle)) } else { (Some(bundle), None) };
    let loaded = rustls_native_certs::load_certs_from_paths(file, folder);
    match loaded.errors.first() {
        Some(error) => Err(error.to_string()),
        None if loaded.certs.is_empty() => Err(format!("{} holds no certificate", bundle.display())),
        None => Ok(loaded.certs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_is_said_of_s3_counts_for_s3_alone() {
        let variables = Variables::try_from([
            ("SSL_CERT_FILE", "/etc/ca.pem"),
            ("AWS_CA_BUNDLE", "/etc/aws.pem"),
            ("S3_VERIFY_SSL", "0"),
        ]);
        let variables = variables.unwrap();
        let trust = Trust::from_env(&variables);
        assert!(trust.only == paths(&["/etc/ca.pem"]) && trust.cluster.is_none() && !trust.anybody);
        let s3 = trust.for_s3(&variables);
        assert!(s3.only == paths(&["/etc/aws.pem"]) && s3.anybody);
        let without = trust.for_s3(&Variables::default());
        assert!(without.only == trust.only && !without.anybody);
    }

    #[test]
    fn the_clusters_bundle_is_trusted_beside_the_usual_ones_and_need_not_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let mounted = dir.path().display().to_string();
        let count = |trust: &Trust| trust.trusted().unwrap().authorities.len();
        let usual = count(&Trust::default());
        let variables = Variables::try_from([
            ("CA_BUNDLE_CONFIGMAP_NAME", "bundle"),
            ("CA_BUNDLE_VOLUME_MOUNT_POINT", &mounted),
        ]);
        let trust = Trust::from_env(&variables.unwrap());
        assert_eq!(count(&trust), usual);
        let own = rcgen::generate_simple_self_signed(["hub".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cabundle.crt"), own.cert.pem()).unwrap();
        assert_eq!(count(&trust), usual + 1);
        let elsewhere = Variables::try_from([("CA_BUNDLE_CONFIGMAP_NAME", "bundle")]).unwrap();
        let elsewhere = Trust::from_env(&elsewhere).cluster.unwrap();
        assert_eq!(elsewhere, Path::new("/etc/ssl/custom-certs/cabundle.crt"));
    }
}
