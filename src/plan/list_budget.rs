//! How large the list of a node may be. etcd takes no object beyond 1.5 MiB: without a bound, one cache that is too
//! large for a list would keep every node of its group as it is.

use std::collections::HashMap;

use super::conditions::Statement;
use super::names::CacheKey;
use crate::api::cache::StorageSpec;
use crate::api::quantity::human;
use crate::api::{CacheSpec, ModelEntry};

/// What a cache has its nodes told is more than an entry may have.
pub const SPEC_TOO_LARGE: &str = "SpecTooLarge";
/// A node's list has no space for the cache.
pub const NODE_LIST_FULL: &str = "NodeListFull";

/// The most bytes of one entry.
pub const ENTRY_MAX: usize = 8 << 10;
/// The most bytes of all entries of a node, with what its agents say of them.
pub const LIST_MAX: usize = 1 << 20;
/// The most that the entries of one namespace may take of it.
pub const NAMESPACE_MAX: usize = LIST_MAX / 4;
/// What an agent says of one entry, its messages included, and what the API server notes of each field's writer.
const STATUS: usize = 1280;
/// How often the key of an entry stands in the object beside the entry itself.
const KEYS: usize = 5;
/// The names of an entry's fields, and the marks between them.
const FIELDS: usize = 192;
/// The marks around a key and its value.
const MARKS: usize = 6;

/// A text as JSON has it, without its quotes. One that is too large by itself is not read through.
fn text(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    if text.len() > ENTRY_MAX { text.len() } else { text.bytes().map(escaped).sum() }
}

/// The fields of an entry that a cache says, each with its size.
type Fields = [(&'static str, usize); 5];

fn fields(uri: &str, account: Option<&str>, storage: Option<&StorageSpec>, group: usize) -> Fields {
    let parameters = storage.and_then(|storage| storage.parameters.as_ref()).into_iter().flatten();
    [
        ("storage.parameters", parameters.map(|(key, value)| text(key) + text(value) + MARKS).sum()),
        ("sourceModelUri", text(uri)),
        ("storage.key", storage.and_then(|storage| storage.key.as_deref()).map_or(0, text)),
        ("serviceAccountName", account.map_or(0, text)),
        ("nodeGroups", group),
    ]
}

/// Of a cache, through whichever of its groups.
fn fields_of(spec: &CacheSpec) -> Fields {
    let group = spec.node_groups.iter().map(|group| text(group)).max().unwrap_or(0);
    fields(&spec.source_model_uri, spec.service_account_name.as_deref(), spec.storage.as_ref(), group)
}

fn entry_bytes(key: &CacheKey, fields: &Fields) -> usize {
    let names = text(&key.name) + key.namespace.as_deref().map_or(0, text);
    FIELDS + names + fields.iter().map(|(_, bytes)| bytes).sum::<usize>()
}

/// What an entry of a cache takes of its node's list.
pub fn cost(key: &CacheKey, spec: &CacheSpec) -> usize {
    entry_bytes(key, &fields_of(spec)) + of_agents(key)
}

/// What an entry takes that stands in a list.
pub fn cost_of(entry: &ModelEntry) -> usize {
    let (account, group) = (entry.service_account_name.as_deref(), entry.node_group.as_deref());
    let fields = fields(&entry.source_model_uri, account, entry.storage.as_ref(), group.map_or(0, text));
    let key = CacheKey::of(entry);
    entry_bytes(&key, &fields) + of_agents(&key)
}

fn of_agents(key: &CacheKey) -> usize {
    STATUS + KEYS * key.to_string().len()
}

/// Why no list can have an entry of this cache.
pub fn too_large(key: &CacheKey, spec: &CacheSpec) -> Option<Statement> {
    let fields = fields_of(spec);
    if entry_bytes(key, &fields) <= ENTRY_MAX {
        return None;
    }
    let (field, bytes) = fields.into_iter().max_by_key(|(_, bytes)| *bytes)?;
    let remedy = if field == "sourceModelUri" { "make a cache with a shorter one" } else { "shorten it" };
    let size = |bytes: usize| human(i128::try_from(bytes).unwrap_or(i128::MAX));
    let message = format!(
        "{field} has {}, and all that nodes are told of a cache may have {}: {remedy}; until then the cache is kept nowhere",
        size(bytes),
        size(ENTRY_MAX)
    );
    Some(Statement::problem(SPEC_TOO_LARGE, message))
}

/// What the entries of one node take.
#[derive(Debug, Default)]
pub struct ListLedger<'a> {
    all: usize,
    of_namespaces: HashMap<&'a str, usize>,
}

/// A list, or a namespace's part of one, that would be too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Whether it is a namespace's part.
    pub of_namespace: bool,
    /// What it takes without the entry.
    pub used: usize,
    /// What it may take.
    pub allowed: usize,
}

impl<'a> ListLedger<'a> {
    /// Counts an entry, whether there is space or not.
    pub fn keep(&mut self, namespace: Option<&'a str>, bytes: usize) {
        self.all += bytes;
        if let Some(namespace) = namespace {
            *self.of_namespaces.entry(namespace).or_default() += bytes;
        }
    }

    /// Whether an entry that takes so many more bytes fits, or what is full.
    pub fn fits(&self, namespace: Option<&str>, more: usize) -> Result<(), Full> {
        let of_namespace = namespace.map(|namespace| self.of_namespaces.get(namespace).copied().unwrap_or(0));
        if let Some(used) = of_namespace.filter(|used| used + more > NAMESPACE_MAX) {
            return Err(Full { of_namespace: true, used, allowed: NAMESPACE_MAX });
        }
        if self.all + more > LIST_MAX {
            return Err(Full { of_namespace: false, used: self.all, allowed: LIST_MAX });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
