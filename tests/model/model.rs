//! The world as a model: which steps may come next, what may disturb them, and what must hold.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use localmodel::api::node::ModelDetail;
use stateright::{Model, Property};

use crate::cluster::{
    Cache, CacheNo, Cluster, Files, GroupNo, JobNo, Lag, Local, Machine, NodeObject, Watch,
};
use crate::steps::Pen;
use crate::world::World;

/// How many rounds of all steps a cluster may take to come to rest.
const ROUNDS: usize = 40;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What goes on by itself.
    Own(Own),
    /// What disturbs it, as often as the budget allows.
    Disturbance(Disturbance),
    /// A step of the operator or an agent that is cut off after so many writes.
    Cut(Own, usize),
}

/// What goes on by itself, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Own {
    OperatorLooksAtNode(usize),
    OperatorLooksAtCache(CacheNo),
    AgentPasses(usize, GroupNo),
    DaemonSetFollows(usize, GroupNo),
    JobEnds(usize, JobNo),
    JobGoes(usize, JobNo),
    GarbageGoes(usize),
    WatchCatchesUp(Watch),
    /// An hour passes, while something waits for it.
    AnHourPasses,
}

/// What comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    Create(CacheNo),
    Delete(CacheNo),
    NodeJoins(usize, GroupNo),
    NodeLeaves(usize, GroupNo),
    NodeIsDeleted(usize),
    NodeComesBack(usize),
    NodeComesBackEmpty(usize),
    ReadinessFlips(usize),
    ListIsDeleted(usize),
    ModelIsDamaged(usize, usize),
    JobFails(usize, JobNo),
    JobIsLost(usize, JobNo),
    WatchIsHeldBack(Watch),
}

/// A world, where it begins, and which clusters are known to come to rest.
pub struct Plan {
    pub world: World,
    pub budget: u8,
    /// What happens before it begins, each time until the cluster rests.
    pub before: Vec<Disturbance>,
    settled: Mutex<HashSet<u64>>,
}

impl Plan {
    pub fn new(world: World, budget: u8, before: Vec<Disturbance>) -> Self {
        Self { world, budget, before, settled: Mutex::default() }
    }

    fn begin(&self) -> Cluster {
        let groups = self.world.groups.len();
        let node = NodeObject { groups: (0..groups).collect(), warm: BTreeMap::new(), ready: true };
        let machine = Machine { node: Some(node), agents: vec![None; groups], ..Machine::default() };
        Cluster {
            machines: vec![machine; self.world.nodes],
            caches: BTreeMap::new(),
            volumes: BTreeSet::new(),
            hours: 1,
            held: BTreeMap::new(),
            budget: self.budget,
            fault: None,
        }
    }

    /// Everything that goes on by itself and may go on now.
    fn own_steps(&self, c: &Cluster) -> Vec<Own> {
        let mut steps: Vec<Own> = c.held.keys().copied().map(Own::WatchCatchesUp).collect();
        steps.extend((0..self.world.catalogue.len()).map(Own::OperatorLooksAtCache));
        for (n, machine) in c.machines.iter().enumerate() {
            steps.extend([Own::OperatorLooksAtNode(n), Own::GarbageGoes(n)]);
            for g in 0..self.world.groups.len() {
                steps.extend([Own::DaemonSetFollows(n, g), Own::AgentPasses(n, g)]);
            }
            for (no, job) in &machine.jobs {
                let is_old = job.ended.is_some_and(|(hour, _)| hour < c.hours);
                if job.deleting || is_old {
                    steps.push(Own::JobGoes(n, *no));
                } else if job.ended.is_none() && machine.node.is_some() {
                    steps.push(Own::JobEnds(n, *no));
                }
            }
        }
        let waits = |local: &Local| {
            let next =
                |detail: &ModelDetail| detail.next_try.as_ref().is_some_and(|at| at.0 > self.world.now(c));
            local.status.0.models.values().any(next)
        };
        if c.machines.iter().flat_map(|machine| &machine.local).any(waits) {
            steps.push(Own::AnHourPasses);
        }
        steps
    }

    fn go(&self, c: &mut Cluster, step: Own, pen: &mut Pen) {
        let world = &self.world;
        match step {
            Own::OperatorLooksAtNode(n) => world.operator_looks_at_node(c, n, pen),
            Own::OperatorLooksAtCache(no) => world.operator_looks_at_cache(c, no, pen),
            Own::AgentPasses(n, g) => world.agent_passes(c, n, g, pen),
            Own::DaemonSetFollows(n, g) => world.daemon_set_follows(c, n, g),
            Own::JobEnds(n, no) => world.job_ends(c, n, &no, true),
            Own::JobGoes(n, no) => world.job_goes(c, n, &no),
            Own::GarbageGoes(n) => world.garbage_goes(c, n),
            Own::WatchCatchesUp(watch) => drop(c.held.remove(&watch)),
            Own::AnHourPasses => c.hours += 1,
        }
        world.look_around(c);
    }

