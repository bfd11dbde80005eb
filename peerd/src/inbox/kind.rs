//! The kind of a message: one token.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::field::{InvalidField, Quoted};
use std::{fmt, str::FromStr};

/// The kind of a message without one.
pub const KIND_DEFAULT: &str = "text";
/// How the kinds of messages begin that peers exchange among themselves.
const INTERNAL_PREFIX: &str = "p2pdi.";
/// Longest kind, in bytes: it is a word, not a text.
pub(super) const KIND_MAX_BYTES: usize = 64;

/// A token of letters, digits, `.`, `_` and `-`, at most 64 bytes long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageKind(Box<str>);

impl MessageKind {
    /// The token.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether messages of this kind are between peers: only their handlers get them, not those who read all messages.
    pub(super) fn is_internal(&self) -> bool {
        self.0.starts_with(INTERNAL_PREFIX)
    }

    /// Whether it is [`KIND_DEFAULT`].
    pub fn is_default(&self) -> bool {
        &*self.0 == KIND_DEFAULT
    }
}

impl FromStr for MessageKind {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let text = if text.is_empty() { KIND_DEFAULT } else { text };
        if text.len() > KIND_MAX_BYTES {
            return Err(InvalidField::new("kind", format!("{} bytes long; at most {KIND_MAX_BYTES} fit", text.len())));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err(InvalidField::new("kind", format!("{} may have letters, digits and . _ - only", Quoted(text))));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_between_peers_are_known_by_their_kind() {
        let is_internal = |kind: &str| kind.parse::<MessageKind>().unwrap().is_internal();
        assert!(is_internal("p2pdi.who-has") && !is_internal("p2pdi") && !is_internal(""));
    }

    #[test]
    fn a_kind_is_one_short_token() {
        assert_eq!("".parse::<MessageKind>().unwrap().as_str(), "text");
        assert!("PING".parse::<MessageKind>().is_ok());
        for text in ["two words", "é", "a/b", &"x".repeat(65)] {
            assert!(text.parse::<MessageKind>().is_err());
        }
    }
}
