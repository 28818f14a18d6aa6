use super::*;

#[test]
fn a_full_disk_is_told_from_other_disk_errors() {
    let at = |errno| Error::disk("write", Path::new("/models/a"), io::Error::from_raw_os_error(errno));
    assert_eq!(at(28).reason(), Reason::DiskFull, "ENOSPC");
    assert_eq!(at(122).reason(), Reason::DiskFull, "EDQUOT");
    assert_eq!(at(5).reason(), Reason::DiskError, "EIO");
}

#[test]
fn a_failure_is_one_short_line_of_json_that_reads_back() {
    let error =
        Error::InvalidSource { uri: "hf://x".into(), why: "two\nlines ".to_owned() + &"é".repeat(3000) };
    let failure = Failure::from(&error);
    let json = serde_json::to_string(&failure).unwrap();
    assert!(json.len() < 4096 && !json.contains('\n') && !json.contains("\\n"), "{json}");
    assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), failure);
    assert_eq!(failure.reason, "InvalidSource");
}

#[test]
fn giving_up_keeps_the_reason_of_the_last_fault() {
    let last = Error::Passing { what: "hub".into(), fault: Fault::RateLimited { wait: None } };
    assert_eq!(Error::GaveUp { attempts: 8, last: Box::new(last) }.reason(), Reason::RateLimited);
}

/// One of each, in the order of the README's table.
fn samples() -> Vec<Error> {
    of_sources().into_iter().chain(of_folders()).collect()
}

fn of_sources() -> Vec<Error> {
    let repository = || "acme/model".to_owned();
    let passing = |fault| Error::Passing { what: "https://hub/acme/model".into(), fault };
    let gave_up = |fault| Error::GaveUp { attempts: 8, last: Box::new(passing(fault)) };
    vec![
        Error::InvalidSource {
            uri: "hf://acme".into(),
            why: "it has to have exactly two parts, hf://owner/model[:revision]".into(),
        },
        Error::UnsupportedScheme { uri: "pvc://claim/model".into() },
        Error::InvalidSetting {
            name: "HF_ENDPOINT",
            why: "it has to look like https://huggingface.co".into(),
        },
        Error::RepositoryNotFound { repository: repository(), token_given: true },
        Error::TokenMissing { repository: repository() },
        Error::TokenInvalid { repository: repository() },
        Error::Forbidden { repository: repository(), message: "read scope needed".into() },
        Error::Gated { repository: repository(), page: "https://hub/acme/model".into(), token_given: false },
        Error::Gated { repository: repository(), page: "https://hub/acme/model".into(), token_given: true },
        Error::RevisionNotFound { repository: repository(), revision: "v9".into() },
        Error::FileNotFound {
            repository: repository(),
            path: "a.bin".into(),
            commit: "0123456789abcdef0123456789abcdef01234567".into(),
        },
        Error::NoObjects { place: "s3://bucket/model".into() },
        Error::StoreRefused {
            place: "s3://bucket/model".into(),
            why: "ExpiredToken: The provided token has expired.".into(),
        },
        Error::NoCredentials {
            place: "s3://bucket/model".into(),
            why: "no variable names any (AWS_ACCESS_KEY_ID, AWS_ROLE_ARN), and the machine has none (…)"
                .into(),
        },
        Error::Changed { place: "s3://bucket/model".into() },
        Error::NothingSelected {
            source_uri: "hf://acme/model".into(),
            why: "the patterns leave none of its 7 files".into(),
        },
        Error::TooLarge { source_uri: "s3://bucket/model".into(), most: 11_811_160_064 },
        Error::Bomb { name: "model.tar.gz".into(), ratio: 200 },
        Error::TooManyFiles { source_uri: "s3://bucket/model".into(), most: 20_000 },
        Error::PathTooDeep { name: "a/a/a/a/…".into(), bytes: 140, deep: 70 },
        gave_up(Fault::Status { status: 503, wait: None }),
        gave_up(Fault::Stalled(Duration::from_secs(30))),
        gave_up(Fault::RateLimited { wait: Some(Duration::from_mins(15)) }),
        Error::Refused { what: "https://hub/acme/model".into(), status: 400, message: None },
        Error::BadAnswer { what: "https://hub/acme/model".into(), why: "its sha is not a commit id".into() },
        Error::Archive { name: "model.tgz".into(), why: "invalid gzip header".into() },
        Error::Certificate { what: "https://hub/acme/model".into(), why: "UnknownIssuer".into() },
        Error::GaveUp {
            attempts: 3,
            last: Box::new(passing(Fault::NoAddress {
                host: "hub".into(),
                why: "failed to lookup address information: Name or service not known".into(),
            })),
        },
        Error::GaveUp { attempts: 3, last: Box::new(passing(Fault::ConnectionRefused)) },
        Error::ProxyFailed {
            what: "https://hub/acme/model".into(),
            proxy: "http://proxy:3128".into(),
            why: "it asks for a user and a password".into(),
        },
        Error::AddressRefused {
            what: "https://hub/acme/model".into(),
            host: "hub".into(),
            address: "169.254.169.254".into(),
        },
        Error::PlainHttpRefused { what: "http://hub/acme/model".into() },
        Error::TooSlow { what: "https://hub/acme/model".into(), got: 200, within: Duration::from_mins(5) },
        Error::GaveUp {
            attempts: 2,
            last: Box::new(Error::ChecksumMismatch {
                path: "a.bin".into(),
                expected: "sha256 ab…".into(),
                found: "sha256 cd…".into(),
            }),
        },
    ]
}

fn of_folders() -> Vec<Error> {
    let path = || PathBuf::from("/mnt/models");
    vec![
        Error::UnsafeName { name: "../a".into(), why: "it leads out of its folder" },
        Error::Reserved { source_uri: "hf://acme/model".into(), path: "lora/a".into() },
        Error::InTheWay(path().join("a")),
        Error::NoRoom { dest: path(), needed: 16_000, free: 9_000 },
        Error::DiskFull(path().join("a")),
        Error::Disk { action: "write", path: path().join("a"), source: io::Error::from_raw_os_error(5) },
        Error::ManifestDamaged {
            path: path().join(".localmodel/manifest.json"),
            why: "EOF while parsing".into(),
        },
        Error::NoCopy(path()),
        Error::Interrupted { signal: "SIGTERM" },
    ]
}

#[test]
fn every_failure_stands_in_the_readmes_table_with_its_words() {
    let row = |error: &Error| format!("| `{:?}` | {error} |\n", error.reason());
    let table: String = samples().iter().map(row).collect();
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&table), "the README has another table than\n{table}");
}
