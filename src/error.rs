//! What can go wrong while the operator or an agent talks to the API server and the disk.

/// An error of a reconcile or a pass: something to retry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a call, or could not be reached.
    #[error("{doing}: {}", for_people(source))]
    Api {
        /// What was tried, with the object's name.
        doing: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
    /// A manifest could not be put together.
    #[error("manifest of {0}: {1}")]
    Manifest(String, serde_json::Error),
    /// The disk refused a call.
    #[error("{doing}: {source}")]
    Disk {
        /// What was tried, with the path.
        doing: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Something else than an API object is missing at the start.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// The kinds of error, as they stand in metrics: few, and never with a name in them.
    pub const LABELS: &[&str] = &[
        "forbidden",
        "not_found",
        "conflict",
        "invalid",
        "throttled",
        "server_error",
        "refused",
        "unreachable",
        "manifest",
        "disk",
        "setup",
    ];

    /// The kind of this error, one of [`Self::LABELS`].
    pub fn label(&self) -> &'static str {
        match self {
            Self::Api { .. } => match self.code() {
                Some(401 | 403) => "forbidden",
                Some(404 | 410) => "not_found",
                Some(409) => "conflict",
                Some(400 | 422) => "invalid",
                Some(429) => "throttled",
                Some(500..) => "server_error",
                Some(_) => "refused",
                None => "unreachable",
            },
            Self::Manifest(..) => "manifest",
            Self::Disk { .. } => "disk",
            Self::Setup(_) => "setup",
        }
    }

    /// Whether the API server says that another write came between; the next look will know.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(s) if s.code == 409))
    }

    /// Whether the API server will not do it, as it stands, however often it is asked.
    pub fn is_refusal(&self) -> bool {
        self.code().is_some_and(|code| (400..500).contains(&code) && ![401, 408, 409, 429].contains(&code))
    }

    /// The status code with which the API server refused.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The API server's own sentence where there is one, else the innermost cause: the others only say that there is one.
pub fn for_people(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        let words = if status.message.is_empty() { &status.reason } else { &status.message };
        return words.trim().to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Says what was being done when a call of the API failed.
pub trait Doing<T> {
    /// Adds the words; they are made only when needed.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api { doing: what(), source: Box::new(source) })
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Disk { doing: what(), source })
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_error_is_told_in_the_servers_own_words_and_never_as_a_value() {
        let status = |message: &str, reason: &str| {
            let (message, reason) = (message.to_owned(), reason.to_owned());
            kube::Error::Api(Box::new(Status { code: 404, message, reason, ..Status::default() }))
        };
        assert_eq!(
            for_people(&status("404 page not found\n", "Failed to parse error data")),
            "404 page not found"
        );
        assert_eq!(for_people(&status("", "NotFound")), "NotFound");
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        assert_eq!(for_people(&kube::Error::Service(io.into())), "connection refused");
    }

    #[test]
    fn each_error_has_a_listed_label() {
        let refused = |code| {
            let status = Status { code, ..Status::default() };
            Err::<(), _>(kube::Error::Api(Box::new(status))).doing(String::new).unwrap_err()
        };
        let of_codes = [403, 404, 409, 422, 429, 503, 418].map(|code| refused(code).label());
        let expected =
            ["forbidden", "not_found", "conflict", "invalid", "throttled", "server_error", "refused"];
        assert_eq!(of_codes, expected);
        let disk = Err::<(), _>(std::io::Error::other("broken")).doing(String::new).unwrap_err();
        let others = [Error::Setup(String::new()).label(), disk.label()];
        assert_eq!(others, ["setup", "disk"]);
        for label in of_codes.iter().chain(&others) {
            assert!(Error::LABELS.contains(label), "{label}");
        }
    }
}
