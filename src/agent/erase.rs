//! Erases a folder with all that is in it, whatever that is: however deep it goes, there are never more than
//! three open folders, and however many names there are, never more than some of them in memory.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::{Errno, Result};

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What the owner of a folder needs to empty it.
const OWNERS: Mode = Mode::RWXU;

/// Erases the folder or file at `path`, which is no error where there is none.
pub(super) fn erase(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a root cannot be erased"));
    };
    let parent = match rustix::fs::openat(CWD, parent, OPEN, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let name = std::ffi::CString::new(name.as_encoded_bytes())?;
    if removed(&parent, &name, FileType::Directory)? {
        return Ok(());
    }
    let top = opened(&parent, &name)?;
    let mut moved = 0;
    empty(&top, |below, kind| {
        if removed(&top, below, kind)? {
            return Ok(());
        }
        // What lies deeper is moved up before it is emptied, so that nothing is ever far from the top.
        let folder = opened(&top, below)?;
        empty(&folder, |deeper, kind| {
            if removed(&folder, deeper, kind)? { Ok(()) } else { move_up(&folder, deeper, &top, &mut moved) }
        })?;
        drop(folder);
        gone(unlinkat(&top, below, AtFlags::REMOVEDIR))
    })?;
    Ok(gone(unlinkat(&parent, &name, AtFlags::REMOVEDIR))?)
}

/// Calls `remove` for each name in a folder until none is left.
fn empty(folder: &OwnedFd, mut remove: impl FnMut(&CStr, FileType) -> Result<()>) -> Result<()> {
    loop {
        let mut is_empty = true;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            if ![c".", c".."].contains(&entry.file_name()) {
                is_empty = false;
                remove(entry.file_name(), entry.file_type())?;
            }
        }
        if is_empty {
            return Ok(());
        }
    }
}

/// Removes a file or an empty folder; false where it is a folder with something in it.
fn removed(folder: &OwnedFd, name: &CStr, kind: FileType) -> Result<bool> {
    if kind != FileType::Directory {
        match gone(unlinkat(folder, name, AtFlags::empty())) {
            // What the file system calls a folder's removal as a file: its listing told no kinds.
            Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
            other => return other.map(|()| true),
        }
    }
    match gone(unlinkat(folder, name, AtFlags::REMOVEDIR)) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Moves a folder up, to a name that is free there.
fn move_up(from: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> Result<()> {
    loop {
        let aside = format!(".erased-{moved}");
        *moved += 1;
        let rename = || renameat_with(from, name, top, aside.as_str(), RenameFlags::NOREPLACE);
        let done = match rename() {
            // A folder that is moved gets another parent, and so has to be writable itself.
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(from, name, OWNERS, AtFlags::empty()).and_then(|()| rename())
            }
            other => other,
        };
        match done {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
}

/// Opens a folder to empty it, if need be with the right that its owner can give himself.
fn opened(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    let open = || rustix::fs::openat(parent, name, OPEN, Mode::empty());
    let folder = match open() {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, OWNERS, AtFlags::empty()).and_then(|()| open())?
        }
        other => other?,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&folder)?.st_mode);
    if !mode.contains(OWNERS) {
        // It fails for a folder of somebody else's; whether that matters shows when it is emptied.
        let _ = rustix::fs::fchmod(&folder, mode | OWNERS);
    }
    Ok(folder)
}

fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Folders in each other, made without a path that is longer than the system takes.
    fn deep(top: &Path, depth: usize) {
        let mut folder = rustix::fs::openat(CWD, top, OPEN, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&folder, c"d", Mode::RWXU).unwrap();
            folder = rustix::fs::openat(&folder, c"d", OPEN, Mode::empty()).unwrap();
            let file = OFlags::CREATE | OFlags::WRONLY;
            rustix::fs::openat(&folder, c"f", file, Mode::RWXU).unwrap();
        }
    }

    #[test]
    fn a_tree_goes_however_deep_it_is_and_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(top.join(".erased-0/x")).unwrap();
        fs::write(top.join(".erased-1"), "in the way").unwrap();
        fs::write(dir.path().join("beside"), "stays").unwrap();
        symlink(dir.path(), top.join("a/b/away")).unwrap();
        symlink("/nowhere", top.join("a/dangling")).unwrap();
        rustix::fs::mknodat(CWD, top.join("a/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::hard_link(dir.path().join("beside"), top.join("a/second name")).unwrap();
        // Far more than the descriptors that a process has.
        deep(&top.join("a"), 3000);
        deep(&top, 3000);
        erase(&top).unwrap();
        assert!(!top.exists());
        assert_eq!(fs::read(dir.path().join("beside")).unwrap(), b"stays");
        erase(&top).unwrap();
        erase(&top.join("below")).unwrap();
    }

    #[test]
    fn a_file_or_a_link_in_the_place_of_the_folder_is_refused_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "1").unwrap();
        symlink(dir.path(), dir.path().join("link")).unwrap();
        for name in ["f", "link"] {
            assert!(erase(&dir.path().join(name)).is_err());
        }
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"1");
    }

    /// An archive says which rights its folders have.
    #[test]
    fn a_folder_that_its_owner_may_not_write_goes_too() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b/c/d")).unwrap();
        for folder in ["a/b/c", "a/b", "a"] {
            fs::set_permissions(top.join(folder), Permissions::from_mode(0o000)).unwrap();
        }
        let user = rustix::process::Uid::from_raw(65534);
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            for path in
                [dir.path().to_owned(), top.clone(), top.join("a"), top.join("a/b"), top.join("a/b/c")]
            {
                std::os::unix::fs::chown(path, Some(65534), None).unwrap();
            }
            std::os::unix::fs::chown(top.join("a/b/c/d"), Some(65534), None).unwrap();
        }
        let work = || {
            if is_root {
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            }
            erase(&top).unwrap();
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap());
        assert!(!top.exists());
    }
}
