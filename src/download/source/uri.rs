//! Source URIs: what each scheme's look like, and why one makes no sense.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::download::error::{Error, Result};

/// The forms that are supported, for messages.
pub const SUPPORTED: &str = "hf://owner/model[:revision], s3://bucket/prefix, gs://bucket/prefix, \
                             https://account.blob.core.windows.net/container/prefix, \
                             abfs://container@account.dfs.core.windows.net/prefix, https://host/file and \
                             file:///path";

/// A source URI that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `hf://owner/model[:revision]`.
    Hub(Repository),
    /// `s3://`, `gs://` and Azure's.
    Bucket(Bucket),
    /// `https://host/file`.
    Web(Url),
    /// `file:///path`.
    Local(PathBuf),
}

/// A model repository on a hub, and the revision that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// A user or an organisation.
    pub owner: String,
    /// The model.
    pub model: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// What is wanted of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Whose it is.
    pub account: Account,
    /// The bucket, or Azure's container.
    pub name: String,
    /// An object, or what the names of all objects begin with, up to a `/`; no `/` at its ends.
    pub prefix: String,
    /// Whether the URI ends with a `/`: then it means no object of that name.
    pub is_folder: bool,
}

/// Where a bucket is; printed without its signature.
#[derive(Clone, PartialEq, Eq)]
pub enum Account {
    /// Amazon's S3, or what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure: the account, unless the environment names it, and a shared access signature.
    Azure {
        /// The account.
        name: Option<String>,
        /// The host that an `https` URI names.
        host: Option<String>,
        /// The host that another one names, unless the environment names an endpoint.
        usual_host: Option<String>,
        /// The URI's query.
        signature: Option<String>,
    },
}

impl Location {
    /// Understands a source URI (F2, F6).
    pub fn parse(uri: &str) -> Result<Self> {
        match uri.split_once("://") {
            Some(("hf", rest)) => Repository::parse(uri, rest).map(Self::Hub),
            Some(("s3", rest)) => Bucket::parse(uri, Account::S3, rest).map(Self::Bucket),
            Some(("gs", rest)) => Bucket::parse(uri, Account::Gcs, rest).map(Self::Bucket),
            Some(("abfs" | "abfss" | "az" | "azure", rest)) => Bucket::abfs(uri, rest).map(Self::Bucket),
            Some(("http" | "https", _)) => Self::web(uri),
            Some(("file", path)) => match path.strip_prefix('/') {
                Some(_) => Ok(Self::Local(PathBuf::from(path))),
                None => Err(invalid(uri, "it has to look like file:///path")),
            },
            Some((scheme, rest)) if SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) => {
                let meant = told(&format!("{}://{rest}", scheme.to_ascii_lowercase()));
                Err(invalid(uri, &format!("schemes are lower case; write {meant}")))
            }
            Some(_) => Err(Error::UnsupportedScheme { uri: told(uri) }),
            None => Err(invalid(uri, &format!("it has to look like one of {SUPPORTED}"))),
        }
    }

    /// The commit, where the URI itself names one.
    pub fn commit(&self) -> Option<&str> {
        match self {
            Self::Hub(repository) => {
                Some(repository.revision.as_str()).filter(|revision| is_commit(revision))
            }
            Self::Bucket(_) | Self::Web(_) | Self::Local(_) => None,
        }
    }

    fn web(uri: &str) -> Result<Self> {
        let url = Url::parse(uri).map_err(|error| invalid(uri, &error.to_string()))?;
        let host = url.host_str().unwrap_or_default();
        let azure =
            [".blob.core.windows.net", ".blob.storage.azure.net"].iter().any(|end| host.ends_with(end));
        if azure {
            let name = host.split('.').next().map(str::to_owned);
            let signature = url.query().map(str::to_owned);
            let account = Account::Azure { name, host: Some(host.to_owned()), usual_host: None, signature };
            return Bucket::parse(uri, account, url.path().trim_start_matches('/')).map(Self::Bucket);
        }
        if !url.username().is_empty() || url.password().is_some() {
            let why = format!("it holds a user or a password; put headers into {host}-headers");
            return Err(invalid(uri, &why));
        }
        if let Some(meant) = of_page(&url) {
            return Err(invalid(uri, &format!("it is a web page of the hub; write {meant}")));
        }
        if url.path().ends_with('/') {
            return Err(invalid(uri, "it names no file"));
        }
        Ok(Self::Web(url))
    }
}

