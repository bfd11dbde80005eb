//! Peers whose leases are held beyond their end, because they ran out with many others at once.

use super::{moment::Now, record::RecordState, state::Table};
use p2pdi::cookie::CookieHash;
use rand::seq::IteratorRandom as _;
use std::{collections::BTreeSet, ops::Bound};

/// How long after its latest call a suspect ends at the latest, in ttls.
const HELD_TTLS: u64 = 3;

/// A suspect to ask whether it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Hash of its cookie.
    pub cookie: CookieHash,
    /// `HOST:PORT` where it should answer.
    pub endpoint: String,
}

/// What another registry was told of suspects.
#[derive(Debug, Default)]
pub struct ToldSuspects {
    cookies: BTreeSet<[u8; 16]>,
    /// The slot from which suspects are looked at next.
    next_suspect: u32,
    /// The cookie that was looked at last, if there are more.
    latest: Option<[u8; 16]>,
}

impl ToldSuspects {
    /// Those that it holds for suspects.
    #[cfg(test)]
    pub(super) fn suspects(&self) -> Vec<CookieHash> {
        self.cookies.iter().copied().map(CookieHash::from_bytes).collect()
    }
}

impl Table {
    /// Decides whether the lease of the peer in `slot`, which ran out, is held. Then the peer is a suspect.
    pub(super) fn hold(&mut self, slot: u32, now: Now) -> bool {
        if !self.settings.replicated || self.suspects.remove(&slot) {
            return false;
        }
        let ttl_ms = self.ttl_ms();
        if !self.brake.holds(self.active.len() as u64, u64::from(self.kept.count()), ttl_ms, now.mono_ms) {
            return false;
        }
        let Some(record) = self.records.get_mut(slot) else { return false };
        record.deadline_ms = now.mono_ms.saturating_add((HELD_TTLS - 1) * ttl_ms);
        self.suspects.insert(slot);
        self.schedule(slot);
        true
    }

    /// Suspects that were not `told` yet, and those told that are none any more. Looks at up to `limit` of each, from where the call before ended:
    /// many suspects must not hold up the table.
    pub fn tell_suspects(&self, told: &mut ToldSuspects, limit: usize) -> (Vec<CookieHash>, Vec<CookieHash>) {
        let suspects: Vec<_> = self.suspects.range(told.next_suspect..).take(limit).copied().collect();
        told.next_suspect = if suspects.len() < limit { 0 } else { suspects.last().map_or(0, |last| last.saturating_add(1)) };
        let cookies = suspects.into_iter().filter_map(|slot| self.records.get(slot)).map(|record| record.peer.cookie);
        let begun: Vec<_> = cookies.filter(|cookie| !told.cookies.contains(cookie.as_bytes())).collect();

        let after = told.latest.map_or(Bound::Unbounded, Bound::Excluded);
        let looked_at: Vec<_> = told.cookies.range((after, Bound::Unbounded)).take(limit).copied().collect();
        told.latest = looked_at.last().copied().filter(|_| looked_at.len() == limit);
        let is_suspect = |cookie: &CookieHash| self.records.by_cookie(cookie).is_some_and(|slot| self.suspects.contains(&slot));
        let ended: Vec<_> = looked_at.into_iter().map(CookieHash::from_bytes).filter(|cookie| !is_suspect(cookie)).collect();

        told.cookies.extend(begun.iter().map(CookieHash::as_bytes));
        for cookie in &ended {
            told.cookies.remove(cookie.as_bytes());
        }
        (begun, ended)
    }

    /// The registry that keeps the leases of these peers holds them as suspects, and no longer those of `ended`.
    pub fn suspected_elsewhere(&mut self, begun: &[CookieHash], ended: &[CookieHash]) {
        for cookie in begun {
            if let Some(slot) = self.records.by_cookie(cookie)
                && self.records.get(slot).is_some_and(|record| !record.kept && record.state == RecordState::Active)
            {
                self.suspected_elsewhere.insert(slot);
            }
        }
        for slot in ended.iter().filter_map(|cookie| self.records.by_cookie(cookie)) {
            self.suspected_elsewhere.remove(&slot);
        }
    }

    /// Whether this registry, or the one that keeps its lease, holds the peer in `slot` as a suspect.
    pub(super) fn is_suspect(&self, slot: u32) -> bool {
        self.suspects.contains(&slot) || self.suspected_elsewhere.contains(&slot)
    }

    /// Up to `limit` suspects.
    pub fn some_suspects(&mut self, limit: usize) -> Vec<Suspect> {
        // Not the same ones each time: a few that are dead must not hide that others answer.
        let sample = self.suspects.iter().copied().sample(&mut self.rng, limit);
        let records = sample.into_iter().filter_map(|slot| self.records.get(slot));
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
}
