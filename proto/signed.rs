//! What the signatures of `signature.proto` cover, and how they are read.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::{field::InvalidField, id::PeerId, name::PeerName, v1};
use bytes::Bytes;
use std::fmt;

/// Longest signature, in bytes: RSA with 4,096 bits.
pub const SIGNATURE_MAX_BYTES: usize = 512;
/// Most certificates of a chain: more CAs between a peer and its network's CA than anybody has.
pub const CHAIN_MAX: usize = 8;
/// Longest chain, in bytes. One certificate has some 500 with an elliptic key, and 2,000 with RSA.
pub const CHAIN_MAX_BYTES: usize = 16 * 1024;
/// What a whisper without a kind is signed as: the same.
const KIND_DEFAULT: &str = "text";
/// Precedes every context, as in TLS 1.3 (RFC 8446, section 4.4.3). TLS has other contexts, so no signature of a handshake is one of ours.
const PADDING: [u8; 64] = [b' '; 64];

/// What a peer says to others that it has no connection to.
#[derive(Debug, Clone, Copy)]
pub enum Statement<'a> {
    /// It sends this broadcast.
    Broadcast {
        /// The peer's network.
        network: &'a str,
        /// Its id.
        origin: PeerId,
        /// Its name.
        name: &'a PeerName,
        /// Its incarnation.
        incarnation: u64,
        /// Counts its broadcasts.
        sequence: u64,
        /// The payload: an encoded `Announcement`.
        payload: &'a [u8],
    },
    /// It sends this whisper.
    Whisper {
        /// The peer's network.
        network: &'a str,
        /// Its name.
        from: &'a PeerName,
        /// Name of the receiver.
        to: &'a PeerName,
        /// The id that the receiver knows a second copy by.
        message_id: &'a [u8],
        /// Its kind, as it stands in the message.
        kind: &'a str,
        /// Its body.
        body: &'a [u8],
    },
    /// It received a whisper, and replies.
    Reply {
        /// The peer's network.
        network: &'a str,
        /// Its name.
        by: &'a PeerName,
        /// Id of the relay that brought the whisper.
        relay: &'a [u8],
        /// Kind of the reply, or empty.
        kind: &'a str,
        /// The reply.
        body: &'a [u8],
    },
    /// It has a broadcast.
    Acknowledgement {
        /// The peer's network.
        network: &'a str,
        /// Its name.
        by: &'a PeerName,
        /// Origin of the broadcast.
        origin: PeerId,
        /// Incarnation of the origin.
        incarnation: u64,
        /// Number of the broadcast.
        sequence: u64,
    },
    /// It is the root of the broadcast tree.
    Beacon {
        /// The peer's network.
        network: &'a str,
        /// Its id.
        root: PeerId,
        /// Its name.
        name: &'a PeerName,
        /// Its incarnation when it started.
        incarnation: u64,
        /// Counts its beacons.
        sequence: u64,
    },
}

