//! Which files the objects of a bucket are: what stands for a folder is none, and each file has a name of its own.

use std::collections::BTreeMap;

use super::xml::Entry;
use crate::download::digest::Digest;
use crate::download::error::{Error, Result};
use crate::download::plan::PlannedFile;
use crate::download::store::check_name;

/// An empty object with such a name stands for a folder; Hadoop makes them.
const HADOOP_FOLDER: &str = "_$folder$";

/// An object that is a file, and the name that it gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// The file's path in the model.
    pub path: String,
    /// The object.
    pub object: Entry,
}

/// Names the objects below a prefix (which ends with a `/`, or is empty). What the store keeps so that a folder
/// exists is left out: keys that end with a `/`, and empty objects that are also the folder of another.
pub fn named(prefix: &str, objects: Vec<Entry>) -> Result<Vec<Named>> {
    let mut found: BTreeMap<String, Entry> = BTreeMap::new();
    for object in objects {
        if stands_for_folder(&object) {
            continue;
        }
        let rest = object.key.strip_prefix(prefix).unwrap_or(&object.key);
        let path = rest.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        // An address cannot hold a part that is a dot: the object could not be asked for.
        if path.split('/').any(|part| part == "." || part == "..") {
            return Err(Error::UnsafeName { name: object.key, why: "it has a part that is '.' or '..'" });
        }
        check_name(&path).map_err(|error| match error {
            Error::UnsafeName { why, .. } => Error::UnsafeName { name: object.key.clone(), why },
            other => other,
        })?;
        if let Some(other) = found.insert(path, object.clone()) {
            return Err(twice(&other.key, object.key));
        }
    }
    let folders: Vec<String> =
        found.keys().filter(|path| is_folder_of_another(path, &found)).cloned().collect();
    for path in folders {
        // A file cannot stand where a folder has to be.
        match found.remove(&path) {
            Some(object) if object.size != Some(0) => {
                let why = "it is an object, and others are below it as if it were a folder";
                return Err(Error::UnsafeName { name: object.key, why });
            }
            _ => {}
        }
    }
    Ok(found.into_iter().map(|(path, object)| Named { path, object }).collect())
}

fn twice(one: &str, other: String) -> Error {
    let why = if one == other { "the store lists it twice" } else { "another object gets the same name" };
    Error::UnsafeName { name: other, why }
}

/// Whether the object stands for a folder by itself.
pub fn stands_for_folder(object: &Entry) -> bool {
    let empty = object.size == Some(0);
    object.key.ends_with('/') || (empty && (object.folder || object.key.ends_with(HADOOP_FOLDER)))
}

fn is_folder_of_another(path: &str, found: &BTreeMap<String, Entry>) -> bool {
    let below = format!("{path}/");
    found.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
}

impl Named {
    /// The file of a plan, `key` where the object has another name than its file. A tag of 32 hexadecimal digits is
    /// an MD5 where the store's tags are such.
    pub fn planned(self, size: u64, below: &str, tags_are_md5: bool) -> PlannedFile {
        let Self { path, object } = self;
        let version = object.tag.as_deref().and_then(version);
        let digest = match version.as_deref().map(opaque) {
            Some(tag)
                if tags_are_md5 && tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                Digest::Md5(tag.to_ascii_lowercase())
            }
            _ => Digest::Untold,
        };
        let key = Some(object.key).filter(|key| *key != format!("{below}{path}"));
        PlannedFile { version, key, ..PlannedFile::new(path, size, digest) }
    }
}

/// A tag as a header has it: with its quotes, which some lists leave out. `None` where there is none that could
/// tell versions apart.
pub fn version(tag: &str) -> Option<String> {
    let tag = tag.trim();
    let opaque = opaque(tag);
    if opaque.is_empty() || opaque == "null" || !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let weak = if tag.starts_with("W/") { "W/" } else { "" };
    Some(format!("{weak}\"{opaque}\""))
}

