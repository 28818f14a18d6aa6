//! A mock Hugging Face hub over generated models.
//!
//! Two [`wiremock`] servers stand for two origins: the hub, which knows repositories, revisions and tokens,
//! and the CDN, which knows signed URLs only and refuses a request that carries a token. In front of each
//! stands a small relay, because wiremock answers with whole buffers and can neither cut nor hold a body.
//!
//! [`Hub`] runs in-process for tests of the downloader; the `localmodel-hub` binary runs the same servers for
//! a cluster, with a control port.

mod answer;
mod api;
mod cdn;
mod control;
mod fault;
mod llama;
mod model;
mod relay;
mod server;
mod state;

pub use control::{Control, ControlError, ModelSpec, serve};
pub use fault::{Fault, FaultKind, RateHeader};
pub use llama::bytes;
pub use model::{Access, Model};
pub use server::{Addresses, Hub};
pub use state::{Origin, Request, UnknownName};

/// The token whose owner may read every repository of the mock.
pub const TOKEN: &str = "hf_warmModelsServeFromNvme";

/// A valid token whose owner was given no access to any private or gated repository. Any other token is
/// answered as the real hub does it: 401 for whatever is asked, even of a public repository.
pub const STRANGER_TOKEN: &str = "hf_strangerWithoutLicence";
