//! Errors of values from the wire, with a message by which the sender can correct them.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::fmt;

/// A value that breaks a rule of the contract. Its message names the field, the value (shortened and
/// escaped) and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    /// The field's name in the `.proto`, such as `endpoint`.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl InvalidField {
    /// An error for `field`.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    /// The same problem in a field of another name.
    #[must_use]
    pub fn in_field(mut self, field: &'static str) -> Self {
        self.field = field;
        self
    }
}

/// Whether a terminal does anything else with a character than show it: control characters, and the bidirectional marks that reorder
/// text ("txt.exe" can look like "exe.txt").
pub fn is_terminal_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Longest part of a value from the network that a message quotes, in characters.
const SHOWN_CHARS: usize = 60;

/// Shows a string from the network in a message: quoted, control characters escaped, shortened.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars().take(SHOWN_CHARS) {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_ascii_graphic() || c == ' ' => write!(f, "{c}")?,
                // A homoglyph from another script, a bidirectional mark or a NUL is recognisable by its number only.
                c => write!(f, "{}", c.escape_unicode())?,
            }
        }
        f.write_str(if self.0.chars().nth(SHOWN_CHARS).is_some() { "…\"" } else { "\"" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_printable_and_short() {
        assert_eq!(Quoted("a\0\"b").to_string(), r#""a\u{0}\"b""#);
        assert_eq!(Quoted(&"x".repeat(300)).to_string().chars().count(), SHOWN_CHARS + 3);
    }
}
