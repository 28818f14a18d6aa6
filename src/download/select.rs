//! Which files of a repository are wanted: the patterns of `STORAGE_ALLOW_PATTERNS` and
//! `STORAGE_IGNORE_PATTERNS` (F2), with the semantics of Python's `fnmatch` as `huggingface_hub`
//! applies it: `*` also matches `/`, `dir/` means all below, case matters.

use regex::RegexSet;

use super::error::{Error, Result};

/// A choice among file names; the default chooses all.
#[derive(Clone, Debug)]
pub struct Selection {
    allow_patterns: Vec<String>,
    ignore_patterns: Vec<String>,
    allow: RegexSet,
    ignore: RegexSet,
}

impl Selection {
    /// A choice of the names that match one of `allow` (or all, if it is empty) and none of `ignore`.
    pub fn new(allow: Vec<String>, ignore: Vec<String>) -> Result<Self> {
        Ok(Self {
            allow: compiled("STORAGE_ALLOW_PATTERNS", &allow)?,
            ignore: compiled("STORAGE_IGNORE_PATTERNS", &ignore)?,
            allow_patterns: allow,
            ignore_patterns: ignore,
        })
    }

    /// The allow patterns, as given.
    pub fn allow_patterns(&self) -> &[String] {
        &self.allow_patterns
    }

    /// The ignore patterns, as given.
    pub fn ignore_patterns(&self) -> &[String] {
        &self.ignore_patterns
    }

    /// Whether the file of this name is wanted.
    pub fn wants(&self, path: &str) -> bool {
        let path = path.replace('\\', "/");
        (self.allow.is_empty() || self.allow.is_match(&path)) && !self.ignore.is_match(&path)
    }
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            allow_patterns: Vec::new(),
            ignore_patterns: Vec::new(),
            allow: RegexSet::empty(),
            ignore: RegexSet::empty(),
        }
    }
}

/// The patterns in the value of an environment variable: a JSON array, or a list with commas.
pub fn parse_patterns(value: &str) -> Vec<String> {
    let items = match serde_json::from_str(value) {
        Ok(serde_json::Value::Array(items)) => items
            .into_iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect(),
        Ok(serde_json::Value::String(item)) => vec![item],
        _ => value.split(',').map(str::to_owned).collect::<Vec<_>>(),
    };
    items.iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

fn compiled(name: &'static str, patterns: &[String]) -> Result<RegexSet> {
    RegexSet::new(patterns.iter().map(|pattern| regex_of(pattern)))
        .map_err(|error| Error::InvalidSetting { name, why: error.to_string() })
}

/// The regular expression that matches what the `fnmatch` pattern does.
fn regex_of(pattern: &str) -> String {
    let mut pattern = pattern.replace('\\', "/");
    if pattern.ends_with('/') {
        pattern.push('*');
    }
    let chars: Vec<char> = pattern.chars().collect();
    let mut regex = String::from(r"(?s)\A");
    let mut at = 0;
    while at < chars.len() {
        let (piece, next) = match chars[at] {
            '*' => (".*".to_owned(), at + 1),
            '?' => (".".to_owned(), at + 1),
            '[' => class_of(&chars, at + 1).unwrap_or_else(|| (r"\[".to_owned(), at + 1)),
            other => (escaped(other), at + 1),
        };
        regex.push_str(&piece);
        at = next;
    }
    regex + r"\z"
}

/// The class whose text begins at `start`, and where the pattern goes on; `None` if no `]` ends it,
/// which makes the `[` an ordinary character.
fn class_of(chars: &[char], start: usize) -> Option<(String, usize)> {
    let negated = chars.get(start) == Some(&'!');
    let from = start + usize::from(negated);
    // A `]` that comes first stands for itself.
    let first = from + usize::from(chars.get(from) == Some(&']'));
    let end = first + chars.get(first..)?.iter().position(|c| *c == ']')?;
    let mut items = &chars[from..end];
    let mut class = String::new();
    while let Some((low, rest)) = items.split_first() {
        if let ['-', high, after @ ..] = rest {
            // A range that runs backwards matches nothing.
            if low <= high {
                class = class + &escaped(*low) + "-" + &escaped(*high);
            }
            items = after;
        } else {
            class += &escaped(*low);
            items = rest;
        }
    }
    let class = match (class.is_empty(), negated) {
        (false, false) => format!("[{class}]"),
        (false, true) => format!("[^{class}]"),
        (true, false) => r"[^\s\S]".to_owned(),
        (true, true) => ".".to_owned(),
    };
    Some((class, end + 1))
}

fn escaped(character: char) -> String {
    regex::escape(character.encode_utf8(&mut [0; 4]))
}

/// Whether one pattern alone matches: what the tests below compare with Python.
#[cfg(test)]
fn matches(pattern: &str, name: &str) -> bool {
    regex::Regex::new(&regex_of(pattern)).unwrap().is_match(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_pythons_fnmatch_matches() {
        // The last column was printed by Python's `fnmatch.fnmatchcase`.
        for (pattern, name, expected) in [
            ("*.json", "a/b.json", true),
            ("*.json", "a.jsonl", false),
            ("*", "a\nb", true),
            ("a?c", "a/c", true),
            ("a?c", "ac", false),
            ("[!a]*", "bc", true),
            ("[!a]*", "ab", false),
            ("[]a]", "]", true),
            ("[!]a]", "]", false),
            ("[!]a]", "b", true),
            ("[a-c]x", "bx", true),
            ("[c-a]x", "cx", false),
            ("[c-a-b]", "-", true),
            ("[!c-a]", "z", true),
            ("a[", "a[", true),
            ("a[b", "ab", false),
            ("[^a]", "^", true),
            ("[^a]", "b", false),
            ("[a-]", "-", true),
            ("[--0]", ".", true),
            ("[a-c-e]", "-", true),
            ("[a-c-e]", "d", false),
            ("[a&&b]", "&", true),
            ("[[]", "[", true),
            ("a.b", "axb", false),
            ("(a|b)+", "a", false),
            ("(a|b)+", "(a|b)+", true),
            ("**/x", "a/b/x", true),
            ("**/x", "x", false),
            ("A*", "abc", false),
            ("é?", "éà", true),
            ("[~~a]", "~", true),
            ("", "a", false),
            ("a{b,c}", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn ignore_wins_over_allow_and_a_slash_at_the_end_means_all_below() {
        let selection =
            Selection::new(vec!["*.safetensors".into(), "onnx/".into()], vec!["onnx/big*".into()]).unwrap();
        for (name, expected) in [
            ("model.safetensors", true),
            ("sub/model.safetensors", true),
            ("onnx/a/b.bin", true),
            ("onnx/big.safetensors", false),
            ("config.json", false),
        ] {
            assert_eq!(selection.wants(name), expected, "{name}");
        }
        assert!(Selection::default().wants("anything/at.all"));
    }

    #[test]
    fn patterns_are_read_as_a_json_array_or_a_list_with_commas() {
        for (value, expected) in [
            (r#"["*.json", " a,b "]"#, vec!["*.json", "a,b"]),
            ("*.json, *.txt,", vec!["*.json", "*.txt"]),
            (r#""*.json""#, vec!["*.json"]),
            ("[ab]*.bin", vec!["[ab]*.bin"]),
            ("", vec![]),
            ("[]", vec![]),
        ] {
            assert_eq!(parse_patterns(value), expected, "{value}");
        }
    }
}
