//! A peer that a document can be fetched from.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::{endpoint::Endpoint, name::PeerName};
use std::fmt;

/// A peer to dial for a document. It has no id: of a holder that another peer reports, the endpoint may be all that is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The peer's name, or its endpoint if the name is not known.
    pub name: String,
    /// `host:port` to dial.
    pub endpoint: Endpoint,
}

impl Source {
    /// Its name, where that is known.
    pub fn peer_name(&self) -> Option<PeerName> {
        self.name.parse().ok()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name == self.endpoint.as_str() { f.write_str(&self.name) } else { write!(f, "{} ({})", self.name, self.endpoint) }
    }
}
