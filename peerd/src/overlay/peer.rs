//! Who a peer is and where it can be dialled.

use p2pdi::{endpoint::Endpoint, field::InvalidField, name::PeerName};
use std::{fmt, sync::Arc};

pub use p2pdi::id::PeerId;

/// What it takes to dial a peer. Cheap to clone: it sits in many views.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    id: PeerId,
    address: Arc<(PeerName, Endpoint)>,
}

impl Contact {
    /// The peer `id`, called `name`, at `endpoint`.
    pub fn new(id: PeerId, name: PeerName, endpoint: Endpoint) -> Self {
        Self { id, address: Arc::new((name, endpoint)) }
    }

    /// Takes what came from outside.
    ///
    /// # Errors
    /// When it cannot be a peer's name and endpoint.
    pub fn parse(id: PeerId, name: &str, endpoint: &str) -> Result<Self, InvalidField> {
        Ok(Self::new(id, name.parse()?, endpoint.parse()?))
    }

    /// The peer's id.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// The name it goes by.
    pub fn name(&self) -> &PeerName {
        &self.address.0
    }

    /// `host:port` to dial.
    pub fn endpoint(&self) -> &Endpoint {
        &self.address.1
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?}@{})", self.name(), self.id, self.endpoint())
    }
}
