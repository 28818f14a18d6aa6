//! Log lines as `key=value` pairs (logfmt): collectors split them without a rule of their own.

use std::fmt::{self, Debug, Write};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The format of lines that no person reads on a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut pairs = Pairs::default();
        event.record(&mut pairs);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        write!(writer, "time={:.6} level={level} msg={}", Timestamp::now(), value(&pairs.message))?;
        writeln!(writer, "{}", pairs.others)
    }
}

/// The fields of a line.
#[derive(Default)]
struct Pairs {
    message: String,
    others: String,
}

impl Pairs {
    fn add(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            text.clone_into(&mut self.message);
        } else {
            // Writing into a string cannot fail.
            let _ = write!(self.others, " {}={}", field.name(), value(text));
        }
    }
}

impl Visit for Pairs {
    fn record_str(&mut self, field: &Field, text: &str) {
        self.add(field, text);
    }

    fn record_debug(&mut self, field: &Field, text: &dyn Debug) {
        let mut shown = String::new();
        // Writing into a string cannot fail; a value that does not want to be shown is left empty.
        let _ = write!(shown, "{text:?}");
        self.add(field, &shown);
    }
}

/// A value, in quotes where it could be taken for more than one.
fn value(text: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = tracing_subscriber::fmt().event_format(Logfmt).with_writer(move || writer.clone());
        tracing::subscriber::with_default(format.finish(), log);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.starts_with("time=2") && time.ends_with('Z'), "{text}");
        rest.to_owned()
    }

    #[test]
    fn a_line_is_pairs_whose_values_are_quoted_where_they_hold_blanks() {
        let error = io::Error::other("cannot open \"a b\"");
        let none: Option<&str> = None;
        let text = logged(|| {
            tracing::warn!(kind = "Node", name = "n-1", count = 3, %error, reason = none, empty = "", "reconcile failed");
        });
        let expected = r#"level=warn msg="reconcile failed" kind=Node name=n-1 count=3 error="cannot open \"a b\"" empty="""#;
        assert_eq!(text, format!("{expected}\n"));
    }

    #[test]
    fn no_value_can_begin_a_line_or_a_pair_of_its_own() {
        let forged = "x\ntime=now level=error msg=forged";
        let text = logged(|| tracing::info!(forged, "done"));
        assert_eq!(text, "level=info msg=done forged=\"x\\ntime=now level=error msg=forged\"\n");
    }
}
