//! The limits of a table.

use super::registrations::{DAY_MS, WINDOW_DAYS};

/// How long the record of an inactive peer is kept: registrations are counted over as many days.
pub const FORGET_AFTER_MS: u64 = WINDOW_DAYS as u64 * DAY_MS;
/// KeepAlives per second that a registry asks for at most: a tenth of what one core answers, so that most of it is left for
/// queries and for bursts of registrations. With more than this times ttl/3 peers, the interval grows.
pub const TARGET_KEEPALIVES_PER_SECOND: u64 = 5_000;
/// KeepAlives that fit into one ttl: two may be lost.
pub const KEEPALIVES_PER_TTL: u64 = 3;
/// Most records that [`Settings::max_peers`] may allow. At some 400 bytes each they take about 3 GB.
pub const PEERS_MAX: u32 = 8_000_000;

/// What a table allows.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The lease of a small population, in milliseconds.
    pub ttl_ms: u64,
    /// Most records: active peers, inactive ones, and observers.
    pub max_peers: u32,
    /// Leases that callers from one address may hold at once (one /64 for IPv6). Loopback is exempt.
    pub max_peers_per_address: u32,
    /// How long a name stays reserved for its cookie after a Leave and after the end of a lease, in milliseconds.
    pub name_hold_ms: u64,
    /// Other registries share the store: leases of shards that this one does not keep end elsewhere ([`super::Table::keep_shards`]), and a
    /// listing goes by revisions, which are the same everywhere.
    pub replicated: bool,
}
