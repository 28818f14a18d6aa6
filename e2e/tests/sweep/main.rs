//! Whatever is cut off, whenever, and however late a watch tells: the cluster comes to the same rest.
//!
//! As part of `just test` each scenario suffers many cuts at once, with fixed seeds; `just sweep` cuts off each
//! single write in turn. `LOCALMODEL_SCENARIO` takes those alone whose name contains it.

use std::collections::VecDeque;
use std::env;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use localmodel_e2e::sweep::{
    Cluster, Disturbance, Expected, Moment, Role, Scenario, baseline, disturbed, scenarios,
};

/// Control planes that run side by side: most of a run is waiting.
const LANES: usize = 3;
/// Seeds of each kind of disturbance that is random.
const SEEDS: u64 = 6;
/// Failures after which no further write is tried.
const ENOUGH: usize = 4;
/// The agent whose writes are cut off one by one: that of the other node is the same program.
const AGENT: Role = Role::Agent("node-a");

type Queue = Arc<Mutex<VecDeque<Scenario>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wherever_a_write_is_cut_off_and_however_late_watches_are_the_cluster_comes_to_the_same_rest() {
    let whole = env::var("LOCALMODEL_SWEEP").is_ok_and(|how| how == "whole");
    let only = env::var("LOCALMODEL_SCENARIO").unwrap_or_default();
    let wanted = scenarios().into_iter().filter(|scenario| scenario.name.contains(&only));
    let queue = Queue::new(Mutex::new(wanted.collect()));
    let lanes: Vec<_> = (0..LANES).map(|_| tokio::spawn(lane(queue.clone(), whole))).collect();
    let mut failures = Vec::new();
    for lane in lanes {
        match lane.await {
            Ok(found) => failures.extend(found),
            Err(panic) => failures.push(panic.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Takes scenario after scenario to a control plane of its own; returns what failed.
async fn lane(queue: Queue, whole: bool) -> Vec<String> {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut failures = Vec::new();
    let Some(mut scenario) = next() else { return failures };
    let cluster = match Cluster::start().await.context("starting a control plane") {
        Ok(cluster) => cluster,
        Err(error) => return vec![format!("{error:#}")],
    };
    loop {
        if let Err(error) = sweep(&cluster, &scenario, whole, &mut failures).await {
            failures.push(format!("{error:#}"));
        }
        match next() {
            Some(other) => scenario = other,
            None => return failures,
        }
    }
}

async fn sweep(
    cluster: &Cluster,
    scenario: &Scenario,
    whole: bool,
    failures: &mut Vec<String>,
) -> Result<()> {
    let begun = Instant::now();
    let expected = baseline(cluster, scenario).await?;
    println!("{}: undisturbed in {:.1} s", scenario.name, begun.elapsed().as_secs_f32());
    let mut run = Run { cluster, scenario, expected, failures };
    if !whole {
        run.suffer(Disturbance::Often(1)).await;
        run.suffer(Disturbance::OftenAndLate(2)).await;
        return Ok(());
    }
    for role in [Role::Operator, AGENT] {
        for moment in [Moment::Before, Moment::After, Moment::Lost] {
            let mut write = 1;
            while run.suffer(Disturbance::Cut(role, write, moment)).await {
                write += 1;
            }
        }
    }
    for seed in 1..=SEEDS {
        run.suffer(Disturbance::Late(seed)).await;
        run.suffer(Disturbance::Often(seed)).await;
        run.suffer(Disturbance::OftenAndLate(seed)).await;
    }
    Ok(())
}

struct Run<'a> {
    cluster: &'a Cluster,
    scenario: &'a Scenario,
    expected: Expected,
    failures: &'a mut Vec<String>,
}

impl Run<'_> {
    /// One run; whether there was anything to cut off.
    async fn suffer(&mut self, disturbance: Disturbance) -> bool {
        let begun = Instant::now();
        let outcome = disturbed(self.cluster, self.scenario, &self.expected, disturbance).await;
        let (name, took) = (self.scenario.name, begun.elapsed().as_secs_f32());
        match outcome {
            Ok(cuts) => {
                println!("{name}: {disturbance}: the same, in {took:.1} s; cut off: {cuts:?}");
                !cuts.is_empty()
            }
            Err(error) => {
                println!("{name}: {disturbance}: FAILED after {took:.1} s");
                self.failures.push(format!("{error:#}"));
                self.failures.len() < ENOUGH
            }
        }
    }
}
