//! The objects of `serving.kserve.io/v1alpha1` that this project reads and writes: types, their CEL
//! rules, and small accessors. Fields are KServe's; those it does not have are optional and marked
//! "Ours" where they are declared, so that every object written for KServe stays valid.

mod bounds;
pub mod cache;
pub mod node;
pub mod node_group;
pub mod quantity;
pub mod source;
pub mod storage_container;

pub use cache::{CacheSpec, CacheStatus, LocalModelCache, LocalModelNamespaceCache, NamespacedName};
pub use node::{LocalModelNode, ModelEntry, ModelStatus};
pub use node_group::LocalModelNodeGroup;
pub use storage_container::ClusterStorageContainer;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// All definitions, in the order in which they are printed and installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        LocalModelCache::crd(),
        LocalModelNamespaceCache::crd(),
        LocalModelNode::crd(),
        LocalModelNodeGroup::crd(),
        ClusterStorageContainer::crd(),
    ];
    for crd in &mut crds {
        let is_list = crd.spec.names.kind == "LocalModelNode";
        for version in &mut crd.spec.versions {
            let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
            let Some(schema) = schema else { continue };
            if let Some(spec) =
                schema.properties.as_mut().and_then(|fields| fields.get_mut("spec")).filter(|_| is_list)
            {
                bounds::bound_list(spec);
            }
            bounds::bound(schema);
        }
    }
    crds
}

/// One definition as the YAML that `crds/<name>.yaml` holds and `localmodel crds` prints.
pub fn crd_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(crd)
}

#[cfg(test)]
mod tests;
