//! Titles of documents with markup: HTML, XML, Markdown.

/// In how many characters the first tag must appear: comments and an XML declaration can come before it.
const PROLOGUE_CHARS: usize = 2048;

/// Whether `text` is HTML or XML.
pub(super) fn is_markup(text: &str) -> bool {
    let text = text.trim_start();
    if !text.starts_with('<') {
        return false;
    }
    let prologue: String = text.chars().take(PROLOGUE_CHARS).collect::<String>().to_ascii_lowercase();
    ["<!doctype", "<html", "<head", "<?xml", "<rfc", "<title", "<pre"].iter().any(|tag| prologue.contains(tag))
}

/// The text of the first `name` element, on one line.
pub(super) fn element(text: &str, name: &str) -> Option<String> {
    let inner = element_text(text, name)?;
    Some(inner.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The text of the first `name` element (to the end of `text` if it is not closed), with tags removed and
/// character references resolved.
pub(super) fn element_text(text: &str, name: &str) -> Option<String> {
    // ASCII case folding keeps byte offsets.
    let folded = text.to_ascii_lowercase();
    let open = format!("<{name}");
    let named = folded.match_indices(&open).find_map(|(at, _)| {
        let after = at + open.len();
        let next = folded.as_bytes().get(after)?;
        (*next == b'>' || next.is_ascii_whitespace()).then_some(after)
    })?;
    let start = named + folded.get(named..)?.find('>')? + 1;
    let inner = text.get(start..)?;
    let close = folded.get(start..)?.find(&format!("</{name}"));
    Some(plain(close.and_then(|end| inner.get(..end)).unwrap_or(inner)))
}

fn plain(markup: &str) -> String {
    let mut text = String::with_capacity(markup.len());
    let mut rest = markup;
    while let Some(at) = rest.find(['<', '&']) {
        let (before, after) = rest.split_at(at);
        text.push_str(before);
        if after.starts_with('<') {
            rest = after.find('>').and_then(|end| after.get(end + 1..)).unwrap_or("");
        } else if let Some((c, after)) = character_reference(after) {
            text.push(c);
            rest = after;
        } else {
            text.push('&');
            rest = after.get(1..).unwrap_or("");
        }
    }
    text.push_str(rest);
    text
}

/// The character that `text` (which starts with `&`) refers to, and what follows.
fn character_reference(text: &str) -> Option<(char, &str)> {
    /// The longest name or number of a reference that is handled here.
    const NAME_MAX: usize = 8;
    let end = text.bytes().take(NAME_MAX + 2).position(|b| b == b';')?;
    let (name, rest) = (text.get(1..end)?, text.get(end + 1..)?);
    let c = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "ndash" => '–',
        "mdash" => '—',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    };
    Some((c, rest))
}

/// The first heading of a Markdown text, or the `title:` of its front matter.
pub(super) fn markdown_title(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim_end).peekable();
    if lines.next_if(|line| *line == "---").is_some() {
        let front: Vec<&str> = lines.by_ref().take_while(|line| *line != "---").collect();
        let titled = front.iter().find_map(|line| line.strip_prefix("title:"));
        if let Some(title) = titled.map(|title| title.trim().trim_matches(['"', '\'']))
            && !title.is_empty()
        {
            return Some(title.to_owned());
        }
    }
    let mut above: Option<&str> = None;
    let mut fenced = false;
    for line in lines {
        if line.starts_with("```") || line.starts_with("~~~") {
            fenced = !fenced;
            above = None;
            continue;
        }
        if fenced {
            continue;
        }
        let hashes = line.len() - line.trim_start_matches('#').len();
        let heading = line.get(hashes..).unwrap_or("");
        if (1..=6).contains(&hashes) && heading.starts_with([' ', '\t']) {
            let heading = heading.trim().trim_end_matches('#').trim_end();
            if !heading.is_empty() {
                return Some(unmarked(heading));
            }
        }
        let is_underline = |mark: char| !line.is_empty() && line.chars().all(|c| c == mark);
        if let Some(above) = above
            && (is_underline('=') || is_underline('-'))
        {
            return Some(unmarked(above));
        }
        above = Some(line).filter(|line| line.starts_with(|c: char| c.is_alphanumeric()));
    }
    None
}

/// A heading without the Markdown marks for emphasis and code.
fn unmarked(heading: &str) -> String {
    heading.split_whitespace().map(|word| word.trim_matches(['*', '`'])).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{element, element_text, is_markup, markdown_title};

    #[test]
    fn an_element_is_found_with_any_case_and_attributes() {
        let page = "<!DOCTYPE html>\n<HTML><titles>no</titles><Title lang='en'>A\n &amp; B\
                    &#x2014;C &#68; &bogus; &</TITLE>";
        assert!(is_markup(page));
        assert_eq!(element(page, "title").as_deref(), Some("A & B—C D &bogus; &"));
    }

    #[test]
    fn preformatted_text_keeps_its_layout() {
        let page = "<html><pre class=x>a\n  <b>b</b> &lt;c";
        assert_eq!(element_text(page, "pre").as_deref(), Some("a\n  b <c"));
        assert_eq!(element_text("<pre", "pre"), None);
    }

    #[test]
    fn prose_that_mentions_tags_is_not_markup() {
        assert!(!is_markup("The <title> element of <html>"));
        assert!(!is_markup("<- <- RAND"));
    }

    #[test]
    fn the_title_of_markdown_is_its_first_heading() {
        for (text, title) in [
            ("intro\n\n# The `Title` #\n## Other", Some("The Title")),
            ("```sh\n# a comment\n```\n## Real", Some("Real")),
            ("Title\n=====\n", Some("Title")),
            ("---\ntitle: \"HTTP Semantics\"\nabbrev: HTTP\n---\n# Not this", Some("HTTP Semantics")),
            ("#hashtag\n#\nplain", None),
            ("", None),
        ] {
            assert_eq!(markdown_title(text).as_deref(), title, "{text}");
        }
    }
}