/// The schemes that are supported.
const SCHEMES: [&str; 10] = ["hf", "s3", "gs", "abfs", "abfss", "az", "azure", "http", "https", "file"];

/// What a person means who copies the address of a model's page from a browser: the page would be downloaded as if it
/// were the model.
fn of_page(url: &Url) -> Option<String> {
    if !matches!(url.host_str()?, "huggingface.co" | "www.huggingface.co" | "hf.co") {
        return None;
    }
    let parts: Vec<&str> = url.path_segments()?.filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [owner, model] => Some(format!("hf://{owner}/{model}")),
        [owner, model, "tree" | "blob", revision, ..] => Some(format!("hf://{owner}/{model}:{revision}")),
        _ => None,
    }
}

/// A URI as it may be told: what is behind a `?` may be a signature, and what is before an `@` a password.
pub fn without_secrets(uri: &str) -> String {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = uri.split_at(uri.find("://").map_or(0, |at| at + "://".len()));
    if matches!(scheme, "abfs://" | "abfss://" | "az://" | "azure://") {
        return uri.to_owned(); // there the container stands before the `@`
    }
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}{}{path}", host.rsplit('@').next().unwrap_or_default())
}

/// The same of every address in a text.
pub fn text_without_secrets(text: &str) -> String {
    let word = |word: &str| if word.contains("://") { without_secrets(word) } else { word.to_owned() };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The same for a message about the URI, which shows where something is left out.
fn told(uri: &str) -> String {
    let rest = if uri.contains(['?', '#']) { "?…" } else { "" };
    without_secrets(uri) + rest
}

impl Bucket {
    fn parse(uri: &str, account: Account, rest: &str) -> Result<Self> {
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '$');
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(invalid(uri, "it names no bucket: letters, digits, '-', '_' and '.'"));
        }
        let is_folder = prefix.ends_with('/');
        let prefix = prefix.trim_matches('/');
        if prefix.split('/').any(|part| part == ".." || part == ".") {
            return Err(invalid(uri, "its path holds '.' or '..'"));
        }
        let prefix = match account {
            // These URIs are web addresses, whose paths are encoded.
            Account::Azure { .. } => percent_decode_str(prefix).decode_utf8_lossy().into_owned(),
            Account::S3 | Account::Gcs => prefix.to_owned(),
        };
        Ok(Self { account, name: name.to_owned(), prefix, is_folder })
    }

    /// `abfs://container@account.dfs.core.windows.net/prefix`, or `abfs://container/prefix`.
    fn abfs(uri: &str, rest: &str) -> Result<Self> {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (container, host) = match host.split_once('@') {
            Some((container, host)) => (container, Some(host)),
            None => (host, None),
        };
        let name = host.and_then(|host| host.split('.').next()).map(str::to_owned);
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.as_deref().is_some_and(|name| name.is_empty() || !name.chars().all(is_of_name)) {
            return Err(invalid(uri, "its account has to have letters, digits and '-' only"));
        }
        // Blobs are asked for, whichever of an account's two hosts is named.
        let usual_host =
            host.filter(|host| host.contains('.')).map(|host| host.replacen(".dfs.", ".blob.", 1));
        let account = Account::Azure { name, host: None, usual_host, signature: None };
        Self::parse(uri, account, &format!("{container}/{path}"))
    }

    /// The bucket without the prefix, for messages.
    pub fn whole(&self) -> String {
        Self { prefix: String::new(), ..self.clone() }.to_string()
    }

    /// The scheme that such a bucket is asked for by.
    pub fn scheme(&self) -> &'static str {
        match self.account {
            Account::S3 => "s3",
            Account::Gcs => "gs",
            Account::Azure { .. } => "abfs",
        }
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::S3 => f.write_str("S3"),
            Self::Gcs => f.write_str("Gcs"),
            Self::Azure { name, host, usual_host, signature } => {
                let signature = signature.as_ref().map(|_| "…");
                let host = host.as_ref().or(usual_host.as_ref());
                f.debug_struct("Azure")
                    .field("name", name)
                    .field("host", &host)
                    .field("signature", &signature)
                    .finish()
            }
        }
    }
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.name)?;
        if let Account::Azure { name: Some(account), .. } = &self.account {
            write!(f, "@{account}")?;
        }
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl Repository {
    fn parse(uri: &str, rest: &str) -> Result<Self> {
        let (name, revision) = rest.split_once(':').unwrap_or((rest, ""));
        let Some((owner, model)) = name.split_once('/').filter(|(_, model)| !model.contains('/')) else {
            return Err(invalid(uri, "it has to have exactly two parts, hf://owner/model[:revision]"));
        };
        for (part, value) in [("the owner", owner), ("the model", model)] {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if value.is_empty() || value.starts_with('.') || !value.chars().all(allowed) {
                return Err(invalid(uri, &format!("{part} has to be letters, digits, '-', '_' and '.'")));
            }
        }
        if revision.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid(uri, "the revision holds white space"));
        }
        let revision = if revision.is_empty() { "main" } else { revision };
        Ok(Self { owner: owner.to_owned(), model: model.to_owned(), revision: revision.to_owned() })
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.model)
    }
}

