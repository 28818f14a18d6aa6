//! Caches as they should be, which become warm whatever else is there.

use anyhow::{Result, anyhow};
use localmodel_hub::Model;

use super::cluster::Cluster;
use super::objects;

/// Makes the nodes and the group of good caches, and starts the operator.
pub async fn prepare_good_caches(cluster: &Cluster) -> Result<()> {
    let mut group = objects::group();
    group["spec"]["storageLimit"] = "100Ti".into(); // others that fit may take room, too
    for object in objects::NODES.map(objects::node).into_iter().chain([group]) {
        cluster.make(&object).await?.map_err(|why| anyhow!(why))?;
    }
    cluster.start_operator()
}

/// Makes a good cache of a model of its own; returns its path.
pub async fn good_cache(cluster: &Cluster, number: usize) -> Result<String> {
    let repository = format!("good/model-{number}");
    cluster.hub.add(Model::llama(&repository).size(64 << 10));
    let cache = objects::cache(&format!("good-{number}"), &repository, 1);
    cluster.make(&cache).await?.map_err(|why| anyhow!(why))
}
