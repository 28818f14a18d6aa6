//! What the operator, the agents and Kubernetes do, one step at a time, as their code around the plan does it:
//! each step looks at what its watches show, asks the plan, and writes. A `Pen` may run dry in the middle of a
//! step: that is a crash.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use localmodel::api::LocalModelNode;
use localmodel::plan::entries::{self, PlannedCache};
use localmodel::plan::pass::{self, Action, JobView, Outcome, Said, View};
use localmodel::plan::{local_status, names};

use crate::cluster::{
    Cache, CacheNo, Cluster, CopyNo, Files, GroupNo, Job, JobNo, Lag, Local, Machine, Memory, NodeObject,
    Told, Watch,
};
use crate::world::{HOUR, LIMIT, World, job_name};

/// Counts the writes of a step, and stops it after so many.
pub struct Pen {
    left: usize,
    pub written: usize,
}

impl Pen {
    pub fn full() -> Self {
        Self::with(usize::MAX)
    }

    pub fn with(left: usize) -> Self {
        Self { left, written: 0 }
    }

    fn write(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.written += usize::from(may);
        may
    }

    /// Whether the step was cut off.
    pub fn is_dry(&self) -> bool {
        self.left == 0
    }
}

impl World {
    /// The operator looks at a node: its list, then its labels.
    pub fn operator_looks_at_node(&self, c: &mut Cluster, n: usize, pen: &mut Pen) {
        let (Some(node), seen) = (c.seen_node(n), c.seen_caches()) else { return };
        let (object, planned) = (self.node(n, &node), self.planned(&seen));
        let groups: Vec<_> = self.groups.iter().collect();
        let local = c.seen_local(Watch::Local(n));
        let as_object = local.as_ref().map(|local| self.local(n, local));
        let before = entries::planned_before(&object, &planned, as_object.as_ref());
        let list = entries::entries(&object, &groups, &planned, &before, true).entries;
        let status = as_object.as_ref().and_then(|local| local.status.as_ref());
        let member_of = entries::groups_of_node(&object, &groups);
        let labels = if member_of.is_empty() {
            entries::labels_to_come_back_to(&object, &planned)
        } else {
            entries::warm_labels(&object, &planned, &list, status)
        };
        if member_of.is_empty() {
            if local.is_some() {
                self.delete_local(c, n, pen);
            }
        } else if !self.write_list(c, n, local.as_ref(), (self.list(&list), member_of), pen) {
            return;
        }
        let changes = entries::label_changes(&object, &labels);
        // Before it takes one away it asks the API server whether this is the object that it has seen.
        if changes.values().any(Option::is_none) && c.machines[n].local != local {
            return;
        }
        self.label(c, n, changes, pen);
    }

    fn delete_local(&self, c: &mut Cluster, n: usize, pen: &mut Pen) {
        // By uid: a later object of the same name stays.
        if pen.write() && c.lag(Watch::Local(n)) != Lag::Replaced && c.machines[n].local.is_some() {
            self.list_goes(c, n);
        }
    }

    /// With a node's object goes what was planned there: what no label vouches for is not known any more, and labels
    /// vouch for complete copies (D4, N5).
    pub fn list_goes(&self, c: &mut Cluster, n: usize) {
        let machine = &mut c.machines[n];
        let vouched = machine.node.as_ref().map(|node| node.warm.clone()).unwrap_or_default();
        let is_known =
            |copy: CopyNo, files: Files| files == Files::Whole && vouched.contains_key(&self.label_of(copy));
        let models = machine.disk.models.iter().filter(|(copy, files)| !is_known(**copy, **files));
        machine.disk.let_go.extend(models.map(|(copy, _)| *copy));
        c.drop_local(n);
    }