/// Whether a revision is a full commit id, which needs no look-up and never moves; some hubs have ones of SHA-256.
pub fn is_commit(revision: &str) -> bool {
    matches!(revision.len(), 40 | 64)
        && revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn invalid(uri: &str, why: &str) -> Error {
    Error::InvalidSource { uri: told(uri), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_uris_have_two_parts_and_maybe_a_revision() {
        for (uri, owner, model, revision) in [
            ("hf://meta-llama/meta-llama-3-8b-instruct", "meta-llama", "meta-llama-3-8b-instruct", "main"),
            ("hf://o/m:v1.0", "o", "m", "v1.0"),
            ("hf://o/m:refs/pr/1", "o", "m", "refs/pr/1"),
            ("hf://o/m_x.y:", "o", "m_x.y", "main"),
        ] {
            let expected = Repository { owner: owner.into(), model: model.into(), revision: revision.into() };
            assert_eq!(Location::parse(uri).unwrap(), Location::Hub(expected), "{uri}");
        }
    }

    #[test]
    fn a_uri_that_makes_no_sense_is_refused_with_its_reason() {
        for (uri, reason) in [
            ("hf://only-one-part", "InvalidSource"),
            ("hf:///x", "InvalidSource"),
            ("hf://o/", "InvalidSource"),
            ("hf://o/m/x", "InvalidSource"),
            ("hf://o/..", "InvalidSource"),
            ("hf://o/m?x", "InvalidSource"),
            ("hf://o/m:a b", "InvalidSource"),
            ("o/m", "InvalidSource"),
            ("", "InvalidSource"),
            ("HF://o/m", "InvalidSource"),
            ("pvc://claim/model", "UnsupportedScheme"),
            ("hdfs://namenode/model", "UnsupportedScheme"),
            ("s3://", "InvalidSource"),
            ("s3:///model", "InvalidSource"),
            ("s3://b/a/../c", "InvalidSource"),
            ("gs://b?x/a", "InvalidSource"),
            ("abfs://@account/x", "InvalidSource"),
            ("https://host/", "InvalidSource"),
            ("https://host/folder/", "InvalidSource"),
            ("https://", "InvalidSource"),
            ("https://user:hunter2@host/file", "InvalidSource"),
            ("https://account.blob.core.windows.net/?sig=hunter2", "InvalidSource"),
            ("abfs://c@account:p@elsewhere.example/m", "InvalidSource"),
            ("abfs://c@134744072#/m", "InvalidSource"),
            ("file://relative", "InvalidSource"),
            ("hf://me:hunter2@o/m", "InvalidSource"),
            ("hf://o/m?token=hunter2", "InvalidSource"),
            ("s3://me:hunter2@b/m", "InvalidSource"),
            ("ftp://me:hunter2@host/file", "UnsupportedScheme"),
            ("HTTPS://host/file?sig=hunter2", "InvalidSource"),
        ] {
            let error = Location::parse(uri).unwrap_err();
            assert_eq!(format!("{:?}", error.reason()), reason, "{uri}");
            let text = error.to_string();
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("hf://owner/model") || uri.contains("://"), "{text}");
        }
    }

    #[test]
    fn only_a_full_commit_id_is_a_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let of = |revision: &str| {
            Location::parse(&format!("hf://o/m:{revision}")).unwrap().commit().map(str::to_owned)
        };
        assert_eq!(of(commit).as_deref(), Some(commit));
        let of_sha256 = "ab".repeat(32);
        assert_eq!(of(&of_sha256), Some(of_sha256.clone()));
        assert_eq!(of(&commit[..39]), None);
        assert_eq!(of(&commit.to_uppercase()), None);
    }

    fn bucket(uri: &str) -> (Account, String, String) {
        match Location::parse(uri).unwrap() {
            Location::Bucket(Bucket { account, name, prefix, .. }) => (account, name, prefix),
            other => panic!("{uri} is {other:?}"),
        }
    }

    #[test]
    fn a_bucket_is_named_by_its_store_and_a_prefix() {
        let azure = |host: &str, signature: Option<&str>| Account::Azure {
            name: Some("acc".to_owned()),
            host: Some(host.to_owned()),
            usual_host: None,
            signature: signature.map(str::to_owned),
        };
        let abfs = |name: Option<&str>, usual_host: Option<&str>| Account::Azure {
            name: name.map(str::to_owned),
            host: None,
            usual_host: usual_host.map(str::to_owned),
            signature: None,
        };
        let usual = "acc.blob.core.windows.net";
        let zone = "acc.z7.blob.storage.azure.net";
        for (uri, account, name, prefix) in [
            ("s3://bucket/models/llama", Account::S3, "bucket", "models/llama"),
            ("s3://bucket/models/llama/", Account::S3, "bucket", "models/llama"),
            ("s3://bucket", Account::S3, "bucket", ""),
            ("s3://bucket/100%/a b", Account::S3, "bucket", "100%/a b"),
            ("gs://my.bucket_1/model", Account::Gcs, "my.bucket_1", "model"),
            ("s3://bucket/a//b", Account::S3, "bucket", "a//b"),
            ("https://acc.blob.core.windows.net/c/a%20b/m", azure(usual, None), "c", "a b/m"),
            ("https://acc.blob.core.windows.net/c/m?sig=x", azure(usual, Some("sig=x")), "c", "m"),
            ("https://acc.z7.blob.storage.azure.net/c/m", azure(zone, None), "c", "m"),
            ("abfss://c@acc.dfs.core.windows.net/m", abfs(Some("acc"), Some(usual)), "c", "m"),
            ("abfs://c@acc.z7.dfs.storage.azure.net/m", abfs(Some("acc"), Some(zone)), "c", "m"),
            ("abfs://c@acc/m", abfs(Some("acc"), None), "c", "m"),
            ("abfs://c/m", abfs(None, None), "c", "m"),
        ] {
            assert_eq!(bucket(uri), (account, name.to_owned(), prefix.to_owned()), "{uri}");
        }
    }

    #[test]
    fn what_is_nearly_a_source_is_refused_with_the_source_that_is_meant() {
        for (uri, meant) in [
            ("HF://owner/model", "write hf://owner/model"),
            ("Hf://owner/model:v1", "write hf://owner/model:v1"),
            ("S3://bucket/prefix", "write s3://bucket/prefix"),
            ("https://huggingface.co/owner/model", "write hf://owner/model"),
            ("https://huggingface.co/owner/model/", "write hf://owner/model"),
            ("https://huggingface.co/owner/model?library=x", "write hf://owner/model"),
            ("https://www.huggingface.co/owner/model/tree/main", "write hf://owner/model:main"),
            ("https://hf.co/owner/model/blob/v1/a.safetensors", "write hf://owner/model:v1"),
        ] {
            let error = Location::parse(uri).unwrap_err().to_string();
            assert!(error.ends_with(meant) && error.contains("is not valid"), "{uri}: {error}");
        }
        let file = "https://huggingface.co/owner/model/resolve/main/a.safetensors";
        assert!(matches!(Location::parse(file), Ok(Location::Web(_))));
        assert!(matches!(Location::parse("https://example.com/owner/model"), Ok(Location::Web(_))));
    }

    #[test]
    fn a_uri_is_told_without_what_may_be_secret() {
        for (uri, told) in [
            ("https://host/a?sig=secret", "https://host/a"),
            ("https://me:pw@host/a@b", "https://host/a@b"),
            ("https://host", "https://host"),
            ("hf://o/m:refs/pr/1", "hf://o/m:refs/pr/1"),
            ("abfs://c@acc/x", "abfs://c@acc/x"),
            ("ftp://me:pw@host/a@b", "ftp://host/a@b"),
            ("me:pw@host:3128", "host:3128"),
            ("o/m", "o/m"),
        ] {
            assert_eq!(without_secrets(uri), told);
        }
        let text = "GET (https://me:pw@host/b?sig=secret) by http://proxy:3128/?x failed: why? a@b";
        assert_eq!(text_without_secrets(text), "GET (https://host/b by http://proxy:3128/ failed: why? a@b");
        let signed = bucket("https://acc.blob.core.windows.net/c/m?sig=secret").0;
        assert!(format!("{signed:?}").contains("acc") && !format!("{signed:?}").contains("secret"));
    }
}
