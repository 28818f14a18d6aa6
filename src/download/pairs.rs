//! The sources of one command, and the folders that they go to. A folder holds one source: a second one would take
//! the first one's files for its own of an earlier time.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::source::without_secrets;

/// One source on its way to its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The source URI.
    pub source: String,
    /// The folder.
    pub dest: PathBuf,
    /// Paths in the folder that are folders of other sources.
    pub reserved: Vec<String>,
}

/// Sources and folders in the order in which they were named, or why they cannot be downloaded together.
pub fn pairs(given: &[[String; 2]]) -> Result<Vec<Pair>, String> {
    let mut pairs: Vec<(Pair, PathBuf)> = Vec::new();
    for [source, dest] in given {
        let place = place(Path::new(dest));
        if let Some((other, _)) = pairs.iter().find(|(_, known)| *known == place) {
            if other.source == *source {
                continue;
            }
            return Err(format!(
                "{:?} and {:?} cannot both go to {}: a folder holds one source, so name another folder for one of them",
                without_secrets(&other.source),
                without_secrets(source),
                other.dest.display(),
            ));
        }
        let pair = Pair { source: source.clone(), dest: dest.into(), reserved: Vec::new() };
        pairs.push((pair, place));
    }
    let places: Vec<PathBuf> = pairs.iter().map(|(_, place)| place.clone()).collect();
    let with_reserved = |(pair, place): (Pair, PathBuf)| {
        let below = places.iter().filter(|other| **other != place);
        let below =
            below.filter_map(|other| Some(other.strip_prefix(&place).ok()?.to_string_lossy().into_owned()));
        Pair { reserved: below.collect(), ..pair }
    };
    Ok(pairs.into_iter().map(with_reserved).collect())
}

/// Where a path leads: as far as it is there its links are followed, the rest is taken as it is written.
fn place(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut found = PathBuf::from("/");
    for part in whole.components() {
        match part {
            Component::Normal(name) => found = step(&found, name),
            Component::ParentDir => drop(found.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    found
}

fn step(folder: &Path, name: &OsStr) -> PathBuf {
    let next = folder.join(name);
    next.canonicalize().unwrap_or(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(all: &[(&str, &Path)]) -> Vec<[String; 2]> {
        all.iter().map(|(source, dest)| [(*source).to_owned(), dest.to_str().unwrap().to_owned()]).collect()
    }

    #[test]
    fn two_sources_for_one_folder_are_refused_however_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
        for (one, other) in [
            ("m", "m"),
            ("m", "m/"),
            ("m", "./m//"),
            ("m", "x/../m"),
            ("real", "link"),
            ("link/deep/er", "real/deep/er"),
            ("link/../m", "m"),
        ] {
            let all =
                given(&[("hf://a/a", &at(one)), ("s3://b/b?secret", &at("other")), ("hf://c/c", &at(other))]);
            let error = pairs(&all).unwrap_err();
            assert!(error.contains("hf://a/a") && error.contains("hf://c/c"), "{one} {other}: {error}");
        }
        let three =
            given(&[("hf://a/a", &at("m")), ("hf://b/b?secret", &at("n")), ("hf://c/c?secret", &at("n"))]);
        assert!(!pairs(&three).unwrap_err().contains("secret"));
    }

    #[test]
    fn the_same_source_twice_is_one_and_a_folder_below_is_kept_free() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let all = given(&[
            ("hf://a/a", &at("m")),
            ("hf://b/b", &at("m/lora/x")),
            ("hf://a/a", &at("m/")),
            ("hf://c/c", &at("mm")),
        ]);
        let found = pairs(&all).unwrap();
        let sources: Vec<_> =
            found.iter().map(|pair| (pair.source.as_str(), pair.reserved.clone())).collect();
        let none = Vec::new;
        assert_eq!(
            sources,
            [("hf://a/a", vec!["lora/x".to_owned()]), ("hf://b/b", none()), ("hf://c/c", none())]
        );
    }
}