    /// Applies the list; false where that failed, which ends the look.
    fn write_list(
        &self,
        c: &mut Cluster,
        n: usize,
        local: Option<&Local>,
        (spec, member_of): (Vec<(CacheNo, GroupNo)>, Vec<String>),
        pen: &mut Pen,
    ) -> bool {
        if local.is_some_and(|l| l.spec == spec && l.member_of == member_of && l.owned) {
            return true;
        }
        let lag = c.lag(Watch::Local(n));
        if local.is_none() && (c.machines[n].local.is_some() || c.lag(Watch::Node(n)) != Lag::None) {
            return false; // it asks the API server itself before it makes one
        }
        if !pen.write() || (local.is_some() && lag != Lag::None) {
            return false;
        }
        let status = local.map(|local| local.status.clone()).unwrap_or_default();
        let owned = c.machines[n].node.is_some() && c.lag(Watch::Node(n)) != Lag::Replaced;
        let wanted = Local { spec, member_of, status, owned };
        if c.machines[n].local.as_ref() == Some(&wanted) && owned {
            c.blame(format!("the list of node {n} is written although it is there"));
        }
        // What it saw may be a moment that has passed, in which nobody needed a copy.
        let let_go = self.unneeded(&c.seen_caches(), c.seen_node(n).as_ref(), &c.machines[n]);
        c.machines[n].disk.let_go.extend(let_go);
        c.machines[n].local = Some(wanted);
        c.local_written(n, Lag::Changed);
        true
    }

    fn label(&self, c: &mut Cluster, n: usize, changes: BTreeMap<String, Option<String>>, pen: &mut Pen) {
        if changes.is_empty() || !pen.write() || c.lag(Watch::Node(n)) != Lag::None {
            return;
        }
        let Some(node) = &mut c.machines[n].node else { return };
        for (label, value) in changes {
            match value {
                Some(value) => node.warm.insert(label, value),
                None => node.warm.remove(&label),
            };
        }
        c.written(|watch| watch == Watch::Node(n), Lag::Changed);
    }

    /// The operator looks at a cache: its finalizer, its volumes, or its end.
    pub fn operator_looks_at_cache(&self, c: &mut Cluster, no: CacheNo, pen: &mut Pen) {
        let Some(cache) = c.seen_caches().get(&no).copied() else { return };
        // Finalizers are written with the version that was seen.
        let is_same = |c: &Cluster| c.caches.get(&no) == Some(&cache);
        if cache.deleting && cache.finalizer {
            if !self.delete_jobs(c, no, pen) || !self.delete_volumes(c, no, cache.born, pen) {
                return;
            }
            if pen.write() && is_same(c) {
                c.caches.remove(&no);
            }
        } else if !cache.deleting && !cache.finalizer {
            if pen.write() && is_same(c) {
                c.caches.insert(no, Cache { finalizer: true, ..cache });
            }
        } else if !cache.deleting && !c.seen_volumes().contains(&(no, cache.born)) && pen.write() {
            c.volumes.insert((no, cache.born));
        }
    }

    fn delete_jobs(&self, c: &mut Cluster, no: CacheNo, pen: &mut Pen) -> bool {
        let name = self.name_of(no);
        let is_of_cache = |(job, _): &JobNo| *job == name;
        let mut jobs = c.machines.iter_mut().flat_map(|machine| &mut machine.jobs);
        if jobs.any(|(no, job)| is_of_cache(no) && !job.deleting) {
            if !pen.write() {
                return false;
            }
            for machine in &mut c.machines {
                let jobs = machine.jobs.iter_mut().filter(|(no, _)| is_of_cache(no));
                jobs.for_each(|(_, job)| job.deleting = true);
            }
        }
        true
    }

    fn delete_volumes(&self, c: &mut Cluster, no: CacheNo, born: u8, pen: &mut Pen) -> bool {
        // It asks the API server, not its watch.
        if c.volumes.contains(&(no, born)) {
            if !pen.write() {
                return false;
            }
            c.volumes.remove(&(no, born));
        }
        true
    }

    /// One pass of a group's agent on a node.
    pub fn agent_passes(&self, c: &mut Cluster, n: usize, g: GroupNo, pen: &mut Pen) {
        let watch = Watch::AgentsLocal(n, g);
        let (Some(Memory(said)), Some(local)) = (c.machines[n].agents[g].clone(), c.seen_local(watch)) else {
            return;
        };
        if !local.member_of.contains(&self.names[g]) {
            return;
        }
        let object = self.local(n, &local);
        let outcome = self.outcome(c, n, g, said, &local, &object);
        let none = local_status::disk(&local_status::DiskView::default());
        let all = &object.spec.local_models;
        let status = local_status::status(&local.status.0, all, &self.names[g], &outcome.status, none);
        if self.write_status(c, n, watch, &local, status, pen) {
            c.machines[n].agents[g] = Some(Memory(Some(outcome.status)));
        }
        for action in &outcome.actions {
            if !pen.write() {
                break;
            }
            self.act(c, n, g, &local, action);
        }
        if pen.is_dry() {
            self.agent_ends(c, n, g);
        }
    }

