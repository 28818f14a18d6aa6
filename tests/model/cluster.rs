//! The abstract cluster: what the API server, the disks and the memories of agents hold, small enough to be
//! told apart and remembered by the million.
//!
//! What the plan reads stands here in the plan's own types, or in short for them; `world.rs` spells it out.
//! Gate files and emptied namespace areas are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use localmodel::api::node::{LocalModelNodeStatus, ModelDetail};
use localmodel::plan::pass::Said;

/// A cache, by its place in the catalogue.
pub type CacheNo = usize;
/// A node group, by its place in the list of groups.
pub type GroupNo = usize;
/// A copy on a disk: the first cache of the catalogue that asks for it.
pub type CopyNo = usize;

/// A whole cluster at one moment.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Cluster {
    pub machines: Vec<Machine>,
    pub caches: BTreeMap<CacheNo, Cache>,
    /// Download volumes, by their cache and its birth.
    pub volumes: BTreeSet<(CacheNo, u8)>,
    /// Hours since the beginning; it only goes on while something waits for it.
    pub hours: i64,
    /// Watches that are held back, with what they saw last.
    pub held: BTreeMap<Watch, (Past, Lag)>,
    /// How many disturbances may still come.
    pub budget: u8,
    /// The first thing that must never be.
    pub fault: Option<String>,
}

/// A cache's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cache {
    /// Which tells it from an earlier one of its name, and the older from the younger.
    pub born: u8,
    pub finalizer: bool,
    pub deleting: bool,
}

/// A node with its object, its disk and its agents.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Machine {
    pub node: Option<NodeObject>,
    pub local: Option<Local>,
    pub jobs: BTreeMap<JobNo, Job>,
    pub disk: Disk,
    /// The agent of each group, while it runs.
    pub agents: Vec<Option<Memory>>,
}

/// A `Node`.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct NodeObject {
    pub groups: BTreeSet<GroupNo>,
    pub warm: BTreeMap<String, String>,
    pub ready: bool,
}

/// A `LocalModelNode`.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Local {
    pub spec: Vec<(CacheNo, GroupNo)>,
    pub member_of: Vec<String>,
    pub status: Told,
    /// Whether the node that owns it is there.
    pub owned: bool,
}

/// A status, hashed by what can change in this world.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told(pub LocalModelNodeStatus);

/// What an agent remembers: what it said last. Nothing after a start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory(pub Option<BTreeMap<String, Said>>);

/// A Job's name: its cache's, or the name aside.
pub type JobNo = (CacheNo, bool);

/// A download Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    pub copy: CopyNo,
    pub group: GroupNo,
    /// The hour when it ended, and whether well.
    pub ended: Option<(i64, bool)>,
    pub deleting: bool,
    /// Whether the `LocalModelNode` that owns it is there.
    pub owned: bool,
}

/// A folder of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Files {
    Whole,
    Damaged,
    Nothing,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Disk {
    pub models: BTreeMap<CopyNo, Files>,
    pub incoming: BTreeMap<CopyNo, Files>,
    /// Copies that nobody needed at some moment since they were placed: only those may be erased.
    pub let_go: BTreeSet<CopyNo>,
}

/// A watch of the operator, or of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watch {
    Caches,
    Volumes,
    Node(usize),
    Local(usize),
    AgentsLocal(usize, GroupNo),
    AgentsJobs(usize, GroupNo),
}

/// What a watch saw when it was held back.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Past {
    Caches(BTreeMap<CacheNo, Cache>),
    Volumes(BTreeSet<(CacheNo, u8)>),
    Node(Option<NodeObject>),
    Local(Option<Local>),
    Jobs(BTreeMap<JobNo, Job>),
}

/// What happened to the object since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lag {
    None,
    Changed,
    Replaced,
}

impl Hash for Told {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (key, phase) in &self.0.model_status {
            (key, phase).hash(state);
        }
        for (key, detail) in &self.0.models {
            key.hash(state);
            hash_detail(detail, state);
        }
        self.0.disks.keys().for_each(|group| group.hash(state));
    }
}

