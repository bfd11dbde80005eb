//! Patterns of document names, as in a `.gitignore`, without regard to case and to how letters with marks are written.
//!
//! - `*` is any run of characters within one part of a name, `?` any one character, `[abc]`, `[a-z]` and `[!a-z]` one of some.
//! - `**` as a whole part is any number of folders: `models/**` is all below `models`, `**/README*` is in any folder.
//! - Without a `/` the pattern is about the last part of a name, in any folder: `*.iso`. With a `/` at its beginning or within, it is
//!   about the whole name: `/*.iso` is only what lies at the top.
//! - With a `/` at its end it is all below a folder: `drafts/`.
//! - `\` takes the meaning from the character after it.
//!
//! Unlike in a `.gitignore`, a pattern without a `/` at its end selects documents, not folders with all that they have, and there is no `!`.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::documents::name_match::name_key;
use p2pdi::{
    document::{DOCUMENT_NAME_MAX_BYTES, DocumentName},
    field::{InvalidField, Quoted},
};
use std::fmt;

/// Longest pattern, in bytes: the longest name.
pub const PATTERN_MAX_BYTES: usize = DOCUMENT_NAME_MAX_BYTES;
/// Most patterns in one list. A guess: more than people write by hand; each name is compared with all of them.
pub const PATTERNS_MAX: usize = 256;

/// A pattern of document names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentPattern {
    text: Box<str>,
    parts: Vec<Part>,
}

/// What a part of a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`: any number of folders.
    Folders,
    /// One part of a name.
    Name(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    Any,
    /// `*`
    Run,
    /// `[…]`; ranges include their ends.
    OneOf {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

impl DocumentPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Names what is wrong with it, as the field `pattern`.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: &str| InvalidField::new("pattern", format!("{} {problem}", Quoted(text)));
        if text.is_empty() {
            return Err(wrong("is empty; write ** for all documents"));
        }
        if text.len() > PATTERN_MAX_BYTES {
            return Err(wrong(&format!("is {} bytes long; at most {PATTERN_MAX_BYTES} fit", text.len())));
        }
        if text.chars().any(char::is_control) {
            return Err(wrong("has control characters, which no name has"));
        }
        if text.starts_with('!') {
            return Err(wrong("begins with !; give what is to be left out as an exclude pattern"));
        }
        let key = name_key(text);
        let (from_top, rest) = key.strip_prefix('/').map_or((false, key.as_str()), |rest| (true, rest));
        let (below, rest) = rest.strip_suffix('/').map_or((false, rest), |rest| (true, rest));
        let mut parts = Vec::new();
        if !from_top && !rest.contains('/') {
            parts.push(Part::Folders);
        }
        for part in rest.split('/') {
            match part {
                "" => return Err(wrong("has an empty part; write one / between two parts")),
                "." | ".." => return Err(wrong("has a . or .. part, which no name has")),
                "**" if parts.last() == Some(&Part::Folders) => {}
                "**" => parts.push(Part::Folders),
                part => parts.push(Part::Name(tokens(part).map_err(wrong)?)),
            }
        }
        if below && parts.last() != Some(&Part::Folders) {
            parts.push(Part::Folders);
        }
        // At least a file, so that `models/**` is not the file `models`.
        if parts.last() == Some(&Part::Folders) {
            parts.push(Part::Name(vec![Token::Run]));
        }
        Ok(Self { text: text.into(), parts })
    }

    /// Whether a text is a pattern rather than a name: it has a character that is special in patterns, or ends with `/`. A name that has
    /// such a character is written with `\` before it, and is then a pattern too.
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\']) || text.ends_with('/') || text.starts_with('/')
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches a document's name.
    pub fn matches(&self, name: &DocumentName) -> bool {
        self.matches_key(&name_key(name.as_str()))
    }

    /// The same for a name whose [`name_key`] is `key`.
    pub(crate) fn matches_key(&self, key: &str) -> bool {
        let name: Vec<&str> = key.split('/').collect();
        let matches = |part: &Part, text: &&str| match part {
            Part::Folders => false,
            Part::Name(tokens) => {
                let text: Vec<char> = text.chars().collect();
                wildcard(tokens, &text, |token| *token == Token::Run, Token::matches)
            }
        };
        wildcard(&self.parts, &name, |part| *part == Part::Folders, matches)
    }
}

