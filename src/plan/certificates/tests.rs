use std::collections::BTreeMap;

use super::*;
use crate::plan::samples::at;
use crate::webhook::authority::make;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 60 * 60;

fn secret(pair: &Pair) -> Secret {
    let data = [(CA, &pair.ca), (CERTIFICATE, &pair.certificate), (KEY, &pair.key)];
    let data = data.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())));
    Secret { data: Some(BTreeMap::from(data)), ..Secret::default() }
}

fn made(at_second: i64) -> Pair {
    make("kserve", at(at_second)).unwrap()
}

fn verdict(pair: &Pair, second: i64) -> Result<(), Reason> {
    stored(Some(&secret(pair)), "kserve", at(second)).map(drop)
}

#[test]
fn a_certificate_is_kept_until_two_thirds_of_its_time_are_over_and_then_renewed() {
    let pair = made(NOW);
    assert_eq!(verdict(&pair, NOW), Ok(()));
    assert_eq!(verdict(&pair, NOW + 240 * DAY), Ok(()));
    assert_eq!(verdict(&pair, NOW + 246 * DAY), Err(Reason::Ending));
}

#[test]
fn no_secret_half_a_secret_and_an_unreadable_one_are_made_anew() {
    assert_eq!(stored(None, "kserve", at(NOW)), Err(Reason::Missing));
    for key in [CA, CERTIFICATE, KEY] {
        let mut half = secret(&made(NOW));
        half.data.as_mut().unwrap().remove(key);
        assert_eq!(stored(Some(&half), "kserve", at(NOW)), Err(Reason::Unreadable(key)));
        half.data.as_mut().unwrap().insert(key.into(), ByteString(b"no certificate".to_vec()));
        assert_eq!(stored(Some(&half), "kserve", at(NOW)), Err(Reason::Unreadable(key)));
    }
}

#[test]
fn another_authority_another_key_another_name_and_a_time_that_is_over_will_not_do() {
    let (pair, other) = (made(NOW), made(NOW));
    let cases = [
        Pair { ca: other.ca.clone(), ..pair.clone() },
        Pair { key: other.key.clone(), ..pair.clone() },
        make("elsewhere", at(NOW)).unwrap(),
        made(NOW - 400 * DAY),
        made(NOW + 400 * DAY),
    ];
    for case in cases {
        let reason = verdict(&case, NOW).unwrap_err();
        assert!(matches!(reason, Reason::NotTrusted(_) | Reason::OtherKey(_)), "{reason}");
    }
}

#[test]
fn an_authority_whose_own_time_is_over_will_not_do() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.not_after = date_time_ymd(2020, 1, 1);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(server_names("kserve")).unwrap().signed_by(&key, &ca).unwrap();
    let pair = Pair { ca: ca.pem(), certificate: leaf.pem(), key: key.serialize_pem() };
    let reason = verdict(&pair, NOW).unwrap_err();
    assert!(matches!(&reason, Reason::NotTrusted(error) if is_out_of_time(error)), "{reason}");
}

#[test]
fn a_new_certificate_is_served_only_when_its_authority_has_been_trusted_for_a_while() {
    let (old, new) = (made(NOW - DAY), made(NOW));
    let settle = SignedDuration::from_secs(10);
    let next = |since: Option<i64>| change(&new, Some(&old), "kserve", since.map(at), settle, at(NOW));
    assert_eq!(next(None), Change::Trust);
    assert_eq!(next(Some(NOW - 4)), Change::At(at(NOW + 6)));
    assert_eq!(next(Some(NOW - 10)), Change::Serve);
    assert_eq!(change(&new, Some(&new), "kserve", None, settle, at(NOW)), Change::Done);
}

#[test]
fn nothing_is_waited_for_where_no_request_could_be_answered_so_far() {
    let (gone, new) = (made(NOW - 400 * DAY), made(NOW));
    let settle = SignedDuration::from_secs(10);
    assert_eq!(change(&new, None, "kserve", None, settle, at(NOW)), Change::Serve);
    assert_eq!(change(&new, Some(&gone), "kserve", None, settle, at(NOW)), Change::Serve);
}

#[test]
fn both_authorities_are_trusted_while_the_old_certificate_is_served_and_one_otherwise() {
    let (old, new) = (made(NOW), made(NOW));
    assert_eq!(bundle(&new.ca, []), new.ca);
    assert_eq!(bundle(&new.ca, [&new.ca]), new.ca);
    assert_eq!(bundle(&new.ca, [&old.ca, &new.ca, &old.ca]), format!("{}{}", new.ca, old.ca));
}

#[test]
fn a_key_is_never_printed() {
    let pair = made(NOW);
    assert!(!format!("{pair:?}").contains("PRIVATE KEY"));
}

#[test]
fn what_is_logged_of_a_certificate_is_not_its_key() {
    let pair = made(NOW);
    let told = format!("{pair:?}");
    assert!(told.contains("BEGIN CERTIFICATE") && !told.contains("PRIVATE KEY"), "{told}");
}
