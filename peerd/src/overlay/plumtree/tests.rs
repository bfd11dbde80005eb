//! One peer, event by event.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::identity::incarnation::MAX_INCARNATION_AHEAD;

mod linked;

const ME: PeerId = PeerId::from_u128(50);

struct Peer {
    machine: Plumtree,
    rng: ChaCha8Rng,
    now: Time,
}

impl Peer {
    fn with_neighbours(numbers: std::ops::Range<u128>) -> Self {
        let mut peer = Self {
            machine: Plumtree::new(ME, 1_000, Config::default(), Time::ZERO),
            rng: ChaCha8Rng::seed_from_u64(1),
            now: Time::ZERO,
        };
        for number in numbers {
            peer.handle(Event::NeighbourUp(PeerId::from_u128(number)));
        }
        peer
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.machine.handle(event, self.now, &mut self.rng, &mut out);
        out
    }

    fn receive(&mut self, from: u128, message: Message) -> Vec<Action> {
        let from = PeerId::from_u128(from);
        self.handle(Event::Received { from, message })
    }

    /// A beacon of the root, peer 1, whose incarnation is older than this one's.
    fn beacon(&mut self, from: u128, sequence: u64, hops: u32) -> Vec<Action> {
        let root = Root { incarnation: 1, id: PeerId::from_u128(1) };
        let beacon = Beacon { root, sequence, hops, parent: false };
        self.receive(from, Message::Beacon(beacon))
    }

    fn parent(&self) -> Option<u128> {
        self.machine.tree().parent().map(|peer| peer.as_u128())
    }

    fn wait(&mut self, duration: Duration) -> Vec<Action> {
        let end = self.now + duration;
        let mut out = Vec::new();
        let mut ticks = 0;
        while self.machine.next_deadline() <= end {
            ticks += 1;
            assert!(ticks < 10_000, "a tick does not move the deadline");
            self.now = self.machine.next_deadline().max(self.now);
            out.extend(self.handle(Event::Tick));
        }
        self.now = end;
        out
    }
}

fn id(origin: u128, sequence: u64) -> MessageId {
    MessageId { origin: PeerId::from_u128(origin), incarnation: 1, sequence }
}

fn gossip(origin: u128, sequence: u64) -> Message {
    Message::Gossip(Gossip {
        id: id(origin, sequence),
        hops: 1,
        age: Duration::ZERO,
        payload: Bytes::from_static(b"the same each time"),
        signature: None,
    })
}

fn adverts(ids: impl IntoIterator<Item = MessageId>) -> Message {
    let age = Duration::ZERO;
    Message::Advertise(ids.into_iter().map(|id| Advert { id, age }).collect())
}

fn sent(actions: &[Action], wanted: impl Fn(&Message) -> bool) -> Vec<u128> {
    let to = |action: &Action| match action {
        Action::Send(to, message) if wanted(message) => Some(to.as_u128()),
        _ => None,
    };
    actions.iter().filter_map(to).collect()
}

fn delivered(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Deliver(..))).count()
}

#[test]
fn equal_payloads_are_two_broadcasts_and_one_broadcast_is_delivered_once() {
    let mut peer = Peer::with_neighbours(1..4);
    assert_eq!(delivered(&peer.receive(1, gossip(9, 1))), 1);
    assert_eq!(delivered(&peer.receive(1, gossip(9, 2))), 1);
    assert_eq!(delivered(&peer.receive(2, gossip(9, 1))), 0);
    assert_eq!(peer.machine.counts().duplicates, 1);
}

#[test]
fn the_neighbour_closest_to_the_root_becomes_the_parent() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(3, 7, 4);
    assert_eq!(peer.parent(), Some(3));
    peer.beacon(2, 7, 3);
    assert_eq!(peer.parent(), Some(2));
    peer.beacon(3, 8, 3);
    assert_eq!(peer.parent(), Some(2), "an equal path is no reason to change");
}

#[test]
fn a_broadcast_is_pushed_along_the_tree_and_advertised_elsewhere() {
    let mut peer = Peer::with_neighbours(1..5);
    peer.beacon(1, 7, 0);
    let mut out = peer.receive(3, gossip(9, 1));
    out.extend(peer.wait(Duration::from_secs(1)));
    assert_eq!(sent(&out, |m| matches!(m, Message::Gossip(_))), [1]);
    assert_eq!(sent(&out, |m| matches!(m, Message::Advertise(_))), [2, 4]);
}

