//! Joins that callers asked for, from the handshake until the overlay has decided whether the peer becomes a neighbour.

use crate::overlay::{PeerId, Time};
use p2pdi::contact::Contact;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Joins that wait at once, without those being dialled; one more is refused. A guess: far more than a person or a program asks for
/// within the seconds that each may take.
const JOINS_MAX: usize = 128;

/// A peer that was joined: it is a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The peer at the endpoint that was dialled.
    pub contact: Contact,
    /// It was a neighbour before.
    pub already: bool,
}

/// Why a peer was not joined, as text.
#[derive(Debug, Clone)]
pub(super) enum JoinFailure {
    /// There is no answer, or an invalid one.
    Failed(String),
    /// A peer of another network answers.
    OtherNetwork(String),
    /// One of the two peers has as many links or neighbours as it accepts.
    Full(String),
}

/// Where the result of a join goes. Its caller may have given up, so a failed send is no error.
pub(super) type JoinSender = oneshot::Sender<Result<Joined, JoinFailure>>;

/// Peers that completed the handshake, and the callers that wait for them to become neighbours.
#[derive(Default)]
pub(super) struct PendingJoins(BTreeMap<PeerId, PendingJoin>);

/// The callers that wait for one peer.
pub(super) struct PendingJoin {
    contact: Contact,
    /// When the handshake was complete.
    pub(super) since: Time,
    callers: Vec<JoinSender>,
}

impl PendingJoins {
    /// Lets `caller` wait until [`PendingJoins::take`] is called for the peer.
    pub(super) fn insert(&mut self, contact: &Contact, caller: JoinSender, now: Time) {
        if self.0.values().map(|join| join.callers.len()).sum::<usize>() >= JOINS_MAX {
            let _ = caller.send(Err(JoinFailure::Full("too many joins are in progress; try again later".to_owned())));
            return;
        }
        let new = || PendingJoin { contact: contact.clone(), since: now, callers: Vec::new() };
        self.0.entry(contact.id()).or_insert_with(new).callers.push(caller);
    }

    /// Removes the callers that wait for `peer`.
    pub(super) fn take(&mut self, peer: PeerId) -> Option<PendingJoin> {
        self.0.remove(&peer)
    }

    /// Drops all callers.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl PendingJoin {
    /// Tells the callers that the peer is a neighbour now.
    pub(super) fn succeed(self) {
        let Self { contact, callers, .. } = self;
        for caller in callers {
            let _ = caller.send(Ok(Joined { contact: contact.clone(), already: false }));
        }
    }

    /// Tells the callers why the peer is not a neighbour.
    pub(super) fn fail(self, error: &JoinFailure) {
        for caller in self.callers {
            let _ = caller.send(Err(error.clone()));
        }
    }
}
