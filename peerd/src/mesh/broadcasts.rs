//! Broadcasts of this peer that wait for acknowledgements, and acknowledgements on their way to other peers.

use super::acks::{Acknowledgement, Acks, Tally};
use crate::overlay::{PeerId, Time, plumtree::MessageId};
use p2pdi::name::PeerName;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;
use tonic::Status;

/// Where the result of a broadcast goes. Its caller may have given up, so a failed send is no error.
pub(super) type BroadcastSender = oneshot::Sender<Result<Tally, Status>>;

/// Acknowledgements, and the callers that wait for them.
#[derive(Default)]
pub(super) struct Broadcasts {
    acks: Acks,
    callers: BTreeMap<MessageId, BroadcastSender>,
}

impl Broadcasts {
    /// Whether as many broadcasts wait for acknowledgements as may.
    pub(super) fn is_full(&self) -> bool {
        !self.acks.has_room()
    }

    /// Lets `caller` wait for acknowledgements of `id`, until `deadline`; `known` are the names of all other peers.
    pub(super) fn wait(&mut self, id: MessageId, known: BTreeSet<PeerName>, caller: BroadcastSender, deadline: Time, now: Time) {
        self.acks.wait(id, known, deadline, now);
        self.callers.insert(id, caller);
    }

    /// A broadcast that asks for acknowledgement arrived from the neighbour `from`.
    pub(super) fn delivered(&mut self, id: MessageId, from: PeerId, own: Acknowledgement, now: Time) {
        self.acks.delivered(id, from, own, now);
    }

    /// Peers acknowledge a broadcast.
    pub(super) fn acknowledged(&mut self, id: MessageId, peers: Vec<Acknowledgement>, now: Time) {
        self.acks.acknowledged(id, peers, now);
    }

    /// Acknowledgements that are due, and the neighbour that each goes to.
    pub(super) fn flush(&mut self, now: Time) -> Vec<(PeerId, MessageId, Vec<Acknowledgement>)> {
        self.acks.flush(now)
    }

    /// All acknowledgements that are to be passed back, due or not, and the neighbour that each goes to.
    pub(super) fn flush_all(&mut self) -> Vec<(PeerId, MessageId, Vec<Acknowledgement>)> {
        self.acks.flush_all()
    }

    /// Until when acknowledgements of others may come that are to be passed back.
    pub(super) fn passes_until(&self) -> Option<Time> {
        self.acks.passes_until()
    }

    /// Acknowledgements were sent to a neighbour, or to none because there is none.
    pub(super) fn sent(&mut self, to: Option<PeerId>, id: MessageId, peers: Vec<Acknowledgement>, now: Time) {
        self.acks.sent(to, id, peers, now);
    }

    /// Whether acknowledgements wait for a link.
    pub(super) fn has_unsent(&self, now: Time) -> bool {
        self.acks.has_unsent(now)
    }

    /// There is a link to one more neighbour.
    pub(super) fn link_up(&mut self, now: Time) {
        self.acks.link_up(now);
    }

    /// The link to a neighbour is gone.
    pub(super) fn link_down(&mut self, peer: PeerId, now: Time) {
        self.acks.link_down(peer, now);
    }

    /// Whether acknowledgements of `id` may take another way than the broadcast came.
    pub(super) fn detour(&mut self, id: &MessageId) -> bool {
        self.acks.detour(id)
    }

    /// Whether callers wait.
    pub(super) fn is_waiting(&self) -> bool {
        self.acks.is_waiting()
    }

    /// Sends the result to the callers whose wait is over; `known` are the names of all other peers.
    pub(super) fn finish(&mut self, known: &BTreeSet<PeerName>, now: Time) {
        for (id, tally) in self.acks.finished(known, now) {
            if let Some(caller) = self.callers.remove(&id) {
                let _ = caller.send(Ok(tally));
            }
        }
    }

    /// When to flush, or perhaps to finish.
    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        self.acks.next_deadline(now)
    }

    /// Drops all callers.
    pub(super) fn clear(&mut self) {
        self.callers.clear();
    }
}
