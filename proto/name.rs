//! Names of peers.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::field::{InvalidField, Quoted};
use std::{cmp::Ordering, fmt, hash, str::FromStr, sync::Arc};

/// Longest name, in bytes: what the DNS allows as text (RFC 1035, section 2.3.4, less the root dot).
pub const NAME_MAX_BYTES: usize = 253;
/// Longest label of a name, in bytes (RFC 1035, section 2.3.4).
pub const NAME_LABEL_MAX_BYTES: usize = 63;

/// A peer's name: one or more DNS labels joined by dots (RFC 1123, section 2.1: letters, digits and inner
/// hyphens). Compares and hashes without regard to case, and keeps the spelling it was given.
#[derive(Clone)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in lower case: equal names have equal keys.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// A name made from `text`: every character that a name may not have becomes a hyphen. For defaults such as the host name, never for
    /// what a user typed. `None` when nothing is left.
    pub fn from_host_name(text: &str) -> Option<Self> {
        let labels = text.split('.').map(|label| {
            let plain: String =
                label.chars().take(NAME_LABEL_MAX_BYTES).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            plain.trim_matches('-').to_owned()
        });
        let name = labels.filter(|l| !l.is_empty()).collect::<Vec<_>>().join(".");
        name.parse().ok()
    }
}

impl FromStr for PeerName {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: String| Err(InvalidField::new("name", problem));
        if text.is_empty() {
            return wrong("is empty; give the peer a name such as \"fff-c\"".into());
        }
        if text.len() > NAME_MAX_BYTES {
            return wrong(format!("{} is {} bytes long; at most {NAME_MAX_BYTES} fit", Quoted(text), text.len()));
        }
        for label in text.split('.') {
            if label.is_empty() {
                return wrong(format!("{} has an empty part; put one dot between parts and none at the ends", Quoted(text)));
            }
            if label.len() > NAME_LABEL_MAX_BYTES {
                return wrong(format!(
                    "{} has a part of {} bytes; at most {NAME_LABEL_MAX_BYTES} fit between dots",
                    Quoted(text),
                    label.len()
                ));
            }
            if let Some(c) = label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
                return wrong(format!(
                    "{} contains {}; only the letters a-z, digits, hyphens and dots may be in a name",
                    Quoted(text),
                    Quoted(c.encode_utf8(&mut [0; 4]))
                ));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return wrong(format!("{} has a part that begins or ends with a hyphen", Quoted(text)));
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for PeerName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for PeerName {}

impl hash::Hash for PeerName {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        for byte in self.0.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

impl Ord for PeerName {
    fn cmp(&self, other: &Self) -> Ordering {
        let lower = |byte: u8| byte.to_ascii_lowercase();
        self.0.bytes().map(lower).cmp(other.0.bytes().map(lower))
    }
}

impl PartialOrd for PeerName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_case_and_keep_their_spelling() {
        let (a, b): (PeerName, PeerName) = ("Fff-C.example".parse().unwrap(), "fff-c.EXAMPLE".parse().unwrap());
        assert_eq!(a, b);
        assert_eq!(a.cmp(&b), Ordering::Equal);
        assert_eq!(a.to_string(), "Fff-C.example");
        assert_eq!(a.key(), b.key());
        let (b_first, prefix): (PeerName, PeerName) = ("B".parse().unwrap(), "fff".parse().unwrap());
        assert!(b_first < a && prefix < a);
    }

    #[test]
    fn invalid_names_are_refused_with_the_reason() {
        for (text, expected) in [
            ("", "is empty"),
            ("two words", "contains \" \""),
            ("../etc", "empty part"),
            ("a/b", "contains \"/\""),
            ("a\0b", "contains \"\\u{0}\""),
            ("\u{430}lice", "contains \"\\u{430}\""),
            ("-a", "hyphen"),
            ("a-", "hyphen"),
            ("a.", "empty part"),
            (&"a".repeat(64), "64 bytes"),
            (&"a".repeat(300), "300 bytes"),
        ] {
            let error = text.parse::<PeerName>().unwrap_err();
            assert_eq!(error.field, "name");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_host_name_becomes_a_name() {
        assert_eq!(PeerName::from_host_name("my_host.local").unwrap().as_str(), "my-host.local");
        assert_eq!(PeerName::from_host_name("___"), None);
    }
}
