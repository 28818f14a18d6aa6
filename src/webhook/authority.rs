//! Makes certificates: an authority for one certificate, the certificate, and then forgets the authority's
//! key.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::plan::certificates::{DAYS, Pair, server_names};

/// A new certificate for the webhook server of this namespace. It counts from the day before, because not
/// all clocks agree.
pub fn make(namespace: &str, now: Timestamp) -> Result<Pair, rcgen::Error> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let ca_key = KeyPair::generate()?;
    let mut ca = params(Vec::new(), "localmodel webhook authority", today)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca = CertifiedIssuer::self_signed(ca, ca_key)?;

    let key = KeyPair::generate()?;
    let names = server_names(namespace);
    let mut certificate = params(names.to_vec(), "localmodel webhook", today)?;
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    certificate.use_authority_key_identifier_extension = true;
    let certificate = certificate.signed_by(&key, &ca)?;
    Ok(Pair { ca: ca.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
}

fn params(names: Vec<String>, title: &str, today: Date) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, title);
    let day = |days: i64| {
        let date = today.saturating_add(Span::new().days(days));
        let part = |part: i8| u8::try_from(part).unwrap_or(1);
        date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    (params.not_before, params.not_after) = (day(-1), day(DAYS));
    Ok(params)
}
