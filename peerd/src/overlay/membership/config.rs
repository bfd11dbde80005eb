//! The numbers of the membership protocol, with where they come from.
//!
//! "HyParView" is Leitão, Pereira, Rodrigues: *HyParView: a membership protocol for reliable
//! gossip-based broadcast*. Pages are those of the technical report DI-FCUL TR-07-13, as iroh-gossip's source cites them; the
//! proceedings (DSN 2007, pp. 419–429) are a shorter print. Its numbers are for 10,000 peers.

use std::time::Duration;

/// How large the views are and how often things happen. The same on all peers of a network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Links a peer seeks by itself. HyParView has one active view of log(n) + c (5 for its 10,000 peers, p. 9) that whoever comes
    /// first fills. Ours is split, as in Bitcoin, so that nobody can take all of it: what a peer dialled is its own choice. That it is
    /// 4 is a guess.
    pub outgoing: usize,
    /// Links accepted from anyone who asks. One more than `outgoing`, since on average as many come in as
    /// go out, and a seeker must not have to search long (a guess, checked by the simulator).
    pub incoming: usize,
    /// Links accepted beyond that, from newcomers and from peers that have none. A guess.
    pub reserved: usize,
    /// Contacts remembered to fall back on. HyParView: k(log(n) + c), 30 for an active view of 5 (p. 9). 48 is a guess, checked by
    /// the simulator.
    pub passive: usize,
    /// Hops of a forwarded join (ARWL 6, HyParView, p. 9).
    pub active_walk: u32,
    /// Hops to go at which a forwarded join enters the passive view (PRWL 3, HyParView, p. 9).
    pub passive_walk: u32,
    /// Hops of a shuffle (6, HyParView, p. 9).
    pub shuffle_walk: u32,
    /// Neighbours named in a shuffle (ka 3, HyParView, p. 9).
    pub shuffle_active: usize,
    /// Passive contacts named in a shuffle (kp 4, HyParView, p. 9).
    pub shuffle_passive: usize,
    /// Time between shuffles; HyParView counts in rounds. A guess: a passive view of 48 turns over in a
    /// few minutes, for one walk of small messages.
    pub shuffle_interval: Duration,
    /// The same while the passive view is less than half full. A guess.
    pub hungry_shuffle_interval: Duration,
    /// A dial that has not become a link by then has failed. A guess: three TCP connection attempts.
    pub dial_timeout: Duration,
    /// A request that is not answered by then has failed. A guess: many round trips.
    pub request_timeout: Duration,
    /// A link on which nobody became a neighbour is closed after this long. A guess: longer than the
    /// other side's request needs.
    pub idle_link: Duration,
    /// A contact that refused is left alone this long. A guess.
    pub refused_pause: Duration,
    /// First wait between two calls for more peers; doubles up to `ask_max`. A guess.
    pub ask_min: Duration,
    /// Longest wait between two calls. A guess: what a registry bears from everyone in a network so small that
    /// nobody finds enough neighbours.
    pub ask_max: Duration,
    /// How many peers to ask for. A guess: where one in twenty lives, one or two of them do.
    pub ask_sample: usize,
    /// How often, at most, one neighbour may be put out for an urgent one, per second. A guess: a
    /// stampede through one bootnode must not tear at its links; who is refused gets contacts to turn to.
    pub displacements_per_second: u32,
}

impl Config {
    /// Most neighbours there can be.
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
            hungry_shuffle_interval: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(4),
            request_timeout: Duration::from_secs(2),
            idle_link: Duration::from_secs(5),
            refused_pause: Duration::from_secs(10),
            ask_min: Duration::from_secs(1),
            ask_max: Duration::from_secs(60),
            ask_sample: 32,
            displacements_per_second: 4,
        }
    }
}

/// Most contacts a message may carry: those of a shuffle and its origin, twice over for networks set up
/// with larger numbers. A guess.
pub const MAX_CONTACTS: usize = 16;
/// Most hops a walk may make, whatever its message says. A guess: more than twice `active_walk`, for networks set up with longer ones.
pub const MAX_WALK: u32 = 16;
