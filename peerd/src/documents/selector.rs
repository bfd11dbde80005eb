//! How a caller names the one document it wants.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::{content::ContentHash, document::DocumentName};
use std::fmt;

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentSelector {
    /// An RFC.
    Number(u32),
    /// A document by its name, whatever its case.
    Name(DocumentName),
    /// Exactly this content.
    Hash(ContentHash),
}

impl fmt::Display for DocumentSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "RFC {number}"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Hash(hash) => write!(f, "b3:{hash}"),
        }
    }
}
