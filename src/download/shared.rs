//! Credentials that all downloads share, and a cache that brings its own.
//!
//! The endpoint of a cache's own is somebody's whom the platform does not know: neither the storage container's
//! credentials nor those of the node or pod go there. The operator names the variables that are the cache's.

use std::collections::{BTreeMap, BTreeSet};

/// The variable that names the cache's own variables, separated by commas. It is set for caches of namespaces.
pub const CACHE_VARIABLES: &str = "LOCALMODEL_CACHE_VARIABLES";
/// The variable that names endpoints which are the platform's also where the cache's variables repeat them.
pub const PLATFORM_ENDPOINTS: &str = "LOCALMODEL_PLATFORM_ENDPOINTS";

/// The kinds of object stores, by whose credentials they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// Amazon's S3, and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure.
    Azure,
}

/// Variables that say where a store is or how it is spoken to: they are neither credentials nor another endpoint
/// when a cache brings them, and stay when it brings its own credentials.
const MANNERS: [&str; 8] = [
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE_CONFIGMAP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "S3_USER_VIRTUAL_BUCKET",
    "S3_USE_ACCELERATE",
    "AZURE_SUBSCRIPTION_ID",
    "AZURE_AUTHORITY_HOST",
];
/// Variables of endpoints: a cache that brings one has its own, and the container's stays for a cache that does not.
const ENDPOINTS: [&str; 10] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE",
    "S3_ENDPOINT",
    "S3_USE_HTTPS",
    "S3_VERIFY_SSL",
    "STORAGE_EMULATOR_HOST",
    "GOOGLE_BASE_URL",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
];
/// Variables that choose the endpoint of S3.
const S3_ENDPOINTS: [&str; 4] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT", "S3_USE_HTTPS"];
/// The same of the other stores.
const OTHER_ENDPOINTS: [&str; 4] =
    ["STORAGE_EMULATOR_HOST", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"];
/// KServe's JSON, which sets variables of S3; the latter goes before the former.
pub(super) const STORAGE_CONFIGS: [&str; 2] = ["STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"];

impl Store {
    const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Azure];

    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::S3 => {
                &["AWS_", "S3_", "awsAnonymousCredential", "STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"]
            }
            Self::Gcs => &["GOOGLE_", "STORAGE_EMULATOR_HOST"],
            Self::Azure => &["AZURE_", "AZ_", "IDENTITY_", "MSI_"],
        }
    }

    fn has(self, name: &str) -> bool {
        self.prefixes().iter().any(|prefix| name.starts_with(prefix))
    }
}

/// What a cache brings of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// The stores that it has credentials or an endpoint for.
    pub(super) credentials: BTreeSet<Store>,
    /// Those whose endpoint it has chosen.
    pub(super) endpoints: BTreeSet<Store>,
}

/// The stores for which these variables are credentials or an endpoint.
pub fn stores_of<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<Store> {
    let brought = names.filter(|name| !MANNERS.contains(name));
    brought.filter_map(|name| Store::ALL.into_iter().find(|store| store.has(name))).collect()
}

/// Whether a variable of the platform's goes where a cache brings its own for these stores: it may be the identity of
/// somebody else. What says how a store is spoken to stays.
pub fn gives_way(name: &str, own: &BTreeSet<Store>) -> bool {
    !MANNERS.contains(&name) && !ENDPOINTS.contains(&name) && own.iter().any(|store| store.has(name))
}

