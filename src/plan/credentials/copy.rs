//! The copy of a namespace cache's credentials in the job namespace (K4): no more than the values that its Job
//! needs, named by what they become. A Job of the cache refers to this secret alone, so that it can reach
//! nothing that the cache's own namespace does not have.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{FOLDERS, Files, Found, Injection, Origin};
use crate::plan::names::{self, CACHE, CACHE_NAMESPACE, CACHE_UID, CacheKey, MANAGED_BY, MANAGER};
use crate::plan::pass::Problem;

/// What the keys of variables begin with.
const VARIABLE: &str = "env.";
/// What the keys of files begin with; the volume and the file's name follow.
const FILE: &str = "file.";

/// What is to be copied: the values by their keys in the copy, or why there are none.
pub type Content = Result<BTreeMap<String, ByteString>, Problem>;

/// The next step towards a copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It is as wanted.
    Done,
    /// Make it.
    Create,
    /// Patch it so.
    Patch(Value),
    /// Delete it.
    Delete,
    /// Somebody else's secret has its name; the text says which and what to do.
    Conflict(String),
}

/// The values that an injection refers to.
pub fn content(injection: &Injection, found: &Found) -> BTreeMap<String, ByteString> {
    let value = |secret: &str, key: &str| found.secrets.get(secret)?.data.as_ref()?.get(key).cloned();
    let variables = injection.variables.iter().filter_map(|(name, origin)| {
        let value = match origin {
            Origin::Text(text) => ByteString(text.clone().into_bytes()),
            Origin::Key { secret, key } => value(secret, key)?,
        };
        Some((format!("{VARIABLE}{name}"), value))
    });
    let files = injection.volumes.iter().flat_map(|(volume, files)| {
        let item = move |(key, file): &(String, String)| {
            Some((format!("{FILE}{volume}.{file}"), value(&files.secret, key)?))
        };
        files.items.iter().filter_map(item)
    });
    variables.chain(files).collect()
}

/// The copy as it is wanted. One without values says why there are none.
pub fn secret(cache: &CacheKey, uid: &str, job_namespace: &str, content: &Content) -> Secret {
    let labels = [
        (MANAGED_BY, MANAGER.to_owned()),
        (CACHE, names::label_value(&cache.name)),
        (CACHE_NAMESPACE, cache.namespace.clone().unwrap_or_default()),
        (CACHE_UID, uid.to_owned()),
    ];
    let problem = content.as_ref().err().map(|problem| {
        let told = json!({"reason": problem.reason, "message": problem.message});
        (names::CREDENTIALS_PROBLEM.to_owned(), told.to_string())
    });
    Secret {
        metadata: ObjectMeta {
            name: Some(names::credentials(cache)),
            namespace: Some(job_namespace.to_owned()),
            labels: Some(labels.map(|(label, value)| (label.to_owned(), value)).into()),
            annotations: problem.map(|problem| [problem].into()),
            ..ObjectMeta::default()
        },
        data: content.as_ref().ok().cloned(),
        ..Secret::default()
    }
}

/// Whether a secret is the copy of this cache's credentials, or of an earlier cache of its name.
fn is_of(secret: &Secret, cache: &CacheKey) -> bool {
    let label = |label: &str| secret.labels().get(label).map(String::as_str);
    label(MANAGED_BY) == Some(MANAGER)
        && label(CACHE) == Some(&names::label_value(&cache.name))
        && label(CACHE_NAMESPACE) == cache.namespace.as_deref()
}

/// What to do about the copy, given what has its name. None is wanted for a cache that names no credentials.
pub fn step(cache: &CacheKey, wanted: Option<&Secret>, live: Option<&Secret>) -> Step {
    match (wanted, live) {
        (Some(_), None) => Step::Create,
        (None, Some(live)) if is_of(live, cache) => Step::Delete,
        (None, _) => Step::Done,
        (Some(wanted), Some(live)) if !is_of(live, cache) => Step::Conflict(format!(
            "Secret {} in namespace {} is somebody else's and has the name of the copy of this cache's credentials: remove it",
            wanted.name_any(),
            wanted.namespace().unwrap_or_default()
        )),
        (Some(wanted), Some(live)) => match changes(wanted, live) {
            None => Step::Done,
            Some(patch) => Step::Patch(patch),
        },
    }
}

