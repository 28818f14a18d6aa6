//! The steady state, in which nothing of ours writes anything.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::audit;
use crate::command::kubectl;
use crate::wait::until;

/// After so long without a write of ours the cluster has settled.
const SETTLED: SignedDuration = SignedDuration::from_secs(6);

/// Once what came before has settled, neither the operator nor an agent writes anything for so long.
pub async fn quiet_for(time: Duration) -> Result<()> {
    until("the last write before the steady state", || async {
        let last = audit::writes().await?.iter().map(|write| write.received).max();
        let last = last.context("the audit log tells no write of ours at all")?;
        Ok((Timestamp::now().duration_since(last) > SETTLED).then_some(()))
    })
    .await?;
    let (before, (said, room)) = (audit::writes().await?, nodes_say().await?);
    let quiet = tokio::time::timeout(time, async {
        let mut looks = tokio::time::interval(Duration::from_secs(5));
        loop {
            looks.tick().await;
            let (said_now, room_now) = nodes_say().await?;
            ensure!(said_now == said, "the nodes say {said_now:#}, not {said:#}");
            let mut new: Vec<_> = audit::writes().await?.difference(&before).cloned().collect();
            // Whoever filled the disk: free room that has changed by 5 % is news (A8).
            new.retain(|write| room_now == room || write.object_ref.resource != "localmodelnodes");
            ensure!(new.is_empty(), "written in steady state: {new:#?}");
        }
    });
    match quiet.await {
        Err(_the_time_is_over) => Ok(()),
        Ok(result) => result,
    }
}

/// The statuses of the nodes' objects without the free room of their disks, and that.
async fn nodes_say() -> Result<(Value, Vec<Value>)> {
    let mut nodes: Value = serde_json::from_str(&kubectl(&["get", "localmodelnodes", "-o", "json"]).await?)?;
    let mut statuses: Vec<Value> = nodes["items"]
        .as_array_mut()
        .context("a list")?
        .iter_mut()
        .map(|node| node["status"].take())
        .collect();
    for status in &mut statuses {
        if let Some(summary) = status.get_mut("summary").and_then(Value::as_object_mut) {
            summary.remove("free");
        }
    }
    let disks = statuses.iter_mut().filter_map(|status| status.get_mut("disks")?.as_object_mut()).flatten();
    let room = disks.map(|(_, disk)| disk["free"].take()).collect();
    Ok((statuses.into(), room))
}
