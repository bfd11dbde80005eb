//! What tells replicas apart.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::hex;
use std::{fmt, str::FromStr};

/// Random, made at each start: a replica that starts again is another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReplicaId([u8; 8]);

impl ReplicaId {
    /// From these bytes.
    pub(crate) fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a replica's id is 16 hexadecimal digits")]
pub(crate) struct MalformedReplicaId;

impl FromStr for ReplicaId {
    type Err = MalformedReplicaId;

    fn from_str(text: &str) -> Result<Self, MalformedReplicaId> {
        hex::decode(text).map(Self).ok_or(MalformedReplicaId)
    }
}
