//! The hub: revisions, trees, and the redirects that lead to a file.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use crate::answer::Answer;
use crate::cdn;
use crate::model::{Access, Blob, Repo, Tree};
use crate::state::{Call, State};
use crate::{STRANGER_TOKEN, TOKEN};

/// What a path may hold unencoded; the slash parts it.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Percent-encodes a path within a repository.
pub fn encode(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// The endpoint as this client knows it.
pub fn endpoint(call: &Call) -> String {
    format!("http://{}", call.header("host").unwrap_or("localhost"))
}

/// Answers a request to the hub.
pub fn answer(state: &State, call: &Call) -> Answer {
    let path = call.raw.url.path();
    let segments: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let answer = match segments.as_slice() {
        ["api", "resolve-cache", "models", rest @ ..] => match split_repo(rest, &[]) {
            (repo, [commit, path @ ..]) => cached(state, call, &repo, commit, &path.join("/")),
            _ => Err(no_such_page()),
        },
        ["api", "models", rest @ ..] => match split_repo(rest, &["revision", "tree"]) {
            (repo, []) => revision(state, call, &repo, "main"),
            (repo, ["revision", revision]) => self::revision(state, call, &repo, revision),
            (repo, ["tree", revision, path @ ..]) => tree(state, call, &repo, revision, &path.join("/")),
            _ => Err(no_such_page()),
        },
        rest => match split_repo(rest, &["resolve"]) {
            (repo, ["resolve", revision, path @ ..]) => {
                resolve(state, call, &repo, revision, &path.join("/"))
            }
            _ => Err(no_such_page()),
        },
    };
    answer.unwrap_or_else(|error| error)
}

/// Parts `owner/name/…`, or `name/…` of the few repositories without an owner, which is where the next
/// segment is one of `verbs`.
fn split_repo<'a, 'b>(segments: &'b [&'a str], verbs: &[&str]) -> (String, &'b [&'a str]) {
    let length = if segments.get(1).is_none_or(|segment| verbs.contains(segment)) { 1 } else { 2 };
    let (repo, rest) = segments.split_at(length.min(segments.len()));
    (repo.join("/"), rest)
}

fn no_such_page() -> Answer {
    Answer::error(404, None, "Sorry, we can't find the page you are looking for.")
}

/// Request 1: the commit of a revision.
fn revision(state: &State, call: &Call, name: &str, revision: &str) -> Result<Answer, Answer> {
    visit(state, call, name, revision, Want::Metadata, |repo, commit, tree| {
        let siblings: Vec<Value> = tree.keys().map(|path| json!({ "rfilename": path })).collect();
        Ok(Answer::json(&json!({
            "_id": &hex::encode(Sha1::digest(name))[..24],
            "id": name,
            "modelId": name,
            "author": name.split_once('/').map(|(owner, _)| owner),
            "sha": commit,
            "private": repo.access == Access::Private,
            "gated": if repo.access == Access::Gated { json!("manual") } else { json!(false) },
            "disabled": false,
            "tags": ["safetensors"],
            "siblings": siblings,
        })))
    })
}

/// Request 2: the files of a revision, in pages.
fn tree(state: &State, call: &Call, name: &str, revision: &str, folder: &str) -> Result<Answer, Answer> {
    let recursive = call.parameter("recursive").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let limit = call.parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let limit = limit.clamp(1, state.page_size());
    let after = call.parameter("cursor");
    visit(state, call, name, revision, Want::Metadata, |_, _, tree| {
        let entries = entries(tree, folder, recursive);
        if entries.is_empty() && !folder.is_empty() {
            return Err(entry_not_found(folder));
        }
        let rest = entries.iter().filter(|(path, _)| after.as_ref().is_none_or(|after| *path > after));
        let page: Vec<_> = rest.clone().take(limit).collect();
        let answer = Answer::json(&page.iter().map(|(_, entry)| (*entry).clone()).collect());
        Ok(match (page.last(), rest.count() > limit) {
            (Some((last, _)), true) => answer.with("Link", next_link(call, recursive, limit, last)),
            _ => answer,
        })
    })
}

fn next_link(call: &Call, recursive: bool, limit: usize, last: &str) -> String {
    let cursor = utf8_percent_encode(last, NON_ALPHANUMERIC);
    let (endpoint, path) = (endpoint(call), call.raw.url.path());
    format!("<{endpoint}{path}?recursive={recursive}&limit={limit}&cursor={cursor}>; rel=\"next\"")
}

/// The entries of a tree below a folder (empty: the root), by path: files, and the folders they lie in.
fn entries(tree: &Tree, folder: &str, recursive: bool) -> BTreeMap<String, Value> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let inside = |path: &str| {
        path.strip_prefix(&prefix).is_some_and(|rest| !rest.is_empty() && (recursive || !rest.contains('/')))
    };
    let folders: BTreeSet<&str> = tree
        .keys()
        .flat_map(|path| path.match_indices('/').map(|(end, _)| &path[..end]))
        .filter(|folder| !folder.is_empty())
        .collect();
    let folders = folders.into_iter().map(|path| {
        (
            path,
            json!({ "type": "directory", "oid": hex::encode(Sha1::digest(path)), "size": 0, "path": path }),
        )
    });
    let files = tree.iter().map(|(path, blob)| (path.as_str(), file_entry(path, blob)));
    folders
        .chain(files)
        .filter(|(path, _)| inside(path))
        .map(|(path, entry)| (path.to_owned(), entry))
        .collect()
}

