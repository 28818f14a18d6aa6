//! The environment of a storage initializer: KServe's contract for credentials and settings.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{Error, Result};
use super::shared::{self, CACHE_VARIABLES, Own, STORAGE_CONFIGS, Store};

/// Environment variables; printed without their values.
#[derive(Clone, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
    /// What the cache brings of its own.
    own: Own,
}

/// What stands in `STORAGE_CONFIG` for S3, and the variable that means the same.
const S3_KEYS: [(&str, &str); 8] = [
    ("endpoint_url", "AWS_ENDPOINT_URL"),
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("session_token", "AWS_SESSION_TOKEN"),
    ("region", "AWS_DEFAULT_REGION"),
    ("ca_bundle", "AWS_CA_BUNDLE"),
    ("verify_ssl", "S3_VERIFY_SSL"),
    ("anonymous", "awsAnonymousCredential"),
];

impl Variables {
    /// Those of this process, with what `STORAGE_CONFIG` and `STORAGE_OVERRIDE_CONFIG` say (K3).
    pub fn of_process() -> Result<Self> {
        // A variable that is no text is none that is known here.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(std::env::vars_os().filter_map(text).collect())
    }

    /// The value of a variable, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Whether a variable says yes.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true"))
    }

    /// Whether a variable says no.
    pub fn is_false(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "0" | "false"))
    }

    /// The variables whose names begin so, with their values.
    pub fn beginning_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.values
            .keys()
            .filter(move |name| name.starts_with(prefix))
            .filter_map(|name| Some((name.as_str(), self.get(name)?)))
    }

    /// Whether the cache brings credentials or an endpoint of its own: then the platform's do not go there, be
    /// they the storage container's or those of this machine.
    pub fn has_own(&self, store: Store) -> bool {
        self.own.credentials.contains(&store)
    }

    /// Whether the endpoint may be the cache's own choice.
    pub fn has_own_endpoint(&self, store: Store) -> bool {
        self.own.endpoints.contains(&store)
    }

    /// Whether the download is for the cache of a namespace, whose tenant chose the source.
    pub fn is_of_namespace(&self) -> bool {
        self.values.contains_key(CACHE_VARIABLES)
    }

    fn new(values: BTreeMap<String, String>) -> Result<Self> {
        let mut all = Self { values, own: Own::default() };
        let set = all.set_by_storage_config()?;
        all.own = shared::separate(&mut all.values, &set);
        Ok(all)
    }

    /// Sets the variables that KServe's JSON sets; each is given with the one that holds the JSON.
    fn set_by_storage_config(&mut self) -> Result<Vec<(&'static str, &'static str)>> {
        let all = STORAGE_CONFIGS.map(|name| self.json(name).map(|json| (name, json)));
        let [config, over] = all;
        let (config, over) = (config?, over?);
        let found = |key: &str| {
            [&over, &config].into_iter().find_map(|(name, json)| json.get(key).map(|value| (*name, value)))
        };
        if found("type").and_then(|(_, kind)| kind.as_str()) != Some("s3") {
            return Ok(Vec::new());
        }
        let mut set = Vec::new();
        for (key, variable) in S3_KEYS {
            let (name, value) = match found(key) {
                Some((name, Value::String(text))) => (name, text.clone()),
                Some((_, Value::Null)) | None => continue,
                Some((name, other)) => (name, other.to_string()),
            };
            self.values.insert(variable.to_owned(), value);
            set.push((name, variable));
        }
        Ok(set)
    }

    fn json(&self, name: &'static str) -> Result<Map<String, Value>> {
        let Some(text) = self.get(name) else { return Ok(Map::new()) };
        // The text may hold a password: where it is wrong is told, not what stands there.
        serde_json::from_str(text).map_err(|error| Error::InvalidSetting {
            name,
            why: format!("it is not a JSON object (line {}, column {})", error.line(), error.column()),
        })
    }
}

impl<const N: usize> TryFrom<[(&str, &str); N]> for Variables {
    type Error = Error;

    fn try_from(variables: [(&str, &str); N]) -> Result<Self> {
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self::new(owned.into_iter().collect())
    }
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_storage_config_sets_what_kserve_sets_and_the_override_wins() {
        let variables = Variables::try_from([
            ("AWS_ACCESS_KEY_ID", "from the environment"),
            (
                "STORAGE_CONFIG",
                r#"{"type": "s3", "access_key_id": "a", "secret_access_key": "s", "region": "r1",
                                   "anonymous": "false", "bucket": "ignored"}"#,
            ),
            ("STORAGE_OVERRIDE_CONFIG", r#"{"region": "r2", "verify_ssl": 0}"#),
        ])
        .unwrap();
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", Some("a")),
            ("AWS_SECRET_ACCESS_KEY", Some("s")),
            ("AWS_DEFAULT_REGION", Some("r2")),
            ("S3_VERIFY_SSL", Some("0")),
            ("AWS_ENDPOINT_URL", None),
        ] {
            assert_eq!(variables.get(name), value, "{name}");
        }
        assert!(variables.is_false("S3_VERIFY_SSL") && !variables.is_true("awsAnonymousCredential"));
        assert!(!format!("{variables:?}").contains("from the environment"));
    }

    #[test]
    fn a_config_of_another_store_sets_nothing_and_one_that_is_no_json_is_told_without_its_text() {
        let variables =
            Variables::try_from([("STORAGE_CONFIG", r#"{"type": "gs", "region": "x"}"#)]).unwrap();
        assert_eq!(variables.get("AWS_DEFAULT_REGION"), None);
        let error =
            Variables::try_from([("STORAGE_CONFIG", r#"{"secret_access_key": "hunter2"#)]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("STORAGE_CONFIG is not valid") && !text.contains("hunter2"), "{text}");
    }
}
