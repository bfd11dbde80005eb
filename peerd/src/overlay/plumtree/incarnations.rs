//! A peer's lives: what its broadcasts are numbered by, and what numbers of others are believed.
//!
//! A broadcast is named by its origin, and whoever passes it on could make it up. A name that is ahead of all that its origin will
//! ever use would silence it. So what is too far ahead is not believed, and an origin that hears of itself what it has not
//! said goes on after that, as a router does with a link state of its own that it did not send (RFC 2328, section 13.4).

use std::time::Duration;

use super::MessageId;
use crate::{
    identity::incarnation,
    overlay::{PeerId, Time},
};

/// This peer's life.
#[derive(Debug)]
pub struct Incarnations {
    me: PeerId,
    started: Time,
    /// This peer's clock at its start: milliseconds since 1970, if it is right.
    started_clock: u64,
    incarnation: u64,
    sequence: u64,
}

impl Incarnations {
    /// A life that starts `now`, when the clock says what its incarnation does.
    pub fn new(me: PeerId, incarnation: u64, now: Time) -> Self {
        Self { me, started: now, started_clock: incarnation, incarnation, sequence: 0 }
    }

    /// What the clock said at the start, in milliseconds since 1970, where the incarnation is ahead of it.
    pub fn set_clock(&mut self, clock: u64) {
        self.started_clock = clock;
    }

    /// The incarnation that this peer's broadcasts are named by. It may be above the one it started with; the next start must
    /// be with a higher one.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// How long this peer has been there.
    pub fn age(&self, now: Time) -> Duration {
        now.saturating_sub(self.started)
    }

    /// A name for the next broadcast.
    pub fn name(&mut self) -> MessageId {
        self.sequence += 1;
        MessageId { origin: self.me, incarnation: self.incarnation, sequence: self.sequence }
    }

    /// What this peer's clock shows now: milliseconds since 1970, if it is right.
    fn clock(&self, now: Time) -> u64 {
        self.started_clock.saturating_add(u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether there may be such an incarnation.
    pub fn believes(&self, incarnation: u64, now: Time) -> bool {
        incarnation <= incarnation::highest_accepted(self.clock(now))
    }

    /// Goes on after `id` if that is a name of this peer's which it has not used; `false` if it is not. What no other believes is not gone
    /// on after, or it would not believe what follows; but the others' clocks may be ahead of this one.
    pub fn go_on_after(&mut self, id: &MessageId, now: Time) -> bool {
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
