//! What a store means when it does not give what was asked for.

use std::time::SystemTime;

use reqwest::header::{HeaderMap, LOCATION};
use serde_json::Value;

use super::xml::texts;
use crate::download::error::{Error, Fault};
use crate::download::retry::{passing_status, wait_in};
use crate::download::source::http::{Answer, plain};
use crate::download::source::text_without_secrets;

/// The most bytes of a refusal that are read.
const MOST: usize = 64 << 10;
/// The most characters of a store's message that are repeated.
const LONGEST: usize = 300;

/// Codes by which stores say that the bucket itself is not there.
const NO_BUCKET: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];
/// Codes that are about credentials, whatever the status that they come with.
const CREDENTIALS: [&str; 17] = [
    "AccessDenied",
    "AccountIsDisabled",
    "AccountProblem",
    "AuthenticationFailed",
    "AuthorizationHeaderMalformed",
    "AuthorizationQueryParametersError",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidAuthenticationInfo",
    "InvalidClientTokenId",
    "InvalidIdentityToken",
    "InvalidSecurity",
    "InvalidToken",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
];
/// Codes of faults that pass, whatever the status that they come with.
const PASSING: [&str; 8] = [
    "InternalError",
    "OperationTimedOut",
    "RequestTimeout",
    "ServerBusy",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
];

/// A store's refusal.
#[derive(Debug, Default)]
pub struct Refusal {
    /// Where it comes from.
    pub what: String,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The store's code, if it gives one.
    pub code: String,
    /// Its message.
    pub message: String,
    /// The region that it names.
    pub region: Option<String>,
    /// The endpoint that it names.
    pub endpoint: Option<String>,
}

impl Refusal {
    /// Reads an answer.
    pub async fn read(mut answer: Answer) -> Self {
        // A body that cannot be read says nothing; the status does.
        let body = answer.bytes(MOST).await.unwrap_or_default();
        Self::new(plain(&answer.url), answer.status(), answer.response.headers().clone(), &body)
    }

    /// What these say.
    pub fn new(what: String, status: u16, headers: HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let [code, message, region, endpoint] = texts(body, ["Code", "Message", "Region", "Endpoint"]);
        let (of_json, in_json) = json(body);
        Self {
            code: header("x-ms-error-code").or(code).or(of_json).unwrap_or_default(),
            message: message.or(in_json).unwrap_or_default(),
            region: header("x-amz-bucket-region").or(region).filter(|region| !region.is_empty()),
            endpoint,
            what,
            status,
            headers,
        }
    }

    /// The error, where `place` is what was asked for and `bucket` is where that is.
    pub fn meaning(self, place: &str, bucket: &str, signed: bool) -> Error {
        let what = self.what.clone();
        let code = self.code.as_str();
        if PASSING.contains(&code) || passing_status(self.status, &self.headers).is_some() {
            return Error::Passing { what, fault: self.fault() };
        }
        let missing = |place: &str| Error::NoObjects { place: place.to_owned() };
        match self.status {
            _ if NO_BUCKET.contains(&code) => missing(bucket),
            401 | 403 => self.refused(place, signed),
            400 if CREDENTIALS.contains(&code) => self.refused(place, signed),
            404 | 410 => missing(place),
            412 | 416 => Error::Changed { place: place.to_owned() },
            301 | 302 | 303 | 307 | 308 => self.redirected(),
            status => {
                Error::Refused { what, status, message: Some(self.said()).filter(|said| !said.is_empty()) }
            }
        }
    }

    fn fault(&self) -> Fault {
        let wait = wait_in(&self.headers, SystemTime::now());
        match self.status {
            429 => Fault::RateLimited { wait },
            status => Fault::Status { status, wait },
        }
    }

    fn refused(&self, place: &str, signed: bool) -> Error {
        let without = if signed { "" } else { ", asked without credentials" };
        let said = Some(self.said()).filter(|said| !said.is_empty());
        let why = said.unwrap_or_else(|| self.status.to_string());
        Error::StoreRefused { place: place.to_owned(), why: format!("{why}{without}") }
    }

    fn redirected(self) -> Error {
        let location = self.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let to = match (self.endpoint.as_deref(), &self.region, location) {
            (_, Some(region), _) => format!("region {region:?}: name that in AWS_DEFAULT_REGION"),
            (Some(endpoint), ..) => format!("{endpoint}: name that endpoint"),
            (.., Some(location)) => {
                format!("{}: name that endpoint, if it is the store", text_without_secrets(location))
            }
            _ => "nowhere".to_owned(),
        };
        let said = self.said();
        let said = if said.is_empty() { said } else { format!("{said} ") };
        let message = Some(format!("{said}(it redirects to {to})"));
        Error::Refused { what: self.what, status: self.status, message }
    }

