//! Which files are archives, by their names: those that KServe's storage initializer unpacks, and others.

/// What is unpacked, for messages.
const UNPACKED: &str = ".zip, .tar, .tar.gz, .tgz, .tar.bz2, .tbz2, .tar.xz and .txz";

const TAR: [&str; 10] =
    [".tbz", ".tar", ".tar.gz", ".tgz", ".taz", ".tz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"];

/// Archives that are not unpacked.
const OTHERS: [&str; 12] = [
    ".tar.zst",
    ".tzst",
    ".tar.lz4",
    ".tar.lz",
    ".tlz",
    ".tar.lzma",
    ".tar.lzo",
    ".tar.z",
    ".tar.br",
    ".tar.sz",
    ".7z",
    ".rar",
];

/// The kinds of archives that are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tar file. How it is compressed, its first bytes say.
    Tar,
    /// A zip file.
    Zip,
}

/// The kind of a file of this name, if that is an archive which is unpacked.
pub fn kind_of(name: &str) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends(&TAR) { Some(Kind::Tar) } else { ends(&[".zip"]).then_some(Kind::Zip) }
}

/// Why a file of this name is an archive that cannot be unpacked, if it is one.
pub fn why_not(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let end = OTHERS.iter().find(|end| name.ends_with(*end))?;
    Some(format!("{end} is not supported; supported are {UNPACKED}"))
}

/// Whether a file of this name is an archive, of whatever kind.
pub fn is_archive(name: &str) -> bool {
    kind_of(name).is_some() || why_not(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_names() {
        for name in ["m.tar", "M.TAR.GZ", "m.tgz", "m.tar.bz2", "m.tbz2", "m.tar.XZ", "m.txz", "m.taz"] {
            assert_eq!(kind_of(name), Some(Kind::Tar), "{name}");
        }
        assert_eq!(kind_of("a.b.Zip"), Some(Kind::Zip));
        for name in ["m.tar.zst", "m.TAR.ZST", "m.7z", "m.rar", "m.tar.lz4", "m.tar.Z"] {
            assert!(kind_of(name).is_none() && is_archive(name), "{name}");
            let why = why_not(name).unwrap();
            assert!(why.contains("not supported") && why.contains(".tar.gz"), "{why}");
        }
        for name in ["model.safetensors", "tar", "model.gz", "weights.pt", "m.zipped", "a.tar/b", "x.gz"] {
            assert!(!is_archive(name), "{name}");
        }
    }
}
