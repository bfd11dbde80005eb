//! When to check which lease, at a coarse resolution.
//!
//! A KeepAlive only moves the deadline in its record. The entry here is checked when its tick comes, and moved on then. So a KeepAlive
//! costs no search, and each lease is checked about once a ttl.

use std::collections::BTreeSet;

/// Length of a tick, in milliseconds: a lease ends at most this late.
pub(super) const TICK_MS: u64 = 128;

/// Slots, sorted by the tick at which to check them. A slot is here once or not at all; its record says at which tick.
#[derive(Default)]
pub(super) struct Deadlines(BTreeSet<(u32, u32)>);

/// The first tick after `mono_ms`. Ticks last for 17 years of uptime.
pub(super) fn tick_after(mono_ms: u64) -> u32 {
    u32::try_from(mono_ms / TICK_MS + 1).unwrap_or(u32::MAX)
}

impl Deadlines {
    pub(super) fn schedule(&mut self, tick: u32, slot: u32) {
        self.0.insert((tick, slot));
    }

    /// Without this, callers that register and leave in a loop would fill the memory until their ttl has passed.
    pub(super) fn unschedule(&mut self, tick: u32, slot: u32) {
        self.0.remove(&(tick, slot));
    }

    /// One slot whose tick has come, with that tick.
    pub(super) fn pop_due(&mut self, mono_ms: u64) -> Option<(u32, u32)> {
        let tick = self.0.first()?.0;
        if u64::from(tick) * TICK_MS > mono_ms { None } else { self.0.pop_first() }
    }

    /// When the next tick comes, in milliseconds.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.0.first().map(|(tick, _)| u64::from(*tick) * TICK_MS)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
