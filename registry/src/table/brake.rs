//! The brake: when many leases run out at once it is more likely that the registry cannot hear its peers than that all of them died, so they
//! are held as suspects for a while.

use super::{settings::KEEPALIVES_PER_TTL, shard::SHARDS};

/// Fewer leases of the whole network that run out at once are no reason to hold any.
const AT_ONCE_MIN: u64 = 20;
/// Nor is a smaller part of all, in per cent.
const AT_ONCE_PERCENT: u64 = 15;

/// Counts leases that run out within the time in which every peer calls once.
#[derive(Debug, Default)]
pub(super) struct Brake {
    began_ms: u64,
    ended: u64,
}

impl Brake {
    /// One more lease runs out, where `active` peers have one and `shards` of all shards are kept here. Says whether it is to be held.
    pub(super) fn holds(&mut self, active: u64, shards: u64, ttl_ms: u64, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.began_ms) > ttl_ms / KEEPALIVES_PER_TTL {
            *self = Self { began_ms: now_ms, ended: 0 };
        }
        self.ended += 1;
        // Each registry sees its part of what happens.
        let at_once = AT_ONCE_MIN.max(active * AT_ONCE_PERCENT / 100);
        self.ended > (at_once * shards).div_ceil(u64::from(SHARDS))
    }
}
