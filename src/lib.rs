//! Keeps LLM weights warm on the local disks of Kubernetes nodes.

pub mod download;
