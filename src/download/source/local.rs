//! Files of this machine: `file:///path`, a file or a folder.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::task::spawn_blocking;

use super::body::Body;
use crate::download::budget::{Listing, check_depth};
use crate::download::digest::Digest;
use crate::download::error::{Error, Result};
use crate::download::limits::Limits;
use crate::download::plan::PlannedFile;
use crate::download::retry::Pause;

const READ: usize = 1 << 20;
/// A disk that gives nothing for so long is as good as gone.
const STALL: Duration = Duration::from_mins(5);

/// A file or a folder.
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
    pause: Pause,
}

impl Local {
    /// What stands at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path, pause: Pause::default() }
    }

    /// The path.
    pub fn place(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// Nobody asks for one here.
    pub fn pause(&self) -> &Pause {
        &self.pause
    }

    /// All files below the folder, or the file itself. Links are followed: what is copied is the file.
    pub async fn files(&self, mut listing: Listing) -> Result<Listing> {
        let path = self.path.clone();
        let walked = spawn_blocking(move || {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_file() {
                collect(&path, name, &mut listing)?;
            } else {
                walk(&path, "", &mut listing)?;
            }
            Ok(listing)
        });
        walked.await.map_err(|error| Error::disk("read", &self.path, std::io::Error::other(error)))?
    }

    /// Opens a range of a file.
    pub async fn open(&self, file: &PlannedFile, range: &Range<u64>) -> Result<Body> {
        let path = if self.path.is_file() { self.path.clone() } else { self.path.join(&file.path) };
        let failed = |error| Error::disk("read", &path, error);
        let mut reader = tokio::fs::File::open(&path).await.map_err(failed)?;
        let metadata = reader.metadata().await.map_err(failed)?;
        if Some(version(&metadata)) != file.version {
            return Err(Error::Changed { place: self.place() });
        }
        reader.seek(std::io::SeekFrom::Start(range.start)).await.map_err(failed)?;
        let rest = reader.take(range.end - range.start);
        let what = format!("file://{}", path.display());
        let chunks = stream::try_unfold((rest, path), |(mut rest, path)| async move {
            let mut chunk = BytesMut::with_capacity(READ);
            match rest.read_buf(&mut chunk).await {
                Ok(0) => Ok(None),
                Ok(_) => Ok(Some((chunk.freeze(), (rest, path)))),
                Err(error) => Err(Error::disk("read", &path, error)),
            }
        });
        Ok(Body::of_stream(
            what,
            range.clone(),
            &Limits { stall: STALL, ..Limits::default() },
            chunks.boxed(),
        ))
    }
}

fn walk(folder: &Path, prefix: &str, listing: &mut Listing) -> Result<()> {
    let failed = |error| Error::disk("read", folder, error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        let metadata = std::fs::metadata(&path).map_err(|error| Error::disk("read", &path, error))?;
        if metadata.is_dir() {
            listing.add_folder()?;
            check_depth(&name)?;
            // A link to a folder above would never end.
            if !entry.file_type().map_err(failed)?.is_symlink() {
                walk(&path, &format!("{name}/"), listing)?;
            }
        } else if metadata.is_file() {
            collect(&path, name, listing)?;
        }
    }
    Ok(())
}

fn collect(path: &Path, name: String, listing: &mut Listing) -> Result<()> {
    if name.split('/').next() == Some(crate::download::store::STATE_DIR) {
        return Ok(()); // a copy's own record, which is not the model's
    }
    let metadata = std::fs::metadata(path).map_err(|error| Error::disk("read", path, error))?;
    let file = PlannedFile::new(name, metadata.len(), Digest::Untold);
    listing.add(PlannedFile { version: Some(version(&metadata)), ..file })
}

/// Tells whether a file is still the same.
fn version(metadata: &std::fs::Metadata) -> String {
    format!("{}-{}-{}.{}", metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}