    fn outcome(
        &self,
        c: &Cluster,
        n: usize,
        g: GroupNo,
        said: Option<BTreeMap<String, Said>>,
        local: &Local,
        object: &LocalModelNode,
    ) -> Outcome {
        let own: Vec<_> = local.spec.iter().copied().filter(|(_, group)| *group == g).collect();
        let jobs: Vec<JobView> = c.seen_jobs(n, g).iter().map(|(no, job)| self.job(no, job, g)).collect();
        let disk = &c.machines[n].disk;
        pass::pass(&View {
            entries: &self.entries(&own),
            all: &object.spec.local_models,
            vouched: &BTreeSet::new(),
            disk: &self.inventory(&disk.models, &disk.incoming),
            unwritable: &BTreeMap::new(),
            full: None,
            jobs: &jobs,
            progress: &BTreeMap::new(),
            before: &said.unwrap_or_else(|| local_status::said(&local.status.0)),
            recipes: &BTreeMap::new(),
            unadoptable: &BTreeMap::new(),
            refused: &BTreeMap::new(),
            unserved: &BTreeMap::new(),
            tried: &BTreeMap::new(),
            enabled: true,
            job_ttl: SignedDuration::from_secs(HOUR),
            now: self.now(c),
        })
    }

    /// Whether the status is as wanted afterwards.
    fn write_status(
        &self,
        c: &mut Cluster,
        n: usize,
        watch: Watch,
        local: &Local,
        status: localmodel::api::node::LocalModelNodeStatus,
        pen: &mut Pen,
    ) -> bool {
        if status == local.status.0 {
            return true;
        }
        if !pen.write() || c.lag(watch) != Lag::None {
            return false;
        }
        let Some(live) = &mut c.machines[n].local else { return false };
        live.status = Told(status);
        c.local_written(n, Lag::Changed);
        true
    }

    fn act(&self, c: &mut Cluster, n: usize, g: GroupNo, local: &Local, action: &Action) {
        // Between two who do not see each other's Jobs the folder's lock decides.
        let is_held = c.held.contains_key(&Watch::AgentsJobs(n, g));
        let machine = &mut c.machines[n];
        let written = |copy| machine.jobs.values().any(|job| job.copy == copy && job.ended.is_none());
        match action {
            Action::DeleteJob(name) => {
                let jobs = machine.jobs.iter_mut().filter(|(no, _)| job_name(no) == *name);
                jobs.for_each(|(_, job)| job.deleting = true);
            }
            Action::Download(key) => {
                let copy = self.copy_no(key);
                if written(copy) && !is_held {
                    c.blame(format!("a second Job writes {key} on node {n}"));
                    return;
                }
                machine.disk.incoming.entry(copy).or_insert(Files::Nothing);
                self.create_job(c, n, g, local, copy);
            }
            Action::Place(key) => {
                let copy = self.copy_no(key);
                let whole = machine.disk.incoming.remove(&copy);
                let replaced = machine.disk.models.insert(copy, Files::Whole);
                machine.disk.incoming.extend(replaced.map(|files| (copy, files)));
                // Who sees an old list may place what has no place any more.
                let live = machine.local.iter().flat_map(|live| &live.spec);
                if live.clone().any(|(cache, _)| self.copy_of(*cache) == copy) {
                    machine.disk.let_go.remove(&copy);
                } else {
                    machine.disk.let_go.insert(copy);
                }
                if whole != Some(Files::Whole) || replaced == Some(Files::Whole) {
                    c.blame(format!("{whole:?} is placed over {replaced:?} of {key} on node {n}"));
                }
            }
            Action::EraseIncoming(key) => {
                let copy = self.copy_no(key);
                if written(copy) && !is_held {
                    c.blame(format!("{key} is erased under its Job on node {n}"));
                    return;
                }
                machine.disk.incoming.remove(&copy);
            }
            Action::EraseModel(key) => {
                let copy = self.copy_no(key);
                // It asks the API server first: the agent of another group may have placed the copy just now.
                let live = machine.local.as_ref().filter(|live| live.member_of.contains(&self.names[g]));
                let Some(live) = live else { return };
                if live.spec.iter().any(|(cache, _)| self.copy_of(*cache) == copy) {
                    return;
                }
                let is_needed = !machine.disk.let_go.contains(&copy);
                machine.disk.models.remove(&copy);
                if is_needed {
                    c.blame(format!("{key} is erased on node {n} although a cache needed it all the time"));
                }
            }
            Action::Serve(_) | Action::EraseServed(_) => {} // views follow their copies
            other => c.blame(format!("{other:?}: nothing is KServe's here")),
        }
    }

