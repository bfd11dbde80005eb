//! Settings of what a peer sends, and of what it fetches for its share: the limits, and what it keeps present.
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

/// Limits that may change while a peer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransferLimits {
    /// Upload rate limit in bytes per second. `None`: no limit.
    pub upload: Option<u64>,
    /// Download rate limit in bytes per second. `None`: no limit.
    pub download: Option<u64>,
    /// Documents sent at the same time; others wait in line. `None`: as many as suit the upload limit.
    pub upload_slots: Option<usize>,
    /// Most bytes that documents may take which this peer fetched; the least recently used go first. `None`: no limit.
    pub quota: Option<u64>,
    /// How much of the share's disk stays free of fetched documents. `None`: no limit.
    pub min_free: Option<MinFree>,
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
