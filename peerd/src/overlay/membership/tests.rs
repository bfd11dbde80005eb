//! One peer, event by event.

use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

mod crowded;

struct Peer {
    machine: Membership,
    rng: ChaCha8Rng,
    now: Time,
}

fn contact(number: u128) -> Contact {
    Contact::parse(PeerId::from_u128(number), &format!("peer-{number}"), "127.0.0.1:7801").expect("valid")
}

impl Peer {
    fn new() -> Self {
        Self {
            machine: Membership::new(contact(0), Config::default(), Time::ZERO),
            rng: ChaCha8Rng::seed_from_u64(1),
            now: Time::ZERO,
        }
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

    fn link(&mut self, number: u128, dialled: bool) -> Vec<Action> {
        self.handle(Event::LinkUp { peer: contact(number), incarnation: 1, dialled })
    }

    /// A peer dials this one and sends a request. Returns whether it is accepted.
    fn asked(&mut self, number: u128, urgent: bool) -> bool {
        self.link(number, false);
        let out = self.receive(number, Message::Request { urgent });
        accepted(&out, number)
    }

    /// Finds peers, and is accepted by all that it dials, until it stops dialling.
    fn settle(&mut self, numbers: std::ops::Range<u128>) {
        let mut actions = self.handle(Event::PeersFound(numbers.map(contact).collect()));
        while let Some(action) = actions.pop() {
            if let Action::Dial(peer) = action {
                let number = peer.id().as_u128();
                self.link(number, true);
                let accepted = true;
                let peers = Vec::new();
                actions.extend(self.receive(number, Message::Reply { accepted, peers }));
            }
        }
    }

    fn count(&self, wanted: Direction) -> usize {
        self.machine.neighbours().filter(|(_, direction)| *direction == wanted).count()
    }
}

fn accepted(actions: &[Action], number: u128) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::Send(to, Message::Reply { accepted: true, .. }) if to.as_u128() == number))
}

fn asks(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::AskForPeers(_)))
}

#[test]
fn requests_that_are_not_urgent_fill_neither_outgoing_nor_reserved_slots() {
    let mut peer = Peer::new();
    let accepted = (100..200).filter(|number| peer.asked(*number, false)).count();
    let config = Config::default();
    assert_eq!(accepted, config.incoming);
    peer.settle(1..20);
    assert_eq!(peer.count(Direction::Outgoing), config.outgoing);
    assert!(peer.asked(300, true), "a slot is reserved for newcomers");
    assert_eq!(peer.count(Direction::Incoming), config.incoming + config.reserved);
    assert_eq!(peer.count(Direction::Outgoing), config.outgoing);
}

#[test]
fn many_urgent_requests_at_once_evict_only_a_few_neighbours() {
    let mut peer = Peer::new();
    peer.settle(1..20);
    let slots = Config::default().incoming + Config::default().reserved;
    let accepted = (100..200).filter(|number| peer.asked(*number, true)).count();
    let evicted = Config::default().evictions_per_second as usize;
    assert_eq!(accepted, slots + evicted);
    assert_eq!(peer.count(Direction::Outgoing), Config::default().outgoing);
    peer.now += Duration::from_secs(1);
    assert!(peer.asked(301, true));
}

#[test]
fn an_evicted_peer_evicts_no_other() {
    let mut peer = Peer::new();
    assert_eq!((100..106).filter(|number| peer.asked(*number, true)).count(), 6);
    peer.link(200, false);
    let out = peer.receive(200, Message::Request { urgent: true });
    let evicted = out.iter().find_map(|action| match action {
        Action::Send(to, Message::Disconnect { alive: true, .. }) => Some(to.as_u128()),
        _ => None,
    });
    let evicted = evicted.expect("a full view evicts a neighbour");
    for _ in 0..20 {
        peer.now += Duration::from_secs(60);
        assert!(!peer.asked(evicted, true));
    }
    peer.handle(Event::LinkDown { peer: PeerId::from_u128(200) });
    assert!(peer.asked(evicted, true), "a free slot needs no eviction");
}

