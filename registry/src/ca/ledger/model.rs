//! Tokens, certificates, and changes of them.

use p2pdi::{name::PeerName, selector::NamePattern, token::TokenHash};
use std::collections::BTreeMap;

/// Serial number: 16 bytes, random but for the first two bits, so that the number is positive and has no leading zero.
pub(in crate::ca) type SerialBytes = [u8; 16];
/// SHA-256 of a public key (SubjectPublicKeyInfo).
pub(in crate::ca) type KeyHash = [u8; 32];

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The name of a peer, or of an operator.
    pub name: PeerName,
    /// What others may choose it by.
    pub labels: BTreeMap<String, String>,
    /// It is an operator's, not a peer's.
    pub operator: bool,
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The hash of its secret.
    pub hash: TokenHash,
    /// The name that it is for, or a pattern of names.
    pub names: NamePattern,
    /// Labels of those who join with it.
    pub labels: BTreeMap<String, String>,
    /// It makes operators, not peers.
    pub operator: bool,
    /// When it was made, in seconds since 1970.
    pub created_at: u64,
    /// Until when it can be used, in seconds since 1970.
    pub expires_at: u64,
    /// How many may join with it.
    pub uses: u32,
    /// How many did.
    pub used: u32,
    /// It was revoked.
    pub revoked: bool,
    /// Another key may join under a name that was given with it.
    pub rejoin: bool,
    /// Hosts of the registry that it names: no peer gets one of them as its name, by this token or another.
    pub hosts: Vec<String>,
}

/// A certificate that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ca) struct Certificate {
    pub(in crate::ca) serial: SerialBytes,
    /// Of whoever has it.
    pub(in crate::ca) key: KeyHash,
    pub(in crate::ca) subject: Subject,
    /// The token that its holder joined with.
    pub(in crate::ca) token: Option<TokenHash>,
    pub(in crate::ca) not_after: u64,
    /// The revision at which it was revoked; 0: it is not.
    pub(in crate::ca) revoked_at: u64,
}

/// A revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: [u8; 16],
    /// Its end, in seconds since 1970.
    pub not_after: u64,
    /// The revision at which it was revoked.
    pub revision: u64,
}

/// A change of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ca) enum Change {
    /// A token is there, or is as this one now.
    Token(Token),
    ForgetToken(TokenHash),
    /// A certificate is there, or is as this one now.
    Certificate(Certificate),
    ForgetCertificate(SerialBytes),
    /// What everyone must know is of this revision.
    Trust {
        revision: u64,
        /// The newest generation of the authority.
        generation: u32,
    },
    /// A generation of the authority, for others that share the ledger. Of one's own ledger it is no part: the folder has it.
    Authority {
        generation: u32,
        /// PEM.
        certificates: String,
    },
}

impl Certificate {
    pub(in crate::ca) fn is_revoked(&self) -> bool {
        self.revoked_at > 0
    }
}
