//! What a download Job is made from, in short: two digests that stand in its annotation. When what a Job would
//! be made from now differs, a failed one is worth another try at once (A6).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The version of each secret that a Job refers to and that is there.
pub type Versions = BTreeMap<String, String>;

/// Digests of a Job's pod, and of which versions of secrets it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Of the pod: container, settings, and where its credentials are.
    pub pod: String,
    /// Of the secrets' versions. Not of what is in them: a digest of a weak password tells it.
    pub secrets: String,
}

impl Recipe {
    /// Of this pod with these secrets.
    pub fn new(pod: &Value, versions: &Versions) -> Self {
        Self { pod: digest(pod), secrets: digest(&json!(versions)) }
    }
}

fn digest(value: &Value) -> String {
    hex::encode(&Sha256::digest(value.to_string().as_bytes())[..8])
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{}", self.pod, self.secrets)
    }
}

impl FromStr for Recipe {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pod, secrets) = text.split_once('.').ok_or(())?;
        Ok(Self { pod: pod.to_owned(), secrets: secrets.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_tells_another_pod_from_another_version_of_a_secret() {
        let versions = |version: &str| Versions::from([("hf-secret".to_owned(), version.to_owned())]);
        let recipe = Recipe::new(&json!({"a": 1}), &versions("1"));
        assert_eq!(recipe.to_string().parse(), Ok(recipe.clone()));
        let newer = Recipe::new(&json!({"a": 1}), &versions("2"));
        assert!(newer.pod == recipe.pod && newer.secrets != recipe.secrets);
        let other = Recipe::new(&json!({"a": 2}), &versions("1"));
        assert!(other.pod != recipe.pod && other.secrets == recipe.secrets);
        assert_eq!("".parse::<Recipe>(), Err(()));
    }
}
