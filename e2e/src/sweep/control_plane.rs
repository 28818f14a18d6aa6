//! A control plane without nodes: etcd, the API server, and the controllers that our objects need.

use std::env;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use localmodel::api::crds;
use localmodel::plan::names::WEBHOOK_SERVICE;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::objects::{self, OPERATOR};
use crate::wait::until;

/// Who holds it may do everything: rights are the subject of other tests.
const TOKEN: &str = "admin";

/// The controllers of Kubernetes that act on what we make. Those of nodes are left out: nodes here never fail.
const CONTROLLERS: [&str; 9] = [
    "daemonset-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "resourcequota-controller",
    "ttl-after-finished-controller",
];

/// Accounts of pods and taints of nodes come from controllers that do not run here.
const NO_ADMISSION: &str = "ServiceAccount,TaintNodesByCondition";

const WEBHOOK_CLIENT_CA: &str = "webhook-client-ca.crt";

/// Runs a command until standard input ends, which happens when the process that started it ends in any way.
const LEASHED: &str = r#""$@" & child=$!; cat >/dev/null; kill -9 $child; wait $child"#;

/// The running processes; they end with this value.
pub struct ControlPlane {
    /// A client for everything.
    pub client: Client,
    folder: PathBuf,
    etcd: u16,
    secure: u16,
    server: Mutex<Child>,
    _others: [Child; 2],
}

impl ControlPlane {
    /// Starts one with its data and logs in this folder. The commands are found on the PATH.
    pub async fn start(folder: &Path) -> Result<Self> {
        // An error only says that a provider is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let [etcd, peer, secure] = [free_port()?, free_port()?, free_port()?];
        let key = KeyPair::generate().context("a key for service accounts")?;
        fs::write(folder.join("accounts.key"), key.serialize_pem())?;
        fs::write(folder.join("accounts.pub"), key.public_key_pem())?;
        fs::write(folder.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))?;
        identify_to_webhooks(folder)?;
        let kubeconfig = folder.join("kubeconfig");
        write_kubeconfig(&kubeconfig, &format!("https://127.0.0.1:{secure}"))?;
        let start = |name, arguments| start(folder, name, arguments);
        let etcd_process = start("etcd", etcd_arguments(folder, etcd, peer))?;
        let server = start("kube-apiserver", server_arguments(folder, etcd, secure))?;
        let client = client(&kubeconfig).await?;
        answers(&client, folder).await?;
        define(&client).await?;
        // After the definitions: its garbage collector looks for new kinds twice a minute only.
        let manager = start("kube-controller-manager", manager_arguments(&kubeconfig))?;
        Ok(Self {
            client,
            folder: folder.to_owned(),
            etcd,
            secure,
            server: Mutex::new(server),
            _others: [manager, etcd_process],
        })
    }

    /// Ends the API server and starts another on the same data and port.
    pub async fn restart_api_server(&self) -> Result<()> {
        let mut server = self.server.lock().await;
        drop(server.stdin.take());
        server.wait().await?;
        *server =
            start(&self.folder, "kube-apiserver", server_arguments(&self.folder, self.etcd, self.secure))?;
        answers(&self.client, &self.folder).await
    }

    /// The authority of the certificate that the API server has for webhooks which ask for one.
    pub fn webhook_client_ca(&self) -> PathBuf {
        self.folder.join(WEBHOOK_CLIENT_CA)
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }
}