    fn disturbances(&self, c: &Cluster) -> Vec<Disturbance> {
        use Disturbance as D;
        let mut all = Vec::new();
        for no in 0..self.world.catalogue.len() {
            let name = self.world.name_of(no);
            match c.caches.get(&no) {
                Some(cache) if !cache.deleting => all.push(D::Delete(no)),
                None if c.caches.keys().all(|other| self.world.name_of(*other) != name) => {
                    all.push(D::Create(no));
                }
                _ => {}
            }
        }
        for (n, machine) in c.machines.iter().enumerate() {
            match &machine.node {
                Some(node) => {
                    all.extend((0..self.world.groups.len()).map(|g| {
                        if node.groups.contains(&g) { D::NodeLeaves(n, g) } else { D::NodeJoins(n, g) }
                    }));
                    all.extend([D::NodeIsDeleted(n), D::ReadinessFlips(n)]);
                }
                None => all.extend([D::NodeComesBack(n), D::NodeComesBackEmpty(n)]),
            }
            all.extend(machine.local.iter().map(|_| D::ListIsDeleted(n)));
            let whole = machine.disk.models.iter().filter(|(_, files)| **files == Files::Whole);
            all.extend(whole.map(|(copy, _)| D::ModelIsDamaged(n, *copy)));
            for (no, job) in &machine.jobs {
                all.extend((job.ended.is_none() && !job.deleting).then_some(D::JobFails(n, *no)));
                all.push(D::JobIsLost(n, *no));
            }
        }
        all.extend(self.watches(c).into_iter().filter(|w| !c.held.contains_key(w)).map(D::WatchIsHeldBack));
        all
    }

    fn watches(&self, c: &Cluster) -> Vec<Watch> {
        let mut all = vec![Watch::Caches, Watch::Volumes];
        for (n, machine) in c.machines.iter().enumerate() {
            all.extend([Watch::Node(n), Watch::Local(n)]);
            let running = (0..self.world.groups.len()).filter(|g| machine.agents[*g].is_some());
            all.extend(running.flat_map(|g| [Watch::AgentsLocal(n, g), Watch::AgentsJobs(n, g)]));
        }
        all
    }

    fn disturb(&self, c: &mut Cluster, disturbance: Disturbance) {
        use Disturbance as D;
        match disturbance {
            D::Create(no) => {
                let volumes = c.volumes.iter().map(|(_, born)| *born);
                let caches = c.caches.values().chain(c.held.values().flat_map(|(past, _)| past.caches()));
                let born = caches.map(|cache| cache.born).chain(volumes).max().unwrap_or(0) + 1;
                c.caches.insert(no, Cache { born, finalizer: false, deleting: false });
            }
            D::Delete(no) => {
                // Without a finalizer it is gone at once.
                let kept = c.caches.get_mut(&no).filter(|cache| cache.finalizer);
                if kept.map(|cache| cache.deleting = true).is_none() {
                    c.caches.remove(&no);
                }
            }
            D::NodeComesBack(n) | D::NodeComesBackEmpty(n) => {
                let groups = (0..self.world.groups.len()).collect();
                let machine = &mut c.machines[n];
                machine.node = Some(NodeObject { groups, warm: BTreeMap::new(), ready: true });
                if matches!(disturbance, D::NodeComesBackEmpty(_)) {
                    machine.disk = crate::cluster::Disk::default();
                }
                c.written(|watch| watch == Watch::Node(n), Lag::Replaced);
            }
            D::WatchIsHeldBack(watch) => drop(c.held.insert(watch, (c.now(watch), Lag::None))),
            D::ListIsDeleted(n) => self.world.list_goes(c, n),
            other => self.disturb_machine(c, other),
        }
        self.world.look_around(c);
    }

    fn disturb_machine(&self, c: &mut Cluster, disturbance: Disturbance) {
        use Disturbance as D;
        let (n, as_what) = match disturbance {
            D::NodeJoins(n, g) => {
                c.machines[n].node.iter_mut().for_each(|node| node.groups.extend([g]));
                (n, Lag::Changed)
            }
            D::NodeLeaves(n, g) => {
                c.machines[n].node.iter_mut().for_each(|node| node.groups.retain(|of| *of != g));
                (n, Lag::Changed)
            }
            D::ReadinessFlips(n) => {
                c.machines[n].node.iter_mut().for_each(|node| node.ready = !node.ready);
                (n, Lag::Changed)
            }
            D::NodeIsDeleted(n) => {
                let machine = &mut c.machines[n];
                machine.node = None;
                machine.local.iter_mut().for_each(|local| local.owned = false);
                // Nobody knows any more what was planned there.
                machine.disk.let_go.extend(machine.disk.models.keys().copied());
                c.local_written(n, Lag::Changed);
                (n, Lag::Replaced)
            }
            D::ModelIsDamaged(n, copy) => {
                c.machines[n].disk.models.insert(copy, Files::Damaged);
                return;
            }
            D::JobFails(n, no) => return self.world.job_ends(c, n, &no, false),
            D::JobIsLost(n, no) => return self.world.job_goes(c, n, &no),
            _ => return,
        };
        c.written(|watch| watch == Watch::Node(n), as_what);
    }