impl Statement<'_> {
    /// The bytes that are signed at a time, in milliseconds since 1970. No two statements have the same.
    pub fn to_bytes(&self, signed_at_ms: u64) -> Vec<u8> {
        let at = signed_at_ms.to_be_bytes();
        match self {
            Self::Broadcast { network, origin, name, incarnation, sequence, payload } => {
                let (name, payload) = (name.key(), blake3::hash(payload));
                let fields: [&[u8]; 7] = [
                    network.as_bytes(),
                    &at,
                    origin.as_bytes(),
                    name.as_bytes(),
                    &incarnation.to_be_bytes(),
                    &sequence.to_be_bytes(),
                    payload.as_bytes(),
                ];
                encode("P2P-DI 1 broadcast", &fields)
            }
            Self::Whisper { network, from, to, message_id, kind, body } => {
                let (from, to, body) = (from.key(), to.key(), blake3::hash(body));
                let kind: &str = if kind.is_empty() { KIND_DEFAULT } else { kind };
                let fields: [&[u8]; 7] =
                    [network.as_bytes(), &at, from.as_bytes(), to.as_bytes(), message_id, kind.as_bytes(), body.as_bytes()];
                encode("P2P-DI 1 whisper", &fields)
            }
            Self::Reply { network, by, relay, kind, body } => {
                let (by, body) = (by.key(), blake3::hash(body));
                let fields: [&[u8]; 6] = [network.as_bytes(), &at, by.as_bytes(), relay, kind.as_bytes(), body.as_bytes()];
                encode("P2P-DI 1 reply", &fields)
            }
            Self::Acknowledgement { network, by, origin, incarnation, sequence } => {
                let (by, incarnation, sequence) = (by.key(), incarnation.to_be_bytes(), sequence.to_be_bytes());
                let fields: [&[u8]; 6] = [network.as_bytes(), &at, by.as_bytes(), origin.as_bytes(), &incarnation, &sequence];
                encode("P2P-DI 1 acknowledgement", &fields)
            }
            Self::Beacon { network, root, name, incarnation, sequence } => {
                let (name, incarnation, sequence) = (name.key(), incarnation.to_be_bytes(), sequence.to_be_bytes());
                let fields: [&[u8]; 6] = [network.as_bytes(), &at, root.as_bytes(), name.as_bytes(), &incarnation, &sequence];
                encode("P2P-DI 1 beacon", &fields)
            }
        }
    }
}

fn encode(context: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(&PADDING);
    bytes.extend_from_slice(context.as_bytes());
    bytes.push(0);
    for field in fields {
        bytes.extend_from_slice(&length(field).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

/// What is hashed, and so its length, is never near the end of a `u32`; a longer one would give a statement that nobody accepts.
fn length(field: &[u8]) -> u32 {
    u32::try_from(field.len()).unwrap_or(u32::MAX)
}

/// The hash that names a chain of certificates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// The hash of these certificates, in DER, the holder's first.
    pub fn of<C: AsRef<[u8]>>(chain: &[C]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for certificate in chain {
            hasher.update(&length(certificate.as_ref()).to_be_bytes());
            hasher.update(certificate.as_ref());
        }
        Self(hasher.finalize().into())
    }

    /// Reads a field of a message.
    ///
    /// # Errors
    /// When it has not 32 bytes.
    pub fn from_field(bytes: &[u8]) -> Result<Self, InvalidField> {
        let hash = bytes.try_into().map_err(|_| InvalidField::new("chain_hash", "is not 32 bytes long"))?;
        Ok(Self(hash))
    }

    /// As a message carries it.
    pub fn to_field(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::encode(&self.0))
    }
}

/// A signature as it arrived, with its fields checked. Whether it is right is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// How it was made (RFC 8446, section 4.2.3).
    pub scheme: u16,
    /// The signature.
    pub value: Bytes,
    /// When it was made, in milliseconds since 1970 by the signer's clock.
    pub signed_at_ms: u64,
    /// Names the signer's chain.
    pub chain_hash: ChainHash,
    /// The signer's chain, which has that hash; empty: the receiver knows it.
    pub chain: Vec<Bytes>,
}

impl Proof {
    /// Names this signature of these bytes: one that was checked before need not be checked again.
    pub fn digest(&self, signed: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let (scheme, length) = (self.scheme.to_be_bytes(), length(&self.value).to_be_bytes());
        for part in [&scheme[..], &self.chain_hash.0[..], &length[..], &self.value[..], signed] {
            hasher.update(part);
        }
        hasher.finalize().into()
    }
}

impl TryFrom<v1::Signature> for Proof {
    type Error = InvalidField;

