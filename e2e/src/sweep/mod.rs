//! The crash sweep: our operator and agents as real processes on a real API server, each behind a proxy that
//! cuts writes off and holds back what a watch tells, and the question whether the cluster comes to the same
//! rest as without it.
//!
//! There are no nodes: etcd, the API server and the controller manager are those of Kubernetes, and a small
//! kubelet of this harness binds pods, runs the agents, and runs the real downloader for Jobs.

mod cluster;
mod component;
pub mod control_plane;
mod dice;
mod generator;
mod good;
mod kubelet;
mod late;
mod node_work;
pub mod objects;
mod proxy;
mod run;
mod scenarios;
mod state;

pub use cluster::{Cluster, Role, program};
pub use generator::Generator;
pub use good::{good_cache, prepare_good_caches};
pub use proxy::Moment;
pub use run::{Disturbance, Expected, baseline, disturbed};
pub use scenarios::{Scenario, scenarios};
