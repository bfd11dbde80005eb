//! What one peer does, event by event.

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
            peer.tell(Event::NeighbourUp(PeerId::from_u128(number)));
        }
        peer
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.machine.handle(event, self.now, &mut self.rng, &mut out);
        out
    }

    fn hear(&mut self, from: u128, message: Message) -> Vec<Action> {
        let from = PeerId::from_u128(from);
        self.tell(Event::Received { from, message })
    }

    /// A word of the root, peer 1, which is older than this one.
    fn beacon(&mut self, from: u128, sequence: u64, hops: u32) -> Vec<Action> {
        let root = Root { incarnation: 1, id: PeerId::from_u128(1) };
        let beacon = Beacon { root, sequence, hops, parent: false };
        self.hear(from, Message::Beacon(beacon))
    }

    fn parent(&self) -> Option<u128> {
        self.machine.tree().parent().map(|peer| peer.as_u128())
    }

    fn wait(&mut self, duration: Duration) -> Vec<Action> {
        let end = self.now + duration;
        let mut out = Vec::new();
        while self.machine.next_deadline() <= end {
            self.now = self.machine.next_deadline().max(self.now);
            out.extend(self.tell(Event::Tick));
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
fn equal_payloads_are_two_broadcasts_and_one_broadcast_is_shown_once() {
    let mut peer = Peer::with_neighbours(1..4);
    assert_eq!(delivered(&peer.hear(1, gossip(9, 1))), 1);
    assert_eq!(delivered(&peer.hear(1, gossip(9, 2))), 1);
    assert_eq!(delivered(&peer.hear(2, gossip(9, 1))), 0);
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
    assert_eq!(peer.parent(), Some(2), "no better is no reason to change");
}

#[test]
fn a_broadcast_is_pushed_along_the_tree_and_advertised_elsewhere() {
    let mut peer = Peer::with_neighbours(1..5);
    peer.beacon(1, 7, 0);
    let mut out = peer.hear(3, gossip(9, 1));
    out.extend(peer.wait(Duration::from_secs(1)));
    assert_eq!(sent(&out, |m| matches!(m, Message::Gossip(_))), [1]);
    assert_eq!(sent(&out, |m| matches!(m, Message::Advertise(_))), [2, 4]);
}

#[test]
fn what_comes_twice_is_pruned_but_not_along_the_tree() {
    let mut peer = Peer::with_neighbours(1..5);
    peer.beacon(1, 7, 0);
    peer.hear(1, gossip(9, 1));
    assert_eq!(sent(&peer.hear(2, gossip(9, 1)), |m| *m == Message::Prune), [2]);
    let graft = Message::Graft { ids: Vec::new(), push: true };
    peer.hear(3, graft);
    peer.hear(3, gossip(9, 2));
    assert_eq!(sent(&peer.hear(1, gossip(9, 2)), |m| *m == Message::Prune), [3]);
    assert!(!peer.machine.is_eager(PeerId::from_u128(3)));
    assert!(peer.machine.is_eager(PeerId::from_u128(1)));
}

#[test]
fn what_is_advertised_and_does_not_come_is_pulled_from_one_after_the_other_and_then_forgotten() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    peer.hear(2, adverts([id(9, 1)]));
    peer.hear(3, adverts([id(9, 1)]));
    let out = peer.wait(Duration::from_secs(6));
    assert_eq!(sent(&out, |m| matches!(m, Message::Graft { .. })), [2, 3, 2, 3]);
    assert_eq!(peer.machine.counts().forgotten, 1);
    assert_eq!(peer.machine.sizes().2, 0);
}

#[test]
fn endless_adverts_and_origins_stay_in_bounds() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    for chunk in 0..40_u32 {
        let ids = (0..MAX_IDS as u64).map(|i| id(1_000 + u128::from(chunk), i));
        peer.hear(2, adverts(ids));
    }
    for origin in 0..MAX_ORIGINS as u128 + 100 {
        peer.now += Duration::from_millis(4);
        peer.hear(2, gossip(100_000 + origin, 1));
    }
    let (origins, kept, missing) = peer.machine.sizes();
    assert_eq!((origins, kept, missing), (MAX_ORIGINS, MAX_KEPT, MAX_MISSING));
}

#[test]
fn without_a_parent_every_link_counts() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    assert!(!peer.machine.is_eager(PeerId::from_u128(2)));
    peer.tell(Event::NeighbourDown(PeerId::from_u128(1)));
    assert!(peer.machine.is_eager(PeerId::from_u128(2)) && peer.machine.is_eager(PeerId::from_u128(3)));
}

#[test]
fn a_neighbour_no_further_from_the_root_takes_a_lost_parents_place_at_once() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    peer.beacon(2, 7, 1);
    peer.beacon(3, 7, 2);
    peer.tell(Event::NeighbourDown(PeerId::from_u128(1)));
    assert_eq!(peer.parent(), Some(2), "3 may hang on this peer");
}

