//! What of a file is on the disk, as a record that survives a kill and a power cut (F3).
//!
//! A line for each fact: eight hexadecimal digits of CRC-32 over the rest, a space, JSON. A chunk is recorded
//! when the kernel has it, which a kill of the process does not undo; a reboot may. It counts for good
//! once a later line says that all before it was synced. The first line that is not whole ends the journal.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::chunks::Chunks;
use crate::download::plan::PlannedFile;

/// What a journal says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Record {
    /// The first line: what is fetched, see [`key`].
    Of(String),
    /// From here on the machine's boot of this id counts.
    Boot(String),
    /// The kernel has this chunk.
    Written(usize),
    /// All chunks recorded so far are on the disk.
    Synced(Option<Checkpoint>),
}

/// The state of the hash after the chunks before `chunk`, all of which are on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The first chunk that is not hashed.
    pub chunk: usize,
    /// See [`super::super::digest::Hasher::checkpoint`].
    pub hash: Vec<String>,
}

/// What of a file can be relied on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// For each chunk, whether it is there.
    pub on_disk: Vec<bool>,
    /// Where hashing can go on; from the first byte without one.
    pub checkpoint: Option<Checkpoint>,
    /// The length of the part of the journal that is whole; what is behind it is cut off.
    pub length: usize,
}

/// Names what is fetched: a journal of anything else is worth nothing. `place` is the address and revision
/// that the file is asked of.
pub fn key(place: &str, file: &PlannedFile, chunks: Chunks) -> String {
    let PlannedFile { path, size, digest, version, key, one_stream: _ } = file;
    let parts = format!("{place:?} {path:?} {size} {digest} {version:?} {key:?} {}", chunks.length(0));
    hex::encode(&Sha256::digest(parts)[..16])
}

/// The line for a record.
pub fn line(record: &Record) -> Vec<u8> {
    let json = serde_json::to_string(record).expect("strings and numbers always become JSON");
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// What a journal with these bytes proves about the file named `key`, in the boot `boot` of the machine (none
/// if nobody knows). One of another file proves nothing.
pub fn replay(bytes: &[u8], key: &str, chunks: Chunks, boot: Option<&str>) -> Replay {
    let mut lines = Lines { bytes, at: 0 };
    let nothing = Replay { on_disk: vec![false; chunks.count()], checkpoint: None, length: 0 };
    if lines.next() != Some(Record::Of(key.to_owned())) {
        return nothing;
    }
    let mut synced = nothing.on_disk.clone();
    let mut checkpoint = None;
    // Written in the boot that counts at that line, but not synced since.
    let (mut written, mut of) = (Vec::new(), None);
    let mut length = lines.at;
    while let Some(record) = lines.next() {
        match record {
            Record::Boot(id) => {
                if of.as_ref() != Some(&id) {
                    written.clear();
                }
                of = Some(id);
            }
            Record::Written(chunk) if chunk < synced.len() => written.push(chunk),
            Record::Synced(hash) => {
                written.drain(..).for_each(|chunk| synced[chunk] = true);
                let believed =
                    |hash: &Checkpoint| synced.get(..hash.chunk).is_some_and(|s| s.iter().all(|c| *c));
                checkpoint = hash.filter(believed).or(checkpoint);
            }
            // No journal of this file says such a thing.
            Record::Written(_) | Record::Of(_) => break,
        }
        length = lines.at;
    }
    if boot.is_some() && of.as_deref() == boot {
        for chunk in written {
            synced[chunk] = true;
        }
    }
    Replay { on_disk: synced, checkpoint, length }
}

/// The whole lines from the beginning.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (crc, json) = rest[..end].split_at_checked(9)?;
        let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?.strip_suffix(' ')?, 16).ok()?;
        if crc != crc32fast::hash(json) {
            return None;
        }
        let record = serde_json::from_slice(json).ok()?;
        self.at += end + 1;
        Some(record)
    }
}

#[cfg(test)]
mod tests;
