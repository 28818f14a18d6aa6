//! Whether a server's certificate is trusted.
//!
//! `openssl req -x509` makes a certificate that is its own authority, and says so. Others take it from a server
//! when it is named in the bundle itself; the library alone would refuse it, since an authority is no server.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Certificates that are trusted.
pub(super) struct Trusted {
    /// The authorities.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// Of these, the ones that the user named: a server may be one of them itself.
    pub(super) named: HashSet<CertificateDer<'static>>,
    /// Whether no certificate is looked at.
    pub(super) anybody: bool,
}

/// The configuration of clients that trust these.
pub(super) fn client(trusted: Trusted, provider: &Arc<CryptoProvider>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    // Stores of systems hold a few certificates that cannot be used; they are left out, as everywhere.
    roots.add_parsable_certificates(trusted.authorities);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let verifier = Verifier { usual: verifier, named: trusted.named, anybody: trusted.anybody };
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    named: HashSet<CertificateDer<'static>>,
    anybody: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.anybody {
            return Ok(ServerCertVerified::assertion());
        }
        let usual = self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match usual {
            // An authority's certificate that a server shows; the type that says so is not public. Whether it is
            // valid now has been looked at before this, the name has not.
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if why.to_string() == "CaUsedAsEndEntity" && self.named.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// As `openssl req -x509` makes it.
    fn self_signed(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "minio");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verified(
        named: &CertificateDer<'static>,
        shown: &CertificateDer<'static>,
        host: &str,
        year: u64,
    ) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(named.clone()).unwrap();
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = Verifier { usual, named: HashSet::from([named.clone()]), anybody: false };
        let now = UnixTime::since_unix_epoch(Duration::from_hours((year - 1970) * 8766));
        verifier
            .verify_server_cert(shown, &[], &ServerName::try_from(host.to_owned()).unwrap(), &[], now)
            .map(drop)
    }

    #[test]
    fn a_self_signed_authority_is_trusted_as_a_server_where_it_is_named_itself() {
        let named = self_signed("minio.example");
        verified(&named, &named, "minio.example", 2026).unwrap();
    }

    #[test]
    fn it_is_not_for_another_name_before_or_after_its_time_or_when_another_one_is_named() {
        let named = self_signed("minio.example");
        let other = self_signed("minio.example");
        assert!(verified(&named, &named, "evil.example", 2026).is_err());
        assert!(verified(&named, &named, "minio.example", 2019).is_err());
        assert!(verified(&named, &named, "minio.example", 2032).is_err());
        assert!(verified(&named, &other, "minio.example", 2026).is_err());
    }
}
