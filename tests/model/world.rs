//! What does not change in a run, and the plan's own types spelled out for it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use localmodel::api::node::LocalModelNodeSpec;
use localmodel::api::source::storage_key;
use localmodel::api::{CacheSpec, LocalModelNode, LocalModelNodeGroup, ModelEntry};
use localmodel::plan::disk::{CopyKey, Folder, Inventory, Served};
use localmodel::plan::entries::{self, PlannedCache};
use localmodel::plan::names::CacheKey;
use localmodel::plan::pass::{JobPhase, JobView, Problem};
use serde_json::json;

use crate::cluster::{Cache, CacheNo, Cluster, CopyNo, Files, GroupNo, Job, JobNo, Local, NodeObject};

/// An hour, which is how long finished Jobs stay and the longest that a failed download waits.
pub const HOUR: i64 = 3600;

/// The groups, which share one disk, and the caches that may be.
pub struct World {
    pub nodes: usize,
    pub groups: Vec<LocalModelNodeGroup>,
    pub names: Vec<String>,
    pub catalogue: Vec<(CacheKey, CacheSpec)>,
    copies: Vec<CopyNo>,
    sizes: Vec<i64>,
}

/// A cache of the catalogue: namespace, name, source, bytes, and the places of its groups.
pub type Made = (Option<&'static str>, &'static str, &'static str, i64, &'static [GroupNo]);

/// The bytes that each group allows on a node.
pub const LIMIT: i64 = 10;

impl World {
    /// A world of so many nodes and groups.
    pub fn new(nodes: usize, groups: &[&str], made: &[Made]) -> Self {
        let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
        let catalogue: Vec<(CacheKey, CacheSpec)> = made
            .iter()
            .map(|(namespace, name, uri, size, of)| {
                let key = CacheKey { namespace: namespace.map(Into::into), name: (*name).into() };
                let spec = CacheSpec {
                    source_model_uri: (*uri).into(),
                    model_size: Quantity(size.to_string()),
                    node_groups: of.iter().map(|g| names[*g].clone()).collect(),
                    service_account_name: None,
                    storage: None,
                };
                (key, spec)
            })
            .collect();
        let copy =
            |(key, spec): &(CacheKey, CacheSpec)| (key.namespace.clone(), spec.source_model_uri.clone());
        let first = |of| catalogue.iter().position(|other| copy(other) == copy(of)).unwrap();
        let copies = catalogue.iter().map(first).collect();
        let sizes = made.iter().map(|(_, _, _, size, _)| *size).collect();
        Self {
            nodes,
            groups: names.iter().map(|name| group(name)).collect(),
            names,
            catalogue,
            copies,
            sizes,
        }
    }

    pub fn now(&self, c: &Cluster) -> Timestamp {
        at(c.hours * HOUR)
    }

    pub fn copy_of(&self, cache: CacheNo) -> CopyNo {
        self.copies[cache]
    }

    pub fn copy_key(&self, copy: CopyNo) -> CopyKey {
        let (key, spec) = &self.catalogue[copy];
        CopyKey { namespace: key.namespace.clone(), key: storage_key(&spec.source_model_uri) }
    }

    pub fn copy_no(&self, key: &CopyKey) -> CopyNo {
        (0..self.catalogue.len()).find(|copy| self.copy_key(*copy) == *key).unwrap()
    }

