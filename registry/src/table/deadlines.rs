//! When to check which lease: a coarse timer wheel.
//!
//! A KeepAlive only moves the deadline in its record. The entry here is checked when its tick comes, and moved on then. So a KeepAlive
//! costs no search, and each lease is checked about once a ttl.

use std::collections::BTreeMap;

/// Length of a tick, in milliseconds: a lease ends at most this late.
pub(super) const TICK_MS: u64 = 128;

/// Slots by the tick at which to check them.
#[derive(Default)]
pub(super) struct Deadlines {
    ticks: BTreeMap<u32, Vec<u32>>,
}

/// The first tick after `mono_ms`. Ticks last for 17 years of uptime.
pub(super) fn tick_after(mono_ms: u64) -> u32 {
    u32::try_from(mono_ms / TICK_MS + 1).unwrap_or(u32::MAX)
}

impl Deadlines {
    pub(super) fn schedule(&mut self, tick: u32, slot: u32) {
        self.ticks.entry(tick).or_default().push(slot);
    }

    /// One slot whose tick has come, with that tick.
    pub(super) fn pop_due(&mut self, mono_ms: u64) -> Option<(u32, u32)> {
        let mut first = self.ticks.first_entry()?;
        let tick = *first.key();
        if u64::from(tick) * TICK_MS > mono_ms {
            return None;
        }
        let slot = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        slot.map(|slot| (tick, slot))
    }

    /// When the next tick comes, in milliseconds.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.ticks.first_key_value().map(|(tick, _)| u64::from(*tick) * TICK_MS)
    }
}
