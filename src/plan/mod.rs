//! The pure core: from what was read to what should be. Functions of values, the time included; no
//! client, no store, no clock.

pub mod agent;
pub mod cache;
pub mod conditions;
pub mod copies;
pub mod drift;
pub mod entries;
pub mod job;
pub mod job_view;
pub mod local_status;
pub mod names;
pub mod pass;
pub mod patch;
pub mod rivals;
pub mod selector;
pub mod serving;
pub mod uninstall;
pub mod users;
pub mod volumes;

#[cfg(test)]
mod samples;