    fn try_from(signature: v1::Signature) -> Result<Self, InvalidField> {
        let invalid = |problem: &str| Err(InvalidField::new("signature", problem));
        let v1::Signature { scheme, value, signed_at_ms, chain_hash, chain } = signature;
        let Ok(scheme) = u16::try_from(scheme) else { return invalid("has a scheme that TLS does not have") };
        if value.is_empty() || value.len() > SIGNATURE_MAX_BYTES {
            return invalid("is empty or too long");
        }
        let Ok(chain_hash) = ChainHash::from_field(&chain_hash) else { return invalid("has a hash that is not 32 bytes long") };
        if chain.len() > CHAIN_MAX || chain.iter().map(Bytes::len).sum::<usize>() > CHAIN_MAX_BYTES {
            return invalid("has a chain of certificates that is too long");
        }
        if !chain.is_empty() && ChainHash::of(&chain) != chain_hash {
            return invalid("has another chain of certificates than its hash says");
        }
        Ok(Self { scheme, value, signed_at_ms, chain_hash, chain })
    }
}

impl From<Proof> for v1::Signature {
    fn from(proof: Proof) -> Self {
        let Proof { scheme, value, signed_at_ms, chain_hash, chain } = proof;
        Self { scheme: scheme.into(), value, signed_at_ms, chain_hash: chain_hash.to_field(), chain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;
    use std::collections::BTreeSet;

    fn name(text: &str) -> PeerName {
        text.parse().unwrap()
    }

    #[test]
    fn the_bytes_of_a_broadcast_are_those_of_the_contract() {
        let a = name("A");
        let statement = Statement::Broadcast {
            network: "lab",
            origin: PeerId::from_u128(7),
            name: &a,
            incarnation: 258,
            sequence: 3,
            payload: b"hello",
        };
        let mut expected = vec![b' '; 64];
        expected.extend_from_slice(b"P2P-DI 1 broadcast\0");
        expected.extend_from_slice(b"\0\0\0\x03lab");
        expected.extend_from_slice(b"\0\0\0\x08\0\0\0\0\0\0\0\x05");
        expected.extend_from_slice(b"\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07");
        expected.extend_from_slice(b"\0\0\0\x01a");
        expected.extend_from_slice(b"\0\0\0\x08\0\0\0\0\0\0\x01\x02");
        expected.extend_from_slice(b"\0\0\0\x08\0\0\0\0\0\0\0\x03");
        expected.extend_from_slice(b"\0\0\0\x20");
        expected.extend_from_slice(blake3::hash(b"hello").as_bytes());
        assert_eq!(statement.to_bytes(5), expected);
    }

    #[test]
    fn a_change_of_any_field_changes_what_is_signed() {
        let (a, b) = (name("a"), name("b"));
        let broadcast = |network, origin, name, incarnation, sequence, payload, at| {
            let origin = PeerId::from_u128(origin);
            Statement::Broadcast { network, origin, name, incarnation, sequence, payload }.to_bytes(at)
        };
        let whisper = |network, from, to, message_id, kind, body, at| {
            Statement::Whisper { network, from, to, message_id, kind, body }.to_bytes(at)
        };
        let reply = |network, by, relay, kind, body, at| Statement::Reply { network, by, relay, kind, body }.to_bytes(at);
        let acknowledgement = |network, by, origin, incarnation, sequence, at| {
            let origin = PeerId::from_u128(origin);
            Statement::Acknowledgement { network, by, origin, incarnation, sequence }.to_bytes(at)
        };
        let beacon = |network, root, name, incarnation, sequence, at| {
            let root = PeerId::from_u128(root);
            Statement::Beacon { network, root, name, incarnation, sequence }.to_bytes(at)
        };
        let all = [
            broadcast("n", 1, &a, 1, 1, b"x", 1),
            broadcast("m", 1, &a, 1, 1, b"x", 1),
            broadcast("n", 2, &a, 1, 1, b"x", 1),
            broadcast("n", 1, &b, 1, 1, b"x", 1),
            broadcast("n", 1, &a, 2, 1, b"x", 1),
            broadcast("n", 1, &a, 1, 2, b"x", 1),
            broadcast("n", 1, &a, 1, 1, b"y", 1),
            broadcast("n", 1, &a, 1, 1, b"x", 2),
            whisper("n", &a, &b, b"i", "k", b"x", 1),
            whisper("m", &a, &b, b"i", "k", b"x", 1),
            whisper("n", &b, &b, b"i", "k", b"x", 1),
            whisper("n", &a, &a, b"i", "k", b"x", 1),
            whisper("n", &a, &b, b"j", "k", b"x", 1),
            whisper("n", &a, &b, b"i", "l", b"x", 1),
            whisper("n", &a, &b, b"i", "k", b"y", 1),
            whisper("n", &a, &b, b"i", "k", b"x", 2),
            // The border between two fields does not move.
            whisper("n", &a, &b, b"ik", "", b"x", 1),
            whisper("n", &a, &b, b"", "ik", b"x", 1),
            reply("n", &a, b"i", "k", b"x", 1),
            reply("m", &a, b"i", "k", b"x", 1),
            reply("n", &b, b"i", "k", b"x", 1),
            reply("n", &a, b"j", "k", b"x", 1),
            reply("n", &a, b"i", "l", b"x", 1),
            reply("n", &a, b"i", "k", b"y", 1),
            reply("n", &a, b"i", "k", b"x", 2),
            acknowledgement("n", &a, 1, 1, 1, 1),
            acknowledgement("m", &a, 1, 1, 1, 1),
            acknowledgement("n", &b, 1, 1, 1, 1),
            acknowledgement("n", &a, 2, 1, 1, 1),
            acknowledgement("n", &a, 1, 2, 1, 1),
            acknowledgement("n", &a, 1, 1, 2, 1),
            acknowledgement("n", &a, 1, 1, 1, 2),
            beacon("n", 1, &a, 1, 1, 1),
            beacon("m", 1, &a, 1, 1, 1),
            beacon("n", 2, &a, 1, 1, 1),
            beacon("n", 1, &b, 1, 1, 1),
            beacon("n", 1, &a, 2, 1, 1),
            beacon("n", 1, &a, 1, 2, 1),
            beacon("n", 1, &a, 1, 1, 2),
        ];
        let different: BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(whisper("n", &a, &b, b"i", "", b"x", 1), whisper("n", &name("A"), &name("B"), b"i", "text", b"x", 1));
    }

    fn signature(chain: Vec<Bytes>) -> v1::Signature {
        let chain_hash = ChainHash::of(&chain).to_field();
        v1::Signature { scheme: 0x0403, value: Bytes::from_static(b"s"), signed_at_ms: 9, chain_hash, chain }
    }

    #[test]
    fn signatures_past_a_limit_are_refused() {
        let good = signature(vec![Bytes::from_static(b"c")]);
        let proof = Proof::try_from(good.clone()).unwrap();
        assert_eq!(v1::Signature::from(proof), good);
        let changed = |change: fn(&mut v1::Signature)| {
            let mut signature = good.clone();
            change(&mut signature);
            Proof::try_from(signature)
        };
        assert!(changed(|s| s.chain.clear()).is_ok(), "the receiver knows the chain");
        for refused in [
            changed(|s| s.scheme = 1 << 16),
            changed(|s| s.value.clear()),
            changed(|s| s.value = vec![0; SIGNATURE_MAX_BYTES + 1].into()),
            changed(|s| s.chain_hash.truncate(31)),
            changed(|s| s.chain.push(Bytes::from_static(b"d"))),
            Proof::try_from(signature(vec![Bytes::from_static(b"c"); CHAIN_MAX + 1])),
            Proof::try_from(signature(vec![vec![0; CHAIN_MAX_BYTES + 1].into()])),
        ] {
            assert_eq!(refused.unwrap_err().field, "signature");
        }
    }

    proptest! {
        /// As the fuzz target `signature` does.
        #[test]
        fn any_bytes_are_refused_or_passed_on_as_they_are(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(signature) = v1::Signature::decode(&bytes[..])
                && let Ok(proof) = Proof::try_from(signature.clone())
            {
                prop_assert_eq!(v1::Signature::from(proof), signature);
            }
        }

        #[test]
        fn chains_of_other_certificates_have_another_hash(
            one in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4),
            other in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4),
        ) {
            prop_assert_eq!(ChainHash::of(&one) == ChainHash::of(&other), one == other);
        }
    }
}
