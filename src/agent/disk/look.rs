//! A look at the disk: which folders it has, and what those hold that somebody wants. Files are told by their
//! sizes; their bytes are not read, and nothing is in a folder that nobody wants.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::known::Before;
use super::origin::marked;
use super::{Disk, GATE, INCOMING, MODELS, NAMESPACES, PARTS, SERVE, area, is_kept, scrub, serve};
use crate::agent::adopt;
use crate::agent::folders::{any_name, each_name, is_folder};
use crate::api::source::is_storage_key;
use crate::download::lent;
use crate::download::manifest::{Damage, DamageKind, Manifest};
use crate::download::store::Store;
use crate::error::Error;
use crate::plan::disk::{CopyKey, Folder, Inventory, Served, is_namespace};

/// The most things that are not ours that are told.
const STRANGERS: usize = 100;

/// What a look at the disk found.
#[derive(Debug, Default, PartialEq)]
pub(in crate::agent) struct Scan {
    pub(in crate::agent) inventory: Inventory,
    /// What is not ours: left alone and reported (A10).
    pub(in crate::agent) strangers: BTreeSet<String>,
}

/// What a folder holds, and what is wrong with it where it is damaged.
pub(super) type Looked = (Folder, Option<String>);

impl Scan {
    fn stranger(&mut self, path: String) {
        if self.strangers.len() < STRANGERS {
            self.strangers.insert(path);
        }
    }
}

impl Disk {
    /// Looks at every folder, and into those that somebody wants.
    pub(in crate::agent) fn scan(&self, wanted: &BTreeSet<CopyKey>) -> Result<Scan, Error> {
        self.known.go_over(Instant::now());
        let mut scan = Scan::default();
        let mut seen = BTreeSet::new();
        self.scan_area(None, wanted, &mut scan, &mut seen)?;
        each_name(&self.root, |name| {
            if !PARTS.contains(&name) && ![NAMESPACES, "lost+found"].contains(&name) {
                scan.stranger(name.to_owned());
            }
        })?;
        let areas = self.root.join(NAMESPACES);
        let mut namespaces = Vec::new();
        if is_folder(&areas) {
            each_name(&areas, |name| {
                if is_namespace(name) && is_folder(&areas.join(name)) {
                    namespaces.push(name.to_owned());
                } else {
                    scan.stranger(format!("{NAMESPACES}/{name}"));
                }
            })?;
        } // else it is not there yet, or a symlink out of this disk: then it cannot be used
        for name in namespaces {
            self.scan_namespace(&name, wanted, &mut scan, &mut seen)?;
        }
        self.known.retain(&seen);
        Ok(scan)
    }

    fn scan_namespace(
        &self,
        namespace: &str,
        wanted: &BTreeSet<CopyKey>,
        scan: &mut Scan,
        seen: &mut BTreeSet<PathBuf>,
    ) -> Result<(), Error> {
        let (area, mut is_empty) = (area(Some(namespace)), true);
        each_name(&self.root.join(&area), |name| {
            if !PARTS.contains(&name) {
                is_empty = false;
                scan.stranger(format!("{}/{name}", area.display()));
            }
        })?;
        if self.scan_area(Some(namespace), wanted, scan, seen)? && is_empty {
            scan.inventory.empty_areas.insert(namespace.to_owned());
        }
        Ok(())
    }

    /// Looks at the folders of one area; gives whether it has nothing in it.
    fn scan_area(
        &self,
        namespace: Option<&str>,
        wanted: &BTreeSet<CopyKey>,
        scan: &mut Scan,
        seen: &mut BTreeSet<PathBuf>,
    ) -> Result<bool, Error> {
        let mut is_empty = true;
        for part in PARTS {
            let parent = area(namespace).join(part);
            let path = self.root.join(&parent);
            if !is_folder(&path) {
                continue; // not there yet, or a symlink out of this disk: then it cannot be used
            }
            let mut copies = BTreeSet::new();
            each_name(&path, |key| {
                is_empty = false;
                let of = if part == SERVE { serve::copy_of(key) } else { key };
                if part == INCOMING
                    && let Some(key) = marked(key)
                {
                    // Also without its folder, so that it goes.
                    copies.insert(CopyKey { namespace: namespace.map(Into::into), key: key.to_owned() });
                } else if is_storage_key(of) && is_folder(&path.join(key)) {
                    copies.insert(CopyKey { namespace: namespace.map(Into::into), key: of.to_owned() });
                } else {
                    scan.stranger(format!("{}/{key}", parent.display()));
                }
            })?;
            for copy in copies {
                self.scan_copy(part, copy, wanted, &mut scan.inventory, seen);
            }
        }
        Ok(is_empty)
    }