fn file_entry(path: &str, blob: &Blob) -> Value {
    let size = blob.bytes.len();
    let mut entry = json!({ "type": "file", "oid": blob.oid, "size": size, "path": path });
    if let Some(lfs) = &blob.lfs {
        entry["lfs"] = json!({ "oid": lfs.sha256, "size": size, "pointerSize": lfs.pointer });
    }
    entry
}

/// Requests 3 and 4: where a file is. The redirect to the CDN is absolute, that to the hub's own cache
/// relative.
fn resolve(state: &State, call: &Call, name: &str, revision: &str, path: &str) -> Result<Answer, Answer> {
    visit(state, call, name, revision, Want::Content, |_, commit, tree| {
        let blob = tree.get(path).ok_or_else(|| entry_not_found(path).with("X-Repo-Commit", commit))?;
        let answer = if let Some(lfs) = &blob.lfs {
            let signed = cdn::sign(name, path, lfs, call.expired);
            Answer::redirect(302, format!("{}{signed}", state.public_cdn))
        } else {
            let asked = utf8_percent_encode(call.raw.url.path(), NON_ALPHANUMERIC);
            let query = format!("{asked}=&etag=%22{}%22", blob.oid);
            Answer::redirect(
                307,
                format!("/api/resolve-cache/models/{name}/{commit}/{}?{query}", encode(path)),
            )
        };
        Ok(answer
            .with("Accept-Ranges", "bytes")
            .with("X-Repo-Commit", commit)
            .with("X-Linked-Size", blob.bytes.len().to_string())
            .with("X-Linked-Etag", blob.etag()))
    })
}

/// Request 4, second half: a small file itself.
fn cached(state: &State, call: &Call, name: &str, commit: &str, path: &str) -> Result<Answer, Answer> {
    visit(state, call, name, commit, Want::Content, |_, commit, tree| {
        let blob = tree.get(path).filter(|blob| blob.lfs.is_none()).ok_or_else(|| entry_not_found(path))?;
        Ok(Answer::content(&blob.bytes, call.range)
            .with("Content-Type", "text/plain; charset=utf-8")
            .with("ETag", blob.etag())
            .with("X-Repo-Commit", commit))
    })
}

fn entry_not_found(path: &str) -> Answer {
    Answer::error(404, Some("EntryNotFound"), &format!("Entry not found: {}", encode(path)))
}

/// What a request is after: a gated repository shows its metadata to everybody.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Metadata,
    Content,
}

/// Who asks, by the token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anonymous,
    Member,
    Stranger,
}

/// Lets the caller look at a revision, or says why not. The hub does not tell a private repository from a
/// missing one to whoever may not read it.
fn visit(
    state: &State,
    call: &Call,
    name: &str,
    revision: &str,
    want: Want,
    look: impl FnOnce(&Repo, &str, &Tree) -> Result<Answer, Answer>,
) -> Result<Answer, Answer> {
    let caller = caller(call)?;
    let visited = state.repo(name, |repo| {
        match repo.access {
            Access::Private if caller != Caller::Member => return Err(repo_not_found(caller)),
            Access::Gated if caller != Caller::Member && want == Want::Content => {
                return Err(gated(name, caller));
            }
            _ => {}
        }
        let (commit, tree) = repo.at(revision).ok_or_else(|| {
            Answer::error(404, Some("RevisionNotFound"), &format!("Invalid rev id: {}", encode(revision)))
        })?;
        look(repo, commit, tree)
    });
    visited.unwrap_or_else(|| Err(repo_not_found(caller)))
}

fn caller(call: &Call) -> Result<Caller, Answer> {
    match call.header("authorization").map(|value| value.strip_prefix("Bearer ")) {
        None => Ok(Caller::Anonymous),
        Some(Some(TOKEN)) => Ok(Caller::Member),
        Some(Some(STRANGER_TOKEN)) => Ok(Caller::Stranger),
        Some(_) => Err(Answer::error(401, None, "Invalid credentials in Authorization header")),
    }
}

fn repo_not_found(caller: Caller) -> Answer {
    match caller {
        Caller::Anonymous => Answer::error(401, Some("RepoNotFound"), "Invalid username or password.")
            .with("WWW-Authenticate", "Bearer realm=\"Authentication required\", charset=\"UTF-8\""),
        _ => Answer::error(404, Some("RepoNotFound"), "Repository not found"),
    }
}

fn gated(name: &str, caller: Caller) -> Answer {
    let (status, why) = match caller {
        Caller::Anonymous => {
            (401, "You must have access to it and be authenticated to access it. Please log in.".to_owned())
        }
        _ => (403, format!("You are not in the authorized list. Visit /{name} to ask for access.")),
    };
    Answer::error(status, Some("GatedRepo"), &format!("Access to model {name} is restricted. {why}"))
}
