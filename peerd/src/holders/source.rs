//! A peer that a document can be fetched from.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::{endpoint::Endpoint, name::PeerName};
use std::fmt;

/// A peer to dial for a document. It has no id: of a holder that another peer reports, the endpoint may be all that is valid.
///
/// Two sources are the same if endpoint and name are: a wrong name for an endpoint must not hide the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The peer's name, if it is known.
    pub name: Option<PeerName>,
    /// `host:port` to dial.
    pub endpoint: Endpoint,
}

impl Source {
    /// The peer's name, or its endpoint if the name is not known.
    pub fn label(&self) -> &str {
        self.name.as_ref().map_or(self.endpoint.as_str(), PeerName::as_str)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.endpoint),
            None => write!(f, "{}", self.endpoint),
        }
    }
}
