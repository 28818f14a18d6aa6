//! Files that stand in a folder because somebody else's copy of the same source has them (K4). They are lent: it
//! takes a request with the run's own credentials, which the source answers, before any of them counts.
//!
//! `.localmodel/lent.json` lists them. Without a recorded plan beside it they are unproved: the source has not
//! been asked yet, or has refused.

use std::path::Path;

use super::error::{Error, Result};
use super::manifest::Manifest;
use super::plan::Plan;
use super::store::{Found, Store, check_name};

/// Where the list is.
const PATH: &str = ".localmodel/lent.json";

/// Records that these files are about to be lent to the folder, which is made where it is missing. False
/// where a download has begun already: then nothing is to be lent.
pub fn record(dir: &Path, paths: &[&str]) -> Result<bool> {
    let store = Store::create(dir)?;
    if has(&store, Manifest::PATH) || has(&store, Plan::PATH) {
        return Ok(false);
    }
    let json = serde_json::to_vec(paths).map_err(|error| Error::disk("write", &dir.join(PATH), error))?;
    store.write(PATH, &json).map(|()| true)
}

/// Whether files are lent to the folder and nobody has proved yet that he may have them.
pub fn is_unproved(dir: &Path) -> bool {
    let store = Store::open(dir).ok().flatten();
    store.is_some_and(|store| has(&store, PATH) && !has(&store, Manifest::PATH) && !has(&store, Plan::PATH))
}

/// The files that are lent to the folder. A list that cannot be read is one of nothing that is known: the
/// names in it may be anything's.
pub(super) fn read(store: &Store) -> Result<Vec<String>> {
    let Some(json) = store.read(PATH, Manifest::LONGEST)? else { return Ok(Vec::new()) };
    let mut paths: Vec<String> = serde_json::from_slice(&json)
        .map_err(|error| Error::disk("read", &store.path().join(PATH), std::io::Error::from(error)))?;
    paths.retain(|path| check_name(path).is_ok());
    Ok(paths)
}

/// Removes the list: what is in the folder is the run's own now.
pub(super) fn forget(store: &Store) -> Result<()> {
    store.remove(PATH)
}

fn has(store: &Store, path: &str) -> bool {
    matches!(store.stat(path), Ok(Found::File(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_unproved_until_a_plan_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(!is_unproved(dir));
        assert!(record(dir, &["a", "sub/b"]).unwrap());
        assert!(is_unproved(dir));
        let store = Store::open(dir).unwrap().unwrap();
        assert_eq!(read(&store).unwrap(), ["a", "sub/b"]);
        store.write(Plan::PATH, b"{}").unwrap();
        assert!(!is_unproved(dir));
        assert!(!record(dir, &["c"]).unwrap(), "a download has begun");
        forget(&store).unwrap();
        assert_eq!(read(&store).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_list_that_was_tampered_with_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        assert!(record(dir.path(), &["../x", "a"]).unwrap());
        let store = Store::open(dir.path()).unwrap().unwrap();
        assert_eq!(read(&store).unwrap(), ["a"]);
        store.write(PATH, b"{").unwrap();
        assert!(read(&store).is_err());
    }
}
