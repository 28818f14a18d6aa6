//! What comes to a cluster and leaves it: our installation, its processes by force, KServe's own controller,
//! KServe itself.
//!
//! Most of these tests exchange what all others need, and run alone.

mod install;
mod kills;
mod leaders;
mod standalone;
mod takeover;
mod webhooks_down;
