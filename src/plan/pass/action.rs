//! The single things that a pass asks for, and what they are called in logs.

use super::CopyKey;

/// One thing to do. Each is safe to do twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Delete a Job with its pods.
    DeleteJob(String),
    /// Mark `models/K` of the root as one that pods of namespace caches read since KServe's time.
    Keep(String),
    /// Make `incoming/K`, with links to what is good in a damaged `models/K` or lent by another area's copy,
    /// then the Job.
    Download(CopyKey),
    /// Write the manifest that another initializer does not, into `incoming/K`.
    Adopt(CopyKey),
    /// The same into `models/K`, where KServe's Jobs write.
    AdoptModel(CopyKey),
    /// Make `incoming/K` of a namespace from links to the complete `models/K` of the root.
    Link(CopyKey),
    /// Move `incoming/K` to `models/K` in one rename, or exchange the two.
    Place(CopyKey),
    /// Link the complete `models/K` into `serve/K`, where pods read it.
    Serve(CopyKey),
    /// Erase `incoming/K`.
    EraseIncoming(CopyKey),
    /// Erase `models/K`.
    EraseModel(CopyKey),
    /// Erase `gate/K`.
    EraseGate(CopyKey),
    /// Erase `serve/K`.
    EraseServed(CopyKey),
    /// Remove the empty folders of a namespace.
    RemoveArea(String),
}

impl Action {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DeleteJob(_) => "delete Job",
            Self::Keep(_) => "keep for services of KServe",
            Self::Download(_) => "download",
            Self::Adopt(_) => "adopt download",
            Self::AdoptModel(_) => "adopt model",
            Self::Link(_) => "link",
            Self::Place(_) => "place",
            Self::Serve(_) => "serve",
            Self::EraseIncoming(_) => "erase download",
            Self::EraseModel(_) => "erase model",
            Self::EraseGate(_) => "erase gate",
            Self::EraseServed(_) => "erase served model",
            Self::RemoveArea(_) => "remove namespace",
        }
    }

    /// The Job, copy or namespace that it is about.
    pub fn on(&self) -> String {
        match self {
            Self::DeleteJob(name) | Self::Keep(name) | Self::RemoveArea(name) => name.clone(),
            Self::Download(copy)
            | Self::Adopt(copy)
            | Self::AdoptModel(copy)
            | Self::Link(copy)
            | Self::Place(copy)
            | Self::Serve(copy)
            | Self::EraseIncoming(copy)
            | Self::EraseModel(copy)
            | Self::EraseGate(copy)
            | Self::EraseServed(copy) => copy.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::pass::world::of_ns;

    #[test]
    fn an_action_is_logged_with_what_it_does_and_on_what() {
        let copy = of_ns();
        let actions = [
            Action::DeleteJob("j".into()),
            Action::Keep("j".into()),
            Action::RemoveArea("j".into()),
            Action::Download(copy.clone()),
            Action::Adopt(copy.clone()),
            Action::AdoptModel(copy.clone()),
            Action::Link(copy.clone()),
            Action::Place(copy.clone()),
            Action::EraseIncoming(copy.clone()),
            Action::EraseModel(copy.clone()),
            Action::EraseGate(copy.clone()),
            Action::Serve(copy.clone()),
            Action::EraseServed(copy.clone()),
        ];
        let mut names: Vec<&str> = actions.iter().map(Action::name).collect();
        assert_eq!((names[0], names[3], names[9]), ("delete Job", "download", "erase model"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), actions.len());
        let on: Vec<String> = actions.iter().map(Action::on).collect();
        assert!(
            on[..3].iter().all(|on| on == "j") && on[3..].iter().all(|on| *on == copy.to_string()),
            "{on:?}"
        );
    }
}
