//! What a failed test prints: objects, events, logs and files.

use crate::command::{kubectl, on_node};

const WORKERS: [&str; 2] = ["kind-worker", "kind-worker2"];

/// Prints everything that helps to see why a wait has failed.
pub async fn dump(why: &str) {
    eprintln!("\n===== {why}\n");
    let objects = "localmodelcaches,localmodelnodegroups,localmodelnodes";
    show(&["get", objects, "-o", "yaml", "--show-managed-fields=false"]).await;
    show(&["get", "localmodelnamespacecaches", "-A", "-o", "yaml", "--show-managed-fields=false"]).await;
    show(&["get", "pods,jobs,persistentvolumeclaims", "-A", "-o", "wide"]).await;
    show(&["get", "persistentvolumes"]).await;
    show(&["get", "events", "-A", "--sort-by=.lastTimestamp"]).await;
    show(&["logs", "-n", "kserve", "deployment/localmodel-operator", "--tail=60"]).await;
    show(&["logs", "-n", "kserve", "-l", "app.kubernetes.io/name=localmodel-agent", "--prefix", "--tail=40"])
        .await;
    let jobs =
        ["logs", "-n", "kserve-localmodel-jobs", "-l", "app.kubernetes.io/managed-by=localmodel", "--prefix"];
    show(&jobs).await;
    for node in WORKERS {
        let files = on_node(node, "find /models -xdev -printf '%M %u:%g %s %p\\n' | head -100").await;
        print(&format!("files on {node}"), files);
    }
}

async fn show(arguments: &[&str]) {
    print(&format!("kubectl {}", arguments.join(" ")), kubectl(arguments).await);
}

fn print(title: &str, text: anyhow::Result<String>) {
    eprintln!("----- {title}\n{}", text.unwrap_or_else(|error| format!("{error:#}")));
}
