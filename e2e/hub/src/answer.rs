//! An answer before it becomes bytes: the hub's error headers, and files with their ranges.

use std::time::Duration;

use wiremock::ResponseTemplate;

/// An HTTP answer as a value, so that a fault can still change it.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub delay: Duration,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// A JSON document.
    pub fn json(value: &serde_json::Value) -> Self {
        Self { body: value.to_string().into_bytes(), ..Self::new(200) }
            .with("Content-Type", "application/json; charset=utf-8")
    }

    /// A failure of the hub. The code is what clients decide by; some of its answers have none.
    pub fn error(status: u16, code: Option<&str>, message: &str) -> Self {
        let mut answer = Self::json(&serde_json::json!({ "error": message }));
        answer.status = status;
        if let Some(code) = code {
            answer = answer.with("X-Error-Code", code);
        }
        answer.with("X-Error-Message", message)
    }

    /// A failure of the CDN, in the XML of an object store.
    pub fn store_error(status: u16, code: &str, message: &str) -> Self {
        let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        Self { body: body.into_bytes(), ..Self::new(status) }.with("Content-Type", "application/xml")
    }

    /// A redirect. It has a short body of its own, whose length says nothing about the file.
    pub fn redirect(status: u16, location: String) -> Self {
        let body = format!("Redirecting to {location}").into_bytes();
        Self { body, ..Self::new(status) }
            .with("Content-Type", "text/plain; charset=utf-8")
            .with("Location", location)
    }

    /// A file, or the part of it that `range` (a `Range` header) asks for.
    pub fn content(file: &[u8], range: Option<&str>) -> Self {
        let length = file.len();
        let answer = match range.map(|range| parse_range(range, length)) {
            None | Some(Range::Ignored) => Self { body: file.to_vec(), ..Self::new(200) },
            Some(Range::Part(from, to)) => Self { body: file[from..=to].to_vec(), ..Self::new(206) }
                .with("Content-Range", format!("bytes {from}-{to}/{length}")),
            Some(Range::Unsatisfiable) => {
                Self::store_error(416, "InvalidRange", "The requested range is not satisfiable")
                    .with("Content-Range", format!("bytes */{length}"))
            }
        };
        answer.with("Accept-Ranges", "bytes")
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str())
    }

    /// What wiremock sends. To a HEAD it sends the same without the body.
    pub fn into_template(self) -> ResponseTemplate {
        let template = ResponseTemplate::new(self.status).set_body_bytes(self.body).set_delay(self.delay);
        self.headers.into_iter().fold(template, |template, (name, value)| template.append_header(name, value))
    }
}

/// What a `Range` header means for a file.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// First and last byte.
    Part(usize, usize),
    /// Nothing of the file lies in it.
    Unsatisfiable,
    /// Not a single range of bytes: servers send the whole file.
    Ignored,
}

fn parse_range(range: &str, length: usize) -> Range {
    let Some((first, last)) = range.trim().strip_prefix("bytes=").and_then(|spec| spec.split_once('-'))
    else {
        return Range::Ignored;
    };
    let end = length.saturating_sub(1);
    let (from, to) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(from), Ok(to)) if from <= to => (from, to.min(end)),
        (Ok(from), Err(_)) if last.is_empty() => (from, end),
        (Err(_), Ok(0)) if first.is_empty() => return Range::Unsatisfiable,
        (Err(_), Ok(tail)) if first.is_empty() => (length.saturating_sub(tail), end),
        _ => return Range::Ignored,
    };
    if from < length { Range::Part(from, to) } else { Range::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_the_standard_says() {
        for (header, meaning) in [
            ("bytes=0-3", Range::Part(0, 3)),
            ("bytes=4-", Range::Part(4, 9)),
            ("bytes=8-99", Range::Part(8, 9)),
            ("bytes=-3", Range::Part(7, 9)),
            ("bytes=-99", Range::Part(0, 9)),
            ("bytes=10-", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=3-1", Range::Ignored),
            ("bytes=0-1,4-5", Range::Ignored),
            ("lines=0-1", Range::Ignored),
        ] {
            assert_eq!(parse_range(header, 10), meaning, "{header}");
        }
        assert_eq!(parse_range("bytes=0-0", 0), Range::Unsatisfiable);
    }
}
