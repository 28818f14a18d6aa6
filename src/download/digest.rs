//! Digests of files: SHA-256 for all, as the manifest stores it, beside it what the source tells where it
//! tells something else: git's blob id for a hub's small files, MD5 for object stores.

use std::io::{self, Read};

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;
use sha2::digest::Digest as _;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};

/// What a file's bytes must hash to, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Digest {
    /// SHA-256 of the bytes: LFS and Xet files, and all files of a manifest.
    Sha256(String),
    /// SHA-1 of `blob <length>\0` and the bytes: files that lie in git itself.
    GitBlob(String),
    /// MD5 of the bytes, as object stores give it.
    Md5(String),
    /// The source tells none: the size alone is checked, and that the object did not change meanwhile.
    Untold,
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "sha256 {hex}"),
            Self::GitBlob(hex) => write!(f, "git blob id {hex}"),
            Self::Md5(hex) => write!(f, "md5 {hex}"),
            Self::Untold => f.write_str("no digest"),
        }
    }
}

/// Hashes a file's bytes as they pass.
#[derive(Clone)]
pub struct Hasher {
    sha256: Sha256,
    other: Other,
}

#[derive(Clone)]
enum Other {
    None,
    Git(Sha1),
    Md5(Md5),
}

impl Hasher {
    /// For a file of `size` bytes that is to be compared with `expected`.
    pub fn new(expected: &Digest, size: u64) -> Self {
        let other = match expected {
            Digest::GitBlob(_) => Other::Git(Sha1::new().chain_update(format!("blob {size}\0"))),
            Digest::Md5(_) => Other::Md5(Md5::new()),
            Digest::Sha256(_) | Digest::Untold => Other::None,
        };
        Self { sha256: Sha256::new(), other }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        match &mut self.other {
            Other::None => {}
            Other::Git(sha1) => sha1.update(bytes),
            Other::Md5(md5) => md5.update(bytes),
        }
    }

    /// The SHA-256 of all bytes if they are the expected ones, else the digest that they have.
    pub fn verify(self, expected: &Digest) -> Result<String, Digest> {
        let (sha256, found) = self.finish();
        if found == *expected || *expected == Digest::Untold { Ok(sha256) } else { Err(found) }
    }

    /// The SHA-256 of all bytes, and the digest of the kind that the source tells.
    pub fn finish(self) -> (String, Digest) {
        let sha256 = hex::encode(self.sha256.finalize());
        let found = match self.other {
            Other::Git(sha1) => Digest::GitBlob(hex::encode(sha1.finalize())),
            Other::Md5(md5) => Digest::Md5(hex::encode(md5.finalize())),
            Other::None => Digest::Sha256(sha256.clone()),
        };
        (sha256, found)
    }

    /// The state after the bytes so far, from which [`Self::restore`] goes on.
    pub fn checkpoint(&self) -> Vec<String> {
        let sha256 = hex::encode(self.sha256.serialize());
        match &self.other {
            Other::None => vec![sha256],
            Other::Git(sha1) => vec![sha256, hex::encode(sha1.serialize())],
            Other::Md5(md5) => vec![sha256, hex::encode(md5.serialize())],
        }
    }

    /// A hasher for `expected` in a state that [`Self::checkpoint`] gave; `None` if it is of another kind.
    pub fn restore(expected: &Digest, states: &[String]) -> Option<Self> {
        let (sha256, other) = match (expected, states) {
            (Digest::Sha256(_) | Digest::Untold, [sha256]) => (sha256, Other::None),
            (Digest::GitBlob(_), [sha256, sha1]) => (sha256, Other::Git(restored(sha1)?)),
            (Digest::Md5(_), [sha256, md5]) => (sha256, Other::Md5(restored(md5)?)),
            _ => return None,
        };
        Some(Self { sha256: restored(sha256)?, other })
    }
}

fn restored<H: SerializableState>(state: &str) -> Option<H> {
    let bytes = hex::decode(state).ok()?;
    H::deserialize(&SerializedState::<H>::try_from(bytes.as_slice()).ok()?).ok()
}

/// The SHA-256 of all that `reader` gives, in hexadecimal digits.
pub fn sha256_of(reader: &mut impl Read) -> io::Result<String> {
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex::encode(sha256.finalize())),
            length => sha256.update(&buffer[..length]),
        }
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

    /// What `git hash-object`, `sha256sum` and `md5sum` print for `hello\n`.
    fn hello() -> [Digest; 3] {
        [
            Digest::GitBlob("ce013625030ba8dba906f756967f9e9ca394464a".into()),
            Digest::Sha256("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03".into()),
            Digest::Md5("b1946ac92492d2347c6235b4d2611184".into()),
        ]
    }

    #[test]
    fn each_digest_is_what_the_tool_of_its_name_prints() {
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for expected in hello() {
            assert_eq!(verified(b"hello\n", &expected), Ok(sha256.into()), "{expected}");
            let found = verified(b"hellO\n", &expected).unwrap_err();
            assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&expected), "{expected}");
        }
        assert_eq!(verified(b"hello\n", &Digest::Untold), Ok(sha256.into()));
        assert_eq!(sha256_of(&mut b"hello\n".as_slice()).unwrap(), sha256);
    }

    #[test]
    fn hashing_goes_on_from_a_checkpoint_wherever_it_was_taken() {
        let bytes: Vec<u8> = (0..200_u8).collect();
        let sha256 = verified(&bytes, &Digest::Untold).unwrap();
        let digests = hello().into_iter().chain([Digest::Untold]);
        for expected in digests {
            for at in [0, 1, 63, 64, 65, 128, 200] {
                let mut first = Hasher::new(&expected, 200);
                first.update(&bytes[..at]);
                let mut second = Hasher::restore(&expected, &first.checkpoint()).unwrap();
                second.update(&bytes[at..]);
                assert_eq!(hex::encode(second.sha256.finalize()), sha256, "{expected} at {at}");
            }
        }
    }

    #[test]
    fn a_checkpoint_that_cannot_be_one_is_refused() {
        let [git, sha256, md5] = hello();
        let good = Hasher::new(&sha256, 6).checkpoint();
        assert!(Hasher::restore(&git, &good).is_none() && Hasher::restore(&md5, &good).is_none());
        for bad in ["", "00", "zz", &"ff".repeat(200), &"ff".repeat(good[0].len() / 2)] {
            assert!(Hasher::restore(&sha256, &[bad.to_owned()]).is_none(), "{bad}");
        }
    }
}
