//! Repositories: what a test describes ([`Model`]) and what the servers look up ([`Repo`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::llama::{self, Weights};

/// Who may read a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Everybody.
    #[default]
    Public,
    /// Members only; nobody else learns that it exists.
    Private,
    /// Everybody sees the list of files; only who accepted the licence reads them.
    Gated,
}

/// A repository as a test describes it. It starts with one commit, at which `main` stands.
#[derive(Clone, Debug)]
pub struct Model {
    /// `owner/name`, compared byte by byte.
    pub repo: String,
    /// Who may read it.
    pub access: Access,
    weights: Option<Weights>,
    /// What each commit changes; `None` removes a file.
    commits: Vec<BTreeMap<String, Option<Blob>>>,
    refs: BTreeMap<String, usize>,
}

impl Model {
    /// A public repository without files.
    pub fn new(repo: impl Into<String>) -> Self {
        Self {
            repo: repo.into(),
            access: Access::Public,
            weights: None,
            commits: vec![BTreeMap::new()],
            refs: BTreeMap::from([("main".to_owned(), 0)]),
        }
    }

    /// A public repository that looks like a Llama: 2 shards, 4 MiB, and the usual small files.
    pub fn llama(repo: impl Into<String>) -> Self {
        Self { weights: Some(Weights { size: 4 << 20, shards: 2 }), ..Self::new(repo) }
    }

    /// Bytes of all generated shards together, which becomes an even number of at least 4106 a shard.
    #[must_use]
    pub fn size(mut self, bytes: usize) -> Self {
        if let Some(weights) = &mut self.weights {
            weights.size = bytes;
        }
        self
    }

    /// The number of generated shards, at least one.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        if let Some(weights) = &mut self.weights {
            weights.shards = shards.max(1);
        }
        self
    }

    /// Who may read it.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Adds a small file, kept in git, to the newest commit. Hostile paths are welcome.
    #[must_use]
    pub fn file(self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.change(path.into(), Some(Blob::git(bytes.into())))
    }

    /// Adds a large file, kept in LFS, to the newest commit.
    #[must_use]
    pub fn lfs(self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.change(path.into(), Some(Blob::lfs(bytes.into())))
    }

    /// Removes a file in the newest commit.
    #[must_use]
    pub fn without(self, path: impl Into<String>) -> Self {
        self.change(path.into(), None)
    }

    /// Begins a commit on top of the newest one, and moves `main` to it.
    #[must_use]
    pub fn commit(mut self) -> Self {
        self.commits.push(BTreeMap::new());
        self.branch("main")
    }

    /// Begins a commit in which all generated shards have other bytes, as after more training.
    #[must_use]
    pub fn retrain(self) -> Self {
        let Some(weights) = self.weights else { return self.commit() };
        let seed = seed(&self.repo).rotate_left(32).wrapping_add(self.commits.len() as u64);
        let shards = llama::large_files(weights, seed);
        shards.into_iter().fold(self.commit(), |model, (path, bytes)| model.lfs(path, bytes))
    }

    /// Puts a branch or a tag at the newest commit.
    #[must_use]
    pub fn branch(mut self, name: impl Into<String>) -> Self {
        self.refs.insert(name.into(), self.commits.len() - 1);
        self
    }

    fn change(mut self, path: String, blob: Option<Blob>) -> Self {
        if let Some(newest) = self.commits.last_mut() {
            newest.insert(path, blob);
        }
        self
    }

    /// Generates the files and computes the commits.
    pub(crate) fn build(self) -> Repo {
        let mut tree = self.weights.map(|weights| generate(&self.repo, weights)).unwrap_or_default();
        let mut repo =
            Repo { access: self.access, trees: BTreeMap::new(), commits: Vec::new(), refs: BTreeMap::new() };
        for changes in self.commits {
            for (path, blob) in changes {
                match blob {
                    Some(blob) => tree.insert(path, blob),
                    None => tree.remove(&path),
                };
            }
            let parent = repo.commits.last().map_or("", String::as_str);
            let commit = commit_id(&self.repo, parent, &tree);
            repo.trees.insert(commit.clone(), Arc::new(tree.clone()));
            repo.commits.push(commit);
        }
        repo.refs = self.refs.into_iter().map(|(name, index)| (name, repo.commits[index].clone())).collect();
        repo
    }
}

