//! Bounds on every number, text, list and map of the definitions. The types say those that matter for their meaning;
//! the rest is bounded here, so that no object is larger than those who keep it and copy it expect.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// What a schema may have that says no bound itself.
#[derive(Clone, Copy)]
struct Bounds {
    text: i64,
    list: i64,
    map: i64,
}

/// Of our own fields. A map or list of a status has an item for each node, or for each service.
const OURS: Bounds = Bounds { text: 1024, list: 1000, map: 10_000 };
/// Of the list of a node. The operator keeps each entry within 8 KiB, and what it writes must never be refused: one
/// cache of an earlier version's would keep all others from being added.
const LISTED: Bounds = Bounds { text: 8 << 10, list: 10_000, map: 10_000 };
/// Of what Kubernetes defines: an argument or a variable may hold a certificate.
const KUBERNETES: Bounds = Bounds { text: 32 << 10, list: 1000, map: 1000 };
/// The longest quantity.
const QUANTITY: i64 = 64;
/// The fields whose inside is Kubernetes' own.
const OF_KUBERNETES: [&str; 3] = ["persistentVolumeSpec", "persistentVolumeClaimSpec", "container"];

/// Bounds a schema and all below it.
pub(super) fn bound(schema: &mut JSONSchemaProps) {
    bound_with(schema, OURS);
}

/// Bounds the list of a node, where the bounds of caches do not count.
pub(super) fn bound_list(schema: &mut JSONSchemaProps) {
    unbound(schema);
    bound_with(schema, LISTED);
}

fn unbound(schema: &mut JSONSchemaProps) {
    (schema.max_length, schema.max_properties, schema.x_kubernetes_validations) = (None, None, None);
    schema.properties.iter_mut().flatten().for_each(|(_, field)| unbound(field));
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        unbound(item);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        unbound(values);
    }
}

fn bound_with(schema: &mut JSONSchemaProps, bounds: Bounds) {
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.max_length.get_or_insert(QUANTITY);
    }
    match schema.type_.as_deref() {
        Some("string") if schema.enum_.is_none() => drop(schema.max_length.get_or_insert(bounds.text)),
        Some("array") => drop(schema.max_items.get_or_insert(bounds.list)),
        Some("object") if schema.additional_properties.is_some() => {
            schema.max_properties.get_or_insert(bounds.map);
        }
        // The API server takes no format as a bound: a number that is too large for its field would be stored, and
        // then the whole object could not be read.
        Some("integer") if schema.format.as_deref() == Some("int32") => {
            schema.minimum.get_or_insert(i32::MIN.into());
            schema.maximum.get_or_insert(i32::MAX.into());
        }
        _ => {}
    }
    for (name, field) in schema.properties.iter_mut().flatten() {
        bound_with(field, if OF_KUBERNETES.contains(&name.as_str()) { KUBERNETES } else { bounds });
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => bound_with(item, bounds),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            for item in items {
                bound_with(item, bounds);
            }
        }
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        bound_with(values, bounds);
    }
}
