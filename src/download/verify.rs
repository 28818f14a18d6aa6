//! Whether a copy still holds the bytes that its manifest says: `localmodel verify` (F7).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::engine::check::check;
use super::error::{Error, Result};
use super::manifest::{Damage, DamageKind, Manifest};
use super::plan::Plan;
use super::store::Store;

/// Re-hashes a copy against its manifest and lists what is damaged
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The folder of the copy
    dest: PathBuf,
}

/// Runs the subcommand: exit code 0 when the copy is whole, 1 when it is not or cannot be read.
pub async fn run(args: Args) -> ExitCode {
    match verify(&args.dest).await {
        Ok(damages) if damages.is_empty() => {
            println!("{} is whole", args.dest.display());
            ExitCode::SUCCESS
        }
        Ok(damages) => {
            for damage in &damages {
                println!("{damage}");
            }
            eprintln!(
                "error: {} files are damaged; `localmodel download` into {} mends them",
                damages.len(),
                args.dest.display()
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads all files of the copy in `dest` and gives those that are not what its manifest says. They are also
/// recorded in the folder, so that nobody takes it for complete before they are mended.
pub async fn verify(dest: &Path) -> Result<Vec<Damage>> {
    let nothing = || Error::NoCopy(dest.to_owned());
    let store = Store::open(dest).map_err(|error| Error::disk("open", dest, error))?.ok_or_else(nothing)?;
    let store = Arc::new(store);
    let manifest = Manifest::read_in(&store)?.ok_or_else(nothing)?;
    let looked = manifest.damaged_in(&store).map_err(|error| Error::disk("look at", dest, error))?;
    // What was found corrupt before is looked at again: it may have been put right by hand.
    let mut damages: Vec<_> = looked.into_iter().filter(|found| found.kind != DamageKind::Corrupt).collect();
    let known: BTreeSet<_> = damages.iter().map(|damage| damage.path.clone()).collect();
    let files = Plan::from(&manifest).files.into_iter().filter(|file| !known.contains(&file.path)).collect();
    let readers = std::thread::available_parallelism().map_or(1, usize::from);
    let (_, corrupt) = check(&store, readers, files).await?;
    let corrupt: Vec<String> = corrupt.into_iter().map(|file| file.path).collect();
    // A whole copy that has no record needs none, also where nothing can be written.
    if (!corrupt.is_empty() || Manifest::has_record(&store))
        && let Err(error) = Manifest::record_corrupt(&store, &corrupt)
    {
        tracing::warn!(%error, "cannot record the result for the next download");
    }
    damages.extend(corrupt.into_iter().map(|path| Damage { path, kind: DamageKind::Corrupt }));
    damages.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(damages)
}
