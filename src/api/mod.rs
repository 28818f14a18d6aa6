//! The objects of `serving.kserve.io/v1alpha1` that this project reads and writes: types, their CEL
//! rules, and small accessors. Fields are KServe's; those it does not have are optional and marked
//! "Ours" where they are declared, so that every object written for KServe stays valid.

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

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
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
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        schema.into_iter().for_each(bound_integers);
    }
    crds
}

/// The API server takes no format as a bound: a number that is too large for its field would be stored, and then the
/// whole object could not be read.
fn bound_integers(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref() == Some("int32") {
        schema.minimum.get_or_insert(i32::MIN.into());
        schema.maximum.get_or_insert(i32::MAX.into());
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(bound_integers);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => bound_integers(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(bound_integers),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        bound_integers(values);
    }
}

/// One definition as the YAML that `crds/<name>.yaml` holds and `localmodel crds` prints.
pub fn crd_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(crd)
}

#[cfg(test)]
mod tests;
