//! Manifests and recorded plans.
#![no_main]

use libfuzzer_sys::fuzz_target;
use localmodel::download::plan::Plan;
use localmodel::download::{Manifest, store::check_name};

fuzz_target!(|json: &[u8]| {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(json) {
        let plan = Plan::from(&manifest);
        assert_eq!(plan.files.len(), manifest.files.len());
        let again = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(serde_json::from_slice::<Manifest>(&again).unwrap(), manifest);
        manifest.files.iter().for_each(|file| drop(check_name(&file.path)));
    }
    drop(serde_json::from_slice::<Plan>(json));
});
