//! `Link` headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use localmodel::download::source::protocol::next_page;

fuzz_target!(|header: &str| {
    if let Ok(Some(address)) = next_page(header) {
        assert!(header.contains(&format!("<{address}>")));
    }
});
