//! Settings of what a peer fetches for its share: the limits, and what it keeps present.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::documents::pattern::DocumentPattern;
use p2pdi::name::PeerName;

/// How much of the disk stays free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinFree {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of the disk's size; at most 100.
    Percent(u8),
}

/// Documents to keep present in the share, as they appear and change in the network.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Which documents.
    pub pattern: DocumentPattern,
    /// Only those of the peer of this name, as that peer has them. `None`: of all peers, of each name the newest.
    pub from: Option<PeerName>,
    /// Also removes what that peer removed, if this mirror fetched it.
    pub delete: bool,
}
