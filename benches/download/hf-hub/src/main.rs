//! `fetch OWNER/MODEL FOLDER` with the hf-hub crate.

use std::path::PathBuf;

#[tokio::main]
async fn main() -> hf_hub::HFResult<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a model");
    let (owner, model) = name.split_once('/').expect("owner/model");
    let folder = PathBuf::from(arguments.next().expect("a folder"));
    let client = hf_hub::HFClient::new()?;
    client.model(owner, model).snapshot_download().local_dir(folder).send().await?;
    Ok(())
}
