//! What pods mount of a copy: `serve/K`, with links to the files of the complete `models/K`. It changes after
//! the copy, in one rename, and its gate stays shut until it has.

use super::{Action, Outcome, Said, View};
use crate::api::ModelStatus;
use crate::plan::disk::{CopyKey, Folder, Served};
use crate::plan::gate::GateStatus;

/// The next step towards a view of the copy as it is now. Returns what is said of the copy: one that pods cannot
/// read is of no use.
pub(super) fn keep(view: &View, copy: &CopyKey, said: Said, outcome: &mut Outcome) -> Said {
    let is_whole = matches!(view.disk.models.get(copy), Some(Folder::Complete { .. }));
    let is_current = is_whole && view.disk.served.get(copy) == Some(&Served::Current);
    let unwritable = view.unwritable(copy);
    let is_about_to_be_whole = outcome.actions.contains(&Action::Place(copy.clone()));
    if unwritable.is_none() && (is_about_to_be_whole || (is_whole && !is_current)) {
        outcome.actions.push(Action::Serve(copy.clone()));
    }
    let problem = unwritable.or_else(|| view.unserved.get(copy)).filter(|_| is_whole && !is_current);
    let said = match problem {
        Some(problem) => (ModelStatus::ModelDownloadError, super::missing::with_problem(said.1, problem)),
        None => said,
    };
    if unwritable.is_none() {
        outcome.served_gates.insert(copy.clone(), gate(&said, is_current));
    }
    said
}

/// What a pod that reads the view is told: not to begin before it is there.
fn gate(said: &Said, is_current: bool) -> GateStatus {
    let gate = GateStatus::from(said);
    match gate.phase {
        ModelStatus::ModelDownloaded if !is_current => {
            GateStatus { phase: ModelStatus::ModelDownloading, ..gate }
        }
        _ => gate,
    }
}

#[cfg(test)]
mod tests;