#[test]
fn a_peer_without_a_way_to_the_root_says_so_and_follows_a_child_that_has_found_one() {
    let mut peer = Peer::with_neighbours(1..3);
    peer.beacon(1, 7, 0);
    let root = Root { incarnation: 1, id: PeerId::from_u128(1) };
    let child = Beacon { root, sequence: 7, hops: 2, parent: true };
    peer.hear(2, Message::Beacon(child));
    let out = peer.tell(Event::NeighbourDown(PeerId::from_u128(1)));
    assert_eq!(peer.parent(), None);
    let nowhere = |m: &Message| matches!(m, Message::Beacon(b) if b.hops == MAX_DEPTH);
    assert_eq!(sent(&out, nowhere), [2]);
    peer.beacon(2, 7, 2);
    assert_eq!(peer.parent(), Some(2));
}

#[test]
fn a_root_that_falls_silent_is_followed_by_another_and_its_ghost_is_not_believed() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(2, 7, 5);
    peer.wait(Duration::from_secs(10));
    assert!(peer.machine.tree().is_root());
    peer.beacon(3, 7, 5);
    assert!(peer.machine.tree().is_root());
    peer.beacon(3, 8, 5);
    assert_eq!(peer.parent(), Some(3), "it lives after all");
}

#[test]
fn a_lie_about_the_sequence_does_not_silence_a_root() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.beacon(1, 7, 0);
    peer.beacon(3, u64::MAX, 0);
    peer.beacon(3, 7 + 2_000, 0);
    assert_eq!(peer.machine.tree().root().1, 7);
    assert_eq!(peer.parent(), Some(1));
}

#[test]
fn a_neighbour_from_another_island_is_told_all_there_is() {
    let mut peer = Peer::with_neighbours(1..3);
    peer.beacon(1, 7, 0);
    peer.hear(1, gossip(9, 1));
    peer.hear(1, gossip(9, 2));
    peer.wait(Duration::from_secs(1));
    peer.tell(Event::NeighbourUp(PeerId::from_u128(3)));
    let root = Root { incarnation: 500, id: PeerId::from_u128(77) };
    let foreign = Beacon { root, sequence: 3, hops: 1, parent: false };
    peer.hear(3, Message::Beacon(foreign));
    let out = peer.wait(Duration::from_secs(1));
    let all = |m: &Message| matches!(m, Message::Advertise(adverts) if adverts.len() == 2);
    assert_eq!(sent(&out, all), [3]);
}

#[test]
fn what_a_lone_peer_said_is_advertised_to_the_first_it_meets() {
    let mut peer = Peer::with_neighbours(1..2);
    peer.beacon(1, 7, 0);
    peer.tell(Event::NeighbourDown(PeerId::from_u128(1)));
    peer.machine.broadcast(Bytes::from_static(b"anybody?"), peer.now, &mut Vec::new());
    peer.tell(Event::NeighbourUp(PeerId::from_u128(2)));
    peer.beacon(2, 7, 3);
    let out = peer.wait(Duration::from_secs(1));
    assert_eq!(sent(&out, |m| matches!(m, Message::Advertise(_))), [2]);
    assert_eq!(peer.parent(), Some(2));
}

#[test]
fn a_graft_is_answered_from_what_is_kept_up_to_a_bound() {
    let mut peer = Peer::with_neighbours(1..3);
    let payload = Bytes::from(vec![0; MAX_PAYLOAD]);
    let mut out = Vec::new();
    let ids: Vec<MessageId> = (0..40).filter_map(|_| peer.machine.broadcast(payload.clone(), peer.now, &mut out)).collect();
    let out = peer.hear(1, Message::Graft { ids, push: false });
    let given = sent(&out, |m| matches!(m, Message::Gossip(_))).len();
    assert_eq!(given, MAX_GRAFT_BYTES / MAX_PAYLOAD);
    assert_eq!(peer.machine.broadcast(vec![0; MAX_PAYLOAD + 1].into(), peer.now, &mut Vec::new()), None);
}

/// A broadcast of that life.
fn life(origin: u128, incarnation: u64, sequence: u64) -> Message {
    let id = MessageId { origin: PeerId::from_u128(origin), incarnation, sequence };
    Message::Gossip(Gossip { id, hops: 1, age: Duration::ZERO, payload: Bytes::from_static(b"a life") })
}

/// Somewhere in 2026.
const TODAY: u64 = 1_780_000_000_000;

