//! A holder that can be dialled.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::endpoint::Endpoint;
use std::fmt;

/// A peer that says it has the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, or its endpoint where the name is not known.
    pub name: String,
    /// Where it is dialled.
    pub endpoint: Endpoint,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name == self.endpoint.as_str() { f.write_str(&self.name) } else { write!(f, "{} ({})", self.name, self.endpoint) }
    }
}
