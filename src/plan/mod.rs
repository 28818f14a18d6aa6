//! The pure core: from what was read to what should be. Functions of values, the time included; no
//! client, no store, no clock.

pub mod admission;
pub mod agent;
pub mod agent_pods;
pub mod cache;
pub mod capacity;
pub mod certificates;
pub mod conditions;
pub mod copies;
pub mod credentials;
pub mod definitions;
pub mod disk;
pub mod drift;
pub mod entries;
pub mod fleet;
pub mod gate;
pub mod job;
pub mod job_limits;
pub mod job_view;
pub mod keys;
pub mod lease;
pub mod list_budget;
pub mod local_status;
pub mod mounts;
pub mod names;
pub mod node_group;
pub mod pass;
pub mod patch;
pub mod pod;
pub mod reasons;
pub mod recipe;
pub mod rivals;
pub mod scrub;
pub mod selector;
pub mod serving;
pub mod sizes;
pub mod source;
pub mod takeover;
pub mod text;
pub mod transfers;
pub mod uninstall;
pub mod users;
pub mod volumes;
pub mod webhooks;

#[cfg(test)]
mod policies;
#[cfg(test)]
mod samples;