#[test]
fn the_link_of_a_duplicate_is_pruned_unless_it_is_a_branch() {
    let mut peer = Peer::with_neighbours(1..5);
    peer.beacon(1, 7, 0);
    peer.receive(1, gossip(9, 1));
    assert_eq!(sent(&peer.receive(2, gossip(9, 1)), |m| *m == Message::Prune), [2]);
    let graft = Message::Graft { ids: Vec::new(), push: true };
    peer.receive(3, graft);
    peer.receive(3, gossip(9, 2));
    assert_eq!(sent(&peer.receive(1, gossip(9, 2)), |m| *m == Message::Prune), [3]);
    assert!(!peer.machine.is_eager(PeerId::from_u128(3)));
    assert!(peer.machine.is_eager(PeerId::from_u128(1)));
}

#[test]
fn an_advertised_broadcast_that_does_not_arrive_is_pulled_from_each_holder_twice_and_then_given_up() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    peer.receive(2, adverts([id(9, 1)]));
    peer.receive(3, adverts([id(9, 1)]));
    let out = peer.wait(Duration::from_secs(6));
    assert_eq!(sent(&out, |m| matches!(m, Message::Graft { .. })), [2, 3, 2, 3]);
    assert_eq!(peer.machine.counts().forgotten, 1);
    assert_eq!(peer.machine.sizes().2, 0);
}

#[test]
fn any_number_of_adverts_and_origins_stays_within_the_limits() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    for chunk in 0..40_u32 {
        let ids = (0..MAX_IDS as u64).map(|i| id(1_000 + u128::from(chunk), i));
        peer.receive(2, adverts(ids));
    }
    for origin in 0..MAX_ORIGINS as u128 + 100 {
        peer.now += Duration::from_millis(4);
        peer.receive(2, gossip(100_000 + origin, 1));
    }
    let (origins, stored, missing) = peer.machine.sizes();
    assert_eq!((origins, stored, missing), (MAX_ORIGINS, MAX_STORED, MAX_MISSING));
}

#[test]
fn without_a_parent_every_link_is_eager() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    assert!(!peer.machine.is_eager(PeerId::from_u128(2)));
    peer.handle(Event::NeighbourDown(PeerId::from_u128(1)));
    assert!(peer.machine.is_eager(PeerId::from_u128(2)) && peer.machine.is_eager(PeerId::from_u128(3)));
}

#[test]
fn a_lost_parent_is_replaced_at_once_by_a_neighbour_that_is_not_further_from_the_root() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    peer.beacon(2, 7, 1);
    peer.beacon(3, 7, 2);
    peer.handle(Event::NeighbourDown(PeerId::from_u128(1)));
    assert_eq!(peer.parent(), Some(2), "3 may be a descendant of this peer");
}

#[test]
fn a_peer_without_a_path_to_the_root_reports_it_and_follows_a_child_that_has_found_one() {
    let mut peer = Peer::with_neighbours(1..3);
    peer.beacon(1, 7, 0);
    let root = Root { incarnation: 1, id: PeerId::from_u128(1) };
    let child = Beacon { root, sequence: 7, hops: 2, parent: true };
    peer.receive(2, Message::Beacon(child));
    let out = peer.handle(Event::NeighbourDown(PeerId::from_u128(1)));
    assert_eq!(peer.parent(), None);
    let no_path = |m: &Message| matches!(m, Message::Beacon(b) if b.hops == MAX_DEPTH);
    assert_eq!(sent(&out, no_path), [2]);
    peer.beacon(2, 7, 2);
    assert_eq!(peer.parent(), Some(2));
}

#[test]
fn a_silent_root_is_replaced_and_its_old_beacons_are_ignored() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(2, 7, 5);
    peer.wait(Duration::from_secs(10));
    assert!(peer.machine.tree().is_root());
    peer.beacon(3, 7, 5);
    assert!(peer.machine.tree().is_root());
    peer.beacon(3, 8, 5);
    assert_eq!(peer.parent(), Some(3), "a new beacon proves that it is alive");
}

#[test]
fn a_forged_sequence_number_does_not_silence_a_root() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    peer.beacon(3, u64::MAX, 0);
    peer.beacon(3, 7 + 2_000, 0);
    assert_eq!(peer.machine.tree().root().1, 7);
    assert_eq!(peer.parent(), Some(1));
}

