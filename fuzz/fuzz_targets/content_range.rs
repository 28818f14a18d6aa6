//! `Content-Range` headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use localmodel::download::source::content_range;

fuzz_target!(|header: &str| {
    if let Some((held, _)) = content_range(header) {
        assert!(held.start < held.end);
    }
});
