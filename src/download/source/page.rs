//! Whether an answer is a page for people: what a server sends to those who are not logged in, whatever they asked for.

/// Files that are such pages themselves.
const PAGES: [&str; 5] = [".html", ".htm", ".xhtml", ".xht", ".shtml"];
/// Files that may begin as a page does.
const ALIKE: [&str; 6] = [".xml", ".svg", ".md", ".jinja", ".jinja2", ".j2"];

/// Why an answer with this `Content-Type` and these first bytes is a page and not the file of this name.
pub fn why_page(name: &str, content_type: Option<&str>, first: &[u8]) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends(&PAGES) {
        return None;
    }
    let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if ["text/html", "application/xhtml+xml"].iter().any(|page| kind.eq_ignore_ascii_case(page)) {
        return Some(format!("a web page ({})", kind.to_ascii_lowercase()));
    }
    (!ends(&ALIKE) && begins_as_page(first)).then(|| "what begins as a web page (text/html)".to_owned())
}

fn begins_as_page(first: &[u8]) -> bool {
    let text = String::from_utf8_lossy(first).to_ascii_lowercase();
    let text = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
    let begins = |text: &str| text.starts_with("<!doctype html") || text.starts_with("<html");
    let has_prologue = text.starts_with("<?xml") || text.starts_with("<!--");
    begins(text) || (has_prologue && text.match_indices('<').any(|(at, _)| begins(&text[at..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_known_by_its_type_or_its_beginning() {
        for (name, kind, first, expected) in [
            ("model.joblib", Some("text/html; charset=utf-8"), "", true),
            ("model", Some("Text/HTML"), "", true),
            ("model.bin", Some("application/xhtml+xml"), "", true),
            ("model.bin", None, "\u{feff} \n<!DOCTYPE HTML><html>", true),
            ("model.bin", Some("application/octet-stream"), "<html lang=en>", true),
            ("model.bin", None, "<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC", true),
            ("model.bin", None, "<!-- login --><html>", true),
            ("page.HTML", Some("text/html"), "<html>", false),
            ("model.xml", None, "<?xml version=\"1.0\"?><html>", false),
            ("model.pmml", Some("text/xml"), "<?xml version=\"1.0\"?><PMML>", false),
            ("model.bin", Some("text/plain"), "weights of <html>", false),
            ("model.bin", None, "", false),
        ] {
            assert_eq!(why_page(name, kind, first.as_bytes()).is_some(), expected, "{name} {kind:?} {first}");
        }
    }
}