impl fmt::Display for DocumentPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Token {
    fn matches(&self, c: &char) -> bool {
        match self {
            Self::Literal(literal) => literal == c,
            Self::Any => true,
            Self::Run => false,
            Self::OneOf { not, ranges } => ranges.iter().any(|(from, to)| (from..=to).contains(&c)) != *not,
        }
    }
}

/// Whether a sequence matches a pattern in which some elements, the runs, match any number of items. Only the last run is ever tried
/// again, so the time is at most proportional to both lengths.
fn wildcard<P, T>(pattern: &[P], items: &[T], is_run: impl Fn(&P) -> bool, matches: impl Fn(&P, &T) -> bool) -> bool {
    let (mut at, mut next) = (0, 0);
    // The last run, and the first item that it does not cover yet.
    let mut run: Option<(usize, usize)> = None;
    while let Some(item) = items.get(next) {
        match pattern.get(at) {
            Some(element) if is_run(element) => {
                run = Some((at, next));
                at += 1;
            }
            Some(element) if matches(element, item) => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((start, covered)) = run else { return false };
                run = Some((start, covered + 1));
                (at, next) = (start + 1, covered + 1);
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(is_run)
}

/// The tokens of one part, or what is wrong with it.
fn tokens(part: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if tokens.last() == Some(&Token::Run) => continue,
            '*' => Token::Run,
            '?' => Token::Any,
            '\\' => Token::Literal(chars.next().ok_or(r"ends with \; write \\ for the character itself")?),
            '[' => one_of(&mut chars)?,
            c => Token::Literal(c),
        });
    }
    Ok(tokens)
}

/// The rest of a `[…]`.
fn one_of(chars: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    const OPEN: &str = r"has a [ without its ] in the same part; write \[ for the character itself";
    let mut ranges: Vec<(char, char)> = Vec::new();
    let mut next = chars.next().ok_or(OPEN)?;
    let not = matches!(next, '!' | '^');
    if not {
        next = chars.next().ok_or(OPEN)?;
    }
    loop {
        // A ] at the beginning is one of the characters.
        if next == ']' && !ranges.is_empty() {
            return Ok(Token::OneOf { not, ranges });
        }
        if next == '\\' {
            next = chars.next().ok_or(OPEN)?;
        }
        let from = next;
        next = chars.next().ok_or(OPEN)?;
        // A - at the end is one of the characters.
        let is_range = next == '-' && !chars.as_str().starts_with(']');
        if !is_range {
            ranges.push((from, from));
            continue;
        }
        let mut to = chars.next().ok_or(OPEN)?;
        if to == '\\' {
            to = chars.next().ok_or(OPEN)?;
        }
        if to < from {
            return Err("has a range whose end comes before its beginning");
        }
        ranges.push((from, to));
        next = chars.next().ok_or(OPEN)?;
    }
}

/// Names that match one of some patterns and none of some others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatternSet {
    include: Vec<DocumentPattern>,
    exclude: Vec<DocumentPattern>,
}

