//! The brake: when many leases run out at once it is more likely that the registry cannot hear its peers than that all of them died, so they
//! are held as suspects for a while.

use super::{moment::Now, settings::KEEPALIVES_PER_TTL, shard::SHARDS, state::Table};
use p2pdi::cookie::CookieHash;
use std::time::Duration;

/// Fewer leases that run out at once are no reason to hold any.
const AT_ONCE_MIN: u64 = 20;
/// Nor is a smaller part of all that are kept here, in per cent.
const AT_ONCE_PERCENT: u64 = 15;
/// How long after its latest call a suspect ends at the latest, in ttls.
const HELD_TTLS: u64 = 3;

/// Counts leases that run out within the time in which every peer calls once.
#[derive(Debug, Default)]
pub(super) struct Brake {
    began_ms: u64,
    ended: u64,
}

impl Brake {
    /// One more lease runs out, of `kept`. Says whether it is to be held.
    fn holds(&mut self, kept: u64, ttl_ms: u64, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.began_ms) > ttl_ms / KEEPALIVES_PER_TTL {
            *self = Self { began_ms: now_ms, ended: 0 };
        }
        self.ended += 1;
        self.ended > AT_ONCE_MIN.max(kept * AT_ONCE_PERCENT / 100)
    }
}

/// A suspect to ask whether it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Hash of its cookie.
    pub cookie: CookieHash,
    /// `HOST:PORT` where it should answer.
    pub endpoint: String,
}

impl Table {
    /// Decides whether the lease of the peer in `slot`, which ran out, is held. Then the peer is a suspect.
    pub(super) fn hold(&mut self, slot: u32, now: Now) -> bool {
        if !self.settings.replicated || self.suspects.remove(&slot) {
            return false;
        }
        let ttl_ms = self.ttl_ms();
        let kept = self.active.len() as u64 * u64::from(self.kept.len()) / u64::from(SHARDS);
        if !self.brake.holds(kept, ttl_ms, now.mono_ms) {
            return false;
        }
        let Some(record) = self.records.get_mut(slot) else { return false };
        record.deadline_ms = now.mono_ms.saturating_add((HELD_TTLS - 1) * ttl_ms);
        self.suspects.insert(slot);
        self.schedule(slot);
        true
    }

    /// Up to `limit` suspects.
    pub fn some_suspects(&self, limit: usize) -> Vec<Suspect> {
        let records = self.suspects.iter().take(limit).filter_map(|slot| self.records.get(*slot));
        records.map(|record| Suspect { cookie: record.peer.cookie, endpoint: record.peer.strings.endpoint().into() }).collect()
    }

    /// Suspects were asked: `alive` answered and `silent` did not. Whoever answered has a whole lease again. If nobody did, that says
    /// nothing: the registry may be cut off. Otherwise those that are silent end now.
    pub fn probed(&mut self, alive: &[CookieHash], silent: &[CookieHash], now: Now) {
        for cookie in alive {
            if let Some(slot) = self.records.by_cookie(cookie) {
                self.extend(slot, now);
            }
        }
        if alive.is_empty() {
            return;
        }
        for cookie in silent {
            let Some(slot) = self.records.by_cookie(cookie).filter(|slot| self.suspects.contains(slot)) else { continue };
            if let Some(record) = self.records.get_mut(slot) {
                record.deadline_ms = now.mono_ms;
            }
            self.schedule(slot);
        }
    }

    /// Longest time that a lease is held beyond its end.
    pub fn held_at_most(&self) -> Duration {
        Duration::from_millis((HELD_TTLS - 1) * self.ttl_ms())
    }
}