/// What the cache brings of its own; takes away what gives way to it. `set` are the variables that KServe's JSON has
/// set, each after the one that holds the JSON: they are the cache's where that is.
pub(super) fn separate(variables: &mut BTreeMap<String, String>, set: &[(&str, &str)]) -> Own {
    let Some(list) = variables.get(CACHE_VARIABLES) else { return Own::default() };
    let mut of_cache: BTreeSet<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    for (holder, name) in set {
        if of_cache.contains(*holder) {
            of_cache.insert((*name).to_owned());
        } else {
            of_cache.remove(*name);
        }
    }
    of_cache.retain(|name| !STORAGE_CONFIGS.contains(&name.as_str()));
    let value = |name: &str| variables.get(name).map(|value| value.trim().trim_end_matches('/'));
    let platforms = value(PLATFORM_ENDPOINTS).unwrap_or_default();
    let mut platforms = platforms.split(',').map(|url| url.trim().trim_end_matches('/'));
    if value("AWS_ENDPOINT_URL").is_some_and(|url| !url.is_empty() && platforms.any(|known| known == url)) {
        of_cache.retain(|name| !S3_ENDPOINTS.contains(&name.as_str()));
    }
    let credentials = stores_of(of_cache.iter().map(String::as_str));
    let named = S3_ENDPOINTS.iter().chain(&OTHER_ENDPOINTS).filter(|name| of_cache.contains(**name));
    let endpoints = stores_of(named.copied());
    variables.retain(|name, _| of_cache.contains(name) || !gives_way(name, &credentials));
    Own { credentials, endpoints }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(list: Option<&str>, set: &[(&str, &str)]) -> (BTreeSet<Store>, Vec<String>) {
        let (own, left) = separated(list, set, "");
        (own.credentials, left)
    }

    fn separated(list: Option<&str>, set: &[(&str, &str)], platforms: &str) -> (Own, Vec<String>) {
        let names = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AZURE_FEDERATED_TOKEN_FILE",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "HF_TOKEN",
            "HTTPS_PROXY",
        ];
        let mut variables: BTreeMap<_, _> =
            names.map(|name| (name.to_owned(), "http://minio/".to_owned())).into();
        variables.insert(PLATFORM_ENDPOINTS.to_owned(), platforms.to_owned());
        variables.extend(list.map(|list| (CACHE_VARIABLES.to_owned(), list.to_owned())));
        let own = separate(&mut variables, set);
        variables.retain(|name, _| !name.starts_with("LOCALMODEL_"));
        (own, variables.into_keys().collect())
    }

    #[test]
    fn nothing_is_taken_from_a_download_that_is_the_platforms_or_brings_nothing() {
        for list in [None, Some(""), Some("HF_TOKEN"), Some("AWS_REGION,S3_USER_VIRTUAL_BUCKET")] {
            let (own, left) = left(list, &[]);
            assert!(own.is_empty() && left.len() == 11, "{list:?}: {own:?} {left:?}");
        }
    }

    #[test]
    fn a_cache_with_its_own_endpoint_gets_nobody_elses_credentials() {
        for (list, set) in [
            ("AWS_ENDPOINT_URL,S3_ENDPOINT", &[][..]),
            ("S3_USE_HTTPS", &[]),
            (
                "STORAGE_OVERRIDE_CONFIG",
                &[("STORAGE_OVERRIDE_CONFIG", "AWS_ENDPOINT_URL"), ("STORAGE_CONFIG", "AWS_SESSION_TOKEN")],
            ),
        ] {
            let (own, left) = left(Some(list), set);
            assert_eq!(own, BTreeSet::from([Store::S3]));
            let of_s3: Vec<_> = left.iter().filter(|name| name.starts_with("AWS_")).collect();
            assert_eq!(of_s3, ["AWS_ENDPOINT_URL", "AWS_REGION"], "{list}");
            assert_eq!(left.len(), 6, "what is of other stores stays: {left:?}");
        }
    }

    #[test]
    fn a_cache_with_its_own_keys_is_not_mixed_with_the_containers_and_keeps_its_endpoint() {
        let (own, left) = left(Some("AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY"), &[]);
        assert_eq!(own, BTreeSet::from([Store::S3]));
        let of_s3: Vec<_> = left.iter().filter(|name| name.starts_with("AWS_")).collect();
        assert_eq!(of_s3, ["AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_SECRET_ACCESS_KEY"]);
        let (own, _) = self::left(Some("AZURE_CLIENT_ID,GOOGLE_APPLICATION_CREDENTIALS"), &[]);
        assert_eq!(own, BTreeSet::from([Store::Gcs, Store::Azure]));
    }

    #[test]
    fn an_endpoint_is_the_platforms_where_the_settings_or_the_container_name_it() {
        let endpoints = |list: &str, platforms: &str| separated(Some(list), &[], platforms).0.endpoints;
        let (keys, endpoint) = ("AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL,S3_ENDPOINT,S3_USE_HTTPS");
        assert!(endpoints(keys, "").is_empty(), "the container's");
        assert!(endpoints(endpoint, "https://other, http://minio").is_empty(), "the settings'");
        for platforms in ["", "https://minio", "http://minio.evil"] {
            assert_eq!(endpoints(endpoint, platforms), BTreeSet::from([Store::S3]), "{platforms}");
        }
        assert_eq!(endpoints("GOOGLE_BASE_URL,AZURE_CLIENT_ID", ""), BTreeSet::from([Store::Gcs]));
    }
}