/// Gives the API server a certificate for our webhooks.
fn identify_to_webhooks(folder: &Path) -> Result<()> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let (certificate, key_file) = (folder.join("webhooks.crt"), folder.join("webhooks.key"));
    fs::write(&certificate, params.signed_by(&key, &ca)?.pem())?;
    fs::write(&key_file, key.serialize_pem())?;
    fs::write(folder.join(WEBHOOK_CLIENT_CA), ca.pem())?;
    let user = json!({"client-certificate": certificate, "client-key": key_file});
    let users = json!([{"name": format!("{WEBHOOK_SERVICE}.{OPERATOR}.svc"), "user": user}]);
    let kubeconfig = folder.join("webhooks.kubeconfig");
    fs::write(&kubeconfig, json!({"apiVersion": "v1", "kind": "Config", "users": users}).to_string())?;
    let plugin = |name: &str| {
        let configuration = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": kubeconfig,
        });
        json!({"name": name, "configuration": configuration})
    };
    let plugins = [plugin("MutatingAdmissionWebhook"), plugin("ValidatingAdmissionWebhook")];
    let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": plugins});
    Ok(fs::write(folder.join("admission.yaml"), config.to_string())?)
}

async fn answers(client: &Client, folder: &Path) -> Result<()> {
    until("the API server", || async {
        let ready = http::Request::get("/readyz").body(Vec::new())?;
        Ok(client.request_text(ready).await.map(|_| Some(()))?)
    })
    .await
    .with_context(|| format!("its log is in {}", folder.display()))
}

/// Writes a kubeconfig for a server.
pub fn write_kubeconfig(path: &Path, server: &str) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sweep", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "sweep", "context": {"cluster": "sweep", "user": "admin"}}],
        "current-context": "sweep",
    });
    fs::write(path, config.to_string()).with_context(|| format!("writing {}", path.display()))
}

/// A client that tries nothing twice, so that requests can be counted.
async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

fn start(folder: &Path, name: &str, arguments: Vec<String>) -> Result<Child> {
    let on_path =
        env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|at| at.join(name).is_file()));
    ensure!(on_path, "there is no {name}: run this below `hack/cluster control-plane`");
    let log = OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log")))?;
    Command::new("sh")
        .args(["-c", LEASHED, name, name])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {name}"))
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn etcd_arguments(folder: &Path, port: u16, peer: u16) -> Vec<String> {
    let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let data = folder.join("etcd");
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        "--unsafe-no-fsync".into(), // its data end with the test
    ]
}

fn server_arguments(folder: &Path, etcd: u16, port: u16) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        "--endpoint-reconciler-type=none".into(),
        // Webhooks are called at their endpoints: there is no kube-proxy for the addresses of Services.
        "--enable-aggregator-routing=true".into(),
        format!("--cert-dir={}", file("certificates")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!("--token-auth-file={}", file("tokens.csv")),
        format!("--admission-control-config-file={}", file("admission.yaml")),
        "--authorization-mode=RBAC".into(),
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        format!("--disable-admission-plugins={NO_ADMISSION}"),
    ]
}

fn manager_arguments(kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={}", CONTROLLERS.join(",")),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        // What would spare a large cluster's API server makes a test wait.
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
    ]
}

/// Makes our definitions and a stand-in for KServe's of services, and waits until all are served.
async fn define(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut names = Vec::new();
    let services = serde_json::from_value(objects::services_definition())?;
    for definition in crds().into_iter().chain([services]) {
        let made = api.create(&PostParams::default(), &definition).await?;
        names.extend(made.metadata.name);
    }
    for name in names {
        until(&format!("definition {name}"), || async {
            let conditions = api.get(&name).await?.status.unwrap_or_default().conditions;
            let is_served = |kind: &str| {
                conditions
                    .iter()
                    .flatten()
                    .any(|condition| condition.type_ == kind && condition.status == "True")
            };
            Ok(is_served("Established").then_some(()))
        })
        .await?;
    }
    for object in objects::of_every_run() {
        create(client, &object).await?;
    }
    Ok(())
}

/// Makes an object; its path is that of its kind.
pub async fn create(client: &Client, object: &Value) -> Result<Value> {
    let path = objects::collection(object)?;
    let request = http::Request::post(path).header("content-type", "application/json");
    let kind = object["kind"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let made = client.request(request.body(serde_json::to_vec(object)?)?).await;
    made.with_context(|| format!("making {kind} {name}"))
}