#[test]
fn a_refusal_carries_contacts() {
    let mut peer = Peer::new();
    peer.settle(1..20);
    for number in 100..110 {
        peer.link(number, false);
        let out = peer.receive(number, Message::Request { urgent: false });
        let has_contacts = |action: &Action| matches!(action, Action::Send(_, Message::Reply { peers, .. }) if !peers.is_empty());
        assert!(out.iter().any(has_contacts), "{number}: {out:?}");
    }
}

#[test]
fn a_peer_without_neighbours_asks_for_peers_at_once_and_then_with_growing_pauses() {
    let mut peer = Peer::new();
    peer.settle(1..5);
    assert_eq!(peer.count(Direction::Outgoing), 4);
    peer.now += Duration::from_secs(100);
    let mut actions = Vec::new();
    for number in 1..5 {
        actions.extend(peer.handle(Event::LinkDown { peer: PeerId::from_u128(number) }));
    }
    assert!(asks(&actions));
    let mut requests = 0;
    for _ in 0..300 {
        peer.now += Duration::from_secs(1);
        requests += usize::from(asks(&peer.handle(Event::Tick)));
    }
    assert!((6..=14).contains(&requests), "{requests} requests in five minutes");
}

#[test]
fn a_peer_with_enough_links_asks_for_no_peers() {
    let mut peer = Peer::new();
    assert!(asks(&peer.handle(Event::Tick)));
    peer.settle(1..5);
    for _ in 0..300 {
        peer.now += Duration::from_secs(1);
        assert!(!asks(&peer.handle(Event::Tick)));
    }
}

#[test]
fn a_peer_with_a_full_active_view_dials_no_peer_whichever_side_dialled_its_links() {
    let mut peer = Peer::new();
    peer.settle(1..5);
    for number in 10..16 {
        assert!(peer.asked(number, true));
    }
    // Both sides dialled, and the link of the other side is kept: one outgoing link less, the same number of neighbours.
    peer.link(1, false);
    assert_eq!((peer.count(Direction::Outgoing), peer.count(Direction::Incoming)), (3, 7));
    peer.now += Duration::from_secs(100);
    for event in [Event::PeersFound((20..30).map(contact).collect()), Event::Tick] {
        let out = peer.handle(event);
        assert!(!asks(&out) && !out.iter().any(|action| matches!(action, Action::Dial(_))), "{out:?}");
    }
    // With a free slot, it dials.
    let out = peer.handle(Event::LinkDown { peer: PeerId::from_u128(10) });
    assert!(out.iter().any(|action| matches!(action, Action::Dial(_))), "{out:?}");
}

#[test]
fn a_lost_neighbour_is_replaced_from_the_passive_view() {
    let mut peer = Peer::new();
    peer.settle(1..30);
    let gone = peer.machine.neighbours().next().expect("a neighbour").0.id();
    let actions = peer.handle(Event::LinkDown { peer: gone });
    assert!(matches!(actions[..], [Action::NeighbourDown(_), Action::Dial(_)]), "{actions:?}");
}

#[test]
fn two_crossing_requests_make_one_neighbour() {
    let mut peer = Peer::new();
    peer.handle(Event::Join(contact(1)));
    peer.link(1, true);
    let out = peer.receive(1, Message::Request { urgent: true });
    assert!(accepted(&out, 1));
    let accepted = true;
    let peers = Vec::new();
    peer.receive(1, Message::Reply { accepted, peers });
    assert_eq!(peer.machine.neighbours().count(), 1);
}

#[test]
fn a_restarted_peer_is_no_longer_a_neighbour() {
    let mut peer = Peer::new();
    assert!(peer.asked(1, true));
    let incarnation = 2;
    let dialled = false;
    let again = contact(1);
    let out = peer.handle(Event::LinkUp { peer: again, incarnation, dialled });
    assert!(out.contains(&Action::NeighbourDown(PeerId::from_u128(1))));
}