/// What is between a tag's quotes: gateways before a store may make it a weak one.
pub fn opaque(tag: &str) -> &str {
    tag.trim().trim_start_matches("W/").trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, size: u64) -> Entry {
        Entry { key: key.into(), size: Some(size), ..Entry::default() }
    }

    fn paths(objects: &[(&str, u64)]) -> Result<Vec<(String, String)>> {
        let objects = objects.iter().map(|(key, size)| object(key, *size)).collect();
        let found = named("m/", objects)?;
        Ok(found.into_iter().map(|named| (named.path, named.object.key)).collect())
    }

    #[test]
    fn what_stands_for_a_folder_is_no_file() {
        for objects in [
            &[("m/", 0), ("m/sub/", 0), ("m/sub/a", 1), ("m/empty/", 0)][..],
            &[("m/sub", 0), ("m/sub/a", 1)],
            &[("m/sub", 0), ("m/sub/", 0), ("m/sub/a", 1), ("m/sub-x_$folder$", 0)],
            &[("m/sub", 0), ("m/sub/a", 1), ("m/sub/.keep/", 7)],
        ] {
            assert_eq!(paths(objects).unwrap(), [("sub/a".into(), "m/sub/a".into())], "{objects:?}");
        }
        let folder = Entry { folder: true, ..object("m/empty", 0) };
        assert_eq!(named("m/", vec![folder]).unwrap(), []);
    }

    #[test]
    fn a_file_beside_a_marker_of_its_name_is_a_file_and_so_is_an_empty_one() {
        let found =
            paths(&[("m/a", 3), ("m/a/", 0), ("m/b", 0), ("m/b-c/d", 1), ("m/c_$folder$", 3)]).unwrap();
        let found: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(found, ["a", "b", "b-c/d", "c_$folder$"]);
    }

    #[test]
    fn keys_keep_their_letters_and_lose_empty_parts() {
        let odd = ["a b", "a+b", "100%", "%41", "#", "?", "A", "a", ".x", "e\u{301}", "\u{e9}"];
        for name in odd {
            let key = format!("m/{name}");
            assert_eq!(paths(&[(&key, 1)]).unwrap(), [(name.to_owned(), key)]);
        }
        assert_eq!(paths(&[("m//a", 1)]).unwrap(), [("a".into(), "m//a".into())]);
        assert_eq!(paths(&[("m/s///b", 1)]).unwrap(), [("s/b".into(), "m/s///b".into())]);
        let root = named("", vec![object("/a", 1)]).unwrap();
        assert_eq!((root[0].path.as_str(), root[0].object.key.as_str()), ("a", "/a"));
    }

    #[test]
    fn what_cannot_be_a_file_of_its_own_is_refused_by_its_key() {
        for (objects, key, why) in [
            (&[("m/a", 1), ("m//a", 1)][..], "m//a", "same name"),
            (&[("m/a", 1), ("m/a", 1)], "m/a", "twice"),
            (&[("m/sub", 5), ("m/sub/a", 1)], "m/sub", "folder"),
            (&[("m/./a", 1)], "m/./a", "'.'"),
            (&[("m/../a", 1)], "m/../a", "'..'"),
            (&[("m/a\nb", 1)], "m/a\\nb", "control"),
            (&[("m/.localmodel/manifest.json", 1)], "m/.localmodel", "own"),
        ] {
            let text = paths(objects).unwrap_err().to_string();
            assert!(text.contains(key) && text.contains(why), "{text}");
        }
    }

    #[test]
    fn a_tag_pins_the_version_and_is_an_md5_where_it_looks_like_one() {
        let md5 = "0123456789ABCDEF0123456789abcdef";
        let is_md5 = Digest::Md5(md5.to_lowercase());
        for (tag, version, digest) in [
            (format!("\"{md5}\""), Some(format!("\"{md5}\"")), is_md5.clone()),
            (md5.to_owned(), Some(format!("\"{md5}\"")), is_md5.clone()),
            (format!("W/\"{md5}\""), Some(format!("W/\"{md5}\"")), is_md5),
            (format!("\"{md5}-3\""), Some(format!("\"{md5}-3\"")), Digest::Untold),
            ("0x8DABCDEF".into(), Some("\"0x8DABCDEF\"".into()), Digest::Untold),
            (String::new(), None, Digest::Untold),
            ("\"\"".into(), None, Digest::Untold),
            ("null".into(), None, Digest::Untold),
            ("\"a\nb\"".into(), None, Digest::Untold),
        ] {
            let object = Entry { tag: Some(tag.clone()), ..object("m/a", 1) };
            let file = Named { path: "a".into(), object }.planned(1, "m/", true);
            assert_eq!((file.version, file.digest, file.key), (version, digest, None), "{tag}");
        }
        let other = Entry { tag: Some(md5.into()), ..object("m//a", 1) };
        let file = Named { path: "a".into(), object: other }.planned(1, "m/", false);
        assert_eq!((file.digest, file.key.as_deref()), (Digest::Untold, Some("m//a")));
    }
}
