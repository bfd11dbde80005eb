//! Joins the lines of a title.

use super::line::{is_listed, words};

/// The title in `lines`, as one line.
pub(super) fn joined(lines: &[String]) -> String {
    let mut title = String::new();
    for (at, line) in lines.iter().enumerate() {
        let line = letterspaced(line).unwrap_or_else(|| single_spaced(line));
        if at > 0 && is_reference(&line) {
            continue;
        }
        let is_hyphenated = title.ends_with(['-', '/'])
            && !title.ends_with(" -")
            && !title.ends_with("--")
            && line.starts_with(char::is_alphanumeric);
        if !title.is_empty() && !is_hyphenated {
            title.push(' ');
        }
        title.push_str(&line);
    }
    without_footnote(&title).to_owned()
}

fn single_spaced(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The words of a letterspaced `line` such as `T E L N E T   P R O T O C O L`; `None` if it is not letterspaced.
pub(super) fn letterspaced(line: &str) -> Option<String> {
    const LETTERS_MIN: usize = 4;
    let tokens = line.split_whitespace().count();
    let is_single = |token: &&str| token.chars().count() == 1;
    if tokens < LETTERS_MIN || !line.split_whitespace().all(|token| is_single(&token)) {
        return None;
    }
    let spread: Vec<String> =
        line.split("  ").map(|word| word.split_whitespace().collect::<String>()).filter(|word| !word.is_empty()).collect();
    Some(spread.join(" "))
}

/// Whether `line` is a parenthesis below the title that says what the memo refers to or replaces.
fn is_reference(line: &str) -> bool {
    let Some(inner) = line.strip_prefix('(').and_then(|line| line.strip_suffix(')')) else {
        return false;
    };
    const REFERRING: &str = "\
    reference ref see nic rfc ien supersedes supercedes replaces obsoletes updates \
    category";
    words(inner).next().is_some_and(|word| is_listed(REFERRING, &word.to_ascii_lowercase()))
}

/// `title` without the mark of a footnote: `MESSAGES(1)`, `MESSAGES*`.
fn without_footnote(title: &str) -> &str {
    let unstarred = title.trim_end_matches('*').trim_end();
    let marked = unstarred
        .strip_suffix(')')
        .and_then(|title| title.strip_suffix(|c: char| c.is_ascii_digit()))
        .and_then(|title| title.strip_suffix('('))
        .filter(|title| title.ends_with(char::is_alphabetic));
    marked.unwrap_or(unstarred)
}
