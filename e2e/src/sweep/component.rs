//! One of our processes behind its proxy, started anew when it is killed.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use kube::Client;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::control_plane::write_kubeconfig;
use super::proxy::Proxy;

/// The operator or an agent.
pub struct Component {
    /// Its way to the API server.
    pub proxy: Proxy,
    log: PathBuf,
    kubeconfig: PathBuf,
    program: PathBuf,
    running: Mutex<Option<Running>>,
    /// What it did that no process of ours may do: it ended by itself.
    faults: Arc<Mutex<Vec<String>>>,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its variables, beside those of this process.
    pub variables: Vec<(String, String)>,
}

impl Component {
    /// A component that does not run yet, with its log and kubeconfig in this folder.
    pub async fn new(name: &str, folder: &Path, program: &Path, upstream: Client) -> Result<Self> {
        let proxy = Proxy::start(upstream).await?;
        let kubeconfig = folder.join(format!("{name}.kubeconfig"));
        write_kubeconfig(&kubeconfig, &proxy.address)?;
        Ok(Self {
            proxy,
            log: folder.join(format!("{name}.log")),
            kubeconfig,
            program: program.to_owned(),
            running: Mutex::default(),
            faults: Arc::default(),
        })
    }

    /// Starts it, unless it runs. Whenever it is killed it is started anew, until it is stopped.
    pub fn start(&self, call: &Call) -> Result<()> {
        let mut running = lock(&self.running);
        if running.is_some() {
            return Ok(());
        }
        let child = self.spawn(call)?;
        let (stop, stopped) = oneshot::channel();
        let (again, call) = (self.spawner(), call.clone());
        let (proxy, faults) = (self.proxy.clone(), self.faults.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = supervise(child, &proxy, stopped, &faults, || again(&call)).await {
                lock(&faults).push(format!("{error:#}"));
            }
        });
        *running = Some(Running { stop, task });
        Ok(())
    }

    /// Kills it for good, and waits until it is gone.
    pub async fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(Running { stop, task }) = running {
            // An error means that it has ended already.
            let _ = stop.send(());
            let _ = task.await;
        }
    }

    /// Whether it is to run.
    pub fn runs(&self) -> bool {
        lock(&self.running).is_some()
    }

    /// What it did that no process of ours may do.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = lock(&self.faults).clone();
        faults.extend(self.log().lines().filter(|line| line.contains("panicked at")).map(Into::into));
        faults
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Forgets what it did.
    pub fn forget(&self) {
        lock(&self.faults).clear();
        let _ = fs::remove_file(&self.log);
    }

    fn spawn(&self, call: &Call) -> Result<Child> {
        self.spawner()(call)
    }

    fn spawner(&self) -> impl Fn(&Call) -> Result<Child> + use<> {
        let (program, log, kubeconfig) = (self.program.clone(), self.log.clone(), self.kubeconfig.clone());
        let proxy = self.proxy.clone();
        move |call| {
            proxy.revive();
            let log = OpenOptions::new().create(true).append(true).open(&log)?;
            Command::new(&program)
                .args(&call.arguments)
                .envs(call.variables.iter().cloned())
                .env("KUBECONFIG", &kubeconfig)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("starting {}", program.display()))
        }
    }
}

/// Keeps a process running until it is told to stop.
async fn supervise(
    mut child: Child,
    proxy: &Proxy,
    mut stopped: oneshot::Receiver<()>,
    faults: &Mutex<Vec<String>>,
    again: impl Fn() -> Result<Child>,
) -> Result<()> {
    loop {
        tokio::select! {
            _ = &mut stopped => {
                child.kill().await?;
                return Ok(());
            }
            () = proxy.until_cut() => child.kill().await?,
            ended = child.wait() => {
                lock(faults).push(format!("it ended by itself: {}", ended?));
                return Ok(());
            }
        }
        child = again()?;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