#[test]
fn all_stored_broadcasts_are_advertised_to_a_neighbour_in_another_partition() {
    let mut peer = Peer::with_neighbours(1..3);
    peer.beacon(1, 7, 0);
    peer.receive(1, gossip(9, 1));
    peer.receive(1, gossip(9, 2));
    peer.wait(Duration::from_secs(1));
    peer.handle(Event::NeighbourUp(PeerId::from_u128(3)));
    let root = Root { incarnation: 500, id: PeerId::from_u128(77) };
    let other_partition = Beacon { root, sequence: 3, hops: 1, parent: false };
    peer.receive(3, Message::Beacon(other_partition));
    let out = peer.wait(Duration::from_secs(1));
    let all = |m: &Message| matches!(m, Message::Advertise(adverts) if adverts.len() == 2);
    assert_eq!(sent(&out, all), [3]);
}

#[test]
fn broadcasts_of_a_peer_without_neighbours_are_advertised_to_its_next_neighbour() {
    let mut peer = Peer::with_neighbours(1..2);
    peer.beacon(1, 7, 0);
    peer.handle(Event::NeighbourDown(PeerId::from_u128(1)));
    peer.machine.broadcast(Bytes::from_static(b"no neighbours"), peer.now, &mut Vec::new());
    peer.handle(Event::NeighbourUp(PeerId::from_u128(2)));
    peer.beacon(2, 7, 3);
    let out = peer.wait(Duration::from_secs(1));
    assert_eq!(sent(&out, |m| matches!(m, Message::Advertise(_))), [2]);
    assert_eq!(peer.parent(), Some(2));
}

#[test]
fn a_graft_is_answered_from_the_store_up_to_a_limit() {
    let mut peer = Peer::with_neighbours(1..3);
    let payload = Bytes::from(vec![0; MAX_PAYLOAD]);
    let mut out = Vec::new();
    let ids: Vec<MessageId> = (0..40).filter_map(|_| peer.machine.broadcast(payload.clone(), peer.now, &mut out)).collect();
    let out = peer.receive(1, Message::Graft { ids, push: false });
    let answered = sent(&out, |m| matches!(m, Message::Gossip(_))).len();
    assert_eq!(answered, MAX_GRAFT_BYTES / MAX_PAYLOAD);
    assert_eq!(peer.machine.broadcast(vec![0; MAX_PAYLOAD + 1].into(), peer.now, &mut Vec::new()), None);
}

/// A broadcast of this incarnation of an origin.
fn of_incarnation(origin: u128, incarnation: u64, sequence: u64) -> Message {
    let id = MessageId { origin: PeerId::from_u128(origin), incarnation, sequence };
    Message::Gossip(Gossip { id, hops: 1, age: Duration::ZERO, payload: Bytes::from_static(b"payload"), signature: None })
}

/// Some time in 2026.
const TODAY: u64 = 1_780_000_000_000;

#[test]
fn a_forged_id_that_is_too_far_ahead_does_not_silence_its_origin() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.machine = Plumtree::new(ME, TODAY, Config::default(), Time::ZERO);
    for number in 1..4 {
        peer.handle(Event::NeighbourUp(PeerId::from_u128(number)));
    }
    assert_eq!(delivered(&peer.receive(1, of_incarnation(9, TODAY - 5_000, 1))), 1);
    let year = MAX_INCARNATION_AHEAD.as_millis() as u64;
    for (incarnation, sequence) in [(u64::MAX, 1), (TODAY + 2 * year, 1), (TODAY - 5_000, u64::MAX), (TODAY - 5_000, 1 << 40)] {
        let forged = of_incarnation(9, incarnation, sequence);
        let out = peer.receive(2, forged);
        assert_eq!(delivered(&out), 0);
        assert!(out.is_empty(), "not relayed: {out:?}");
    }
    assert_eq!(delivered(&peer.receive(1, of_incarnation(9, TODAY - 5_000, 2))), 1);
    assert_eq!(
        delivered(&peer.receive(1, of_incarnation(9, TODAY + 3_600_000, 1))),
        1,
        "the clock of the origin is an hour ahead"
    );
}

