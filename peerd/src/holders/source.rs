//! A peer that a document can be fetched from.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::{contact::Contact, endpoint::Endpoint, name::PeerName, v1::PeerRecord};
use std::{fmt, time::Duration};

/// Most addresses of one source besides the first: the one it advertises, and one that another peer knows.
const ALTERNATES_MAX: usize = 3;

/// A peer to dial for a document. It has no id: of a holder that another peer reports, the endpoint may be all that is valid.
///
/// Two sources are the same if endpoint and name are: a wrong name for an endpoint must not hide the right one.
#[derive(Debug, Clone)]
pub struct Source {
    /// The peer's name, if it is known.
    pub name: Option<PeerName>,
    /// `HOST:PORT` to dial first. Of a peer that answered it is where it answered.
    pub endpoint: Endpoint,
    /// Other addresses of the same peer, dialled in this order if the first one fails or takes long.
    alternates: Vec<Endpoint>,
    /// How long its answer to a question took, if it was asked one just now: no shorter than the delay of its path.
    pub(crate) answered_in: Option<Duration>,
}

impl Source {
    /// The peer at `endpoint`.
    pub fn new(name: Option<PeerName>, endpoint: Endpoint) -> Self {
        Self { name, endpoint, alternates: Vec::new(), answered_in: None }
    }

    /// The same peer, which has the address `alternate`, too. A source has few addresses: further ones are left out.
    #[must_use]
    pub fn also_at(mut self, alternate: Endpoint) -> Self {
        self.add_address(alternate);
        self
    }

    /// Adds an address, if it is new and there is room.
    pub(crate) fn add_address(&mut self, alternate: Endpoint) {
        if self.alternates.len() < ALTERNATES_MAX && !self.has_address(&alternate) {
            self.alternates.push(alternate);
        }
    }

    /// All addresses, in the order in which they are dialled; at least one.
    pub fn addresses(&self) -> Vec<Endpoint> {
        std::iter::once(&self.endpoint).chain(&self.alternates).cloned().collect()
    }

    /// Whether `endpoint` is one of its addresses.
    pub fn has_address(&self, endpoint: &Endpoint) -> bool {
        self.endpoint == *endpoint || self.alternates.contains(endpoint)
    }

    /// The peer's name, or its endpoint if the name is not known.
    pub fn label(&self) -> &str {
        self.name.as_ref().map_or(self.endpoint.as_str(), PeerName::as_str)
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.name == other.name
    }
}

impl Eq for Source {}

impl From<&Contact> for Source {
    fn from(contact: &Contact) -> Self {
        Self::new(Some(contact.name().clone()), contact.endpoint().clone())
    }
}

impl Source {
    /// The peer of a registry's record; `None` if it cannot be dialled.
    pub fn of_record(record: &PeerRecord) -> Option<Self> {
        Some(Self::new(record.name.parse().ok(), record.endpoint.parse().ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_keeps_each_address_once_and_few_of_them() {
        let address = |port: u16| format!("127.0.0.1:{port}").parse::<Endpoint>().unwrap();
        let mut source = Source::new(None, address(1)).also_at(address(1)).also_at(address(2));
        assert_eq!(source.addresses(), [address(1), address(2)]);
        assert_eq!(source, Source::new(None, address(1)));
        (3..9).for_each(|port| source.add_address(address(port)));
        assert_eq!(source.addresses().len(), 1 + ALTERNATES_MAX);
    }
}
