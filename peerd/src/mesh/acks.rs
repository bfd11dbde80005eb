//! Acknowledgements of broadcasts: those on their way back to other peers, and the counts of those that this peer asked for.
//!
//! Pure: no I/O, no clock, no randomness of its own.

mod last_sent;

use self::last_sent::LastSent;
use crate::overlay::{PeerId, Time, plumtree::MessageId};
use p2pdi::{contact::Contact, name::PeerName, v1::Signature};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// Broadcasts whose acknowledgements this peer passes back. A guess: a minute of a busy network.
const PATHS_MAX: usize = 4_096;
/// How long acknowledgements wait for others, to be sent in one frame. A guess: shorter than people notice.
const GATHER: Duration = Duration::from_millis(20);
/// How long a peer that stops goes on after the latest broadcast that asked for acknowledgement, to pass back those of others: programs that all
/// wait for one message stop together. Some hops of [`GATHER`] each, and as much again as a busy machine lets a program wait for a processor.
const PASSING: Duration = Duration::from_secs(1);
/// Frames of acknowledgements of one broadcast that are sent another way, because the link the broadcast came by is gone. That way may
/// lead back to this peer, so the number is limited; a guess.
const DETOURS_MAX: u8 = 8;
/// Peers in one frame of acknowledgements.
pub(super) const PEERS_MAX: usize = 256;
/// Acknowledgements that wait to be passed back, some 300 bytes each with a signature.
const OUTGOING_MAX: usize = 16_384;
/// Broadcasts of this peer that wait for acknowledgements at once. A guess.
const WAITS_MAX: usize = 64;
/// Acknowledgements counted for one broadcast: a network of 10,000 peers, and as many false ones.
const COUNTED_MAX: usize = 20_000;
/// Once all known peers have acknowledged, unknown ones may still do so for this long after the latest acknowledgement, or for twice the
/// time that one took, whichever is longer.
const QUIET: Duration = Duration::from_millis(250);
/// The same for peers that were known when the broadcast went out and are gone since: they may have left because of it, with their
/// acknowledgement on its way.
const QUIET_OF_GONE: Duration = PASSING;

/// A peer that has a broadcast.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Acknowledgement {
    pub(super) peer: Contact,
    /// Its signature without the chain, in networks with TLS. It is passed on and not read here.
    pub(super) signature: Option<Signature>,
}

/// The acknowledgements of one broadcast.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Peers known now, and those that acknowledged.
    pub(super) known: u64,
    pub(super) acknowledged: u64,
    /// Names of the known peers that did not acknowledge.
    pub(super) missing: Vec<String>,
}

struct Wait {
    started: Time,
    /// The peers that were known then.
    known: BTreeSet<PeerName>,
    acknowledged: BTreeMap<PeerId, PeerName>,
    deadline: Time,
    latest: Time,
}

impl Wait {
    /// When to stop waiting for unknown peers. In a large or slow network, those further away than all known peers take longer.
    fn quiet_at(&self) -> Time {
        self.latest + QUIET.max((self.latest - self.started) * 2)
    }

    /// When to stop waiting for those that were known and are gone.
    fn given_up_at(&self) -> Time {
        self.quiet_at().max(self.latest + QUIET_OF_GONE)
    }

    /// Which of `known` did not acknowledge.
    fn missing<'a>(&self, known: impl IntoIterator<Item = &'a PeerName>) -> BTreeSet<&'a PeerName> {
        let acknowledged: BTreeSet<_> = self.acknowledged.values().collect();
        known.into_iter().filter(|name| !acknowledged.contains(name)).collect()
    }

    /// Whether nothing more is to come; `known` are the names of all other peers.
    fn is_over(&self, known: &BTreeSet<PeerName>, now: Time) -> bool {
        // Those that acknowledged may all be gone since.
        let is_begun = !known.is_empty() || !self.acknowledged.is_empty();
        let quiet_at = if self.missing(&self.known).is_empty() { self.quiet_at() } else { self.given_up_at() };
        self.deadline <= now || (is_begun && quiet_at <= now && self.missing(known).is_empty())
    }

    fn tally(self, known: &BTreeSet<PeerName>) -> Tally {
        let missing: Vec<_> = self.missing(known.union(&self.known)).into_iter().map(ToString::to_string).collect();
        let acknowledged = self.acknowledged.len() as u64;
        Tally { known: acknowledged + missing.len() as u64, acknowledged, missing }
    }
}