    /// A name that is taken by the same download is as good as made; by another, the name aside is taken.
    fn create_job(&self, c: &mut Cluster, n: usize, group: GroupNo, local: &Local, copy: CopyNo) {
        let entry = local.spec.iter().find(|(cache, g)| *g == group && self.copy_of(*cache) == copy);
        let Some((cache, _)) = entry else { return };
        let owned = c.machines[n].local.is_some() && c.lag(Watch::AgentsLocal(n, group)) != Lag::Replaced;
        let job = Job { copy, group, ended: None, deleting: false, owned };
        let jobs = &mut c.machines[n].jobs;
        for name in [false, true].map(|aside| (self.name_of(*cache), aside)) {
            match jobs.get(&name) {
                None => {
                    jobs.insert(name, job);
                    return;
                }
                Some(there) if (there.copy, there.group) == (copy, group) => return,
                Some(_) => {}
            }
        }
    }

    /// An agent's process ends, and with it what it remembers and what its watches showed.
    pub fn agent_ends(&self, c: &mut Cluster, n: usize, g: GroupNo) {
        c.machines[n].agents[g] = None;
        c.held.remove(&Watch::AgentsLocal(n, g));
        c.held.remove(&Watch::AgentsJobs(n, g));
    }

    /// The `DaemonSet` of a group makes or ends its agent on a node.
    pub fn daemon_set_follows(&self, c: &mut Cluster, n: usize, g: GroupNo) {
        let of_group = |node: &NodeObject| node.groups.contains(&g);
        let is_wanted = c.machines[n].node.as_ref().is_some_and(of_group);
        match (is_wanted, c.machines[n].agents[g].is_some()) {
            (true, false) => c.machines[n].agents[g] = Some(Memory::default()),
            (false, true) => self.agent_ends(c, n, g),
            _ => {}
        }
    }

    /// A Job's pod ends.
    pub fn job_ends(&self, c: &mut Cluster, n: usize, no: &JobNo, well: bool) {
        let hour = c.hours;
        let machine = &mut c.machines[n];
        let Some(job) = machine.jobs.get_mut(no) else { return };
        job.ended = Some((hour, well));
        if well && let Some(folder) = machine.disk.incoming.get_mut(&job.copy) {
            *folder = Files::Whole;
        }
    }

    /// Kubernetes removes a Job whose pods have ended, or that is old.
    pub fn job_goes(&self, c: &mut Cluster, n: usize, no: &JobNo) {
        c.machines[n].jobs.remove(no);
    }

    /// Objects without their owner go.
    pub fn garbage_goes(&self, c: &mut Cluster, n: usize) {
        if c.machines[n].local.as_ref().is_some_and(|local| !local.owned) {
            // With the list of a node that was deleted goes what was known of its copies.
            let disk = &mut c.machines[n].disk;
            disk.let_go.extend(disk.models.keys().copied());
            c.drop_local(n);
        }
        c.machines[n].jobs.retain(|_, job| job.owned);
        // A namespace cache owns no volume: the volume is not of its namespace.
        let of_cluster = |no: CacheNo| self.catalogue[no].0.namespace.is_none();
        let alive: BTreeSet<_> = c.caches.iter().map(|(no, cache)| (*no, cache.born)).collect();
        c.volumes.retain(|volume| alive.contains(volume) || !of_cluster(volume.0));
    }

