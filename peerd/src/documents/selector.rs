//! Selects one document: by RFC number, name or content hash.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::documents::{info::DocumentInfo, name_match::name_match};
use p2pdi::{content::ContentHash, document::DocumentName};
use std::fmt;

/// Which document to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentSelector {
    /// The document with this RFC number.
    Number(u32),
    /// The document with this name, ignoring case.
    Name(DocumentName),
    /// The document with this content.
    Hash(ContentHash),
}

impl DocumentSelector {
    /// Whether it selects `document`. What a peer answers is checked with this: it may answer with any document.
    pub fn selects(&self, document: &DocumentInfo) -> bool {
        match self {
            Self::Number(number) => document.number == Some(*number),
            Self::Name(name) => name_match(name.as_str(), document.name.as_str()).is_some(),
            Self::Hash(hash) => document.hash == *hash,
        }
    }
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
