use serde_json::json;

use super::*;
use crate::plan::samples::{from, node, not_ready};

fn local(phase: &str) -> LocalModelNode {
    from(json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "LocalModelNode", "metadata": {"name": "n"},
        "spec": {"localModels": []},
        "status": {
            "modelStatus": {"m": phase, "ns/m": "ModelDownloadError"},
            "models": {"m": {"reason": "Because", "message": "of this", "bytesDone": 5}},
        },
    }))
}

fn copy(node: &Node, local: Option<&LocalModelNode>) -> NodeCopy {
    let name = node.name_any();
    nodes(&CacheKey::cluster("m"), &[Copy { node, local }]).remove(&name).unwrap()
}

#[test]
fn what_a_node_says_of_a_model_is_what_the_cache_says_of_the_node() {
    for (said, expected) in [
        ("ModelDownloadPending", NodeStatus::NodeDownloadPending),
        ("ModelDownloading", NodeStatus::NodeDownloading),
        ("ModelDownloaded", NodeStatus::NodeDownloaded),
        ("ModelDownloadError", NodeStatus::NodeDownloadError),
        ("", NodeStatus::NodeDownloadPending),
    ] {
        let copy = copy(&node("n"), Some(&local(said)));
        assert_eq!(
            (copy.phase, copy.reason.as_deref(), copy.bytes_done),
            (expected, Some("Because"), Some(5))
        );
    }
    assert_eq!(copy(&node("n"), None).phase, NodeStatus::NodeDownloadPending);
}

#[test]
fn a_node_that_is_not_ready_says_so_until_it_is_back() {
    let (warm, away) = (local("ModelDownloaded"), not_ready(node("n")));
    let copy_of = |node: &Node| copy(node, Some(&warm));
    assert_eq!(copy_of(&away).phase, NodeStatus::NodeNotReady);
    assert_eq!(copy_of(&away).reason.as_deref(), Some("NodeNotReady"));
    assert_eq!(copy_of(&node("n")).phase, NodeStatus::NodeDownloaded);
}

#[test]
fn a_namespace_caches_copy_has_a_key_of_its_own() {
    let key = CacheKey { namespace: Some("ns".into()), name: "m".into() };
    let (node, local) = (node("n"), local("ModelDownloaded"));
    let nodes = nodes(&key, &[Copy { node: &node, local: Some(&local) }]);
    assert_eq!(nodes["n"].phase, NodeStatus::NodeDownloadError);
}

#[test]
fn every_planned_copy_counts_and_zero_counts_are_left_out() {
    let all = [node("a"), node("b"), not_ready(node("c")), node("d")];
    let (warm, failed) = (local("ModelDownloaded"), local("ModelDownloadError"));
    let locals = [Some(&warm), Some(&failed), Some(&warm), None];
    let copies: Vec<Copy> = all.iter().zip(locals).map(|(node, local)| Copy { node, local }).collect();
    let all = nodes(&CacheKey::cluster("m"), &copies);
    assert_eq!(json!(count(&all)), json!({"available": 1, "total": 4, "failed": 1}));
    let key = CacheKey::cluster("m");
    assert_eq!(json!(count(&nodes(&key, &copies[..1]))), json!({"available": 1, "total": 1}));
    assert_eq!(json!(count(&nodes(&key, &copies[2..3]))), json!({"total": 1}));
}
