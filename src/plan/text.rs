//! Texts that stand in a status: whoever wrote them first, none is longer than its place.

use crate::api::node::Damage;

/// The longest word that says why, in bytes.
pub const REASON_MAX: usize = 64;
/// The longest message about one copy, one disk or one damage, in bytes.
pub const MESSAGE_MAX: usize = 256;
/// The longest message of a condition, in bytes; an Event takes no longer one.
pub const CONDITION_MAX: usize = 1024;

/// A text of at most so many bytes, on one line. One that is cut ends in three dots.
pub fn cut(text: &str, max: usize) -> String {
    const DOTS: &str = "…";
    // Escaped in JSON, each of them takes six bytes.
    let text = text.replace(char::is_control, " ");
    if text.len() <= max {
        return text;
    }
    format!("{}{DOTS}", text[..text.floor_char_boundary(max.saturating_sub(DOTS.len()))].trim_end())
}

/// The same of a text that may be missing.
pub fn cut_some(text: Option<String>, max: usize) -> Option<String> {
    text.map(|text| cut(&text, max))
}

impl Damage {
    /// The same in as many bytes as it may have.
    #[must_use]
    pub fn cut(self) -> Self {
        Self { reason: cut(&self.reason, REASON_MAX), message: cut(&self.message, MESSAGE_MAX), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_to_its_bytes_and_to_its_characters() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "lo…");
        assert_eq!(cut("äöü", 5), "ä…");
        assert_eq!(cut("two\nlines\u{0}", 20), "two lines ");
        assert_eq!(cut("a b", 4), "a b");
        assert_eq!(cut(&"x".repeat(2_000_000), MESSAGE_MAX).len(), MESSAGE_MAX);
        assert_eq!(cut_some(None, 1), None);
    }
}
