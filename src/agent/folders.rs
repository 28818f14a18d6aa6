//! Folders of a disk that others write, too: what they are named counts, no symbolic link is followed.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Access, access};

use crate::download::manifest::{Manifest, ManifestFile};
use crate::error::{Doing, Error};

/// The group may write too: Jobs may run under another user of the same group.
pub(super) const FOLDER_MODE: u32 = 0o2775;

/// Whether any name in a folder is such a one; none is where there is no folder.
pub(super) fn any_name(folder: &Path, mut is_one: impl FnMut(&str) -> bool) -> Result<bool, Error> {
    let mut any = || {
        for entry in fs::read_dir(folder)? {
            if is_one(&entry?.file_name().to_string_lossy()) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match any() {
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(false),
        other => other.doing(|| format!("reading {}", folder.display())),
    }
}

/// Shows each name in a folder, of which there may be any number.
pub(super) fn each_name(folder: &Path, mut show: impl FnMut(&str)) -> Result<(), Error> {
    any_name(folder, |name| {
        show(name);
        false
    })
    .map(drop)
}

/// Makes the folder where it is missing, and says whether it can be written.
pub(super) fn usable(path: &Path) -> io::Result<()> {
    own_folder(path)?;
    Ok(access(path, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Whether a folder is there, and not a link to one.
pub(super) fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Whether a folder and all those above it, up to `root`, are folders and no links.
pub(super) fn is_folder_within(root: &Path, path: &Path) -> bool {
    path.ancestors().take_while(|above| *above != root).all(is_folder)
}

/// Makes the folder where it is missing; anything else of its name is an error.
pub(super) fn own_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o775).create(path) {
        // The process's mask may have taken the group's right to write, and folders begin without its set-id bit.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_folder(path) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder of this disk: remove it"))
        }
        Err(error) => Err(error),
    }
}

/// Links the files of a manifest that are whole from one folder into another. Of `corrupt` ones only the
/// caller knows.
pub(super) fn link_good_files(
    manifest: &Manifest,
    corrupt: &BTreeSet<String>,
    from: &Path,
    to: &Path,
) -> io::Result<()> {
    linked(&good_files(manifest, corrupt, from)?, from, to, link)
}

/// The same, but for files that the system allows no second name for: to copy one is no better than to
/// download it.
pub(super) fn lend_good_files(
    manifest: &Manifest,
    corrupt: &BTreeSet<String>,
    from: &Path,
    to: &Path,
) -> io::Result<()> {
    linked(&good_files(manifest, corrupt, from)?, from, to, |from, to| match fs::hard_link(from, to) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::PermissionDenied) =>
        {
            Ok(())
        }
        other => other,
    })
}

/// The files of a manifest that are whole in a folder, by their paths in it.
fn good_files(manifest: &Manifest, corrupt: &BTreeSet<String>, folder: &Path) -> io::Result<Vec<String>> {
    let bad: BTreeSet<String> = manifest.damaged(folder)?.into_iter().map(|damage| damage.path).collect();
    let is_good = |file: &&ManifestFile| !corrupt.contains(&file.path) && !bad.contains(&file.path);
    Ok(manifest.files.iter().filter(is_good).map(|file| file.path.clone()).collect())
}

/// Links files, named by their paths in it, from one folder into another.
pub(super) fn link_files(files: &[String], from: &Path, to: &Path) -> io::Result<()> {
    linked(files, from, to, link)
}

fn linked(
    files: &[String],
    from: &Path,
    to: &Path,
    link: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    for file in files {
        if !own_folders_above(to, file)? {
            continue; // the Job says what it thinks of that
        }
        link(&from.join(file), &to.join(file))?;
    }
    Ok(())
}

/// A second name for a file; where the system allows none for a file of another user, a copy.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => fs::copy(from, to).map(drop),
        other => other,
    }
}

/// Makes the folders in `root` that lead to `file`; false when something else stands in the way. What a
/// Job left in `root` is not to be trusted: no link in it is followed.
pub(super) fn own_folders_above(root: &Path, file: &str) -> io::Result<bool> {
    let mut path = root.to_owned();
    let parts: Vec<&str> = file.split('/').collect();
    for part in &parts[..parts.len() - 1] {
        path.push(part);
        match own_folder(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
            other => other?,
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_missing_has_no_names_and_what_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let names = |folder: &Path| {
            let mut names = Vec::new();
            each_name(folder, |name| names.push(name.to_owned())).map(|()| names)
        };
        fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["a"]);
        assert_eq!(names(&folder.path().join("missing")).unwrap(), Vec::<String>::new());
        let error = names(&folder.path().join("a")).unwrap_err();
        assert!(error.to_string().starts_with("reading "), "{error}");
    }

    #[test]
    fn what_the_system_refuses_is_not_taken_for_something_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("missing");
        assert_eq!(own_folder(&below.join("a")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(own_folders_above(&below, "a/b").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(link(&below, &folder.path().join("a")).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&below, "").unwrap();
        assert_eq!(own_folder(&below).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(!own_folders_above(folder.path(), "missing/b").unwrap());
    }
}
