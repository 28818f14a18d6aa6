//! Links in archives. A model is files: each link becomes the file that it leads to, inside the archive.

use std::collections::BTreeMap;

use crate::download::error::{Error, Result};

/// As many links in a row as a kernel follows.
const MOST_STEPS: usize = 40;

/// Where the links of an archive lead, by their names.
#[derive(Debug, Default)]
pub struct Links(BTreeMap<String, String>);

impl Links {
    /// Adds a symlink, whose target is as seen from its folder.
    pub fn add_symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.add(path, target, folder)
    }

    /// Adds a hard link, whose target is as seen from the root of the archive.
    pub fn add_hard_link(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, target, "")
    }

    fn add(&mut self, path: &str, target: &str, from: &str) -> Result<()> {
        let target = inside(from, target).ok_or_else(|| refused(path, "it is a link out of its archive"))?;
        self.0.insert(path.to_owned(), target);
        Ok(())
    }

    /// A file has taken the link's place.
    pub fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// The names of all links, each with the name that is no link where it ends.
    pub fn ends(&self) -> impl Iterator<Item = Result<(&str, &str)>> {
        self.0.iter().map(|(path, first)| {
            let mut end = first;
            for _ in 0..MOST_STEPS {
                match self.0.get(end) {
                    Some(next) => end = next,
                    None => return Ok((path.as_str(), end.as_str())),
                }
            }
            Err(refused(path, "it is a link to links without end"))
        })
    }
}

/// The error for a link that cannot become a file.
pub fn refused(path: &str, why: &'static str) -> Error {
    Error::UnsafeName { name: path.to_owned(), why }
}

/// The target as seen from the root, unless it is outside.
fn inside(folder: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_seen_from_its_folder_and_never_outside() {
        for (folder, target, expected) in [
            ("snapshots/main", "../../blobs/x", Some("blobs/x")),
            ("", "./a//b", Some("a/b")),
            ("a", "..", Some("")),
            ("a", "../..", None),
            ("", "../a", None),
            ("a", "/etc/passwd", None),
            ("a/b", "../../../x/../a", None),
        ] {
            assert_eq!(inside(folder, target).as_deref(), expected, "{folder} {target}");
        }
    }

    #[test]
    fn links_to_links_end_or_are_refused() {
        let mut links = Links::default();
        for (path, target) in [("a", "b"), ("b", "file"), ("round", "about"), ("about", "round")] {
            links.add_symlink(path, target).unwrap();
        }
        let ends: Vec<_> = links.ends().map(Result::ok).collect();
        assert_eq!(ends, [Some(("a", "file")), None, Some(("b", "file")), None]);
    }
}
