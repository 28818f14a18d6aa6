//! The lock of whoever writes a folder. It is `flock`, which ends with its process. File systems without it mostly
//! have POSIX locks; where there are none either, a file is the lock as long as its holder keeps it young.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FlockOperation, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::{FILE_MODE, STATE_DIR, Store, is_unknown};
use crate::download::error::Result;

const NAME: &str = ".localmodel/lock";
/// The file that is a lock itself, below [`STATE_DIR`].
const TAKEN: &str = "lock.taken";
/// How often its holder makes it young.
const RENEW: Duration = Duration::from_secs(10);
/// One of this age has lost its holder.
const STALE: Duration = Duration::from_mins(2);

/// The right to write a folder; it ends with this value, and so with its process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock is held by what is in it")] Held);

#[derive(Debug)]
#[expect(
    dead_code,
    reason = "the lock is held by the open descriptor, or by the file that goes when it is dropped"
)]
enum Held {
    Descriptor(File),
    Name(Taken),
}

/// What tries one kind of lock: whether it got it, or none where the file system does not know the kind.
type Tried = rustix::io::Result<Option<bool>>;

impl Store {
    /// Takes the folder's lock, unless another process has it.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let failed = |error| self.failure("lock", NAME, error);
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = self.open_at(NAME, flags).map_err(|error| self.failure("open", NAME, error))?;
        for (kind, lock) in [("flock", flock as fn(&File) -> Tried), ("POSIX locks", posix)] {
            match lock(&file).map_err(failed)? {
                Some(true) => return Ok(Some(Lock(Held::Descriptor(file)))),
                Some(false) => return Ok(None),
                None => {
                    let dest = self.path().display();
                    tracing::warn!(%dest, kind, "the file system lacks a kind of lock, using another");
                }
            }
        }
        let taken = self.folder(&[STATE_DIR], false).and_then(Taken::try_new);
        Ok(taken.map_err(failed)?.map(|taken| Lock(Held::Name(taken))))
    }
}

fn flock(file: &File) -> Tried {
    known(rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive))
}

fn posix(file: &File) -> Tried {
    known(rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive))
}

fn known(result: rustix::io::Result<()>) -> Tried {
    match result {
        Ok(()) => Ok(Some(true)),
        Err(Errno::WOULDBLOCK | Errno::ACCESS) => Ok(Some(false)),
        Err(error) if error == Errno::NOLCK || is_unknown(error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that is there as long as its holder.
#[derive(Debug)]
struct Taken {
    folder: OwnedFd,
    /// The thread that keeps it young ends when this is dropped.
    _renewed: Sender<()>,
}

impl Taken {
    fn try_new(folder: OwnedFd) -> rustix::io::Result<Option<Self>> {
        remove_stale(&folder)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&folder, TAKEN, flags, FILE_MODE) {
            Ok(_) => {}
            Err(Errno::EXIST) => return Ok(None),
            Err(error) => return Err(error),
        }
        let (renewed, ended) = mpsc::channel();
        let of_thread = rustix::io::fcntl_dupfd_cloexec(&folder, 0)?;
        std::thread::spawn(move || {
            while ended.recv_timeout(RENEW) == Err(RecvTimeoutError::Timeout) {
                // Where it cannot be renewed another process takes it before long.
                let _ = touch(&of_thread);
            }
        });
        Ok(Some(Self { folder, _renewed: renewed }))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Where it cannot be removed it is stale before long.
        let _ = rustix::fs::unlinkat(&self.folder, TAKEN, AtFlags::empty());
    }
}

fn touch(folder: &OwnedFd) -> rustix::io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    rustix::fs::utimensat(folder, TAKEN, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Removes a lock whose holder has ended without a word.
fn remove_stale(folder: &OwnedFd) -> rustix::io::Result<()> {
    let stat = match rustix::fs::statat(folder, TAKEN, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let renewed =
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or_default());
    if SystemTime::now().duration_since(renewed).is_ok_and(|age| age > STALE) {
        rustix::fs::unlinkat(folder, TAKEN, AtFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_lock_until_its_holder_ends_or_is_long_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path()).unwrap();
        let take = || Taken::try_new(store.folder(&[STATE_DIR], false).unwrap()).unwrap();
        let first = take().unwrap();
        assert!(take().is_none());
        drop(first);
        let left = take().unwrap();
        let path = dir.path().join(STATE_DIR).join(TAKEN);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - STALE - Duration::from_secs(2)).unwrap();
        let next = take();
        assert!(next.is_some() && take().is_none());
        std::mem::forget(left);
    }

    #[test]
    fn what_a_file_system_does_not_know_is_told_from_a_lock_that_is_taken() {
        for (error, expected) in [
            (Errno::WOULDBLOCK, Some(Some(false))),
            (Errno::ACCESS, Some(Some(false))),
            (Errno::NOSYS, Some(None)),
            (Errno::OPNOTSUPP, Some(None)),
            (Errno::NOLCK, Some(None)),
            (Errno::IO, None),
        ] {
            assert_eq!(known(Err(error)).ok(), expected, "{error}");
        }
    }
}
