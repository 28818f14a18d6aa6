//! What comes to a cluster and leaves it: our installation, KServe's own controller, KServe itself.
//!
//! Most of these tests exchange what all others need, and run alone.

mod install;
mod leaders;
mod standalone;
mod takeover;
