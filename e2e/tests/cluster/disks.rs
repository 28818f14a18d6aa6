//! Disks that rot, fill up, cannot be written or hold what is not ours (A2, A5, A10).

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use localmodel::api::node::DiskStatus;
use localmodel::api::{LocalModelNodeGroup, ModelStatus};
use localmodel_e2e::command::{kubectl, on_node};
use localmodel_e2e::objects::apply;
use localmodel_e2e::wait::until;
use localmodel_e2e::walkthrough::config_map;
use localmodel_e2e::world::{WORKERS, World, alone, beside_others, beside_others_then};
use localmodel_hub::{Fault, FaultKind, ModelSpec};

const NODE: &str = WORKERS[0];
const SHARD: &str = "model-00001-of-00002.safetensors";

#[tokio::test]
async fn a_flipped_byte_is_found_by_the_scrub_told_and_mended_alone() {
    let settings = |world: &World| config_map(&world.setup.image);
    let test = |world: World| async move {
        world.warm(NODE).await?;
        let digests = || on_node(NODE, "cd /models/rot/models/* && sha256sum *.safetensors *.json");
        let before = digests().await?;
        world.hub.clear_requests("rot/").await?;
        let flip = format!(
            "printf FLIPPED | dd of=$(echo /models/rot/models/*/{SHARD}) bs=1 seek=5000 conv=notrunc"
        );
        on_node(NODE, &flip).await?;
        let flipped = Timestamp::now();
        ensure!(digests().await? != before, "nothing was flipped");
        world.until_status(NODE, "m", ModelStatus::ModelDownloaded).await?; // sizes tell nothing

        let fast = r#""enabled": true, "localModelScrub": {"intervalInSecs": 5},"#;
        apply(&settings(&world)?.replace("\"enabled\": true,", fast)).await?;
        until_event(&world, "CopyDamaged", &format!("{SHARD} has other bytes than it should")).await?;
        until("the same bytes again", || async { Ok((digests().await? == before).then_some(())) }).await?;
        world.until_available("m", 1, 1).await?;
        only_the_shard_was_fetched(&world).await?;
        until_disk(&world, "the result of a scrub without damage", |disk| {
            let is_newer = disk.last_scrub.as_ref().is_some_and(|at| at.0 > flipped);
            is_newer
                && disk.scrubbed_bytes.is_some_and(|bytes| bytes >= 2_000_000)
                && disk.damaged_files.is_none()
        })
        .await
    };
    alone("rot", test, async |world| apply(&settings(world)?).await).await;
}

