//! Ids of peers.

use crate::{field::InvalidField, hex, name::PeerName};
use std::fmt;

/// Keeps these hashes apart from all others (BLAKE3's `derive_key`). Never changes: peers would change their ids.
const OF_NAME: &str = "P2P-DI 2026-11 peer id of the name in a certificate";

/// Set in the first byte of an id of a program that is no peer.
const CLIENT_BIT: u8 = 0x80;

/// A peer's 128-bit id. Without TLS it is made once and kept in the state folder: names can change hands, ids do not. With TLS it is
/// [`PeerId::of_name`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId([u8; 16]);

impl PeerId {
    /// A new id from the system's randomness.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The id of the peer that has a certificate for `name`. Whoever has the name has the id, so nobody else can take either.
    pub fn of_name(name: &PeerName) -> Self {
        let mut bytes = [0; 16];
        blake3::Hasher::new_derive_key(OF_NAME).update(name.key().as_bytes()).finalize_xof().fill(&mut bytes);
        bytes[0] &= !CLIENT_BIT;
        Self(bytes)
    }

    /// The id of a program that is no peer, such as one that fetches and exits, from random bytes. With TLS it is no peer's: several
    /// programs may have one certificate.
    pub const fn of_client(mut random: [u8; 16]) -> Self {
        random[0] |= CLIENT_BIT;
        Self(random)
    }

    /// Whether it is an id of a program that is no peer, where there is TLS; without, peers have such ids too.
    pub const fn is_of_client(self) -> bool {
        self.0[0] & CLIENT_BIT != 0
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id with this number, most significant byte first: smaller numbers are lower ids.
    pub const fn from_u128(number: u128) -> Self {
        Self(number.to_be_bytes())
    }

    /// The id as a number, most significant byte first.
    pub const fn as_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// Reads the 16 bytes of a field called `field`.
    ///
    /// # Errors
    /// When there are more or fewer.
    pub fn from_field(field: &'static str, bytes: &[u8]) -> Result<Self, InvalidField> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(InvalidField::new(field, format!("has {} bytes; an id has 16", bytes.len()))),
        }
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The 16 bytes as a message carries them.
    pub fn to_field(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::display(&self.0).fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_name_stays_whatever_its_case() {
        let id = |name: &str| PeerId::of_name(&name.parse().unwrap());
        assert_eq!(id("fff-c"), id("FFF-C"));
        assert_ne!(id("fff-c"), id("fff-d"));
        assert!(!["a", "b", "c", "d", "e", "f"].into_iter().any(|name| id(name).is_of_client()));
        assert!(PeerId::of_client([0; 16]).is_of_client());
        assert_eq!(id("fff-c").to_string(), "607d9e038211c8934f3934fe153669d5");
    }
}