    fn scan_copy(
        &self,
        part: &str,
        copy: CopyKey,
        wanted: &BTreeSet<CopyKey>,
        found: &mut Inventory,
        seen: &mut BTreeSet<PathBuf>,
    ) {
        let (path, is_wanted) = (self.path(part, &copy), wanted.contains(&copy));
        if is_wanted && ![GATE, SERVE].contains(&part) {
            seen.insert(path.clone());
        }
        match part {
            GATE => drop(found.gates.insert(copy)),
            SERVE if !is_wanted => drop(found.served.insert(copy, Served::Outdated)),
            SERVE => {
                let served = self.served(&copy);
                found.served.insert(copy, served);
            }
            INCOMING if !is_wanted => drop(found.incoming.insert(copy, Folder::Unread)),
            MODELS if !is_wanted => drop(found.models.insert(copy, Folder::Unread)),
            INCOMING => {
                if lent::is_unproved(&path) {
                    found.lent.insert(copy.clone());
                }
                let folder = if self.is_foreign(&copy) { bare(&path) } else { self.look_into(&path).0 };
                found.incoming.insert(copy, folder);
            }
            _ => {
                if copy.namespace.is_none() && is_kept(&path) {
                    found.kept.insert(copy.key.clone());
                }
                if self.is_sealed(&copy) {
                    found.sealed.insert(copy.clone());
                }
                let (folder, damage) = self.look(&copy, &path);
                found.damage.extend(damage.map(|damage| (copy.clone(), damage)));
                found.scrubbed.extend(scrub::scrubbed(&path).map(|scrubbed| (copy.clone(), scrubbed)));
                found.models.insert(copy, folder);
            }
        }
    }

    /// What a copy holds; damage that could only be kept in mind counts, too.
    pub(super) fn look(&self, copy: &CopyKey, path: &Path) -> Looked {
        let (found, unrecorded) = (self.look_into(path), self.unrecorded(copy));
        if unrecorded.is_empty() || !matches!(found.0, Folder::Complete { .. }) {
            return found;
        }
        let corrupt = |path: &String| Damage { path: path.clone(), kind: DamageKind::Corrupt };
        (Folder::Damaged, Some(in_words(&unrecorded.iter().map(corrupt).collect::<Vec<_>>())))
    }

    fn look_into(&self, path: &Path) -> Looked {
        let bad = |why: String| (Folder::Damaged, Some(why));
        let store = match Store::open(path) {
            Ok(Some(store)) => store,
            Ok(None) => return (Folder::Empty, None),
            Err(error) => return bad(format!("it cannot be opened: {error}")),
        };
        if let Some(found) = self.known.unchanged(path, &store) {
            return found;
        }
        let mark = store.mark(Manifest::PATH).ok().flatten();
        let (found, before) = match Manifest::read_in(&store) {
            Ok(Some(manifest)) => {
                let before = Before::of(&store, mark, &manifest);
                (held(&manifest, &store), before)
            }
            Ok(None) => ((bare(path), None), None),
            Err(error) => (bad(error.to_string()), Before::of(&store, mark, &Manifest::default())),
        };
        match before {
            Some(before) => self.known.remember(path, before, &found),
            None => self.known.forget(path),
        }
        found
    }
}

/// What a folder holds that has no manifest, or none that counts.
fn bare(path: &Path) -> Folder {
    match any_name(path, |name| !adopt::is_aside(name)) {
        Ok(false) => Folder::Empty,
        _ => Folder::Bare,
    }
}

/// What a folder with a manifest holds.
fn held(manifest: &Manifest, store: &Store) -> Looked {
    match manifest.damaged_in(store) {
        Ok(damages) if damages.is_empty() => {
            (Folder::Complete { bytes: manifest.bytes(), files: manifest.files.len() as u64 }, None)
        }
        Ok(damages) => (Folder::Damaged, Some(in_words(&damages))),
        Err(error) => (Folder::Damaged, Some(format!("its files cannot be looked at: {error}"))),
    }
}

/// Damaged files and what is wrong with each, as far as a person would read on.
pub(super) fn in_words(damages: &[Damage]) -> String {
    const TOLD: usize = 5;
    /// Names are the source's.
    const LONGEST: usize = 200;
    let told = |damage: &Damage| {
        let Damage { path, kind } = damage;
        match path.char_indices().nth(LONGEST) {
            None => format!("{path} {kind}"),
            Some((end, _)) => format!("{}… {kind}", &path[..end]),
        }
    };
    let said: Vec<String> = damages.iter().take(TOLD).map(told).collect();
    let rest = damages.len().saturating_sub(TOLD);
    said.join(", ") + &if rest > 0 { format!(" and {rest} more") } else { String::new() }
}
