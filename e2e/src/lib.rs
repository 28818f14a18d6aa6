//! The end-to-end harness: our operator, agents and Jobs on a real cluster, against a hub of our own.
//! Everything is real but the hub and the weights.

pub mod accounts;
pub mod admission;
pub mod attack;
pub mod audit;
pub mod command;
pub mod dump;
pub mod kserve;
pub mod objects;
pub mod rights;
pub mod setup;
pub mod steady;
pub mod sweep;
pub mod table;
pub mod tokens;
pub mod wait;
pub mod walkthrough;
pub mod world;
