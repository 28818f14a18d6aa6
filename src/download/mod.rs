//! `localmodel download`: puts a model's files into a folder, whole and verified, or says why not.
//!
//! A source URI becomes a [`plan`] (files with size and digest, at one commit), the [`engine`] fetches
//! what the folder lacks, and the [`manifest`] is written last: its presence is what makes a copy complete.
//! [`source`] asks hubs and stores, [`store`] owns the folder, [`retry`] the patience.

mod archive;
mod bounded;
pub mod budget;
mod cli;
pub mod digest;
pub mod engine;
pub mod error;
mod job;
pub mod learned;
pub mod lent;
pub mod limits;
pub mod manifest;
mod pairs;
pub mod plan;
pub mod progress;
pub mod retry;
pub mod select;
pub mod settings;
pub mod shared;
pub mod source;
pub mod store;
pub mod variables;
pub mod verify;

pub use cli::{Args, run};
pub use error::{Error, Failure, Reason};
pub use job::download;
pub use manifest::{Damage, DamageKind, Manifest, ManifestFile, is_complete};
pub use progress::{ProgressReport, rate};
pub use settings::Settings;
pub use verify::verify;
