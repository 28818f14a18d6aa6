//! One run of a scenario: undisturbed, which says what the end of each step looks like, or disturbed, which has to
//! come to the same.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cluster::{Cluster, Role};
use super::dice::Dice;
use super::objects::NODES;
use super::proxy::{Cuts, Moment, Plan, Proxy};
use super::scenarios::{Scenario, Step, Verdict};
use super::state::{State, difference, look};

/// After so long without a write a cluster rests, or waits for something.
const QUIET: Duration = Duration::from_millis(1200);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a step may take: a lost answer may cost a retry of the operator's, of ten seconds.
const PATIENCE: Duration = Duration::from_secs(75);
/// The most writes of one component that [`Disturbance::Often`] cuts off.
const MANY: usize = 8;

/// What a scenario's disturbed steps suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// The n-th write of a component is cut off.
    Cut(Role, usize, Moment),
    /// About every third write of each component is cut off.
    Often(u64),
    /// Watches lag behind.
    Late(u64),
    /// Both.
    OftenAndLate(u64),
}

/// What the end of each step looks like.
pub type Expected = Vec<State>;

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(Role::Operator, n, moment) => {
                write!(f, "write {n} of the operator cut off, {moment:?}")
            }
            Self::Cut(Role::Agent(node), n, moment) => {
                write!(f, "write {n} of the agent of {node} cut off, {moment:?}")
            }
            Self::Often(seed) => write!(f, "many writes cut off, seed {seed}"),
            Self::Late(seed) => write!(f, "late watches, seed {seed}"),
            Self::OftenAndLate(seed) => write!(f, "late watches and many writes cut off, seed {seed}"),
        }
    }
}

impl Disturbance {
    /// What it does to a component, told apart by its number.
    fn plan(self, role: Role, number: u64) -> Plan {
        let often = |seed: u64| Cuts::Often(Dice::new(seed.wrapping_mul(31).wrapping_add(number)), MANY);
        match self {
            Self::Cut(of, n, moment) if of == role => Plan { cuts: Cuts::At(n, moment), late: None },
            Self::Cut(..) => Plan::default(),
            Self::Often(seed) => Plan { cuts: often(seed), late: None },
            Self::Late(seed) => Plan { cuts: Cuts::Never, late: Some(seed.wrapping_add(number)) },
            Self::OftenAndLate(seed) => Plan { cuts: often(seed), late: Some(seed.wrapping_add(number)) },
        }
    }
}

/// Runs a scenario undisturbed.
pub async fn baseline(cluster: &Cluster, scenario: &Scenario) -> Result<Expected> {
    cluster.reset().await.context("emptying the cluster")?;
    let mut expected = Expected::new();
    for step in &scenario.steps {
        expected.push(done(cluster, step).await.with_context(|| scenario.name)?);
    }
    Ok(expected)
}

/// Runs a scenario disturbed; returns the writes that were cut off.
pub async fn disturbed(
    cluster: &Cluster,
    scenario: &Scenario,
    expected: &Expected,
    disturbance: Disturbance,
) -> Result<Vec<String>> {
    let run = async {
        cluster.reset().await.context("emptying the cluster")?;
        for (number, (step, end)) in scenario.steps.iter().zip(expected).enumerate() {
            if number == scenario.prepared {
                disturb(cluster, disturbance);
            }
            if number < scenario.prepared {
                done(cluster, step).await?;
            } else {
                same(cluster, step, end).await.with_context(|| format!("step {}", number + 1))?;
            }
        }
        anyhow::Ok(cluster.proxies().flat_map(Proxy::cuts).collect())
    };
    run.await.with_context(|| format!("{}: {disturbance}", scenario.name))
}

/// From now on components suffer it. Watches that are open already do not lag, so that processes begin anew.
fn disturb(cluster: &Cluster, disturbance: Disturbance) {
    let roles = [Role::Operator].into_iter().chain(NODES.map(Role::Agent));
    for (role, number) in roles.zip(0..) {
        cluster.proxy(role).follow(disturbance.plan(role, number));
    }
    if matches!(disturbance, Disturbance::Late(_) | Disturbance::OftenAndLate(_)) {
        cluster.proxies().for_each(Proxy::end_life);
    }
}

/// Does what the step says; the operator starts with the first one.
async fn change(cluster: &Cluster, step: &Step) -> Result<()> {
    for change in &step.changes {
        change.make(cluster).await?;
    }
    cluster.start_operator()
}

/// Does a step, waits until it is done and nobody writes any more, and says what is there then.
async fn done(cluster: &Cluster, step: &Step) -> Result<State> {
    change(cluster, step).await?;
    at_rest(cluster, step.done).await
}

/// Does a step, and waits for the same rest as in the undisturbed run.
async fn same(cluster: &Cluster, step: &Step, end: &State) -> Result<State> {
    change(cluster, step).await?;
    at_rest(cluster, |state| {
        let difference = difference(end, state);
        if difference.is_empty() { Ok(()) } else { Err(difference) }
    })
    .await
}

/// Waits for a rest that is as it should be.
async fn at_rest(cluster: &Cluster, is_right: impl Fn(&State) -> Verdict) -> Result<State> {
    let begun = Instant::now();
    let mut last = "it never came to rest".to_owned();
    loop {
        if cluster.quiet() > QUIET {
            let state = look(cluster).await?;
            match is_right(&state) {
                Ok(()) if cluster.quiet() > QUIET => {
                    let faults = cluster.faults();
                    if !faults.is_empty() {
                        bail!("{}\n{}", faults.join("\n"), cluster.logs());
                    }
                    return Ok(state);
                }
                Ok(()) => {}
                Err(why) => last = why,
            }
        }
        if begun.elapsed() > PATIENCE {
            let record = cluster.record();
            let faults = cluster.faults().join("\n");
            let cuts: Vec<String> = cluster.proxies().flat_map(Proxy::cuts).collect();
            bail!(
                "after {} s:\n{last}\n{faults}\ncut off: {cuts:#?}\nthe kubelet: {record:#?}\n{}",
                PATIENCE.as_secs(),
                cluster.logs()
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}
