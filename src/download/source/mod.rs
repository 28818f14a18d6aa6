//! Where models come from: a source URI, what it holds, and how a range of a file is read.
//!
//! A further scheme is a variant of [`Location`] and of [`Source`]; planning, engine and disk know nothing of
//! schemes.

mod addresses;
mod body;
mod cause;
mod client;
mod http;
mod hub;
mod link;
mod local;
mod objects;
mod page;
pub mod protocol;
mod proxies;
mod trust;
mod unzip;
mod uri;
mod verifier;
mod web;

use std::ops::Range;

pub use body::{Body, content_range};
pub use cause::Barrier;
pub use link::Link;
pub use trust::{CA_FOLDER, Trust};
pub use uri::{
    Account, Bucket, Location, Repository, SUPPORTED, is_commit, text_without_secrets, without_secrets,
};

use self::hub::Hub;
use self::local::Local;
use self::objects::Objects;
use self::web::Web;
use super::budget::Listing;
use super::error::{Error, Result};
use super::plan::PlannedFile;
use super::retry::Pause;
use super::settings::Settings;

/// A source that can be asked.
#[derive(Debug)]
pub enum Source {
    /// A Hugging Face hub.
    Hub(Hub),
    /// A bucket or container of an object store.
    Objects(Objects),
    /// One file of a web server.
    Web(Web),
    /// A file or folder of this machine.
    Local(Local),
}

impl Source {
    /// Opens a client for a source.
    pub async fn new(location: &Location, settings: &Settings) -> Result<Self> {
        match location {
            Location::Hub(repository) => Hub::new(repository.clone(), settings).map(Self::Hub),
            Location::Bucket(bucket) => Objects::new(bucket, settings).await.map(Self::Objects),
            Location::Web(url) => Web::new(url.clone(), settings).map(Self::Web),
            // What is there is the platform's, such as the variables of this process.
            Location::Local(path) if settings.variables.is_of_namespace() => Err(Error::InvalidSource {
                uri: format!("file://{}", path.display()),
                why: "the cache of a namespace cannot name a file of the download Job".to_owned(),
            }),
            Location::Local(path) => Ok(Self::Local(Local::new(path.clone()))),
        }
    }

    /// The commit that the URI's revision is now, where there is such a thing.
    pub async fn commit(&self) -> Result<Option<String>> {
        match self {
            Self::Hub(hub) => hub.commit().await.map(Some),
            Self::Objects(_) | Self::Web(_) | Self::Local(_) => Ok(None),
        }
    }

    /// The wanted files (of a commit), with names that are safe; `told` is the source as messages name it.
    pub async fn files(&self, commit: Option<&str>, settings: &Settings, told: &str) -> Result<Listing> {
        let listing = || Listing::new(settings.allowance, &settings.selection, told);
        match self {
            Self::Hub(hub) => hub.files(commit.unwrap_or_default(), listing()).await,
            Self::Objects(objects) => objects.files(listing()).await,
            Self::Web(web) => web.files(listing()).await,
            Self::Local(local) => local.files(listing()).await,
        }
    }

    /// Asks once for a range of a file; `link` is the file's.
    pub async fn open(
        &self,
        commit: Option<&str>,
        file: &PlannedFile,
        range: &Range<u64>,
        link: &Link,
    ) -> Result<Body> {
        match self {
            Self::Hub(hub) => hub.open(commit.unwrap_or_default(), file, range, link).await,
            Self::Objects(objects) => objects.open(file, range, link).await,
            Self::Web(web) => web.open(file, range, link).await,
            Self::Local(local) => local.open(file, range).await,
        }
    }

    /// Asks once for all of a file that has to come in one answer.
    pub async fn open_whole(&self, file: &PlannedFile) -> Result<Body> {
        match self {
            Self::Web(web) => web.open_whole(file).await,
            Self::Objects(objects) => objects.open_whole(file).await,
            Self::Hub(_) | Self::Local(_) => Err(Error::Changed { place: self.place() }),
        }
    }

    /// Files changed, or their servers disagree: whether there is a way to get them all the same.
    pub fn ask_once(&self) {
        if let Self::Web(web) = self {
            web.ask_once();
        }
    }

    /// Where the files are asked for: the same files at another place are not the same download.
    pub fn place(&self) -> String {
        match self {
            Self::Hub(hub) => hub.place(),
            Self::Objects(objects) => objects.place().to_owned(),
            Self::Web(web) => web.place(),
            Self::Local(local) => local.place(),
        }
    }

    /// The pause that all requests to this source share.
    pub fn pause(&self) -> &Pause {
        match self {
            Self::Hub(hub) => hub.pause(),
            Self::Objects(objects) => objects.pause(),
            Self::Web(web) => web.pause(),
            Self::Local(local) => local.pause(),
        }
    }

    /// Whether who may read one file may read all: a hub keeps whole repositories, a store single objects.
    pub fn is_one_door(&self) -> bool {
        matches!(self, Self::Hub(_) | Self::Local(_))
    }

    /// Whether a file that is all there is, and an archive, is unpacked, as KServe does it.
    pub fn unpacks(&self) -> bool {
        !matches!(self, Self::Hub(_))
    }
}