fn seed(repo: &str) -> u64 {
    repo.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
}

fn generate(repo: &str, weights: Weights) -> Tree {
    let large =
        llama::large_files(weights, seed(repo)).into_iter().map(|(path, bytes)| (path, Blob::lfs(bytes)));
    let small = llama::small_files(repo, weights).into_iter().map(|(path, bytes)| (path, Blob::git(bytes)));
    large.chain(small).collect()
}

fn commit_id(repo: &str, parent: &str, tree: &Tree) -> String {
    let mut text = format!("{repo}\nparent {parent}\n");
    for (path, blob) in tree {
        text.extend([&blob.oid, " ", path.as_str(), "\n"]);
    }
    hex::encode(Sha1::digest(text))
}

/// The files of a commit, by path.
pub type Tree = BTreeMap<String, Blob>;

/// A file's content and how git knows it.
#[derive(Clone, Debug)]
pub struct Blob {
    pub bytes: Arc<Vec<u8>>,
    /// SHA-1 of the git object: the file's own, or that of its LFS pointer.
    pub oid: String,
    pub lfs: Option<Lfs>,
}

/// What git keeps in place of a large file.
#[derive(Clone, Debug)]
pub struct Lfs {
    pub sha256: String,
    /// Length of the pointer file.
    pub pointer: usize,
}

impl Blob {
    fn git(bytes: Vec<u8>) -> Self {
        Self { oid: git_oid(&bytes), bytes: Arc::new(bytes), lfs: None }
    }

    fn lfs(bytes: Vec<u8>) -> Self {
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {}\n",
            bytes.len()
        );
        let lfs = Some(Lfs { sha256, pointer: pointer.len() });
        Self { oid: git_oid(pointer.as_bytes()), bytes: Arc::new(bytes), lfs }
    }

    /// SHA-256 of the content.
    pub fn sha256(&self) -> String {
        self.lfs.as_ref().map_or_else(|| hex::encode(Sha256::digest(&*self.bytes)), |lfs| lfs.sha256.clone())
    }

    /// The digest that stands in `ETag` headers.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.lfs.as_ref().map_or(&self.oid, |lfs| &lfs.sha256))
    }
}

/// A repository as the servers see it.
#[derive(Debug)]
pub struct Repo {
    pub access: Access,
    /// Files by commit.
    pub trees: BTreeMap<String, Arc<Tree>>,
    /// Commits that were ever made, oldest first.
    pub commits: Vec<String>,
    /// Branches and tags, with their commits.
    pub refs: BTreeMap<String, String>,
}

impl Repo {
    /// The commit and the files of a branch, a tag or a full commit id.
    pub fn at(&self, revision: &str) -> Option<(&str, &Arc<Tree>)> {
        let commit = self.refs.get(revision).map_or(revision, String::as_str);
        self.trees.get_key_value(commit).map(|(commit, tree)| (commit.as_str(), tree))
    }
}

/// The git object id of a blob.
pub fn git_oid(bytes: &[u8]) -> String {
    hex::encode(Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_git_and_lfs() {
        assert_eq!(Blob::git(Vec::new()).oid, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        let lfs = Blob::lfs(b"hello\n".to_vec());
        assert_eq!(lfs.etag(), "\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"");
        assert_eq!(lfs.lfs.unwrap().pointer, 126);
    }

    #[test]
    fn each_commit_keeps_what_it_does_not_change() {
        let model =
            Model::new("acme/a").file("kept", "1").file("changed", "1").file("gone", "1").branch("v1");
        let repo = model.commit().file("changed", "2").without("gone").build();
        let [(old, _), (new, tree)] = ["v1", "main"].map(|name| repo.at(name).unwrap());
        assert_eq!([old, new], [&repo.commits[0], &repo.commits[1]]);
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["changed", "kept"]);
        assert_eq!(*tree["changed"].bytes, b"2");
    }
}
