//! What a hub's answers say: foreign bytes into our words, without I/O.

use serde::Deserialize;

use super::uri::is_commit;
use crate::download::digest::Digest;
use crate::download::plan::PlannedFile;

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// The commit in the answer about a revision, or what is wrong with that.
pub fn commit(json: &[u8]) -> Result<String, String> {
    let Revision { sha } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if is_commit(&sha) { Ok(sha) } else { Err("its sha is not a commit id".to_owned()) }
}

/// The files on a page of a tree, or what is wrong with it. Their names are not checked.
pub fn tree_page(json: &[u8]) -> Result<Vec<PlannedFile>, String> {
    let entries: Vec<Entry> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    entries.into_iter().filter(|entry| entry.r#type == "file").map(Entry::planned).collect()
}

impl Entry {
    fn planned(self) -> Result<PlannedFile, String> {
        let (oid, size, digits) = match self.lfs {
            Some(lfs) => (lfs.oid, lfs.size, 64),
            None => (self.oid, self.size, 40),
        };
        if oid.len() != digits || !oid.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("the digest {oid:?} of {:?} is not one", self.path));
        }
        let oid = oid.to_ascii_lowercase();
        let digest = if digits == 64 { Digest::Sha256(oid) } else { Digest::GitBlob(oid) };
        Ok(PlannedFile::new(self.path, size, digest))
    }
}

/// The address of the next page in a `Link` header.
pub fn next_page(link: &str) -> Option<&str> {
    link.split('<').skip(1).find_map(|link| {
        let (address, parameters) = link.split_once('>')?;
        let is_next = |parameter: &str| matches!(parameter.trim(), r#"rel="next""# | "rel=next");
        parameters.split([';', ',']).any(is_next).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_the_link_header() {
        for (link, expected) in [
            (r#"<https://hub/api/x?cursor=a,b>; rel="next""#, Some("https://hub/api/x?cursor=a,b")),
            (r#"<https://hub/1>; rel="prev", <https://hub/2>; rel="next""#, Some("https://hub/2")),
            (r#"<https://hub/1>; rel="prev""#, None),
            ("", None),
        ] {
            assert_eq!(next_page(link), expected, "{link}");
        }
    }

    #[test]
    fn a_page_gives_each_file_its_size_and_digest() {
        let (sha1, sha256) = ("ab".repeat(20), "CD".repeat(32));
        let json = serde_json::json!([
            {"type": "directory", "path": "d", "size": 0, "oid": "x"},
            {"type": "file", "path": "a", "size": 3, "oid": sha1, "new": {}},
            {"type": "file", "path": "b", "size": 134, "oid": sha1,
             "lfs": {"oid": sha256, "size": 5_000_000_000_u64, "pointerSize": 134}, "xetHash": "y"},
        ]);
        let expected = [
            PlannedFile::new("a", 3, Digest::GitBlob(sha1)),
            PlannedFile::new("b", 5_000_000_000, Digest::Sha256(sha256.to_lowercase())),
        ];
        assert_eq!(tree_page(json.to_string().as_bytes()).unwrap(), expected);
    }

    #[test]
    fn an_answer_that_is_not_the_hubs_is_told() {
        for json in
            ["", "{}", r#"[{"type": "file"}]"#, r#"[{"type": "file", "path": "a", "size": -1, "oid": "x"}]"#]
        {
            assert!(tree_page(json.as_bytes()).is_err(), "{json}");
        }
        let why = tree_page(br#"[{"type": "file", "path": "a", "size": 1, "oid": "short"}]"#).unwrap_err();
        assert!(why.contains("short") && why.contains("\"a\""), "{why}");
        assert!(commit(br#"{"sha": "main"}"#).is_err() && commit(b"[]").is_err());
        assert_eq!(commit(format!(r#"{{"sha": "{}"}}"#, "0a".repeat(20)).as_bytes()), Ok("0a".repeat(20)));
    }
}
