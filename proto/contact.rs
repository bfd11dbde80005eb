//! A peer's id, name and endpoint: enough to dial it and to recognize it.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::{
    endpoint::Endpoint,
    field::InvalidField,
    id::PeerId,
    name::PeerName,
    v1::{self, Holder},
};
use std::{fmt, sync::Arc, time::Duration};

/// A peer and its address. Cheap to clone, since many views hold it.
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

    /// Checks values from the network.
    ///
    /// # Errors
    /// When the name or the endpoint is invalid.
    pub fn parse(id: PeerId, name: &str, endpoint: &str) -> Result<Self, InvalidField> {
        Ok(Self::new(id, name.parse()?, endpoint.parse()?))
    }

    /// The peer's id.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// The peer's name.
    pub fn name(&self) -> &PeerName {
        &self.address.0
    }

    /// `HOST:PORT` to dial.
    pub fn endpoint(&self) -> &Endpoint {
        &self.address.1
    }

    /// This peer as the holder of a document that it confirmed `age` ago.
    pub fn holder(&self, age: Duration) -> Holder {
        Holder {
            peer_id: self.id.to_field(),
            peer_name: self.name().to_string(),
            endpoint: self.endpoint().to_string(),
            age: prost_types::Duration::try_from(age).ok(),
        }
    }
}

impl TryFrom<&v1::PeerRecord> for Contact {
    type Error = InvalidField;

    fn try_from(record: &v1::PeerRecord) -> Result<Self, InvalidField> {
        Self::parse(PeerId::from_field("id", &record.id)?, &record.name, &record.endpoint)
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?}@{})", self.name(), self.id, self.endpoint())
    }
}