/// A patch of the copy that was looked at; none where it is as wanted.
fn changes(wanted: &Secret, live: &Secret) -> Option<Value> {
    let problem = |secret: &Secret| secret.annotations().get(names::CREDENTIALS_PROBLEM).cloned();
    let data = |secret: &Secret| secret.data.clone().unwrap_or_default();
    let uid = |secret: &Secret| secret.labels().get(CACHE_UID).cloned();
    if (problem(wanted), data(wanted), uid(wanted)) == (problem(live), data(live), uid(live)) {
        return None;
    }
    let wanted_data = data(wanted);
    let mut values: BTreeMap<String, Value> =
        wanted_data.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    for key in data(live).into_keys().filter(|key| !wanted_data.contains_key(key)) {
        values.insert(key, Value::Null);
    }
    Some(json!({
        "metadata": {
            "resourceVersion": live.resource_version(),
            "labels": wanted.labels(),
            "annotations": {names::CREDENTIALS_PROBLEM: problem(wanted)},
        },
        "data": values,
    }))
}

/// What a Job gets from the copy, or why it cannot be made.
pub fn injection(cache: &CacheKey, job_namespace: &str, copy: Option<&Secret>) -> Result<Injection, Problem> {
    let name = names::credentials(cache);
    let Some(copy) = copy.filter(|copy| is_of(copy, cache)) else {
        let message = format!(
            "Secret {name} in namespace {job_namespace}, the operator's copy of the credentials that LocalModelNamespaceCache {cache} names, is not there yet"
        );
        return Err(Problem::new("CredentialsNotCopied", message));
    };
    if let Some(told) = copy.annotations().get(names::CREDENTIALS_PROBLEM) {
        let told: Value = serde_json::from_str(told).unwrap_or_default();
        let text = |field: &str| told[field].as_str().unwrap_or("CredentialsNotCopied").to_owned();
        return Err(Problem { reason: text("reason"), message: text("message") });
    }
    let mut injection = Injection::default();
    for key in copy.data.iter().flat_map(BTreeMap::keys) {
        if let Some(variable) = key.strip_prefix(VARIABLE) {
            injection.key(variable, &name, key);
        } else if let Some((volume, file)) = key.strip_prefix(FILE).and_then(|rest| rest.split_once('.'))
            && let Some((_, folder)) = FOLDERS.iter().find(|(known, _)| *known == volume)
        {
            let files = Files { folder: (*folder).into(), secret: name.clone(), items: Vec::new() };
            let files = injection.volumes.entry(volume.to_owned()).or_insert(files);
            files.items.push((key.clone(), file.to_owned()));
        }
    }
    Ok(injection)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{annotated, secret as a_secret};
    use super::*;
    use crate::config::CredentialSettings;
    use crate::plan::credentials::wish;
    use crate::plan::samples::from;

    const J: &str = "kserve-localmodel-jobs";

    fn key() -> CacheKey {
        CacheKey::namespaced("team", "m")
    }

    /// What the secrets of service account `sa` in namespace `team` come to.
    fn copied(secrets: Vec<Secret>) -> Content {
        let names: Vec<Value> = secrets.iter().map(|secret| json!({"name": secret.name_any()})).collect();
        let found = Found {
            namespace: "team".into(),
            account: Some(from(json!({"metadata": {"name": "sa"}, "secrets": names}))),
            secrets: secrets.into_iter().map(|secret| (secret.name_any(), secret)).collect(),
        };
        let wish = wish(Some("sa"), None).unwrap();
        super::super::injection(&wish, &found, &CredentialSettings::default())
            .map(|injection| content(&injection, &found))
    }

    fn wanted(secrets: Vec<Secret>) -> Secret {
        secret(&key(), "uid", J, &copied(secrets))
    }

    /// The same as the API server returns it.
    fn live(mut secret: Secret) -> Secret {
        secret.metadata.resource_version = Some("7".into());
        secret
    }

    #[test]
    fn a_copy_has_the_values_that_are_needed_and_no_other_and_is_labelled_for_its_cache() {
        let hub = a_secret("hf", &[("HF_TOKEN", "t"), ("unrelated", "u")]);
        let google = a_secret("g", &[("gcloud-application-credentials.json", "{}"), ("unrelated", "u")]);
        let s3 = a_secret("s3", &[("awsAccessKeyID", "a"), ("awsSecretAccessKey", "s")]);
        let s3 = annotated(s3, &json!({"serving.kserve.io/s3-region": "eu"}));
        let copy = wanted(vec![hub, google, s3]);
        let keys: Vec<String> = copy.data.clone().unwrap().into_keys().collect();
        assert_eq!(
            keys,
            [
                "env.AWS_ACCESS_KEY_ID",
                "env.AWS_DEFAULT_REGION",
                "env.AWS_SECRET_ACCESS_KEY",
                "env.GOOGLE_APPLICATION_CREDENTIALS",
                "env.HF_TOKEN",
                "file.user-gcp-sa.gcloud-application-credentials.json",
            ]
        );
        assert_eq!(
            json!(copy.metadata.labels),
            json!({"app.kubernetes.io/managed-by": "localmodel", "localmodel.kserve.io/cache": "m",
                "localmodel.kserve.io/cache-namespace": "team", "localmodel.kserve.io/cache-uid": "uid"})
        );
        assert_eq!((copy.name_any(), copy.namespace().as_deref()), (names::credentials(&key()), Some(J)));
    }

    #[test]
    fn a_job_refers_to_the_copy_alone() {
        let google = a_secret("g", &[("gcloud-application-credentials.json", "{}")]);
        let copy = wanted(vec![a_secret("hf", &[("HF_TOKEN", "t")]), google]);
        let injection = injection(&key(), J, Some(&copy)).unwrap();
        insta::assert_yaml_snapshot!(
            "what_a_job_gets_from_a_copy",
            json!({"env": injection.env(), "volumeMounts": injection.mounts(), "volumes": injection.pod_volumes()})
        );
    }

    #[test]
    fn a_copy_is_made_follows_its_source_and_goes() {
        let token = |token: &str| wanted(vec![a_secret("hf", &[("HF_TOKEN", token)])]);
        let (one, two) = (token("one"), token("two"));
        assert_eq!(step(&key(), Some(&one), None), Step::Create);
        assert_eq!(step(&key(), Some(&one), Some(&live(one.clone()))), Step::Done);
        let Step::Patch(patch) = step(&key(), Some(&two), Some(&live(one.clone()))) else { panic!() };
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["data"], json!({"env.HF_TOKEN": "dHdv"}));
        assert_eq!(step(&key(), None, Some(&live(one.clone()))), Step::Delete);
        assert_eq!(step(&key(), None, None), Step::Done);
        let later = secret(&key(), "another uid", J, &copied(vec![a_secret("hf", &[("HF_TOKEN", "one")])]));
        assert!(matches!(step(&key(), Some(&later), Some(&live(one))), Step::Patch(_)), "a later cache's");
    }

    #[test]
    fn when_the_source_is_gone_the_values_go_and_the_copy_says_why() {
        let one = wanted(vec![a_secret("hf", &[("HF_TOKEN", "one")])]);
        let problem = Problem::new("SecretNotFound", "Secret hf does not exist in namespace team");
        let gone = secret(&key(), "uid", J, &Err(problem.clone()));
        let Step::Patch(patch) = step(&key(), Some(&gone), Some(&live(one.clone()))) else { panic!() };
        assert_eq!(patch["data"], json!({"env.HF_TOKEN": null}));
        assert_eq!(injection(&key(), J, Some(&gone)), Err(problem));
        let Step::Patch(patch) = step(&key(), Some(&one), Some(&live(gone))) else { panic!() };
        assert_eq!(patch["metadata"]["annotations"], json!({names::CREDENTIALS_PROBLEM: null}));
    }

    #[test]
    fn somebody_elses_secret_is_neither_changed_nor_deleted_nor_used() {
        let copy = wanted(vec![a_secret("hf", &[("HF_TOKEN", "t")])]);
        let others = secret(&CacheKey::namespaced("team-m", "x"), "uid", J, &copied(vec![]));
        let mut theirs = copy.clone();
        theirs.metadata.labels = None;
        let relabelled = |label: &str| {
            let mut secret = copy.clone();
            secret.metadata.labels.as_mut().unwrap().insert(label.into(), "another".into());
            secret
        };
        let nearly = [MANAGED_BY, CACHE, CACHE_NAMESPACE].map(relabelled);
        for foreign in [others, theirs].into_iter().chain(nearly) {
            assert!(matches!(step(&key(), Some(&copy), Some(&foreign)), Step::Conflict(_)));
            assert_eq!(step(&key(), None, Some(&foreign)), Step::Done);
            let refused = injection(&key(), J, Some(&foreign)).unwrap_err();
            assert_eq!(refused.reason, "CredentialsNotCopied");
        }
        assert_eq!(injection(&key(), J, None).unwrap_err().reason, "CredentialsNotCopied");
    }
}