impl Hash for Memory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.is_some().hash(state);
        for (key, (phase, detail)) in self.0.iter().flatten() {
            (key, phase).hash(state);
            hash_detail(detail, state);
        }
    }
}

fn hash_detail<H: Hasher>(detail: &ModelDetail, state: &mut H) {
    (detail.bytes_done, detail.bytes_total, detail.attempts, &detail.reason, &detail.message).hash(state);
    for time in [&detail.next_try, &detail.started, &detail.finished] {
        time.as_ref().map(|time| time.0).hash(state);
    }
}

impl Cluster {
    /// What a watch shows now.
    pub fn now(&self, watch: Watch) -> Past {
        match watch {
            Watch::Caches => Past::Caches(self.caches.clone()),
            Watch::Volumes => Past::Volumes(self.volumes.clone()),
            Watch::Node(n) => Past::Node(self.machines[n].node.clone()),
            Watch::Local(n) | Watch::AgentsLocal(n, _) => Past::Local(self.machines[n].local.clone()),
            Watch::AgentsJobs(n, _) => Past::Jobs(self.machines[n].jobs.clone()),
        }
    }

    pub fn seen_caches(&self) -> BTreeMap<CacheNo, Cache> {
        match self.held.get(&Watch::Caches) {
            Some((Past::Caches(caches), _)) => caches.clone(),
            _ => self.caches.clone(),
        }
    }

    pub fn seen_volumes(&self) -> BTreeSet<(CacheNo, u8)> {
        match self.held.get(&Watch::Volumes) {
            Some((Past::Volumes(volumes), _)) => volumes.clone(),
            _ => self.volumes.clone(),
        }
    }

    pub fn seen_node(&self, n: usize) -> Option<NodeObject> {
        match self.held.get(&Watch::Node(n)) {
            Some((Past::Node(node), _)) => node.clone(),
            _ => self.machines[n].node.clone(),
        }
    }

    /// A node's `LocalModelNode` as one who watches it sees it.
    pub fn seen_local(&self, watch: Watch) -> Option<Local> {
        match (self.held.get(&watch), watch) {
            (Some((Past::Local(local), _)), _) => local.clone(),
            (_, Watch::Local(n) | Watch::AgentsLocal(n, _)) => self.machines[n].local.clone(),
            _ => None,
        }
    }

    pub fn seen_jobs(&self, n: usize, g: GroupNo) -> BTreeMap<JobNo, Job> {
        match self.held.get(&Watch::AgentsJobs(n, g)) {
            Some((Past::Jobs(jobs), _)) => jobs.clone(),
            _ => self.machines[n].jobs.clone(),
        }
    }

    /// What happened to an object since the watch showed it.
    pub fn lag(&self, watch: Watch) -> Lag {
        self.held.get(&watch).map_or(Lag::None, |(_, lag)| *lag)
    }

    /// Notes a write for those whose watches are held back.
    pub fn written(&mut self, is_of: impl Fn(Watch) -> bool, as_what: Lag) {
        for (_, (_, lag)) in self.held.iter_mut().filter(|(watch, _)| is_of(**watch)) {
            *lag = (*lag).max(as_what);
        }
    }

    pub fn local_written(&mut self, n: usize, as_what: Lag) {
        self.written(|watch| matches!(watch, Watch::Local(m) | Watch::AgentsLocal(m, _) if m == n), as_what);
    }

    /// Takes a node's `LocalModelNode` away; what it owned is an orphan.
    pub fn drop_local(&mut self, n: usize) {
        self.machines[n].local = None;
        self.machines[n].jobs.values_mut().for_each(|job| job.owned = false);
        self.local_written(n, Lag::Replaced);
    }

    /// Notes the first fault.
    pub fn blame(&mut self, fault: impl Into<String>) {
        self.fault.get_or_insert_with(|| fault.into());
    }
}

impl Past {
    /// The caches in it, if it is of them.
    pub fn caches(&self) -> impl Iterator<Item = &Cache> {
        let caches = if let Self::Caches(caches) = self { Some(caches) } else { None };
        caches.into_iter().flat_map(BTreeMap::values)
    }
}