#[test]
fn a_link_without_a_request_is_closed() {
    let mut peer = Peer::new();
    peer.link(1, false);
    peer.now = peer.machine.next_deadline(peer.now).expect("a deadline").max(Config::default().idle_link);
    assert!(peer.handle(Event::Tick).contains(&Action::Close(PeerId::from_u128(1))));
}

#[test]
fn a_link_that_came_up_after_its_deadline_is_closed_and_forgotten() {
    let mut peer = Peer::new();
    peer.handle(Event::Join(contact(1)));
    peer.now += Config::default().dial_timeout / 2;
    peer.link(1, true);
    peer.now += Config::default().dial_timeout;
    assert!(peer.handle(Event::Tick).contains(&Action::Close(PeerId::from_u128(1))));
    assert!(peer.machine.links.is_empty());
}

#[test]
fn one_neighbour_cannot_fill_the_passive_view_with_contacts_of_its_choice() {
    let mut peer = Peer::new();
    peer.settle(1..60);
    assert!(peer.asked(100, true) && peer.asked(101, true));
    // Contacts that this peer was linked to.
    let outgoing = peer.machine.neighbours().filter(|(_, direction)| *direction == Direction::Outgoing);
    let linked: Vec<PeerId> = outgoing.map(|(contact, _)| contact.id()).collect();
    for id in &linked {
        peer.receive(id.as_u128(), Message::Disconnect { alive: true, peers: Vec::new() });
    }
    let ours = |peer: &Peer| peer.machine.passive().contacts().filter(|contact| contact.id().as_u128() < 1_000).count();
    let before = ours(&peer);
    let mut number = 1_000;
    let mut invented = || {
        number += 8;
        (number..number + 8).map(contact).collect::<Vec<_>>()
    };
    let from = PeerId::from_u128(100);
    for nonce in 0..50 {
        peer.receive(100, Message::Reply { accepted: true, peers: invented() });
        peer.receive(100, Message::Shuffle { nonce, path: vec![from], ttl: 1, peers: invented() });
        let newcomer = invented().remove(0);
        peer.receive(100, Message::ForwardJoin { newcomer, ttl: 0 });
    }
    assert!(ours(&peer) + MAX_CONTACTS >= before, "{} of {before}", ours(&peer));
    // Over time it can replace unverified contacts, but not the others.
    for nonce in 0..600 {
        peer.now += Duration::from_secs(1);
        peer.receive(100, Message::Shuffle { nonce, path: vec![from], ttl: 1, peers: invented() });
    }
    assert!(!linked.is_empty() && linked.iter().all(|id| peer.machine.passive().contains(*id)));
}

#[test]
fn a_shuffle_with_a_false_path_is_reported() {
    let mut peer = Peer::new();
    assert!(peer.asked(1, true));
    for path in [vec![], vec![PeerId::from_u128(9)], vec![PeerId::from_u128(1); 40]] {
        let message = Message::Shuffle { nonce: 1, path, ttl: u32::MAX, peers: Vec::new() };
        let out = peer.receive(1, message);
        assert_eq!(out, [Action::Misbehaved(PeerId::from_u128(1), Misbehaviour::BadPath)]);
    }
}

#[test]
fn a_peer_that_leaves_says_goodbye_and_dials_no_peer() {
    let mut peer = Peer::new();
    peer.settle(1..5);
    let actions = peer.handle(Event::Leave);
    let goodbyes = actions.iter().filter(|action| matches!(action, Action::Send(_, Message::Disconnect { alive: false, .. })));
    assert_eq!(goodbyes.count(), 4);
    assert!(peer.handle(Event::PeersFound(vec![contact(9)])).is_empty());
    assert_eq!(peer.machine.next_deadline(peer.now), None);
}
