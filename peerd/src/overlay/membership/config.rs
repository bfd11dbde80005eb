//! Parameters of HyParView, with their sources.
//!
//! "HyParView" is Leitão, Pereira, Rodrigues: *HyParView: a membership protocol for reliable
//! gossip-based broadcast*. Pages are those of the technical report DI-FCUL TR-07-13, as iroh-gossip's source cites them; the
//! proceedings (DSN 2007, pp. 419–429) have a shorter version. Its values are for 10,000 peers.

use std::time::Duration;

/// Sizes of the views and intervals. The same on all peers of a network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Links that a peer dials itself. HyParView has a single active view of log(n) + c (5 for its 10,000 peers, p. 9), filled in the
    /// order of requests. Ours is split, as in Bitcoin, so that an attacker cannot occupy all of it: a peer chooses its own outgoing
    /// links. 4 is a guess.
    pub outgoing: usize,
    /// Links accepted from any peer that asks. One more than `outgoing`: on average as many links come in as
    /// go out, and a free slot must not be hard to find (a guess, checked by the simulator).
    pub incoming: usize,
    /// Further links accepted from newcomers and from peers without a neighbour. A guess.
    pub reserved: usize,
    /// Contacts in the passive view. HyParView: k(log(n) + c), 30 for an active view of 5 (p. 9). 48 is a guess, checked by the
    /// simulator.
    pub passive: usize,
    /// Hops of a forwarded join (ARWL 6, HyParView, p. 9).
    pub active_walk: u32,
    /// Remaining hops at which a forwarded join enters the passive view (PRWL 3, HyParView, p. 9).
    pub passive_walk: u32,
    /// Hops of a shuffle (6, HyParView, p. 9).
    pub shuffle_walk: u32,
    /// Contacts of the active view in a shuffle (ka 3, HyParView, p. 9).
    pub shuffle_active: usize,
    /// Contacts of the passive view in a shuffle (kp 4, HyParView, p. 9).
    pub shuffle_passive: usize,
    /// Time between shuffles; HyParView counts in rounds. A guess: it replaces a passive view of 48 within a
    /// few minutes, at the cost of one walk of small messages.
    pub shuffle_interval: Duration,
    /// The same while the passive view is less than half full. A guess.
    pub fast_shuffle_interval: Duration,
    /// A dial that takes longer has failed. A guess: three TCP connection attempts.
    pub dial_timeout: Duration,
    /// A request without a reply for this long has failed. A guess: many round trips.
    pub request_timeout: Duration,
    /// A link between peers that are not neighbours is closed after this time. A guess: longer than the
    /// request of the other side takes.
    pub idle_link: Duration,
    /// Pause before a peer that refused is asked again; doubles up to `ask_max`. A guess.
    pub refused_pause: Duration,
    /// First pause between two requests for more peers; doubles up to `ask_max`. A guess.
    pub ask_min: Duration,
    /// Longest pause between two requests. A guess: a load that a registry can carry from all peers of a network so small
    /// that none finds enough neighbours.
    pub ask_max: Duration,
    /// How many peers to ask for. A guess: if one in twenty is alive, one or two of these are.
    pub ask_sample: usize,
    /// Neighbours evicted for urgent requests per second, at most. A guess: many peers that join through one
    /// bootnode at once must not break all its links; a refusal carries contacts to try instead.
    pub evictions_per_second: u32,
}

impl Config {
    /// Largest size of the active view.
    pub fn max_active(&self) -> usize {
        self.outgoing + self.incoming + self.reserved
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            outgoing: 4,
            incoming: 5,
            reserved: 1,
            passive: 48,
            active_walk: 6,
            passive_walk: 3,
            shuffle_walk: 6,
            shuffle_active: 3,
            shuffle_passive: 4,
            shuffle_interval: Duration::from_secs(30),
            fast_shuffle_interval: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(4),
            request_timeout: Duration::from_secs(2),
            idle_link: Duration::from_secs(5),
            refused_pause: Duration::from_secs(10),
            ask_min: Duration::from_secs(1),
            ask_max: Duration::from_secs(60),
            ask_sample: 32,
            evictions_per_second: 4,
        }
    }
}

/// Most contacts in a message: those of a shuffle and its origin, times two for networks configured
/// with larger values. A guess.
pub const MAX_CONTACTS: usize = 16;
/// Most hops of a walk, whatever its message says. A guess: more than twice `active_walk`, for networks configured with longer walks.
pub const MAX_WALK: u32 = 16;
