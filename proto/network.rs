//! Names of networks: peers of different networks do not talk to each other.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::field::{InvalidField, Quoted};
use std::{fmt, str::FromStr};

/// The network of those who name none.
pub const NETWORK_DEFAULT: &str = "default";
/// Longest name, in bytes: one DNS label (RFC 1035, section 2.3.4).
pub const NETWORK_MAX_BYTES: usize = 63;

/// A network's name: lower-case letters, digits, inner hyphens and dots, which is also a SPIFFE trust domain. Upper case is read and
/// becomes lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(Box<str>);

impl NetworkName {
    /// The network that a message names; one without a name is of the default network, as all were before there were networks.
    ///
    /// # Errors
    /// When the name is not valid.
    pub fn from_field(text: &str) -> Result<Self, InvalidField> {
        if text.is_empty() { Ok(Self::default()) } else { text.parse() }
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NetworkName {
    fn default() -> Self {
        Self(NETWORK_DEFAULT.into())
    }
}

impl FromStr for NetworkName {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: String| Err(InvalidField::new("network", problem));
        if text.is_empty() {
            return wrong("is empty; give a name such as \"default\"".into());
        }
        if text.len() > NETWORK_MAX_BYTES {
            return wrong(format!("{} is {} bytes long; at most {NETWORK_MAX_BYTES} fit", Quoted(text), text.len()));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            return wrong(format!("{} may have letters, digits, hyphens and dots only", Quoted(text)));
        }
        let is_edge = |c: char| c == '-' || c == '.';
        if text.starts_with(is_edge) || text.ends_with(is_edge) || text.contains("..") {
            return wrong(format!("{} begins or ends with a hyphen or dot, or has two dots in a row", Quoted(text)));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_a_lower_case_name() {
        assert_eq!("Lab-1.example".parse::<NetworkName>().unwrap().as_str(), "lab-1.example");
        assert_eq!(NetworkName::default().to_string(), "default");
        assert_eq!(NetworkName::from_field(""), Ok(NetworkName::default()));
        for text in ["", "-a", "a-", "a..b", ".a", "a b", "a/b", "a_b", "\u{e9}", &"a".repeat(64)] {
            assert_eq!(text.parse::<NetworkName>().unwrap_err().field, "network", "{text:?}");
        }
    }
}