impl PatternSet {
    /// Reads both lists. An empty `include` includes every name.
    ///
    /// # Errors
    /// When a pattern is not valid, or there are more than [`PATTERNS_MAX`]; the field is `include` or `exclude`.
    pub fn parse<T: AsRef<str>>(include: &[T], exclude: &[T]) -> Result<Self, InvalidField> {
        let list = |field: &'static str, texts: &[T]| {
            if texts.len() > PATTERNS_MAX {
                return Err(InvalidField::new(field, format!("has {} patterns; give at most {PATTERNS_MAX}", texts.len())));
            }
            let parse = |text: &T| DocumentPattern::parse(text.as_ref()).map_err(|error| error.in_field(field));
            texts.iter().map(parse).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { include: list("include", include)?, exclude: list("exclude", exclude)? })
    }

    /// Whether it has no pattern, and so matches every name.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether a name is included and not excluded.
    pub fn matches(&self, name: &DocumentName) -> bool {
        if self.is_empty() {
            return true;
        }
        let key = name_key(name.as_str());
        (self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches_key(&key)))
            && !self.exclude.iter().any(|pattern| pattern.matches_key(&key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> DocumentName {
        DocumentName::parse(text).unwrap()
    }

    fn matches(pattern: &str, text: &str) -> bool {
        DocumentPattern::parse(pattern).unwrap().matches(&name(text))
    }

    #[test]
    fn patterns_match_as_in_a_gitignore() {
        for (pattern, yes, no) in [
            ("rfc*", vec!["rfc1.txt", "old/RFC2.txt", "rfc"], vec!["a-rfc1", "rfc/a.txt"]),
            ("/rfc*", vec!["rfc1.txt"], vec!["old/rfc2.txt"]),
            ("models/*", vec!["models/a"], vec!["models/llama/a", "x/models/a", "models"]),
            ("models/**", vec!["models/a", "Models/llama/3/a"], vec!["models", "x/models/a"]),
            ("models/", vec!["models/a", "models/llama/a", "x/models/a"], vec!["models"]),
            ("/models/", vec!["models/a", "models/llama/a"], vec!["models", "x/models/a"]),
            ("a/b/", vec!["a/b/c", "a/b/c/d"], vec!["a/b", "x/a/b/c"]),
            ("**/README*", vec!["README.md", "a/b/readme"], vec!["a/README/x"]),
            ("a/**/z", vec!["a/z", "a/b/z", "a/b/c/z"], vec!["az", "a/zz", "b/a/z"]),
            ("**", vec!["a", "a/b"], vec![]),
            ("*", vec!["a", "a/b"], vec![]),
            ("a?c", vec!["abc", "a\u{fc}c"], vec!["ac", "abbc"]),
            ("[a-c]x[!0-9]", vec!["bxy"], vec!["dxy", "bx1", "bx"]),
            ("[]-]", vec!["]", "-"], vec!["a"]),
            ("[^A-Z]", vec!["1"], vec!["q", "Q"]),
            (r"a\*b", vec!["a*b"], vec!["axb"]),
            ("*.{txt,md}", vec!["a.{txt,md}"], vec!["a.txt"]),
            ("\u{dc}ber*", vec!["\u{fc}ber.txt", "u\u{308}ber"], vec!["uber"]),
            ("*a*b*", vec!["ab", "xaxbx"], vec!["ba"]),
        ] {
            for text in yes {
                assert!(matches(pattern, text), "{pattern} matches {text}");
            }
            for text in no {
                assert!(!matches(pattern, text), "{pattern} does not match {text}");
            }
        }
    }

    #[test]
    fn an_error_says_what_to_write() {
        let long = "x".repeat(PATTERN_MAX_BYTES + 1);
        for (text, hint) in [
            ("", "write **"),
            (&long, "at most 1024"),
            ("a\nb", "control"),
            ("!a", "exclude"),
            ("a//b", "empty part"),
            ("/", "empty part"),
            ("../a", ". or .."),
            ("a\\", "ends with"),
            ("[a", r"\["),
            ("[a/b]", r"\["),
            ("[z-a]", "range"),
        ] {
            let error = DocumentPattern::parse(text).unwrap_err();
            assert!(error.field == "pattern" && error.problem.contains(hint), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_set_includes_first_and_then_excludes() {
        let set = PatternSet::parse(&["*.txt", "docs/"], &["old/", "docs/*.tmp"]).unwrap();
        for (text, expected) in
            [("a.txt", true), ("docs/x.pdf", true), ("docs/x.tmp", false), ("a/old/b.txt", false), ("b.pdf", false)]
        {
            assert_eq!(set.matches(&name(text)), expected, "{text}");
        }
        assert!(PatternSet::parse::<&str>(&[], &[]).unwrap().matches(&name("a")));
        assert_eq!(PatternSet::parse(&["a"], &["["]).unwrap_err().field, "exclude");
        assert_eq!(PatternSet::parse(&vec!["a"; PATTERNS_MAX + 1], &[]).unwrap_err().field, "include");
    }

    #[test]
    fn patterns_that_backtrack_take_little_time() {
        let pattern = DocumentPattern::parse(&"*a".repeat(400)).unwrap();
        assert!(!pattern.matches(&name(&"a".repeat(200))));
        let pattern = DocumentPattern::parse(&format!("{}b", "**/*a/".repeat(100))).unwrap();
        assert!(!pattern.matches(&name(&["a"; 32].join("/"))));
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_an_error(text in "[a-c*?\\[\\]!^/\\\\.-]{0,12}", other in "[a-c]{1,4}(/[a-c]{1,4}){0,3}") {
            if let Ok(pattern) = DocumentPattern::parse(&text) {
                let _ = pattern.matches(&name(&other));
            }
        }

        #[test]
        fn an_escaped_name_matches_itself(text in "[a-c*?!^\\[\\]-]{1,8}") {
            let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(matches(&escaped, &text));
        }
    }
}
