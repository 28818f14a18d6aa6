//! The cluster's tests: what only Kubernetes can prove.
//!
//! They run beside each other, each with names, nodes' labels and folders of its own; those that disturb
//! what others share run alone.

mod bad_objects;
mod capacity;
mod deletion;
mod disks;
mod downloads;
mod failures;
mod gate;
mod healing;
mod matching;
mod mounts;
mod names;
mod namespace_caches;
mod nodes;
mod privileges;
mod reader;
mod restarts;
mod services;
mod tenants;
mod walkthrough;
mod webhooks;
