//! Malformed objects are refused by the API server with a message that a person can act on.

use anyhow::{Context, Result, ensure};
use localmodel_e2e::command::{root, run_with};
use localmodel_e2e::world::beside_others;

#[tokio::test]
async fn malformed_objects_are_refused_with_a_message() {
    beside_others("malformed", |_| async {
        let folder = root().join("fixtures/objects/bad");
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            refused(&std::fs::read_to_string(entry?.path())?).await?;
            count += 1;
        }
        ensure!(count > 0, "no malformed object in {}", folder.display());
        Ok(())
    })
    .await;
}

async fn refused(yaml: &str) -> Result<()> {
    let wanted =
        yaml.lines().next().and_then(|line| line.strip_prefix("# refused: ")).context("a first line")?;
    let applied = run_with("kubectl", &["apply", "-f", "-"], yaml).await;
    let error = applied.err().with_context(|| format!("accepted:\n{yaml}"))?;
    ensure!(error.to_string().contains(wanted), "not {wanted:?} but {error}");
    Ok(())
}