#[tokio::test]
async fn a_file_cut_short_is_told_with_its_size_and_mended_alone() {
    beside_others("cut", |world| async move {
        world.warm(NODE).await?;
        let files = || on_node(NODE, "cd /models/cut/models && find . -type f | sort");
        let before = files().await?;
        world.hub.clear_requests("cut/").await?;
        on_node(NODE, &format!("truncate -s 1000 /models/cut/models/*/{SHARD}")).await?;
        until_event(&world, "CopyDamaged", &format!("{SHARD} has 1000 bytes instead of")).await?;
        let is_whole = format!("stat -c %s /models/cut/models/*/{SHARD}");
        until("the whole file", || async {
            Ok((on_node(NODE, &is_whole).await?.trim() != "1000").then_some(()))
        })
        .await?;
        world.until_available("m", 1, 1).await?;
        ensure!(files().await? == before, "other files than before");
        only_the_shard_was_fetched(&world).await
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_is_not_ours_is_told_and_outlives_everything() {
    beside_others("theirs", |world| async move {
        world.group().await?;
        let theirs = "mkdir -p /models/theirs/models/backup /models/theirs/old \
                      && echo precious | tee /models/theirs/models/backup/a /models/theirs/old/a \
                      && ln -s /models/theirs/old /models/theirs/models/0123456789abcdef";
        on_node(NODE, theirs).await?;
        world.join(NODE).await?;
        world.cache("m", &world.model("m").await?).await?;
        world.until_available("m", 1, 1).await?;
        let names = ["models/0123456789abcdef", "models/backup", "old"];
        until_disk(&world, "what is not ours, by name", |disk| disk.not_ours == names).await?;
        kubectl(&["delete", "localmodelcache", &world.name("m"), "--timeout=90s"]).await?;
        let left = ["./models/backup/a", "./old/a"];
        until("nothing but what is not ours", || async {
            Ok((world.files(NODE).await? == left).then_some(()))
        })
        .await?;
        on_node(NODE, "test -L /models/theirs/models/0123456789abcdef").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_told_wherever_people_look_and_heals_by_itself() {
    beside_others("locked", |world| async move {
        world.warm(NODE).await?;
        on_node(NODE, "chown root:root /models/locked/incoming && chmod 755 /models/locked/incoming").await?;
        world.cache("second", &world.model("second").await?).await?;
        until_disk(&world, "DiskNotWritable with path and user", |disk| {
            let message = disk.message.as_deref().unwrap_or_default();
            disk.reason.as_deref() == Some("DiskNotWritable")
                && ["incoming/", "/models/locked", "user id 1000"].iter().all(|word| message.contains(word))
        })
        .await?;
        world.until_described("second", &["DiskNotWritable", "/models/locked", "user id 1000"]).await?;
        until_group_tells_of_a_disk(&world, true).await?;
        world.until_available("m", 1, 1).await?; // what is there still serves

        on_node(NODE, "chown 1000:1000 /models/locked/incoming && chmod 2775 /models/locked/incoming")
            .await?;
        world.until_available("second", 1, 1).await?;
        until_disk(&world, "a disk without a problem", |disk| disk.reason.is_none()).await?;
        until_group_tells_of_a_disk(&world, false).await
    })
    .await;
}

#[tokio::test]
async fn a_disk_without_room_is_told_with_bytes_needed_and_free_and_goes_on_when_there_is_some() {
    let test = |world: World| async move {
        world.group().await?;
        on_node(NODE, "mount -t tmpfs -o size=1m,mode=2775,gid=1000 tmpfs /models/tiny").await?;
        world.join(NODE).await?;
        world.cache("m", &world.model("m").await?).await?;
        let local = world.until_status(NODE, "m", ModelStatus::ModelDownloadError).await?;
        let detail =
            local.status.context("its status")?.models.remove(&world.name("m")).context("the model")?;
        let message = detail.message.unwrap_or_default();
        ensure!(detail.reason.as_deref() == Some("DiskFull"), "{message}");
        ensure!(
            message.contains("not enough space")
                && message.contains("needed")
                && message.contains("KiB free"),
            "{message}"
        );
        world.until_described("m", &["DiskFull", "not enough space", "KiB free"]).await?;
        on_node(NODE, "mount -o remount,size=100m /models/tiny").await?;
        // A failed Job that is deleted is tried again at once (A6).
        kubectl(&["delete", "job", "-n", "kserve-localmodel-jobs", "-l", "model=tiny-m"]).await?;
        world.until_available("m", 1, 1).await.map(drop)
    };
    beside_others_then("tiny", test, async |_| {
        // Its folder goes with the test, which it cannot as long as something is mounted there.
        on_node(NODE, "umount -l /models/tiny || true").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_fills_up_midway_is_told_and_the_download_goes_on_with_what_is_missing() {
    /// Shards 10 to 19, which no other test's model has.
    const LATER: &str = "model-0001";
    let test = |world: World| async move {
        world.group().await?;
        on_node(NODE, "mount -t tmpfs -o size=8m,mode=2775,gid=1000 tmpfs /models/fills").await?;
        world.join(NODE).await?;
        // More shards than streams, so that room for some is asked for when the first are there.
        world.hub.add_model(&ModelSpec::new("fills/m", 4_000_000, 20)).await?;
        world.hub.fault(&Fault::always(LATER, FaultKind::Hold)).await?;
        world.cache("m", "hf://fills/m").await?;
        // As many as come before all streams wait for those that do not.
        let there = until("shards that are there", || async {
            let found =
                on_node(NODE, "cd /models/fills/incoming/*/ && ls | grep ^model-0000 || true").await?;
            let there: Vec<String> = found.lines().map(Into::into).collect();
            Ok((there.len() >= 5).then_some(there))
        })
        .await?;
        on_node(NODE, "dd if=/dev/zero of=/models/fills/filler bs=64k 2>/dev/null || true").await?;
        world.hub.clear_faults(LATER).await?;
        world.until_status(NODE, "m", ModelStatus::ModelDownloadError).await?;
        world.until_described("m", &["DiskFull"]).await?;
        world.hub.clear_requests("fills/").await?;
        on_node(NODE, "rm /models/fills/filler").await?;
        kubectl(&["delete", "job", "-n", "kserve-localmodel-jobs", "-l", "model=fills-m"]).await?;
        world.until_available("m", 1, 1).await?;
        let asked = world.hub.requests("fills/").await?;
        let is_there = |path: &str| there.iter().any(|shard| path.contains(shard));
        let again: Vec<_> = asked.iter().filter(|request| is_there(&request.path)).collect();
        ensure!(!asked.is_empty() && again.is_empty(), "fetched although it was there: {again:?}");
        Ok(())
    };
    beside_others_then("fills", test, async |world| {
        world.hub.clear_faults(LATER).await?;
        on_node(NODE, "umount -l /models/fills || true").await.map(drop)
    })
    .await;
}

async fn only_the_shard_was_fetched(world: &World) -> Result<()> {
    let asked = world.hub.requests(&format!("{}/", world.prefix)).await?;
    let fetched: Vec<_> = asked.iter().filter(|request| request.path.contains("/resolve")).collect();
    ensure!(!fetched.is_empty(), "the hub was not asked for the damaged file");
    let of_others: Vec<_> = fetched.iter().filter(|request| !request.path.contains(SHARD)).collect();
    ensure!(of_others.is_empty(), "good files were fetched again: {of_others:?}");
    Ok(())
}

/// Waits for an Event on the test's cache with these words.
async fn until_event(world: &World, reason: &str, words: &str) -> Result<()> {
    let by_reason = ListParams::default().fields(&format!("reason={reason}"));
    until(&format!("an Event {reason} that says {words:?}"), || async {
        let told = Api::<Event>::all(world.client.clone()).list(&by_reason).await?;
        let ours = told.iter().filter(|event| event.involved_object.name.as_ref() == Some(&world.name("m")));
        Ok(ours.flat_map(|event| &event.message).any(|message| message.contains(words)).then_some(()))
    })
    .await
}

/// Waits until the node says this of the test's disk.
async fn until_disk(world: &World, what: &str, is_so: impl Fn(&DiskStatus) -> bool) -> Result<()> {
    until(what, || async {
        let status = world.node(NODE).await?.and_then(|local| local.status).unwrap_or_default();
        Ok(status.disks.get(&world.prefix).is_some_and(&is_so).then_some(()))
    })
    .await
}

/// Waits until the test's group has a condition that tells of disks, or has none any more.
async fn until_group_tells_of_a_disk(world: &World, wanted: bool) -> Result<()> {
    until(&format!("condition DiskUnusable of the group: {wanted}"), || async {
        let groups = world.in_cluster::<LocalModelNodeGroup>();
        let group = groups.get(&world.prefix).await?;
        let conditions = group.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let told = conditions.iter().any(|c| c.type_ == "DiskUnusable" && c.message.contains(NODE));
        ensure!(told == wanted, "{} has {conditions:?}", group.name_any());
        Ok(Some(()))
    })
    .await
}
