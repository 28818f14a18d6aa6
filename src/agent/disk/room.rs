//! How much room a disk has, and what is said where none is left.

use rustix::fs::{StatVfs, statvfs};

use super::{Disk, MODELS};
use crate::agent::folders::any_name;
use crate::download::manifest::Manifest;
use crate::download::store::Store;
use crate::plan::local_status::Usage;
use crate::plan::pass::{DISK_FULL, DISK_NOT_RESPONDING, Problem};

impl Disk {
    /// Why nothing more can be written, where no room is left at all. What is to be erased still can be.
    pub(in crate::agent) fn full(&self) -> Option<Problem> {
        let what = exhausted(&statvfs(&self.root).ok()?)?;
        let message = format!(
            "no {what} are free on the node group's disk{}: free some space or use a larger disk",
            self.on_node
        );
        Some(Problem::new(DISK_FULL, message))
    }

    /// Comes back when the disk has answered: its medium, and not what the system remembers of it.
    pub(in crate::agent) fn answer(&self) {
        // An answer that says no is one, too.
        let _ = statvfs(&self.root);
        let mut first = None;
        let _ = any_name(&self.root.join(MODELS), |name| {
            first = Some(name.to_owned());
            true
        });
        let store = first.and_then(|key| Store::open(&self.root.join(MODELS).join(key)).ok()?);
        if let Some(mut manifest) = store.and_then(|store| store.begin_scan(Manifest::PATH).ok()) {
            let _ = manifest.next_bytes();
        }
    }

    /// What is said of it when it does not.
    pub(in crate::agent) fn not_responding(&self) -> Problem {
        let message = format!(
            "the node group's disk{} has not answered for a minute: read the node's kernel log, then replace the disk or restart the node",
            self.on_node
        );
        Problem::new(DISK_NOT_RESPONDING, message)
    }

    /// Size and free room.
    pub(in crate::agent) fn usage(&self) -> Option<Usage> {
        statvfs(&self.root).ok().map(|stat| usage(&stat))
    }
}

/// What has run out. A file system that counts no blocks, or no inodes, never runs out of them.
fn exhausted(stat: &StatVfs) -> Option<&'static str> {
    match (stat.f_bavail, stat.f_favail) {
        (0, _) if stat.f_blocks > 0 => Some("bytes"),
        (_, 0) if stat.f_files > 0 => Some("inodes"),
        _ => None,
    }
}

fn usage(stat: &StatVfs) -> Usage {
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Usage { capacity: bytes(stat.f_blocks), free: bytes(stat.f_bavail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of 512 bytes, of which so many are free for users, and inodes.
    fn stat(blocks: [u64; 2], inodes: [u64; 2]) -> StatVfs {
        StatVfs {
            f_blocks: blocks[0],
            f_bavail: blocks[1],
            f_frsize: 512,
            f_files: inodes[0],
            f_favail: inodes[1],
            ..statvfs("/").unwrap()
        }
    }

    #[test]
    fn a_disk_is_full_without_bytes_or_without_inodes_if_it_counts_them() {
        for (blocks, inodes, expected) in [
            ([9, 1], [9, 1], None),
            ([9, 0], [9, 1], Some("bytes")),
            ([9, 1], [9, 0], Some("inodes")),
            ([9, 0], [9, 0], Some("bytes")),
            ([0, 0], [9, 1], None),
            ([9, 1], [0, 0], None),
        ] {
            assert_eq!(exhausted(&stat(blocks, inodes)), expected, "{blocks:?} {inodes:?}");
        }
    }

    #[test]
    fn size_and_free_room_are_in_bytes() {
        assert_eq!(usage(&stat([10, 3], [9, 1])), Usage { capacity: 5120, free: 1536 });
        let folder = tempfile::tempdir().unwrap();
        let found = Disk::new(folder.path(), None).usage().unwrap();
        assert!(found.capacity > found.free, "{found:?}");
    }
}