    /// Whether a cluster comes to rest, and is as it should be then.
    fn settles(&self, c: &Cluster) -> Result<(), String> {
        let mut passed = Vec::new();
        let is_known = |c: &Cluster| {
            let fingerprint = fingerprint(c);
            passed.push(fingerprint);
            self.settled.lock().unwrap_or_else(PoisonError::into_inner).contains(&fingerprint)
        };
        self.go_on(c.clone(), is_known)?;
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).extend(passed);
        Ok(())
    }

    /// The cluster at rest.
    fn rest(&self, c: Cluster) -> Result<Cluster, String> {
        self.go_on(c, |_| false)
    }

    /// Lets a cluster go on undisturbed until it rests, every step in turn, or until it is known to.
    fn go_on(&self, mut c: Cluster, mut is_known: impl FnMut(&Cluster) -> bool) -> Result<Cluster, String> {
        c.budget = 0;
        for _ in 0..ROUNDS {
            if is_known(&c) {
                return Ok(c);
            }
            let before = c.clone();
            let mut written = 0;
            let steps = self.own_steps(&c);
            for step in steps.iter().filter(|step| **step != Own::AnHourPasses) {
                let mut pen = Pen::full();
                if self.may_still(&c, step) {
                    self.go(&mut c, *step, &mut pen);
                }
                written += pen.written;
            }
            if let Some(fault) = &c.fault {
                return Err(format!("on the way to rest: {fault}"));
            }
            if c == before && steps.contains(&Own::AnHourPasses) {
                c.hours += 1;
            } else if c == before {
                if written > 0 {
                    return Err(format!("{written} writes change nothing: {c:#?}"));
                }
                self.is_right(&c)?;
                return Ok(c);
            }
        }
        Err(format!("it does not come to rest: {c:#?}"))
    }

    /// Whether a Job that was there when the round began is there still, and in the same state.
    fn may_still(&self, c: &Cluster, step: &Own) -> bool {
        match step {
            Own::JobEnds(..) | Own::JobGoes(..) => self.own_steps(c).contains(step),
            _ => true,
        }
    }
}

fn fingerprint(c: &Cluster) -> u64 {
    let mut hasher = DefaultHasher::new();
    c.hash(&mut hasher);
    hasher.finish()
}

impl Model for Plan {
    type State = Cluster;
    type Action = Step;

    fn init_states(&self) -> Vec<Cluster> {
        let mut c = self.begin();
        for disturbance in &self.before {
            self.disturb(&mut c, *disturbance);
            c = self.rest(c).expect("a world that nothing disturbs comes to rest");
        }
        vec![Cluster { budget: self.budget, ..c }]
    }

    fn actions(&self, c: &Cluster, actions: &mut Vec<Step>) {
        let own = self.own_steps(c);
        actions.extend(own.iter().copied().map(Step::Own));
        if c.budget == 0 || c.fault.is_some() {
            return;
        }
        actions.extend(self.disturbances(c).into_iter().map(Step::Disturbance));
        for step in own {
            let mut pen = Pen::full();
            self.go(&mut c.clone(), step, &mut pen);
            let is_agents = matches!(step, Own::AgentPasses(..));
            // An agent that ends after the last write forgets; the operator has nothing to forget.
            let last = if is_agents { pen.written + 1 } else { pen.written };
            actions.extend((usize::from(!is_agents)..last).map(|after| Step::Cut(step, after)));
        }
    }

    fn next_state(&self, last: &Cluster, action: Step) -> Option<Cluster> {
        let mut c = last.clone();
        match action {
            Step::Own(step) => self.go(&mut c, step, &mut Pen::full()),
            Step::Disturbance(disturbance) => {
                c.budget -= 1;
                self.disturb(&mut c, disturbance);
            }
            Step::Cut(step, after) => {
                c.budget -= 1;
                self.go(&mut c, step, &mut Pen::with(after));
                if let Own::AgentPasses(n, g) = step {
                    self.world.agent_ends(&mut c, n, g);
                }
            }
        }
        (c != *last).then_some(c)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "nothing is erased, planned, written or left that must not be",
                |_, c: &Cluster| {
                    c.fault.iter().for_each(|fault| eprintln!("fault: {fault}"));
                    c.fault.is_none()
                },
            ),
            Property::always(
                "it comes to rest, and then everything is as wanted",
                |plan: &Plan, c: &Cluster| {
                    c.fault.is_some()
                        || plan.settles(c).map_err(|why| eprintln!("not at rest: {why}")).is_ok()
                },
            ),
        ]
    }
}
