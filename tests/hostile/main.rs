//! Hostile clients and servers against our own processes; none of it needs an API server. The attacks that do are in
//! `e2e/tests/attacks`.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside the tests

mod http_server;
mod webhook_server;
