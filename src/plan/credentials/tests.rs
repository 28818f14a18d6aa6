use super::*;
use crate::plan::samples::from;

const J: &str = "kserve-localmodel-jobs";

pub(super) fn secret(name: &str, keys: &[(&str, &str)]) -> Secret {
    let data = keys.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
    Secret { data: Some(data.collect()), ..from(json!({"metadata": {"name": name}})) }
}

pub(super) fn annotated(mut secret: Secret, annotations: &Value) -> Secret {
    secret.metadata.annotations = from(annotations.clone());
    secret
}

fn found(secrets: Vec<Secret>) -> Found {
    let names: Vec<Value> = secrets.iter().map(|secret| json!({"name": secret.name_any()})).collect();
    Found {
        namespace: J.into(),
        account: Some(from(json!({"metadata": {"name": "sa"}, "secrets": names}))),
        secrets: secrets.into_iter().map(|secret| (secret.name_any(), secret)).collect(),
    }
}

fn of_account(found: &Found, settings: &CredentialSettings) -> Result<Injection, Problem> {
    injection(&wish(Some("sa"), None).unwrap(), found, settings)
}

/// The variables as lines: `NAME=text` or `NAME<secret/key`.
fn lines(injection: &Injection) -> Vec<String> {
    let line = |(name, origin): (&String, &Origin)| match origin {
        Origin::Text(text) => format!("{name}={text}"),
        Origin::Key { secret, key } => format!("{name}<{secret}/{key}"),
    };
    injection.variables.iter().map(line).collect()
}

fn storage(storage: Value) -> StorageSpec {
    from(storage)
}

#[test]
fn a_key_goes_before_an_account_and_a_cache_that_names_neither_brings_nothing() {
    let kept = |account, storage: Option<&StorageSpec>| {
        wish(account, storage).map(|wish| format!("{:?}", wish.kept))
    };
    let key = storage(json!({"key": "k"}));
    let parameters = storage(json!({"parameters": {"region": "r"}}));
    assert_eq!(kept(Some("sa"), Some(&key)).as_deref(), Some("Key(\"k\")"));
    assert_eq!(kept(Some("sa"), Some(&parameters)).as_deref(), Some("Account(\"sa\")"));
    assert_eq!(kept(None, Some(&parameters)).as_deref(), Some("DefaultAccount"));
    assert_eq!(kept(Some(""), None), None);
    assert_eq!(kept(None, None), None);
}

#[test]
fn an_entry_of_the_storage_secret_is_referred_to_and_parameters_are_handed_on() {
    let entry = r#"{"type": "s3", "access_key_id": "a", "cabundle_configmap": "ca"}"#;
    let found = found(vec![secret("storage-config", &[("minio", entry)])]);
    let storage = storage(json!({"key": "minio", "parameters": {"region": "eu"}}));
    let injection = injection(&wish(None, Some(&storage)).unwrap(), &found, &CredentialSettings::default());
    assert_eq!(
        lines(&injection.unwrap()),
        [
            "AWS_CA_BUNDLE_CONFIGMAP=ca",
            "STORAGE_CONFIG<storage-config/minio",
            r#"STORAGE_OVERRIDE_CONFIG={"region":"eu"}"#,
        ]
    );
}

#[test]
fn each_kind_of_secret_becomes_what_kserve_makes_of_it() {
    for (keys, variables) in [
        (vec![("HF_TOKEN", "t")], vec!["HF_TOKEN<x/HF_TOKEN"]),
        (
            vec![("awsAccessKeyID", "a"), ("awsSecretAccessKey", "s")],
            vec!["AWS_ACCESS_KEY_ID<x/awsAccessKeyID", "AWS_SECRET_ACCESS_KEY<x/awsSecretAccessKey"],
        ),
        (
            vec![("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_DEFAULT_REGION", "r")],
            vec![
                "AWS_ACCESS_KEY_ID<x/AWS_ACCESS_KEY_ID",
                "AWS_DEFAULT_REGION<x/AWS_DEFAULT_REGION",
                "AWS_SECRET_ACCESS_KEY<x/AWS_SECRET_ACCESS_KEY",
            ],
        ),
        (
            vec![("gcloud-application-credentials.json", "{}"), ("other", "o")],
            vec!["GOOGLE_APPLICATION_CREDENTIALS=/var/secrets/gcloud-application-credentials.json"],
        ),
        (
            vec![("AZ_CLIENT_ID", "c"), ("AZ_TENANT_ID", "t"), ("AZ_CLIENT_SECRET", "s")],
            vec![
                "AZURE_CLIENT_ID<x/AZ_CLIENT_ID",
                "AZURE_CLIENT_SECRET<x/AZ_CLIENT_SECRET",
                "AZURE_TENANT_ID<x/AZ_TENANT_ID",
            ],
        ),
        (
            vec![("AZURE_ACCESS_TOKEN", "t"), ("AZURE_ACCOUNT_NAME", "n")],
            vec!["AZURE_ACCESS_TOKEN<x/AZURE_ACCESS_TOKEN", "AZURE_ACCOUNT_NAME<x/AZURE_ACCOUNT_NAME"],
        ),
        (
            vec![("AZURE_STORAGE_ACCESS_KEY", "k")],
            vec!["AZURE_STORAGE_ACCESS_KEY<x/AZURE_STORAGE_ACCESS_KEY"],
        ),
        (vec![("https-host", "files.example\n"), ("headers", "{}")], vec!["files.example-headers<x/headers"]),
        (vec![("HDFS_NAMENODE", "n"), ("unrelated", "u")], vec![]),
        (vec![("password", "p")], vec![]),
    ] {
        let found = found(vec![secret("x", &keys)]);
        let injection = of_account(&found, &CredentialSettings::default()).unwrap();
        assert_eq!(lines(&injection), variables, "{keys:?}");
    }
}