/// Acknowledgements of other peers' broadcasts to pass back, and of this peer's to count.
#[derive(Default)]
pub(super) struct Acks {
    /// The neighbour that sent each broadcast first.
    came_from: BTreeMap<MessageId, PeerId>,
    order: VecDeque<MessageId>,
    detours: BTreeMap<MessageId, u8>,
    outgoing: BTreeMap<MessageId, Vec<Acknowledgement>>,
    /// Acknowledgements in `outgoing`.
    queued: usize,
    /// When to send `outgoing`.
    flush_at: Option<Time>,
    waits: BTreeMap<MessageId, Wait>,
    last_sent: LastSent<Acknowledgement>,
    /// When the latest broadcast that asked for acknowledgement came.
    latest: Option<Time>,
}

impl Acks {
    /// A broadcast that asks for acknowledgement came from `from`.
    pub(super) fn delivered(&mut self, id: MessageId, from: PeerId, own: Acknowledgement, now: Time) {
        if self.came_from.insert(id, from).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > PATHS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.came_from.remove(&oldest);
            self.detours.remove(&oldest);
            self.queued -= self.outgoing.remove(&oldest).map_or(0, |peers| peers.len());
        }
        self.latest = Some(now);
        self.gather(id, vec![own], now);
    }

    /// Until when acknowledgements of others may come that are to be passed back.
    pub(super) fn passes_until(&self) -> Option<Time> {
        self.latest.map(|latest| latest + PASSING)
    }

    /// Peers acknowledge a broadcast.
    pub(super) fn acknowledged(&mut self, id: MessageId, peers: Vec<Acknowledgement>, now: Time) {
        if let Some(wait) = self.waits.get_mut(&id) {
            wait.latest = now;
            for Acknowledgement { peer, .. } in peers {
                if wait.acknowledged.len() < COUNTED_MAX {
                    wait.acknowledged.insert(peer.id(), peer.name().clone());
                }
            }
        } else if self.came_from.contains_key(&id) {
            self.gather(id, peers, now);
        }
    }

    fn gather(&mut self, id: MessageId, peers: Vec<Acknowledgement>, now: Time) {
        if self.queued + peers.len() > OUTGOING_MAX {
            return;
        }
        self.queued += peers.len();
        self.outgoing.entry(id).or_default().extend(peers);
        self.flush_at.get_or_insert(now + GATHER);
    }

    /// The acknowledgements to send now, and the neighbour that each frame goes to.
    pub(super) fn flush(&mut self, now: Time) -> Vec<(PeerId, MessageId, Vec<Acknowledgement>)> {
        if self.flush_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.flush_all()
    }

    /// The same for all of them, also those that wait for others: there is no later.
    pub(super) fn flush_all(&mut self) -> Vec<(PeerId, MessageId, Vec<Acknowledgement>)> {
        (self.flush_at, self.queued) = (None, 0);
        let mut out = Vec::new();
        for (id, peers) in std::mem::take(&mut self.outgoing) {
            if let Some(to) = self.came_from.get(&id) {
                out.extend(peers.chunks(PEERS_MAX).map(|part| (*to, id, part.to_vec())));
            }
        }
        out
    }

    /// A frame of [`Acks::flush`] was sent to a neighbour, or to none because there is none.
    pub(super) fn sent(&mut self, to: Option<PeerId>, id: MessageId, peers: Vec<Acknowledgement>, now: Time) {
        self.last_sent.add(to, id, peers, now);
    }

    /// The link to a neighbour is gone, perhaps with what was sent last: it goes out again, another way.
    pub(super) fn link_down(&mut self, peer: PeerId, now: Time) {
        self.send_again(Some(peer), now);
    }

    /// There is a link: what found none goes out.
    pub(super) fn link_up(&mut self, now: Time) {
        self.send_again(None, now);
    }

    fn send_again(&mut self, to: Option<PeerId>, now: Time) {
        for (id, peers) in self.last_sent.take(to, now) {
            self.gather(id, peers, now);
        }
    }

    /// Whether some wait for a link.
    pub(super) fn has_unsent(&self, now: Time) -> bool {
        self.last_sent.has_unsent(now)
    }

    /// The link that a broadcast came by is gone: returns whether its acknowledgements may go another way.
    pub(super) fn detour(&mut self, id: &MessageId) -> bool {
        if !self.came_from.contains_key(id) {
            return false;
        }
        let count = self.detours.entry(*id).or_insert(0);
        *count = count.saturating_add(1);
        *count <= DETOURS_MAX
    }

    /// Whether one more broadcast may wait for acknowledgements.
    pub(super) fn has_room(&self) -> bool {
        self.waits.len() < WAITS_MAX
    }

    /// Counts acknowledgements of `id` until `deadline`; `known` are the names of all other peers.
    pub(super) fn wait(&mut self, id: MessageId, known: BTreeSet<PeerName>, deadline: Time, now: Time) {
        let wait = Wait { started: now, known, acknowledged: BTreeMap::new(), deadline, latest: now };
        self.waits.insert(id, wait);
    }

    /// The broadcasts whose wait is over; `known` are the names of all other peers.
    pub(super) fn finished(&mut self, known: &BTreeSet<PeerName>, now: Time) -> Vec<(MessageId, Tally)> {
        let ids: Vec<_> = self.waits.iter().filter(|(_, wait)| wait.is_over(known, now)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| Some((id, self.waits.remove(&id)?.tally(known)))).collect()
    }

    /// When to flush, or perhaps to finish.
    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        let waits = self.waits.values().map(|wait| {
            // A wait that was not over then is checked again after the next acknowledgement.
            let quiet = [wait.quiet_at(), wait.given_up_at()].into_iter().find(|quiet| *quiet > now);
            quiet.map_or(wait.deadline, |quiet| quiet.min(wait.deadline))
        });
        waits.chain(self.flush_at).min()
    }

    /// Whether broadcasts wait for acknowledgements.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waits.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(number: u128) -> Acknowledgement {
        let peer = Contact::parse(PeerId::from_u128(number), &format!("p{number}"), "127.0.0.1:1").unwrap();
        Acknowledgement { peer, signature: None }
    }

    fn id(origin: u128) -> MessageId {
        MessageId { origin: PeerId::from_u128(origin), incarnation: 1, sequence: 1 }
    }

    const LATER: Time = Time::from_secs(1);

    #[test]
    fn acknowledgements_go_back_the_way_the_broadcast_came() {
        let mut acks = Acks::default();
        acks.delivered(id(9), PeerId::from_u128(2), by(1), Time::ZERO);
        acks.acknowledged(id(9), vec![by(3), by(4)], Time::ZERO);
        assert_eq!(acks.flush(Time::ZERO), []);
        assert_eq!(acks.flush(GATHER), [(PeerId::from_u128(2), id(9), vec![by(1), by(3), by(4)])]);
        assert_eq!(acks.flush(LATER), []);
        acks.acknowledged(id(9), vec![by(5)], LATER);
        assert_eq!(acks.flush_all(), [(PeerId::from_u128(2), id(9), vec![by(5)])], "a peer that stops does not wait");
        // Those of an unknown broadcast are dropped.
        acks.acknowledged(id(8), vec![by(3)], Time::ZERO);
        assert_eq!(acks.flush(LATER), []);
    }

    #[test]
    fn a_wait_ends_when_all_known_peers_acknowledged_or_at_its_deadline_and_names_the_missing() {
        let known: BTreeSet<PeerName> = ["p1", "P2"].iter().map(|name| name.parse().unwrap()).collect();
        let mut acks = Acks::default();
        acks.wait(id(9), BTreeSet::new(), LATER, Time::ZERO);
        acks.acknowledged(id(9), vec![by(1)], Time::ZERO);
        assert_eq!(acks.next_deadline(Time::ZERO), Some(QUIET));
        assert_eq!(acks.finished(&known, QUIET), []);
        assert_eq!(acks.next_deadline(QUIET), Some(LATER));
        let all = Tally { known: 2, acknowledged: 1, missing: vec!["P2".into()] };
        assert_eq!(acks.finished(&known, LATER), [(id(9), all)]);
        acks.wait(id(9), BTreeSet::new(), LATER, Time::ZERO);
        acks.acknowledged(id(9), vec![by(1), by(2), by(2), by(5)], Time::ZERO);
        let all = Tally { known: 3, acknowledged: 3, missing: vec![] };
        assert_eq!(acks.finished(&known, QUIET), [(id(9), all)]);
        // Of a peer that knows nobody, somebody may still hear; of those that acknowledged and left, nobody is waited for.
        let nobody = BTreeSet::new();
        acks.wait(id(9), BTreeSet::new(), LATER, Time::ZERO);
        assert_eq!(acks.finished(&nobody, QUIET), []);
        acks.acknowledged(id(9), vec![by(1)], Time::ZERO);
        let gone = Tally { known: 1, acknowledged: 1, missing: vec![] };
        assert_eq!(acks.finished(&nobody, QUIET), [(id(9), gone)]);
        assert!(!acks.is_waiting());
    }

    #[test]
    fn a_peer_that_leaves_because_of_a_broadcast_is_still_waited_for_and_else_missing() {
        let known: BTreeSet<PeerName> = ["p1", "p2"].iter().map(|name| name.parse().unwrap()).collect();
        let far = Time::from_secs(9);
        for answers in [true, false] {
            let mut acks = Acks::default();
            acks.wait(id(9), known.clone(), far, Time::ZERO);
            acks.acknowledged(id(9), vec![by(1)], Time::ZERO);
            let nobody = BTreeSet::new();
            assert_eq!(acks.finished(&nobody, QUIET), [], "p2 is gone, and its acknowledgement may be on its way");
            assert_eq!(acks.next_deadline(QUIET), Some(QUIET_OF_GONE));
            let (at, tally) = if answers {
                acks.acknowledged(id(9), vec![by(2)], QUIET);
                (QUIET * 3, Tally { known: 2, acknowledged: 2, missing: vec![] })
            } else {
                (QUIET_OF_GONE, Tally { known: 2, acknowledged: 1, missing: vec!["p2".into()] })
            };
            assert_eq!(acks.finished(&nobody, at), [(id(9), tally)]);
        }
    }

    #[test]
    fn what_a_closing_link_may_have_lost_goes_out_again_and_what_found_no_link_with_the_next_one() {
        let neighbour = PeerId::from_u128(2);
        let mut acks = Acks::default();
        acks.delivered(id(9), neighbour, by(1), Time::ZERO);
        for (to, again) in [(Some(neighbour), true), (Some(PeerId::from_u128(3)), false), (None, true)] {
            for (came_from, id, peers) in acks.flush(GATHER) {
                assert_eq!(came_from, neighbour);
                acks.sent(to, id, peers, GATHER);
            }
            assert_eq!(acks.has_unsent(GATHER), to.is_none());
            match to {
                Some(_) => acks.link_down(neighbour, GATHER),
                None => acks.link_up(GATHER),
            }
            let out = acks.flush(GATHER * 2);
            assert_eq!(out.len(), usize::from(again), "{to:?}");
            acks.acknowledged(id(9), vec![by(1)], Time::ZERO);
        }
        // What was sent long ago has arrived.
        for (_, id, peers) in acks.flush(GATHER) {
            acks.sent(Some(neighbour), id, peers, GATHER);
        }
        acks.link_down(neighbour, Time::from_secs(60));
        assert_eq!(acks.flush_all(), []);
    }

    #[test]
    fn the_number_of_detours_is_bounded() {
        let mut acks = Acks::default();
        assert!(!acks.detour(&id(9)), "of an unknown broadcast");
        acks.delivered(id(9), PeerId::from_u128(2), by(1), Time::ZERO);
        assert_eq!((0..1_000).filter(|_| acks.detour(&id(9))).count(), usize::from(DETOURS_MAX));
    }

    #[test]
    fn memory_is_bounded() {
        let mut acks = Acks::default();
        for origin in 0..20_000 {
            acks.delivered(id(origin), PeerId::from_u128(2), by(1), Time::ZERO);
            acks.detour(&id(origin));
            acks.sent(None, id(origin), vec![by(1)], Time::ZERO);
        }
        assert!(acks.detours.len() <= PATHS_MAX);
        assert!(acks.last_sent.take(None, Time::ZERO).len() < PATHS_MAX * 2, "memory for what was sent");
        assert!(acks.came_from.len() <= PATHS_MAX && acks.outgoing.len() <= PATHS_MAX && acks.queued <= OUTGOING_MAX);
        assert_eq!(acks.queued, acks.outgoing.values().map(Vec::len).sum::<usize>());
    }
}
