//! What a cluster at rest must look like, told without the plan's own arithmetic where that is possible.

use std::collections::{BTreeMap, BTreeSet};

use localmodel::api::ModelStatus;
use localmodel::api::cache::{CacheStatus, NodeStatus};
use localmodel::plan::cache::{self, View};
use localmodel::plan::conditions::READY;
use localmodel::plan::copies::Copy;
use localmodel::plan::entries::{Place, PlannedCache};

use crate::cluster::{CacheNo, Cluster, Files, Local, Machine, NodeObject};
use crate::model::Plan;
use crate::world::{HOUR, LIMIT, at};

impl Plan {
    /// Whether every cache that fits is on every matching node, and nothing else is anywhere.
    pub fn is_right(&self, c: &Cluster) -> Result<(), String> {
        let world = &self.world;
        let whole = |why: String| format!("{why}: {c:#?}");
        if let Some((no, _)) = c.caches.iter().find(|(_, cache)| cache.deleting || !cache.finalizer) {
            return Err(whole(format!("cache {no} never ends, or has no finalizer")));
        }
        let volumes: BTreeSet<_> = c.caches.iter().map(|(no, cache)| (*no, cache.born)).collect();
        if volumes != c.volumes {
            return Err(whole("volumes are missing or left".into()));
        }
        for (n, machine) in c.machines.iter().enumerate() {
            self.is_machine_right(c, n, machine).map_err(whole)?;
        }
        let planned = world.planned(&c.caches);
        for which in &planned {
            self.is_status_right(c, &planned, which).map_err(whole)?;
        }
        Ok(())
    }

    fn is_machine_right(&self, c: &Cluster, n: usize, machine: &Machine) -> Result<(), String> {
        let Some(node) = machine.node.as_ref().filter(|node| !node.groups.is_empty()) else {
            // Its files stay (N5).
            let is_empty = machine.local.is_none() && machine.jobs.is_empty();
            return if is_empty { Ok(()) } else { Err(format!("node {n} is of no group")) };
        };
        let Some(local) = &machine.local else { return Err(format!("node {n} has no list")) };
        for no in c.caches.keys() {
            self.is_planned_or_full(node, local, *no)
                .map_err(|why| format!("cache {no} on node {n} {why}"))?;
        }
        let wanted: BTreeSet<usize> = local.spec.iter().map(|(no, _)| self.world.copy_of(*no)).collect();
        let on_disk: BTreeSet<usize> = machine.disk.models.keys().copied().collect();
        if wanted != on_disk || machine.disk.models.values().any(|files| *files != Files::Whole) {
            return Err(format!("node {n} has not exactly the copies that it is to have"));
        }
        if !machine.disk.incoming.is_empty() || machine.jobs.values().any(|job| job.ended.is_none()) {
            return Err(format!("something unfinished is on node {n}"));
        }
        if machine.jobs.values().any(|job| !wanted.contains(&job.copy)) {
            return Err(format!("a Job of nobody's is on node {n}"));
        }
        let entries = self.world.entries(&local.spec);
        let said: BTreeMap<_, _> =
            entries.iter().map(|e| (e.status_key(), ModelStatus::ModelDownloaded)).collect();
        if local.status.0.model_status != said {
            return Err(format!("node {n} says something else of its copies"));
        }
        let labels: BTreeSet<String> = wanted.into_iter().map(|copy| self.world.label_of(copy)).collect();
        if node.warm.keys().cloned().collect::<BTreeSet<_>>() != labels {
            return Err(format!("node {n} has not exactly the labels of its copies"));
        }
        Ok(())
    }

    /// Exactly one entry, by one of the node's groups; none only where its bytes have no room (N1, C8).
    fn is_planned_or_full(&self, node: &NodeObject, local: &Local, no: CacheNo) -> Result<(), String> {
        let world = &self.world;
        let of_cache = |g: &usize| world.catalogue[no].1.node_groups.contains(&world.names[*g]);
        let entries: Vec<_> = local.spec.iter().filter(|(cache, _)| *cache == no).collect();
        let groups: BTreeSet<usize> = node.groups.iter().copied().filter(of_cache).collect();
        match entries[..] {
            [(_, group)] if groups.contains(group) => Ok(()),
            [] if groups.is_empty() => Ok(()),
            [] => {
                let mut first = world.catalogue[no].1.node_groups.iter();
                let first = first.find_map(|name| groups.iter().find(|g| world.names[**g] == *name));
                let group = *first.ok_or("has no group")?;
                let mut with = local.spec.clone();
                with.push((no, group));
                let is_full = world.used(&with, group) > LIMIT;
                if is_full { Ok(()) } else { Err("waits although it fits".into()) }
            }
            _ => Err("has other entries than one of its node's groups".into()),
        }
    }

    /// The roll-up tells each copy, and rests (N4, N6).
    fn is_status_right(
        &self,
        c: &Cluster,
        planned: &[PlannedCache],
        which: &PlannedCache,
    ) -> Result<(), String> {
        let world = &self.world;
        let nodes: Vec<_> = c
            .machines
            .iter()
            .enumerate()
            .filter_map(|(n, machine)| {
                let node = machine.node.as_ref()?;
                let place = world.place(n, node, machine.local.as_ref(), planned, which);
                (place == Place::Planned)
                    .then(|| (world.node(n, node), machine.local.as_ref().map(|local| world.local(n, local))))
            })
            .collect();
        let copies: Vec<Copy> =
            nodes.iter().map(|(node, local)| Copy { node, local: local.as_ref() }).collect();
        let status = |before: &CacheStatus, second| {
            cache::status(&View {
                key: &which.key,
                generation: Some(1),
                before,
                enabled: true,
                copies: &copies,
                users: &[],
                problems: Vec::new(),
                lacking: 0,
                stuck: &BTreeMap::new(),
                now: at(c.hours * HOUR + second),
            })
        };
        let told = status(&CacheStatus::default(), 0);
        if status(&told, 1) != told {
            return Err(format!("the status of {} does not rest", which.key));
        }
        let phases = told.node_status.values();
        let expected = [NodeStatus::NodeDownloaded, NodeStatus::NodeNotReady];
        if let Some(other) = phases.clone().find(|phase| !expected.contains(phase)) {
            return Err(format!("{} has a copy that is {other:?}", which.key));
        }
        // No node that is ready lacks its copy, and at least one has it.
        let all = phases.clone().any(|p| *p == NodeStatus::NodeDownloaded);
        let is_ready = told.conditions.iter().any(|c| c.type_ == READY && c.status == "True");
        if all == is_ready { Ok(()) } else { Err(format!("{} is ready: {is_ready}", which.key)) }
    }
}
