//! KServe's manifests as its module has them, and the little that differs here: no cert-manager, no
//! proxy in front of the metrics, images of ours, and limits and delays that a busy machine can bear.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::readable;

/// One rendered part of KServe's manifests.
pub(super) struct Part {
    /// Its definitions, as text: they are long, and nothing in them differs.
    pub(super) definitions: Vec<String>,
    /// Everything else.
    pub(super) objects: Vec<Value>,
}

/// A part as it stands beside KServe's commands, without what needs cert-manager.
pub(super) fn part(folder: &str, name: &str) -> Result<Part> {
    let text = readable(&format!("{folder}/{name}.yaml"))?;
    let (definitions, objects): (Vec<_>, Vec<_>) =
        text.split("\n---\n").partition(|document| document.contains("\nkind: CustomResourceDefinition\n"));
    let objects = objects
        .into_iter()
        .map(|document| serde_saphyr::from_str(document).with_context(|| format!("{name}.yaml: {document}")));
    let objects = objects.collect::<Result<Vec<Value>>>()?;
    let kept = |object: &Value| {
        !object["apiVersion"].as_str().is_some_and(|version| version.starts_with("cert-manager.io/"))
    };
    Ok(Part {
        definitions: definitions.into_iter().map(Into::into).collect(),
        objects: objects.into_iter().filter(kept).collect(),
    })
}

/// Whether a definition is of a kind that we define too.
pub(super) fn is_ours(definition: &str) -> bool {
    ["localmodelcaches", "localmodelnamespacecaches", "localmodelnodegroups", "localmodelnodes"]
        .into_iter()
        .chain(["clusterstoragecontainers"])
        .any(|kind| definition.contains(&format!("\n  name: {kind}.serving.kserve.io\n")))
}

/// The objects with this image in their workload, which has one container.
pub(super) fn with_image(mut objects: Vec<Value>, image: &str) -> Result<Vec<Value>> {
    for workload in objects.iter_mut().filter(|o| o["kind"] == "Deployment" || o["kind"] == "DaemonSet") {
        let pod = &mut workload["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().context("containers")?;
        let manager = containers.iter().find(|c| c["name"] == "manager").context("a container manager")?;
        let mut manager = manager.clone();
        let fields = manager.as_object_mut().context("a container")?;
        // Our image has one command, and it is the entry point.
        fields.remove("command");
        fields.insert("image".into(), image.into());
        fields.insert("imagePullPolicy".into(), "Never".into());
        fields.insert(
            "resources".into(),
            json!({"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}}),
        );
        // With an election a controller that starts anew waits for the lease of the one before.
        if let Some(arguments) = fields.get_mut("args").and_then(Value::as_array_mut) {
            arguments.retain(|argument| argument != "--leader-elect");
        }
        if let Some(probe) = fields.get_mut("readinessProbe") {
            probe["initialDelaySeconds"] = 1.into();
            probe["periodSeconds"] = 1.into();
            probe["failureThreshold"] = 60.into();
        }
        pod["containers"] = json!([manager]);
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_definitions_that_we_have_too_are_left_to_us() {
        let definition =
            |name: &str| format!("kind: X\nmetadata:\n  name: {name}.serving.kserve.io\nspec:\n");
        assert!(is_ours(&definition("localmodelnodes")));
        assert!(is_ours(&definition("clusterstoragecontainers")));
        assert!(!is_ours(&definition("inferenceservices")));
        assert!(!is_ours(&definition("llminferenceservices")));
    }

    #[test]
    fn a_controller_keeps_its_arguments_and_loses_proxy_and_election() {
        let container =
            json!({"name": "manager", "command": ["/manager"], "args": ["--a", "--leader-elect"]});
        let proxy = json!({"name": "kube-rbac-proxy"});
        let deployment =
            json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [proxy, container]}}}});
        let changed = with_image(vec![deployment], "ours:1").unwrap();
        let containers = &changed[0]["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers.as_array().unwrap().len(), 1);
        assert_eq!(containers[0]["args"], json!(["--a"]));
        assert_eq!((&containers[0]["image"], &containers[0]["command"]), (&json!("ours:1"), &Value::Null));
    }
}