#[test]
fn a_peer_with_a_slow_clock_continues_above_every_forged_incarnation_that_others_accept() {
    let year = MAX_INCARNATION_AHEAD.as_millis() as u64;
    for slow_by in [0, 3_000, 1_800_000] {
        let (mut slow, mut other) = (Peer::with_neighbours(1..4), Peer::with_neighbours(1..4));
        slow.machine = Plumtree::new(ME, TODAY - slow_by, Config::default(), Time::ZERO);
        other.machine = Plumtree::new(PeerId::from_u128(77), TODAY, Config::default(), Time::ZERO);
        for number in 1..4 {
            slow.handle(Event::NeighbourUp(PeerId::from_u128(number)));
            other.handle(Event::NeighbourUp(PeerId::from_u128(number)));
        }
        let forged = TODAY + year;
        assert_eq!(
            delivered(&other.receive(1, of_incarnation(ME.as_u128(), forged, 7))),
            1,
            "the highest incarnation that is accepted"
        );
        slow.receive(1, of_incarnation(ME.as_u128(), forged, 7));
        assert!(slow.machine.incarnation() > forged, "slow by {slow_by} ms");
    }
}

#[test]
fn a_peer_continues_above_a_forged_id_of_its_own() {
    for (incarnation, sequence) in [(1_000, 77), (5_000, 1), (1 << 60, 7)] {
        let mut peer = Peer::with_neighbours(1..4);
        // The forged broadcast reaches all peers, and so its alleged origin.
        let forged = MessageId { origin: ME, incarnation, sequence };
        peer.receive(2, of_incarnation(ME.as_u128(), incarnation, sequence));
        peer.receive(2, adverts([forged]));
        assert!((peer.machine.incarnation(), 1) > (incarnation, 0));
        let mut out = Vec::new();
        let id = peer.machine.broadcast(Bytes::from_static(b"genuine"), peer.now, &mut out).expect("short");
        assert!((id.incarnation, id.sequence) > (incarnation, sequence), "{id:?}");
    }
    let mut peer = Peer::with_neighbours(1..4);
    peer.receive(2, of_incarnation(ME.as_u128(), u64::MAX, 1));
    assert_eq!(peer.machine.incarnation(), 1_000, "no other peer accepts it");
}

#[test]
fn invented_origins_do_not_evict_the_windows_of_real_ones() {
    let mut peer = Peer::with_neighbours(1..4);
    assert_eq!(delivered(&peer.receive(1, gossip(9, 1))), 1);
    let mut accepted = 0;
    for number in 0..40_000_u128 {
        peer.now += Duration::from_micros(100);
        accepted += delivered(&peer.receive(2, gossip(1_000 + number, 1)));
    }
    let most = NEW_ORIGINS_BURST as usize + 5 * NEW_ORIGINS_PER_SECOND as usize;
    assert!(accepted <= most, "{accepted}");
    assert_eq!(delivered(&peer.receive(3, gossip(9, 1))), 0, "a duplicate");
    assert_eq!(delivered(&peer.receive(3, gossip(10, 1))), 1, "new origins are accepted from other links");
    let burst = (2..5_002).map(|sequence| delivered(&peer.receive(2, gossip(9, sequence)))).sum::<usize>();
    assert_eq!(burst, 5_000, "a known origin has no such limit");
}

#[test]
fn broken_promises_are_reported_unless_the_network_is_too_busy_to_store_broadcasts() {
    for (broadcasts, reports) in [(10, 1), (MAX_STORED as u64, 0)] {
        let mut peer = Peer::with_neighbours(1..4);
        peer.beacon(1, 7, 0);
        for sequence in 1..=broadcasts {
            peer.receive(1, gossip(9, sequence));
        }
        peer.receive(2, adverts((0..MAX_BROKEN_PROMISES as u64 + 5).map(|sequence| id(10, 1 + sequence))));
        let mut found = 0;
        for sequence in broadcasts..broadcasts + 40 {
            found += peer.wait(Duration::from_secs(1)).iter().filter(|action| matches!(action, Action::Misbehaved(..))).count();
            // The traffic of a busy network.
            for part in 0..if reports == 0 { MAX_STORED as u64 / 8 } else { 0 } {
                peer.receive(1, gossip(9, 10 * MAX_STORED as u64 + sequence * 1_000 + part));
            }
        }
        assert_eq!(found, reports, "after {broadcasts} broadcasts");
    }
}