    /// What every moment shows: copies that nobody needs, limits, and what no finalizer looked after.
    pub fn look_around(&self, c: &mut Cluster) {
        let mut faults = Vec::new();
        for (n, machine) in c.machines.iter_mut().enumerate() {
            let let_go = self.unneeded(&c.caches, machine.node.as_ref(), machine);
            machine.disk.let_go.extend(let_go);
            let list = machine.local.iter().flat_map(|local| local.spec.iter().copied()).collect::<Vec<_>>();
            for (g, name) in self.names.iter().enumerate() {
                let used = self.used(&list, g);
                if used > LIMIT {
                    faults.push(format!("{used} bytes of {LIMIT} are planned for group {name} on node {n}"));
                }
            }
        }
        let orphan = c.volumes.iter().find(|(no, born)| {
            self.catalogue[*no].0.namespace.is_some()
                && c.caches.get(no).is_none_or(|cache| cache.born != *born)
        });
        faults.extend(orphan.map(|(no, _)| format!("cache {no} has gone without its volumes")));
        for fault in faults {
            c.blame(fault);
        }
    }

    /// The copies on a disk that nobody needs, as caches and node are seen.
    fn unneeded(
        &self,
        caches: &BTreeMap<CacheNo, Cache>,
        node: Option<&NodeObject>,
        machine: &Machine,
    ) -> Vec<CopyNo> {
        // A node that is of no group now may come back to all that it has (N5); one of other groups has
        // agents, which keep what is asked of those.
        let node = node.filter(|node| !node.groups.is_empty());
        let alive: Vec<CacheNo> =
            caches.iter().filter(|(_, cache)| !cache.deleting).map(|(no, _)| *no).collect();
        let asks = |copy: CopyNo, group: GroupNo| {
            let of_copy = alive.iter().filter(|no| self.copy_of(**no) == copy);
            of_copy.flat_map(|no| &self.catalogue[*no].1.node_groups).any(|name| *name == self.names[group])
        };
        let is_needed = |copy: &CopyNo| {
            let Some(node) = node else { return alive.iter().any(|no| self.copy_of(*no) == *copy) };
            let is_asked = |group: &GroupNo| node.groups.contains(group) && asks(*copy, *group);
            // What was planned through a group that the node has left, or of which nobody asks it any more,
            // needs room in another one anew. Where the list is gone, the label says through which.
            let through = self.groups_through(node, machine.local.as_ref(), *copy);
            if through.is_empty() { node.groups.iter().any(is_asked) } else { through.iter().any(is_asked) }
        };
        machine.disk.models.keys().copied().filter(|copy| !is_needed(copy)).collect()
    }

    /// The groups through which a copy is planned on a node.
    fn groups_through(&self, node: &NodeObject, local: Option<&Local>, copy: CopyNo) -> Vec<GroupNo> {
        if let Some(local) = local {
            let of_copy = local.spec.iter().filter(|(no, _)| self.copy_of(*no) == copy);
            return of_copy.map(|(_, group)| *group).collect();
        }
        let group = node.warm.get(&self.label_of(copy));
        group.and_then(|group| self.names.iter().position(|name| name == group)).into_iter().collect()
    }

    /// The label that a node has while a copy is complete there.
    pub fn label_of(&self, copy: CopyNo) -> String {
        let key = self.copy_key(copy);
        names::warm_label(&key.key, key.namespace.as_deref())
    }

    /// The first cache of the catalogue with the same name.
    pub fn name_of(&self, cache: CacheNo) -> CacheNo {
        let key = &self.catalogue[cache].0;
        self.catalogue.iter().position(|(other, _)| other == key).unwrap()
    }

    /// What the plan says of a node, for the goal.
    pub fn place(
        &self,
        n: usize,
        node: &NodeObject,
        local: Option<&Local>,
        planned: &[PlannedCache],
        which: &PlannedCache,
    ) -> entries::Place {
        let groups: Vec<_> = self.groups.iter().collect();
        let local = local.map(|local| self.local(n, local));
        entries::place(which, &self.node(n, node), &groups, planned, local.as_ref(), true)
    }
}