#[test]
fn files_are_mounted_with_no_more_of_the_secret_than_is_needed() {
    let gcs = secret("g", &[("gcloud-application-credentials.json", "{}"), ("other", "o")]);
    let hdfs = secret("h", &[("HDFS_NAMENODE", "n"), ("KERBEROS_KEYTAB", "k"), ("unrelated", "u")]);
    let injection = of_account(&found(vec![gcs, hdfs]), &CredentialSettings::default()).unwrap();
    let item = |key: &str| json!({"key": key, "path": key});
    assert_eq!(
        injection.pod_volumes(),
        [
            json!({"name": "hdfs-secrets", "secret": {"secretName": "h",
                "items": [item("HDFS_NAMENODE"), item("KERBEROS_KEYTAB")]}}),
            json!({"name": "user-gcp-sa", "secret": {"secretName": "g",
                "items": [item("gcloud-application-credentials.json")]}}),
        ]
    );
    assert_eq!(
        injection.mounts()[1],
        json!({"name": "user-gcp-sa", "mountPath": "/var/secrets", "readOnly": true})
    );
}

#[test]
fn what_is_said_of_s3_comes_from_annotations_then_the_secret_then_the_settings() {
    let keys = [
        ("id", "a"),
        ("key", "s"),
        ("S3_ENDPOINT", "minio:9000"),
        ("AWS_DEFAULT_REGION", "r"),
        ("S3_VERIFY_SSL", "1"),
    ];
    let annotations = json!({"serving.kserve.io/s3-verifyssl": "0", "serving.kserve.io/s3-usehttps": "0"});
    let settings: CredentialSettings =
        from(json!({"s3": {"s3AccessKeyIDName": "id", "s3SecretAccessKeyName": "key",
        "s3Region": "unused", "s3UseVirtualBucket": "true", "s3Endpoint": "unused"}}));
    let secrets = vec![annotated(secret("x", &keys), &annotations)];
    assert_eq!(
        lines(&of_account(&found(secrets), &settings).unwrap()),
        [
            "AWS_ACCESS_KEY_ID<x/id",
            "AWS_DEFAULT_REGION<x/AWS_DEFAULT_REGION",
            "AWS_ENDPOINT_URL=http://minio:9000",
            "AWS_SECRET_ACCESS_KEY<x/key",
            "S3_ENDPOINT=minio:9000",
            "S3_USER_VIRTUAL_BUCKET=true",
            "S3_USE_HTTPS=0",
            "S3_VERIFY_SSL=0",
        ]
    );
    for (endpoint, expected) in [
        // The client says what is wrong with it.
        ("s4://s3.example", &["AWS_ENDPOINT_URL=https://s4://s3.example", "S3_ENDPOINT=s4://s3.example"][..]),
        (
            "https://s3.example",
            &["AWS_ENDPOINT_URL=https://s3.example", "S3_ENDPOINT=s3.example", "S3_USE_HTTPS=1"],
        ),
        (
            "HTTP://s3.example",
            &["AWS_ENDPOINT_URL=HTTP://s3.example", "S3_ENDPOINT=s3.example", "S3_USE_HTTPS=0"],
        ),
    ] {
        let mut role = found(vec![]);
        let annotations =
            json!({"eks.amazonaws.com/role-arn": "r", "serving.kserve.io/s3-endpoint": endpoint});
        role.account.as_mut().unwrap().metadata.annotations = from(annotations);
        assert_eq!(lines(&of_account(&role, &CredentialSettings::default()).unwrap()), expected);
    }
}