#[test]
fn a_name_that_is_too_far_ahead_silences_nobody() {
    let mut peer = Peer::with_neighbours(1..4);
    peer.machine = Plumtree::new(ME, TODAY, Config::default(), Time::ZERO);
    for number in 1..4 {
        peer.tell(Event::NeighbourUp(PeerId::from_u128(number)));
    }
    assert_eq!(delivered(&peer.hear(1, life(9, TODAY - 5_000, 1))), 1);
    let year = MAX_INCARNATION_AHEAD.as_millis() as u64;
    for (incarnation, sequence) in [(u64::MAX, 1), (TODAY + 2 * year, 1), (TODAY - 5_000, u64::MAX), (TODAY - 5_000, 1 << 40)] {
        let lie = life(9, incarnation, sequence);
        let out = peer.hear(2, lie);
        assert_eq!(delivered(&out), 0);
        assert!(out.is_empty(), "nor passed on: {out:?}");
    }
    assert_eq!(delivered(&peer.hear(1, life(9, TODAY - 5_000, 2))), 1);
    assert_eq!(delivered(&peer.hear(1, life(9, TODAY + 3_600_000, 1))), 1, "a clock that is fast by an hour");
}

#[test]
fn a_peer_goes_on_after_whatever_others_may_believe_though_its_clock_is_slow() {
    let year = MAX_INCARNATION_AHEAD.as_millis() as u64;
    for slow_by in [0, 3_000, 1_800_000] {
        let (mut slow, mut other) = (Peer::with_neighbours(1..4), Peer::with_neighbours(1..4));
        slow.machine = Plumtree::new(ME, TODAY - slow_by, Config::default(), Time::ZERO);
        other.machine = Plumtree::new(PeerId::from_u128(77), TODAY, Config::default(), Time::ZERO);
        for number in 1..4 {
            slow.tell(Event::NeighbourUp(PeerId::from_u128(number)));
            other.tell(Event::NeighbourUp(PeerId::from_u128(number)));
        }
        let lie = TODAY + year;
        assert_eq!(delivered(&other.hear(1, life(ME.as_u128(), lie, 7))), 1, "as far ahead as is believed");
        slow.hear(1, life(ME.as_u128(), lie, 7));
        assert!(slow.machine.incarnation() > lie, "slow by {slow_by} ms");
    }
}

#[test]
fn a_peer_that_hears_of_itself_what_it_did_not_say_goes_on_after_it() {
    for (incarnation, sequence) in [(1_000, 77), (5_000, 1), (1 << 60, 7)] {
        let mut peer = Peer::with_neighbours(1..4);
        // Everybody hears the lie; the one that it is about, as it comes around.
        let lie = MessageId { origin: ME, incarnation, sequence };
        peer.hear(2, life(ME.as_u128(), incarnation, sequence));
        peer.hear(2, adverts([lie]));
        assert!((peer.machine.incarnation(), 1) > (incarnation, 0));
        let mut out = Vec::new();
        let id = peer.machine.broadcast(Bytes::from_static(b"I live"), peer.now, &mut out).expect("short");
        assert!((id.incarnation, id.sequence) > (incarnation, sequence), "{id:?}");
    }
    let mut peer = Peer::with_neighbours(1..4);
    peer.hear(2, life(ME.as_u128(), u64::MAX, 1));
    assert_eq!(peer.machine.incarnation(), 1_000, "nobody else believes that");
}

#[test]
fn origins_that_are_made_up_push_out_nobody_elses_windows() {
    let mut peer = Peer::with_neighbours(1..4);
    assert_eq!(delivered(&peer.hear(1, gossip(9, 1))), 1);
    let mut let_in = 0;
    for number in 0..40_000_u128 {
        peer.now += Duration::from_micros(100);
        let_in += delivered(&peer.hear(2, gossip(1_000 + number, 1)));
    }
    let most = NEW_ORIGINS_AT_ONCE as usize + 5 * NEW_ORIGINS_PER_SECOND as usize;
    assert!(let_in <= most, "{let_in}");
    assert_eq!(delivered(&peer.hear(3, gossip(9, 1))), 0, "it is known");
    assert_eq!(delivered(&peer.hear(3, gossip(10, 1))), 1, "other links bring new ones");
    let burst = (2..5_002).map(|sequence| delivered(&peer.hear(2, gossip(9, sequence)))).sum::<usize>();
    assert_eq!(burst, 5_000, "one origin may say much");
}

#[test]
fn who_advertises_what_it_has_not_is_named_unless_so_much_is_said_that_nobody_keeps_it() {
    for (said, named) in [(10, 1), (MAX_KEPT as u64, 0)] {
        let mut peer = Peer::with_neighbours(1..4);
        peer.beacon(1, 7, 0);
        for sequence in 1..=said {
            peer.hear(1, gossip(9, sequence));
        }
        peer.hear(2, adverts((0..MAX_BROKEN_PROMISES as u64 + 5).map(|sequence| id(10, 1 + sequence))));
        let mut found = 0;
        for sequence in said..said + 40 {
            found += peer.wait(Duration::from_secs(1)).iter().filter(|action| matches!(action, Action::Misbehaved(..))).count();
            // As much as in a busy network.
            for part in 0..if named == 0 { MAX_KEPT as u64 / 8 } else { 0 } {
                peer.hear(1, gossip(9, 10 * MAX_KEPT as u64 + sequence * 1_000 + part));
            }
        }
        assert_eq!(found, named, "{said} said");
    }
}
