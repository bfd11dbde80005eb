//! Joins that callers asked for, from the dial until the overlay has decided whether the peer becomes a neighbour.

use crate::overlay::{PeerId, Time};
use p2pdi::{contact::Contact, endpoint::Endpoint};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Joins that wait at once; one more is refused. A guess: far more than a person or a program asks for within the seconds that each may take.
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

/// The callers that wait for peers to become neighbours.
#[derive(Default)]
pub(super) struct PendingJoins {
    /// By what is being dialled. Who asks for the same meanwhile waits for the same dial.
    dialled: BTreeMap<Endpoint, Vec<JoinSender>>,
    /// By the peer that completed the handshake.
    answered: BTreeMap<PeerId, PendingJoin>,
}

/// The callers that wait for one peer.
pub(super) struct PendingJoin {
    contact: Contact,
    /// When the handshake was complete.
    pub(super) since: Time,
    callers: Vec<JoinSender>,
}

impl PendingJoins {
    /// Lets `caller` wait for what answers at `endpoint`. Returns whether it must be dialled: somebody else may wait for that already.
    pub(super) fn begin(&mut self, endpoint: &Endpoint, caller: JoinSender) -> bool {
        let answered = self.answered.values().map(|join| join.callers.len());
        if answered.chain(self.dialled.values().map(Vec::len)).sum::<usize>() >= JOINS_MAX {
            let _ = caller.send(Err(JoinFailure::Full("too many joins are in progress; try again later".to_owned())));
            return false;
        }
        let callers = self.dialled.entry(endpoint.clone()).or_default();
        callers.push(caller);
        callers.len() == 1
    }

    /// The peer at `endpoint` has answered: its callers wait until [`PendingJoins::take`] is called for the peer.
    pub(super) fn answered(&mut self, endpoint: &Endpoint, contact: &Contact, now: Time) {
        let new = || PendingJoin { contact: contact.clone(), since: now, callers: Vec::new() };
        let callers = self.dialled.remove(endpoint).unwrap_or_default();
        self.answered.entry(contact.id()).or_insert_with(new).callers.extend(callers);
    }

    /// The dial of `endpoint` has ended, and `result` is what comes of it for its callers.
    pub(super) fn end(&mut self, endpoint: &Endpoint, result: &Result<Joined, JoinFailure>) {
        for caller in self.dialled.remove(endpoint).unwrap_or_default() {
            let _ = caller.send(result.clone());
        }
    }

    /// Removes the callers that wait for `peer`.
    pub(super) fn take(&mut self, peer: PeerId) -> Option<PendingJoin> {
        self.answered.remove(&peer)
    }

    /// Drops all callers.
    pub(super) fn clear(&mut self) {
        self.dialled.clear();
        self.answered.clear();
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