#[test]
fn what_is_missing_or_wrong_is_named_with_what_to_do_and_never_told() {
    let default = CredentialSettings::default();
    let key = |key: &str| storage(json!({"key": key}));
    let of_key = |secrets: Vec<Secret>, wanted: &str| {
        injection(&wish(None, Some(&key(wanted))).unwrap(), &found(secrets), &default).unwrap_err()
    };
    let config = || {
        vec![secret("storage-config", &[("bad", "hunter2 {"), ("gs", r#"{"type": "gs"}"#), ("none", "{}")])]
    };
    let mut no_account = found(vec![]);
    no_account.account = None;
    let mut no_secret = found(vec![secret("x", &[])]);
    no_secret.secrets.clear();
    let of = |keys: &[(&str, &str)]| of_account(&found(vec![secret("x", keys)]), &default).unwrap_err();
    for (problem, reason, words) in [
        (
            of_key(vec![], "k"),
            "SecretNotFound",
            "Secret storage-config does not exist in namespace kserve-localmodel-jobs",
        ),
        (of_key(config(), "k"), "SecretKeyNotFound", "storage-config has no key \"k\""),
        (of_key(config(), "bad"), "SecretInvalid", "is not a JSON object"),
        (of_key(config(), "gs"), "SecretInvalid", "none of s3, hdfs, webhdfs"),
        (of_key(config(), "none"), "SecretInvalid", "has no \"type\""),
        (of_account(&no_account, &default).unwrap_err(), "ServiceAccountNotFound", "serviceAccountName"),
        (of_account(&no_secret, &default).unwrap_err(), "SecretNotFound", "service account sa names it"),
        (of(&[("awsSecretAccessKey", "s")]), "SecretKeyNotFound", "awsAccessKeyID or AWS_ACCESS_KEY_ID"),
        (of(&[("https-host", "h")]), "SecretKeyNotFound", "no key \"headers\""),
        (of(&[("https-host", "a b"), ("headers", "{}")]), "SecretInvalid", "no host name"),
        (of(&[("https-host", " "), ("headers", "{}")]), "SecretInvalid", "no host name"),
        (of(&[("https-host", &"a".repeat(241)), ("headers", "{}")]), "SecretInvalid", "no host name"),
    ] {
        assert_eq!(problem.reason, reason, "{problem:?}");
        assert!(problem.message.contains(words) && problem.message.contains(J), "{problem:?}");
        assert!(!problem.message.contains("hunter2"), "{problem:?}");
    }
    let parameters = storage(json!({"parameters": {"region": "r"}}));
    let without = injection(&wish(None, Some(&parameters)).unwrap(), &no_account, &default).unwrap();
    assert_eq!(
        lines(&without),
        [r#"STORAGE_OVERRIDE_CONFIG={"region":"r"}"#],
        "a namespace need not have any"
    );
}

#[test]
fn a_secret_sets_no_variable_but_those_of_its_store() {
    let odd = [
        ("HTTP_PROXY", "http://evil"),
        ("https_proxy", "http://evil"),
        ("NO_PROXY", "*"),
        ("SSL_CERT_FILE", "/x"),
        ("LD_PRELOAD", "/x"),
        ("LOCALMODEL_PLAIN_HTTP", "allow"),
        ("LOCALMODEL_CACHE_VARIABLES", ""),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil"),
        ("HF_ENDPOINT", "http://evil"),
    ];
    let stores: [&[(&str, &str)]; 5] = [
        &[("awsAccessKeyID", "a"), ("awsSecretAccessKey", "s")],
        &[("gcloud-application-credentials.json", "{}")],
        &[("AZURE_CLIENT_ID", "c"), ("AZURE_STORAGE_ACCESS_KEY", "k")],
        &[("https-host", "HTTP_PROXY"), ("headers", "{}")],
        &[("HF_TOKEN", "t")],
    ];
    let mut names = Vec::new();
    for keys in stores {
        let secrets = vec![secret("x", &[keys, &odd[..]].concat())];
        names.extend(
            of_account(&found(secrets), &CredentialSettings::default()).unwrap().variables.into_keys(),
        );
    }
    assert_eq!(
        names,
        [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "AZURE_CLIENT_ID",
            "AZURE_STORAGE_ACCESS_KEY",
            "HTTP_PROXY-headers",
            "HF_TOKEN",
        ]
    );
}
