//! Source URIs: what is told of one never holds its query or password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use localmodel::download::source::{Location, without_secrets};

fuzz_target!(|uri: &str| {
    assert!(!without_secrets(uri).contains(&['?', '#'][..]));
    if let Ok(Location::Bucket(bucket)) = Location::parse(uri) {
        assert!(!bucket.name.is_empty() && !bucket.prefix.starts_with('/'));
    }
});
