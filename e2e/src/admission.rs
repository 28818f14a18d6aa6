//! Objects that are made for what admission says of them.

use anyhow::{Context, Result, ensure};

/// Where they are.
pub const TEAM: &str = "default";

/// A pod that nobody schedules: only its admission matters.
pub fn pod(name: &str, label: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {TEAM}, labels: {{{label}}}}}
spec: {{schedulerName: nobody, containers: [{{name: c, image: none}}]}}
"
    )
}

/// A namespace cache of a group.
pub fn namespace_cache(name: &str, group: &str) -> String {
    format!(
        "
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelNamespaceCache
metadata: {{name: {name}, namespace: {TEAM}}}
spec: {{sourceModelUri: 'hf://{name}/m', modelSize: 1Gi, nodeGroups: [{group}]}}
"
    )
}

/// Whether it was refused, with these words.
pub fn refused(result: Result<()>, words: &str) -> Result<()> {
    let error = result.err().with_context(|| format!("accepted, not refused with {words:?}"))?;
    ensure!(error.to_string().contains(words), "not {words:?} but {error}");
    Ok(())
}
