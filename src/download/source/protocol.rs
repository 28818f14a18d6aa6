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
    oid: Option<String>,
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
        let (oid, size) = match self.lfs {
            Some(lfs) => (lfs.oid, lfs.size),
            None => (self.oid.unwrap_or_default(), self.size),
        };
        let oid = oid.strip_prefix("sha256:").unwrap_or(&oid).to_ascii_lowercase();
        let is_hex = oid.bytes().all(|byte| byte.is_ascii_hexdigit());
        // Hubs without git tell the SHA-256 of all files, or of large ones alone.
        let digest = match oid.len() {
            0 => Digest::Untold,
            40 if is_hex => Digest::GitBlob(oid),
            64 if is_hex => Digest::Sha256(oid),
            _ => return Err(format!("the digest {oid:?} of {:?} is not one", self.path)),
        };
        Ok(PlannedFile::new(self.path, size, digest))
    }
}

/// The address of the next page in a `Link` header, in each form that RFC 8288 allows. One that cannot be read and
/// may be about a next page is an error: a list is never cut short.
pub fn next_page(link: &str) -> Result<Option<&str>, String> {
    let mut rest = link;
    let mut read = || -> Option<Option<&str>> {
        loop {
            rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            if rest.is_empty() {
                return Some(None);
            }
            let (address, behind) = rest.strip_prefix('<')?.split_once('>')?;
            let is_next;
            (is_next, rest) = relation(behind)?;
            if is_next {
                return Some(Some(address.trim()));
            }
        }
    };
    match read() {
        Some(found) => Ok(found),
        None if link.to_ascii_lowercase().contains("next") => Err(format!("its Link header {link:?}")),
        None => Ok(None),
    }
}

/// Whether the parameters of a link say that it is the next one, and what is behind them.
fn relation(parameters: &str) -> Option<(bool, &str)> {
    let mut rest = parameters.trim_start();
    let mut relation = None;
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start();
        let name_end = parameter.find([';', ',', '=']).unwrap_or(parameter.len());
        let (name, behind) = parameter.split_at(name_end);
        rest = behind;
        let Some(value) = behind.strip_prefix('=').map(str::trim_start) else { continue };
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_at(end_of_quoted(quoted)?),
            None => value.split_at(value.find([';', ',']).unwrap_or(value.len())),
        };
        rest = behind.strip_prefix('"').unwrap_or(behind).trim_start();
        if name.trim().eq_ignore_ascii_case("rel") {
            relation.get_or_insert(value);
        }
    }
    let mut relations = relation.unwrap_or_default().split_whitespace().map(|one| one.trim_matches('\''));
    Some((relations.any(|one| one.eq_ignore_ascii_case("next")), rest))
}

/// Where a text in quotes ends.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_the_link_header_in_each_of_its_forms() {
        for (link, expected) in [
            (r#"<https://hub/api/x?cursor=a,b>; rel="next""#, Some("https://hub/api/x?cursor=a,b")),
            (r#"<https://hub/1>; rel="prev", <https://hub/2>; rel="next""#, Some("https://hub/2")),
            (r#"<https://hub/1>; rel="prev",<https://hub/2>;rel=next"#, Some("https://hub/2")),
            ("<https://hub/2>; rel='next'", Some("https://hub/2")),
            (r#"<https://hub/2> ; rel = "next" "#, Some("https://hub/2")),
            (r#"</2?cursor=x>; REL="last NEXT""#, Some("/2?cursor=x")),
            (r#"</2>; title="a, \"b\"; rel=prev"; rel="next""#, Some("/2")),
            (r#"</2>; crossorigin; rel="next""#, Some("/2")),
            (r#", </2>; rel="next","#, Some("/2")),
            (r#"<https://hub/1>; rel="prev""#, None),
            (r#"</1>; rel="prev"; rel="next""#, None),
            (r#"</next>; rel="nextprev"; title="next""#, None),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(next_page(link).unwrap(), expected, "{link}");
        }
        for link in [r#"https://hub/2; rel="next""#, r#"<https://hub/2; rel="next""#, r#"</2>; rel="next"#] {
            assert!(next_page(link).is_err(), "{link}");
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
            {"type": "file", "path": "c", "size": 3, "oid": sha256},
            {"type": "file", "path": "d", "size": 3, "oid": null},
            {"type": "file", "path": "e", "size": 3, "oid": ""},
            {"type": "file", "path": "f", "size": 3, "lfs": {"oid": format!("sha256:{sha256}"), "size": 4}},
        ]);
        let expected = [
            PlannedFile::new("a", 3, Digest::GitBlob(sha1)),
            PlannedFile::new("b", 5_000_000_000, Digest::Sha256(sha256.to_lowercase())),
            PlannedFile::new("c", 3, Digest::Sha256(sha256.to_lowercase())),
            PlannedFile::new("d", 3, Digest::Untold),
            PlannedFile::new("e", 3, Digest::Untold),
            PlannedFile::new("f", 4, Digest::Sha256(sha256.to_lowercase())),
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
