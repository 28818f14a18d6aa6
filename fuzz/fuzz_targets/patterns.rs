//! Patterns that choose files, of the user, over names, of the hub.
#![no_main]

use libfuzzer_sys::fuzz_target;
use localmodel::download::select::{Selection, parse_patterns};

fuzz_target!(|input: (&str, &str)| {
    let (patterns, name) = input;
    if let Ok(selection) = Selection::new(parse_patterns(patterns), vec![]) {
        selection.wants(name);
    }
});
