//! Where a model comes from: the source URI and the storage key that names its folder.

use sha2::{Digest, Sha256};

/// The folder of a source URI below `models/` on a node's disk: the first 16 hexadecimal digits of
/// SHA-256 over the URI, byte for byte as written (KServe's `GetStorageKey`).
pub fn storage_key(uri: &str) -> String {
    hex::encode(&Sha256::digest(uri.as_bytes())[..8])
}

/// Whether a folder name can be a storage key: 16 lower-case hexadecimal digits (A10).
pub fn is_storage_key(name: &str) -> bool {
    name.len() == 16 && is_hex(name)
}

/// Whether a text consists of lower-case hexadecimal digits.
pub fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_model_has_the_storage_key_that_kserve_gives_it() {
        assert_eq!(storage_key("hf://meta-llama/meta-llama-3-8b-instruct"), "c277d78a31bc6624");
    }

    #[test]
    fn only_sixteen_lower_case_hex_digits_are_a_storage_key() {
        assert!(is_storage_key("c277d78a31bc6624"));
        for other in ["", "c277d78a31bc662", "c277d78a31bc66244", "C277D78A31BC6624", "lost+found", ".."] {
            assert!(!is_storage_key(other), "{other}");
        }
    }
}
