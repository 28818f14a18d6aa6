//! What is installed: every object of `deploy/base`, read from the files that ship.

use std::fs;

use anyhow::{Context, Result};
use http::Request;
use kube::Client;
use serde_json::Value;

use crate::command::root;
use crate::sweep::objects;

/// Every object that `deploy/base` installs.
pub fn shipped() -> Result<Vec<Value>> {
    let folder = root().join("deploy/base");
    let list = fs::read_to_string(folder.join("kustomization.yaml"))?;
    let list: Value = serde_saphyr::from_str(&list)?;
    let names = list["resources"].as_array().context("kustomization.yaml lists resources")?;
    let mut objects = Vec::new();
    for name in names.iter().filter_map(Value::as_str) {
        let text = fs::read_to_string(folder.join(name)).with_context(|| format!("reading {name}"))?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| name.to_owned())?;
        objects.extend(documents.into_iter().filter(|object| !object.is_null()));
    }
    Ok(objects)
}

/// Applies an object on the server, as an installation does.
pub async fn apply(client: &Client, object: &Value) -> Result<Value> {
    let path = objects::path(object)?;
    let request = Request::patch(format!("{path}?fieldManager=install&force=true"))
        .header("content-type", "application/apply-patch+yaml");
    client
        .request(request.body(object.to_string().into_bytes())?)
        .await
        .with_context(|| format!("applying {path}"))
}
