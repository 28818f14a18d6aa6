//! The plan, closed over an abstract cluster, and every state that it can get into: nodes that come, go and
//! flap, caches that come and go, agents and operators that end between any two writes, Jobs that fail or
//! vanish, disks that rot, and watches that lag behind.
//!
//! No reachable state erases a copy that a cache needed all the time (D2, N5, C8), plans more for a group than
//! its limit (C8), lets a cache go without what its finalizer is for (D1), has two Jobs write one folder (A7),
//! or writes what is there already; and from each of them the cluster, when nothing disturbs it any more,
//! comes to a rest in which every cache that fits is on every matching node and nothing else is anywhere.
//!
//! The plan is the real one; the code around it (`operator/`, `agent/`) is told again in `steps.rs`.
//! `LOCALMODEL_DISTURBANCES` says how many disturbances a run may have.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside the tests
#![allow(clippy::unused_self)] // the steps are those of one world, whether they need its names or not

mod cluster;
mod goal;
mod model;
mod steps;
mod world;

use model::{Disturbance, Plan};
use stateright::{Checker, Model};
use world::{Made, World};

use Disturbance::{Create, Delete};

/// Two caches of one namespace share a source; the third, on the same disk, does not fit beside them.
const ONE_GROUP: [Made; 3] = [
    (Some("team"), "a", "hf://o/x", 6, &[0]),
    (None, "b", "hf://o/y", 6, &[0]),
    (Some("team"), "c", "hf://o/x", 6, &[0]),
];

/// The same on one disk that two groups share, each with a limit of its own.
const TWO_GROUPS: [Made; 3] = [
    (Some("team"), "a", "hf://o/x", 6, &[0]),
    (None, "b", "hf://o/y", 6, &[0, 1]),
    (Some("team"), "c", "hf://o/x", 6, &[1]),
];

/// A large cache waits for room that younger ones have.
const LARGE: [Made; 3] = [
    (None, "first", "hf://o/x", 2, &[0]),
    (None, "large", "hf://o/y", 9, &[0]),
    (None, "young", "hf://o/z", 6, &[0]),
];

/// A cache that is made anew under its name with another source.
const ONE_NAME: [Made; 2] = [(None, "a", "hf://o/x", 6, &[0]), (None, "a", "hf://o/y", 6, &[0])];

/// Explores a world with as many disturbances as are asked for, less those that would be too many for it.
fn check(world: World, less: u8, before: &[Disturbance]) {
    let most: u8 = std::env::var("LOCALMODEL_DISTURBANCES").map_or(2, |text| text.parse().unwrap());
    let checker =
        Plan::new(world, most.saturating_sub(less), before.to_vec()).checker().threads(2).spawn_bfs().join();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn two_nodes_of_one_group_from_nothing() {
    check(World::new(2, &["workers"], &ONE_GROUP), 1, &[]);
}

#[test]
fn two_nodes_of_one_group_at_rest() {
    check(World::new(2, &["workers"], &ONE_GROUP), 1, &[Create(0), Create(1), Create(2)]);
}

#[test]
fn a_node_of_two_groups_with_one_disk() {
    check(World::new(1, &["workers", "others"], &TWO_GROUPS), 1, &[Create(0), Create(1), Create(2)]);
}

#[test]
fn a_node_where_the_oldest_cache_waits_for_a_younger_one() {
    check(World::new(1, &["workers"], &LARGE), 0, &[Create(0), Create(1), Create(2), Delete(0)]);
}

#[test]
fn a_name_that_is_used_again_for_another_source() {
    check(World::new(1, &["workers"], &ONE_NAME), 0, &[Create(0)]);
}