    /// Code and message in one line.
    pub fn said(&self) -> String {
        let Self { code, message, .. } = self;
        let text = match (code.is_empty(), message.is_empty()) {
            (false, false) => format!("{code}: {message}"),
            _ => format!("{code}{message}"),
        };
        let text = text_without_secrets(&text.split_whitespace().collect::<Vec<_>>().join(" "));
        text.chars().filter(|character| !character.is_control()).take(LONGEST).collect()
    }
}

/// Code and message of Google's JSON, and of the services that give tokens.
fn json(body: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(json) = serde_json::from_slice::<Value>(body) else { return (None, None) };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match &json["error"] {
        Value::Object(error) => {
            let reason = text(&json["error"]["errors"][0]["reason"]);
            let status = error.get("status").and_then(text);
            (reason.or(status), error.get("message").and_then(text))
        }
        Value::String(error) => (Some(error.clone()), text(&json["error_description"])),
        _ => (None, text(&json["message"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::error::Reason;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::new("https://store/b".into(), status, HeaderMap::new(), body.as_bytes())
    }

    fn meaning(status: u16, body: &str) -> Error {
        refusal(status, body).meaning("s3://b/m", "s3://b", true)
    }

    fn xml(code: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>In words.</Message><Token-0>hunter2</Token-0>\
             </Error>"
        )
    }

    #[test]
    fn a_refusal_is_told_by_its_code_and_then_by_its_status() {
        let (denied, missing, other) = (Reason::AccessDenied, Reason::NotFound, Reason::SourceRefused);
        for (status, code, reason) in [
            (400, "ExpiredToken", denied),
            (400, "InvalidToken", denied),
            (400, "TokenRefreshRequired", denied),
            (400, "RequestExpired", denied),
            (400, "AuthorizationHeaderMalformed", denied),
            (400, "InvalidAuthenticationInfo", denied),
            (400, "InvalidArgument", other),
            (400, "IllegalLocationConstraintException", other),
            (401, "NoAuthenticationInformation", denied),
            (403, "InvalidAccessKeyId", denied),
            (403, "SignatureDoesNotMatch", denied),
            (403, "RequestTimeTooSkewed", denied),
            (403, "AuthenticationFailed", denied),
            (403, "AccountIsDisabled", denied),
            (404, "NoSuchBucket", missing),
            (404, "ContainerNotFound", missing),
            (404, "NoSuchKey", missing),
            (412, "PreconditionFailed", Reason::SourceChanged),
            (416, "InvalidRange", Reason::SourceChanged),
            (409, "BlobArchived", other),
            (400, "RequestTimeout", Reason::SourceUnavailable),
            (503, "SlowDown", Reason::SourceUnavailable),
            (500, "InternalError", Reason::SourceUnavailable),
            (501, "NotImplemented", other),
        ] {
            let error = meaning(status, &xml(code));
            assert_eq!(error.reason(), reason, "{status} {code}: {error}");
            let text = error.to_string();
            assert!(!text.contains("hunter2") && !text.contains('<'), "{text}");
            if reason == denied || reason == other {
                assert!(text.contains(&format!("{code}: In words.")), "{text}");
            }
        }
    }

    #[test]
    fn a_bucket_that_is_not_there_is_told_from_a_prefix() {
        assert!(meaning(404, &xml("NoSuchBucket")).to_string().starts_with("s3://b does not exist"));
        assert!(meaning(404, "").to_string().starts_with("s3://b/m does not exist"));
    }

    #[test]
    fn other_forms_of_refusals_are_understood_too() {
        let google = r#"{"error": {"code": 401, "message": "Anonymous caller does not have access.",
                         "errors": [{"reason": "required"}]}}"#;
        let text = refusal(401, google).meaning("gs://b/m", "gs://b", false).to_string();
        assert!(
            text.contains("required: Anonymous caller") && text.contains("without credentials"),
            "{text}"
        );
        let token = r#"{"error": "invalid_grant", "error_description": "Token has expired"}"#;
        assert_eq!(refusal(400, token).said(), "invalid_grant: Token has expired");
        let headers = HeaderMap::from_iter([(
            "x-ms-error-code".parse().unwrap(),
            "AuthorizationFailure".parse().unwrap(),
        )]);
        let azure = Refusal::new(String::new(), 403, headers, b"");
        assert_eq!(azure.said(), "AuthorizationFailure");
        assert!(meaning(403, "<html>Forbidden").to_string().contains("(403)"));
    }

    #[test]
    fn where_a_redirect_leads_is_told() {
        let headers = HeaderMap::from_iter([(
            LOCATION,
            "https://console.example/login?token=hunter2".parse().unwrap(),
        )]);
        let text = Refusal::new("http://store/b".into(), 302, headers, b"").meaning("", "", true).to_string();
        assert!(
            text.contains("302")
                && text.contains("https://console.example/login")
                && !text.contains("hunter2")
        );
        let moved =
            "<Error><Code>PermanentRedirect</Code><Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint></Error>";
        assert!(meaning(301, moved).to_string().contains("redirects to b.s3.eu-west-1.amazonaws.com"));
    }
}
