//! What comes to a cluster and leaves it: our installation, its processes by force, nodes, KServe's own controller,
//! KServe itself; and a cluster in which nothing comes or goes.
//!
//! Most of these tests exchange what all others need, or bear no others, and run alone.

mod install;
mod kills;
mod leaders;
mod nodes;
mod standalone;
mod steady;
mod takeover;
mod webhooks_down;
