//! This peer's incarnation, which numbers its broadcasts, and which incarnations of others it accepts.
//!
//! Any peer that relays a broadcast could forge its id. An id above all that its origin will ever use would silence the origin, since
//! its later broadcasts would count as old. So ids too far ahead are rejected, and an origin that receives its own id that it has
//! not used continues above it, as a router does with a self-originated LSA that it did not send (RFC 2328, section 13.4).

use std::time::Duration;

use super::MessageId;
use crate::{
    identity::incarnation,
    overlay::{PeerId, Time},
};

/// This peer's incarnation and the sequence of its broadcasts.
#[derive(Debug)]
pub struct OwnIncarnation {
    me: PeerId,
    started: Time,
    /// This peer's clock at its start: milliseconds since 1970, if it is right.
    started_clock: u64,
    incarnation: u64,
    sequence: u64,
}

impl OwnIncarnation {
    /// An incarnation that starts `now`. The clock is taken to show the incarnation, until [`OwnIncarnation::set_clock`].
    pub fn new(me: PeerId, incarnation: u64, now: Time) -> Self {
        Self { me, started: now, started_clock: incarnation, incarnation, sequence: 0 }
    }

    /// Sets what the clock showed at the start, in milliseconds since 1970, if the incarnation is ahead of it.
    pub fn set_clock(&mut self, clock: u64) {
        self.started_clock = clock;
    }

    /// The incarnation in the ids of this peer's broadcasts. It may be above the one that it started with; the next start needs a
    /// higher one.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Time since the start.
    pub fn age(&self, now: Time) -> Duration {
        now.saturating_sub(self.started)
    }

    /// The id of the next broadcast.
    pub fn next_id(&mut self) -> MessageId {
        self.sequence += 1;
        MessageId { origin: self.me, incarnation: self.incarnation, sequence: self.sequence }
    }

    /// What this peer's clock shows now: milliseconds since 1970, if it is right.
    fn clock(&self, now: Time) -> u64 {
        self.started_clock.saturating_add(u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether another peer can have this incarnation.
    pub fn accepts(&self, incarnation: u64, now: Time) -> bool {
        incarnation <= incarnation::highest_accepted(self.clock(now))
    }

    /// Continues above `id` if it is an id of this peer that it has not used; returns whether it is one. An id that no other peer accepts
    /// is left alone, since none would accept the following ones either; the clocks of others may be ahead of this one.
    pub fn continue_after(&mut self, id: &MessageId, now: Time) -> bool {
        let used = (id.incarnation, id.sequence) <= (self.incarnation, self.sequence);
        if id.origin != self.me || used {
            return false;
        }
        if id.incarnation < incarnation::continuation_limit(self.clock(now)) {
            self.incarnation = id.incarnation + 1;
            self.sequence = 0;
        }
        true
    }
}
