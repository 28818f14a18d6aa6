//! The CDN: large files by signed URL, and no credentials.

use std::time::{SystemTime, UNIX_EPOCH};

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use crate::answer::Answer;
use crate::api::encode;
use crate::model::{Blob, Lfs};
use crate::state::{Call, State};

/// Only the mock can sign: a client can neither guess a URL nor prolong one.
const SIGNING_KEY: &str = "localmodel-hub";

/// Seconds that a signed URL lives, as on the real CDN.
const LIFETIME: u64 = 3600;

/// The signed path of a file. Repository and name are in it so that a test can tell requests apart; the name
/// is one segment, whatever it holds.
pub fn sign(repo: &str, path: &str, lfs: &Lfs, expired: bool) -> String {
    let end = if expired { now() - 1 } else { now() + LIFETIME };
    let name = encode(path.rsplit('/').next().unwrap_or(path)).replace('/', "%2F");
    let path = format!("/lfs/{repo}/{}/{}", lfs.sha256, encode(path).replace('/', "%2F"));
    let signature = signature(&path, &end.to_string());
    format!(
        "{path}?response-content-disposition=inline%3B+filename%3D%22{name}%22%3B&Expires={end}\
         &Signature={signature}&Key-Pair-Id=MOCK"
    )
}

fn signature(path: &str, expires: &str) -> String {
    hex::encode(Sha256::digest(format!("{SIGNING_KEY}\n{path}\n{expires}")))
}

/// Answers a request to the CDN.
pub fn answer(state: &State, call: &Call) -> Answer {
    if call.header("authorization").is_some() {
        return Answer::store_error(400, "InvalidArgument", "Only one auth mechanism allowed");
    }
    let path = call.raw.url.path();
    let expires = call.parameter("Expires").unwrap_or_default();
    if call.parameter("Signature") != Some(signature(path, &expires)) {
        return Answer::store_error(403, "AccessDenied", "Access denied");
    }
    if call.expired || now() >= expires.parse().unwrap_or(0) {
        return Answer::store_error(403, "AccessDenied", "Request has expired");
    }
    match find(state, path) {
        Some(blob) => Answer::content(&blob.bytes, call.range)
            .with("ETag", blob.etag())
            .with("Content-Type", "binary/octet-stream"),
        None => Answer::store_error(404, "NoSuchKey", "The specified key does not exist"),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn find(state: &State, path: &str) -> Option<Blob> {
    let path = path.strip_prefix("/lfs/")?;
    let mut segments = path.rsplitn(3, '/');
    let file = percent_decode_str(segments.next()?).decode_utf8_lossy();
    let sha256 = segments.next()?;
    let repo = segments.next()?;
    state.repo(repo, |repo| {
        let mut versions = repo.trees.values().filter_map(|tree| tree.get(file.as_ref()));
        versions.find(|blob| blob.lfs.as_ref().is_some_and(|lfs| lfs.sha256 == sha256)).cloned()
    })?
}
