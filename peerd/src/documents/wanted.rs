//! What a user asks for: one document, or all that match a pattern.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{pattern::DocumentPattern, selector::DocumentSelector};
use p2pdi::{content::ContentHash, document::DocumentName, field::InvalidField};
use std::fmt;

/// One document, or all that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// One document.
    One(DocumentSelector),
    /// All documents whose names match.
    Matching(DocumentPattern),
}

impl Wanted {
    /// Reads a number as `rfc:NUMBER`, a hash as `b3:HEX`, a pattern (a text with `*`, `?`, `[` or `\`, or with `/` at an end), or else a
    /// name.
    ///
    /// # Errors
    /// When it is none of these; the field is `wanted`.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: String| InvalidField::new("wanted", problem);
        if let Some(number) = text.strip_prefix("rfc:") {
            let number = number.parse().ok().filter(|number| *number > 0);
            let number: u32 = number.ok_or_else(|| wrong("write rfc: and a number, such as rfc:2324".into()))?;
            return Ok(Self::One(DocumentSelector::Number(number)));
        }
        if let Some(hex) = text.strip_prefix("b3:") {
            let hash: ContentHash =
                hex.parse().map_err(|_| wrong("write b3: and the 64 hexadecimal digits of the hash".into()))?;
            return Ok(Self::One(DocumentSelector::Hash(hash)));
        }
        if DocumentPattern::is_pattern(text) {
            return DocumentPattern::parse(text).map(Self::Matching).map_err(|error| error.in_field("wanted"));
        }
        DocumentName::parse(text).map(|name| Self::One(DocumentSelector::Name(name))).map_err(|error| error.in_field("wanted"))
    }
}

impl fmt::Display for Wanted {
    /// As [`Wanted::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(DocumentSelector::Number(number)) => write!(f, "rfc:{number}"),
            Self::One(selector) => write!(f, "{selector}"),
            Self::Matching(pattern) => write!(f, "{pattern}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_displayed_reads_as_the_same() {
        let hash = format!("b3:{}", ContentHash::of(b"a"));
        for text in ["rfc:2324", "a/b.txt", "models/**", "drafts/", r"a\[1].txt", &hash] {
            let wanted = Wanted::parse(text).unwrap();
            assert_eq!(wanted.to_string(), text);
            assert_eq!(Wanted::parse(&wanted.to_string()).unwrap(), wanted);
        }
        assert!(matches!(Wanted::parse("rfc2324.txt").unwrap(), Wanted::One(DocumentSelector::Name(_))));
    }

    #[test]
    fn what_cannot_be_read_names_the_field_and_the_form() {
        for (text, hint) in
            [("rfc:x", "rfc:2324"), ("rfc:0", "rfc:2324"), ("b3:12", "64"), ("", "empty"), ("a:b", "colon"), ("[a", "]")]
        {
            let error = Wanted::parse(text).unwrap_err();
            assert!(error.field == "wanted" && error.problem.contains(hint), "{text:?}: {error}");
        }
    }
}
