//! Labels of peers, and patterns that select by name.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::field::{InvalidField, Quoted};
use std::{collections::BTreeMap, fmt};

/// Most labels on one peer: enough for zone, rack, version and the like; more would make listings heavy.
pub const LABELS_MAX: usize = 16;
/// Longest key and longest value, in bytes: the limit of Kubernetes for label values.
pub const LABEL_MAX_BYTES: usize = 63;
/// Longest name pattern, in bytes: the longest name and two stars.
pub const PATTERN_MAX_BYTES: usize = 255;

/// Checks the labels of a peer or of a filter. Keys are letters, digits, `.`, `_`, `-` and `/`, values the same or empty.
///
/// # Errors
/// Names the label that breaks a rule.
pub fn validate_labels(labels: &BTreeMap<String, String>) -> Result<(), InvalidField> {
    let wrong = |problem: String| Err(InvalidField::new("labels", problem));
    if labels.len() > LABELS_MAX {
        return wrong(format!("{} given; at most {LABELS_MAX} fit", labels.len()));
    }
    for (key, value) in labels {
        if key.is_empty() {
            return wrong("a key is empty".into());
        }
        for (what, text) in [("key", key), ("value", value)] {
            if text.len() > LABEL_MAX_BYTES {
                return wrong(format!("{what} {} is {} bytes long; at most {LABEL_MAX_BYTES} fit", Quoted(text), text.len()));
            }
            if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) {
                return wrong(format!("{what} {} may have letters, digits and . _ - / only", Quoted(text)));
            }
        }
    }
    Ok(())
}

/// A name, or a pattern in which `*` matches any run of characters, without regard to case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(Box<str>);

impl NamePattern {
    /// Parses a pattern; `None` for an empty one, which selects all names.
    ///
    /// # Errors
    /// When it has a character that no name may have, or is too long.
    pub fn parse(text: &str) -> Result<Option<Self>, InvalidField> {
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = |problem: String| Err(InvalidField::new("name", problem));
        if text.len() > PATTERN_MAX_BYTES {
            return wrong(format!("pattern of {} bytes; at most {PATTERN_MAX_BYTES} fit", text.len()));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"*-.".contains(&b)) {
            return wrong(format!("pattern {} may have the characters of a name and * only", Quoted(text)));
        }
        Ok(Some(Self(text.to_ascii_lowercase().into())))
    }

    /// The name that it selects, in lower case, when it has no star.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// Whether `name` is selected. Takes time up to the product of both lengths, which are bounded.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to backtrack to when the part after the latest star does not match: the star, and the position in the name it has
        // matched up to.
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            if pattern.get(p) == Some(&b'*') {
                retry = Some((p, n));
                p += 1;
            } else if pattern.get(p) == Some(&name[n].to_ascii_lowercase()) {
                (p, n) = (p + 1, n + 1);
            } else if let Some((star, from)) = retry {
                retry = Some((star, from + 1));
                (p, n) = (star + 1, from + 1);
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|b| *b == b'*')
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("fff-c", "FFF-C", true),
            ("fff-*", "fff-c", true),
            ("*-c", "fff-c", true),
            ("*f*c*", "fff-c", true),
            ("*", "a", true),
            ("fff", "fff-c", false),
            ("*d", "fff-c", false),
            ("a*a", "a", false),
            ("**a**b", "xxaxxb", true),
        ] {
            let parsed = NamePattern::parse(pattern).unwrap().unwrap();
            assert_eq!(parsed.matches(name), expected, "{pattern} {name}");
        }
        assert_eq!(NamePattern::parse("").unwrap(), None);
        assert!(NamePattern::parse("a b").is_err());
        assert_eq!(NamePattern::parse("Ab").unwrap().unwrap().exact(), Some("ab"));
    }

    #[test]
    fn labels_past_a_limit_are_refused() {
        let one = |k: &str, v: &str| validate_labels(&BTreeMap::from([(k.into(), v.into())]));
        assert!(one("zone", "eu-1").is_ok() && one("empty", "").is_ok());
        assert!(one("", "x").is_err() && one("a b", "x").is_err() && one("a", &"x".repeat(64)).is_err());
        let many = (0..17).map(|i| (format!("k{i}"), String::new())).collect();
        assert!(validate_labels(&many).unwrap_err().to_string().contains("at most 16"));
    }
}
