//! Pages of a hub's tree and answers about revisions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use localmodel::download::source::protocol::{commit, tree_page};

fuzz_target!(|json: &[u8]| {
    for file in tree_page(json).into_iter().flatten() {
        // Whatever passes the check of names stays in its folder.
        if localmodel::download::store::check_name(&file.path).is_ok() {
            let path = std::path::Path::new("/root").join(&file.path);
            assert!(path.components().all(|part| part != std::path::Component::ParentDir));
            assert!(path.starts_with("/root") && path != std::path::Path::new("/root"));
        }
    }
    if let Ok(commit) = commit(json) {
        assert_eq!(commit.len(), 40);
    }
});
