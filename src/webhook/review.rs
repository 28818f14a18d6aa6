//! The API server's question and the answer to it. Whatever happens there is an answer: what cannot be
//! read, and a fault of ours, refuse what is guarded and let the rest pass.

use std::panic::AssertUnwindSafe;

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use json_patch::Patch;
use k8s_openapi::ByteString;
use kube::Resource;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What is decided about a request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Why it is refused.
    pub(super) denied: Option<String>,
    /// What the person is warned of.
    pub(super) warnings: Vec<String>,
    /// What is changed in the object.
    pub(super) patch: Patch,
}

impl Answer {
    /// Refuses with these words.
    pub(super) fn deny(why: impl Into<String>) -> Self {
        Self { denied: Some(why.into()), ..Self::default() }
    }
}

/// What a response answers, beside its body: whether it denies; none where nothing could be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict(pub(super) Option<bool>);

/// What is answered where nothing could be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// The request is guarded: it is refused.
    Deny,
    /// The request may pass as it is.
    Allow,
}

/// Reads the question, has it decided, and writes the answer.
pub(super) async fn answer<K, F>(
    body: Bytes,
    otherwise: Otherwise,
    decide: impl FnOnce(AdmissionRequest<K>) -> F,
) -> Response
where
    K: Resource + DeserializeOwned,
    F: Future<Output = Answer>,
{
    let review = serde_json::from_slice::<AdmissionReview<K>>(&body);
    let request = match review.map(|review| (review.types, review.request)) {
        Ok((types, Some(request))) => AdmissionRequest { types, ..request },
        Ok((_, None)) => return unreadable(&body, otherwise, "it holds no request"),
        Err(error) => return unreadable(&body, otherwise, &error.to_string()),
    };
    let response = AdmissionResponse::from(&request);
    let (kind, namespace, name) =
        (request.kind.kind.clone(), request.namespace.clone(), request.name.clone());
    let decided = AssertUnwindSafe(decide(request)).catch_unwind().await;
    let verdict = Verdict(decided.as_ref().ok().map(|answer| answer.denied.is_some()));
    let decided = decided.unwrap_or_else(|_| {
        tracing::error!(kind, namespace, name, "a webhook failed: this is a fault in localmodel");
        failed(otherwise, "localmodel's webhook failed: this is a fault in it, its log says more")
    });
    let mut response = written(response, decided);
    response.extensions_mut().insert(verdict);
    response
}

fn written(mut response: AdmissionResponse, answer: Answer) -> Response {
    response.warnings = Some(answer.warnings).filter(|warnings| !warnings.is_empty());
    let is_denied = answer.denied.is_some();
    if let Some(why) = answer.denied {
        response = response.deny(why);
    }
    let mut review = json!(response.into_review());
    if !is_denied && !answer.patch.is_empty() {
        review["response"]["patchType"] = json!("JSONPatch");
        review["response"]["patch"] = json!(ByteString(json!(answer.patch).to_string().into_bytes()));
    }
    json_response(&review)
}

/// The answer to a question that cannot be read; it needs at least the question's id.
fn unreadable(body: &[u8], otherwise: Otherwise, problem: &str) -> Response {
    #[derive(Deserialize)]
    struct Review {
        #[serde(default, rename = "apiVersion")]
        api_version: Value,
        request: Request,
    }
    #[derive(Deserialize)]
    struct Request {
        uid: String,
    }
    tracing::warn!(problem, "an admission request cannot be read");
    let Ok(review) = serde_json::from_slice::<Review>(body) else {
        return (StatusCode::BAD_REQUEST, format!("no admission review: {problem}\n")).into_response();
    };
    let answer = failed(otherwise, &format!("localmodel's webhook cannot read the object: {problem}"));
    json_response(&json!({
        "apiVersion": review.api_version,
        "kind": "AdmissionReview",
        "response": {
            "uid": review.request.uid,
            "allowed": answer.denied.is_none(),
            "status": {"message": answer.denied},
        },
    }))
}

fn failed(otherwise: Otherwise, why: &str) -> Answer {
    match otherwise {
        Otherwise::Deny => Answer::deny(why),
        Otherwise::Allow => Answer::default(),
    }
}

fn json_response(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
