//! Digests of files: SHA-256 for all, as the manifest stores it, and git's blob id for the small files
//! whose SHA-256 the hub does not tell.

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// What a file's bytes must hash to, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Digest {
    /// SHA-256 of the bytes: LFS and Xet files, and all files of a manifest.
    Sha256(String),
    /// SHA-1 of `blob <length>\0` and the bytes: files that lie in git itself.
    GitBlob(String),
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "sha256 {hex}"),
            Self::GitBlob(hex) => write!(f, "git blob id {hex}"),
        }
    }
}

/// Hashes a file's bytes as they pass.
pub struct Hasher {
    sha256: Sha256,
    git: Option<Sha1>,
}

impl Hasher {
    /// For a file of `size` bytes that is to be compared with `expected`.
    pub fn new(expected: &Digest, size: u64) -> Self {
        let git = matches!(expected, Digest::GitBlob(_))
            .then(|| Sha1::new().chain_update(format!("blob {size}\0")));
        Self { sha256: Sha256::new(), git }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    /// The SHA-256 of all bytes if they are the expected ones, else the digest that they have.
    pub fn verify(self, expected: &Digest) -> Result<String, Digest> {
        let sha256 = hex::encode(self.sha256.finalize());
        let found = match self.git {
            Some(git) => Digest::GitBlob(hex::encode(git.finalize())),
            None => Digest::Sha256(sha256.clone()),
        };
        if found == *expected { Ok(sha256) } else { Err(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(bytes: &[u8], expected: &Digest) -> Result<String, Digest> {
        let mut hasher = Hasher::new(expected, bytes.len() as u64);
        bytes.chunks(3).for_each(|chunk| hasher.update(chunk));
        hasher.verify(expected)
    }

    #[test]
    fn a_git_blob_id_is_what_git_hash_object_prints() {
        // printf 'hello\n' | git hash-object --stdin; printf 'hello\n' | sha256sum
        let expected = Digest::GitBlob("ce013625030ba8dba906f756967f9e9ca394464a".into());
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(verified(b"hello\n", &expected), Ok(sha256.into()));
        assert_eq!(verified(b"hello\n", &Digest::Sha256(sha256.into())), Ok(sha256.into()));
        assert!(matches!(verified(b"hellO\n", &expected), Err(Digest::GitBlob(_))));
    }
}