    /// The caches as the plan sees them.
    pub fn planned(&self, caches: &BTreeMap<CacheNo, Cache>) -> Vec<PlannedCache<'_>> {
        let planned = |(no, cache): (&CacheNo, &Cache)| PlannedCache {
            key: self.catalogue[*no].0.clone(),
            spec: &self.catalogue[*no].1,
            created: Some(at(i64::from(cache.born))),
            deleting: cache.deleting,
            fetchable: true,
            measured: 0,
        };
        caches.iter().map(planned).collect()
    }

    pub fn node(&self, n: usize, node: &NodeObject) -> Node {
        let mut labels = node.warm.clone();
        labels.extend(node.groups.iter().map(|g| (self.names[*g].clone(), String::new())));
        let mut object = Node::default();
        object.metadata.name = Some(node_name(n));
        object.metadata.uid = Some(node_name(n));
        object.metadata.labels = Some(labels);
        if node.ready {
            let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            object.status = Some(serde_json::from_value(ready).unwrap());
        }
        object
    }

    /// The entries of a list, spelled out.
    pub fn entries(&self, list: &[(CacheNo, GroupNo)]) -> Vec<ModelEntry> {
        let entry = |(cache, group): &(CacheNo, GroupNo)| {
            let (key, spec) = &self.catalogue[*cache];
            let implied = key.namespace.is_none() && spec.node_groups[0] == self.names[*group];
            ModelEntry {
                model_name: key.name.clone(),
                source_model_uri: spec.source_model_uri.clone(),
                namespace: key.namespace.clone(),
                node_group: (!implied).then(|| self.names[*group].clone()),
                ..ModelEntry::default()
            }
        };
        list.iter().map(entry).collect()
    }

    /// The same list in short.
    pub fn list(&self, entries: &[ModelEntry]) -> Vec<(CacheNo, GroupNo)> {
        let short = |entry: &ModelEntry| {
            let is_it = |(key, spec): &(CacheKey, CacheSpec)| {
                *key == CacheKey::of(entry) && spec.source_model_uri == entry.source_model_uri
            };
            let cache = self.catalogue.iter().position(is_it).unwrap();
            let group = entries::group_of_entry(entry, &self.catalogue[cache].1).unwrap();
            (cache, self.names.iter().position(|name| name == group).unwrap())
        };
        entries.iter().map(short).collect()
    }

    pub fn local(&self, n: usize, local: &Local) -> LocalModelNode {
        let spec = LocalModelNodeSpec { local_models: self.entries(&local.spec) };
        let mut object = LocalModelNode::new(&node_name(n), spec);
        object.status = Some(local.status.0.clone());
        object
    }

    pub fn job(&self, no: &JobNo, job: &Job, group: GroupNo) -> JobView {
        JobView {
            name: job_name(no),
            copy: self.copy_key(job.copy),
            own: job.group == group,
            kserve: false,
            phase: match job.ended {
                None => JobPhase::Running,
                Some((hour, true)) => JobPhase::Succeeded(at(hour * HOUR)),
                Some((hour, false)) => JobPhase::Failed(at(hour * HOUR), Problem::new("Failed", "by chance")),
            },
            deleting: job.deleting,
            recipe: None,
            started: Some(at(0)),
            without_pod_since: None,
        }
    }

    pub fn inventory(&self, models: &Folders, incoming: &Folders) -> Inventory {
        let folders =
            |of: &Folders| of.iter().map(|(copy, files)| (self.copy_key(*copy), folder(*files))).collect();
        let models: BTreeMap<_, _> = folders(models);
        let is_whole = |folder: &Folder| matches!(folder, Folder::Complete { .. });
        // Views follow at once here: nothing else depends on them.
        let served = models.iter().filter(|(_, folder)| is_whole(folder));
        let served = served.map(|(copy, _)| (copy.clone(), Served::Current)).collect();
        Inventory { models, incoming: folders(incoming), served, ..Inventory::default() }
    }

    /// The bytes that a list takes of a group's room: what several caches share counts once (C8), and caches
    /// that share a source have one size here.
    pub fn used(&self, list: &[(CacheNo, GroupNo)], group: GroupNo) -> i64 {
        let of_group = list.iter().filter(|(_, g)| *g == group);
        let copies: BTreeSet<CopyNo> = of_group.map(|(cache, _)| self.copy_of(*cache)).collect();
        copies.into_iter().map(|copy| self.sizes[copy]).sum()
    }
}

/// The folders of a disk.
pub type Folders = BTreeMap<CopyNo, Files>;

fn folder(files: Files) -> Folder {
    match files {
        Files::Whole => Folder::Complete { bytes: 6, files: 1 },
        Files::Damaged => Folder::Damaged,
        Files::Nothing => Folder::Empty,
    }
}

pub fn node_name(n: usize) -> String {
    format!("node-{n}")
}

pub fn job_name((cache, aside): &JobNo) -> String {
    format!("{cache}{}", if *aside { "-aside" } else { "" })
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A group of the nodes that have a label of its name.
fn group(name: &str) -> LocalModelNodeGroup {
    let text = include_str!("../../fixtures/walkthrough/local-model-node-group.yaml");
    let mut group: LocalModelNodeGroup = serde_saphyr::from_str(text).unwrap();
    group.metadata.name = Some(name.into());
    group.spec.storage_limit = Quantity(LIMIT.to_string());
    let affinity = json!({"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": name, "operator": "Exists"}]}]}});
    group.spec.persistent_volume_spec.node_affinity = Some(serde_json::from_value(affinity).unwrap());
    group
}
