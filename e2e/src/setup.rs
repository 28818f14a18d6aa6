//! What all tests share: our images on the nodes, the hub, the installed operator, the documented
//! settings, KServe. Made once in a process, and cheap when it is there already.

use std::path::PathBuf;

use anyhow::{Context, Result};
use localmodel::plan::names::PRIORITY_CLASS;
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt, ReuseDirective};
use tokio::sync::OnceCell;

use crate::command::{apply_as, kubectl, root, run, run_with};
use crate::objects::apply;
use crate::wait::until;
use crate::walkthrough::JOBS;
use crate::{kserve, walkthrough};

/// What stands ready.
#[derive(Debug)]
pub struct Setup {
    /// Our image, on every node.
    pub image: String,
    /// The image of the stub server, on every node.
    pub stub: String,
    /// The address of the hub's control port.
    pub control: String,
    _container: ContainerAsync<GenericImage>,
}

static SETUP: OnceCell<Setup> = OnceCell::const_new();

/// The shared setup of this process.
pub async fn setup() -> Result<&'static Setup> {
    SETUP.get_or_try_init(make).await
}

async fn make() -> Result<Setup> {
    // An error only says that a provider is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    kubectl(&["version"])
        .await
        .context("no cluster: run `hack/cluster up` and `eval \"$(hack/cluster env)\"`")?;
    let image = image_of("localmodel").await?;
    let stub = image_of("localmodel-stub").await?;
    run("hack/cluster", &["load", &image, &stub]).await?;
    let hub = start_hub(&image_of("localmodel-hub").await?).await?;
    let port = hub.get_host_port_ipv4(8082.tcp()).await.context("the hub's control port")?;
    let setup = Setup { image, stub, control: format!("http://127.0.0.1:{port}"), _container: hub };
    forget_priority_class(&setup.image).await?;
    install(&setup.image).await?;
    kserve::install(&setup).await.context("installing KServe")?;
    // Last: a server-side apply of KServe's part takes over, and drops, what kubectl applied before it.
    apply(&walkthrough::config_map(&setup.image)?).await?;
    Ok(setup)
}

/// Another build on a cluster that is up has to write the class of Jobs again: the test of rights sees only its own
/// requests.
async fn forget_priority_class(image: &str) -> Result<()> {
    let of = "jsonpath={.spec.template.spec.containers[0].image}";
    let operator =
        ["get", "deployment", "-n", "kserve", "localmodel-operator", "--ignore-not-found", "-o", of];
    let before = kubectl(&operator).await?;
    if !before.is_empty() && before != image {
        kubectl(&["annotate", "namespace", JOBS, &format!("{PRIORITY_CLASS}-")]).await?;
    }
    Ok(())
}

/// The image of a binary that was built along with this one.
async fn image_of(binary: &str) -> Result<String> {
    let path = self::binary(binary)?;
    let path = path.to_str().context("the target folder is no text")?;
    Ok(run("hack/image", &[binary, path]).await?.trim().to_owned())
}

/// A binary that was built along with this one.
pub fn binary(name: &str) -> Result<PathBuf> {
    Ok(binaries()?.join(name))
}

/// The folder of this workspace's binaries: this one runs in it or in `deps/` below it.
fn binaries() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.ancestors().skip(1).find(|folder| folder.join("localmodel").is_file());
    Ok(folder.context("build the workspace first: cargo build --workspace --all-targets")?.to_path_buf())
}

/// The hub on the cluster's network under its documented name; one of an older build is replaced.
async fn start_hub(image: &str) -> Result<ContainerAsync<GenericImage>> {
    let (name, tag) = image.split_once(':').context("an image has a tag")?;
    let running =
        run("docker", &["ps", "-a", "--filter", "name=^hub$", "--format", "{{.Image}} {{.State}}"]).await?;
    if !running.trim().is_empty() && running.trim() != format!("{image} running") {
        run("docker", &["rm", "-f", "hub"]).await?;
    }
    GenericImage::new(name, tag)
        .with_wait_for(WaitFor::message_on_stdout("control http"))
        .with_exposed_port(8082.tcp())
        .with_network("kind")
        .with_container_name("hub")
        .with_cmd(["--public-cdn", "http://hub:8081"])
        .with_reuse(ReuseDirective::Always)
        .start()
        .await
        .context("starting the hub")
}

/// The objects of a folder with this image, as the README tells people to render them.
pub async fn manifests(folder: &str, image: &str) -> Result<String> {
    let manifests = kubectl(&["kustomize", folder]).await?;
    Ok(manifests.replace("image: localmodel\n", &format!("image: {image}\n")))
}

/// Installs everything for a cluster without KServe, and the documented settings.
pub async fn install(image: &str) -> Result<()> {
    install_from("deploy/standalone", image).await
}

/// The same from one of the overlays.
pub async fn install_from(folder: &str, image: &str) -> Result<()> {
    let manifests = manifests(folder, image).await?;
    // The definitions are too long for the annotation of a client-side apply.
    apply_as("kubectl", &manifests).await.context("installing")?;
    apply(&walkthrough::config_map(image)?).await?;
    apply(&walkthrough::object(image, "hf-secret.yaml")?).await?;
    apply(&walkthrough::object(image, "cluster-storage-container.yaml")?).await?;
    let rollout = ["rollout", "status", "-n", "kserve", "deployment/localmodel-operator", "--timeout=180s"];
    kubectl(&rollout)
        .await
        .with_context(|| format!("waiting for the operator, from {}", root().display()))?;
    until_webhooks_answer().await
}

/// Waits until so many operators are ready, or until the last one has gone.
pub async fn scale_operator(replicas: u8) -> Result<()> {
    let deployment = "deployment/localmodel-operator";
    kubectl(&["scale", "-n", "kserve", deployment, &format!("--replicas={replicas}")]).await?;
    let of_operator = "app.kubernetes.io/name=localmodel-operator";
    let awaited: &[&str] = match replicas {
        0 => &["wait", "--for=delete", "pod", "-n", "kserve", "-l", of_operator, "--timeout=180s"],
        _ => &["rollout", "status", "-n", "kserve", deployment, "--timeout=180s"],
    };
    kubectl(awaited).await.map(drop)
}

/// Waits until the webhooks that check caches answer, ours or KServe's: for a moment after their server's start, and
/// while it is down, no cache can be made or deleted.
pub async fn until_webhooks_answer() -> Result<()> {
    let probe = "
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelCache
metadata: {name: are-you-there}
spec: {sourceModelUri: 'hf://are/you-there', modelSize: 1Gi, nodeGroups: [nowhere]}
";
    until("an answer of the webhooks", || async {
        run_with("kubectl", &["create", "--dry-run=server", "-f", "-"], probe).await.map(Some)
    })
    .await
    .map(drop)
}

/// Puts definitions in place of those that are there.
pub async fn define(definitions: &str) -> Result<()> {
    apply_as("kubectl", definitions).await.map(drop)
}

/// Starts the operator anew, so that it forgets what the definitions before kept.
pub async fn restart_operator() -> Result<()> {
    kubectl(&["rollout", "restart", "-n", "kserve", "deployment/localmodel-operator"]).await?;
    let rollout = ["rollout", "status", "-n", "kserve", "deployment/localmodel-operator", "--timeout=120s"];
    kubectl(&rollout).await?;
    until_webhooks_answer().await
}
