//! Journals: no bytes prove a chunk that was not recorded for this very file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use localmodel::download::digest::Digest;
use localmodel::download::engine::chunks::Chunks;
use localmodel::download::engine::journal::{Record, key, line, replay};
use localmodel::download::plan::PlannedFile;

fuzz_target!(|bytes: &[u8]| {
    let chunks = Chunks::new(1000, 10);
    let file = PlannedFile::new("a", 1000, Digest::Sha256("00".into()));
    let key = key("https://hub c1", &file, chunks);
    let found = replay(bytes, &key, chunks, Some("b1"));
    assert!(found.length <= bytes.len() && found.on_disk.len() == 100);
    // The same behind a true head: what is proved must stand in a line of its own.
    let head = [line(&Record::Of(key.clone())), line(&Record::Boot("b1".into()))].concat();
    let found = replay(&[head.as_slice(), bytes].concat(), &key, chunks, Some("b1"));
    for (chunk, _) in found.on_disk.iter().enumerate().filter(|(_, there)| **there) {
        let text = String::from_utf8_lossy(bytes);
        assert!(text.contains(&chunk.to_string()));
    }
});
