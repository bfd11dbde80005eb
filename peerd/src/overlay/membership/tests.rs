//! What one peer does, event by event.

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

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.machine.handle(event, self.now, &mut self.rng, &mut out);
        out
    }

    fn hear(&mut self, from: u128, message: Message) -> Vec<Action> {
        let from = PeerId::from_u128(from);
        self.tell(Event::Received { from, message })
    }

    fn link(&mut self, number: u128, dialled: bool) -> Vec<Action> {
        self.tell(Event::LinkUp { peer: contact(number), incarnation: 1, dialled })
    }

    /// Somebody dials and asks.
    fn asked(&mut self, number: u128, urgent: bool) -> bool {
        self.link(number, false);
        let out = self.hear(number, Message::Request { urgent });
        accepted(&out, number)
    }

    /// Finds peers and is accepted by all it dials, until it dials no more.
    fn settle(&mut self, numbers: std::ops::Range<u128>) {
        let mut actions = self.tell(Event::PeersFound(numbers.map(contact).collect()));
        while let Some(action) = actions.pop() {
            if let Action::Dial(peer) = action {
                let number = peer.id().as_u128();
                self.link(number, true);
                let accepted = true;
                let peers = Vec::new();
                actions.extend(self.hear(number, Message::Reply { accepted, peers }));
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
fn peers_that_only_take_leave_the_outgoing_slots_and_those_for_newcomers() {
    let mut peer = Peer::new();
    let taken = (100..200).filter(|number| peer.asked(*number, false)).count();
    let config = Config::default();
    assert_eq!(taken, config.incoming);
    peer.settle(1..20);
    assert_eq!(peer.count(Direction::Outgoing), config.outgoing);
    assert!(peer.asked(300, true), "a newcomer has a slot kept for it");
    assert_eq!(peer.count(Direction::Incoming), config.incoming + config.reserved);
    assert_eq!(peer.count(Direction::Outgoing), config.outgoing);
}

#[test]
fn a_stampede_of_urgent_requests_puts_out_only_a_few() {
    let mut peer = Peer::new();
    peer.settle(1..20);
    let slots = Config::default().incoming + Config::default().reserved;
    let taken = (100..200).filter(|number| peer.asked(*number, true)).count();
    let displaced = Config::default().displacements_per_second as usize;
    assert_eq!(taken, slots + displaced);
    assert_eq!(peer.count(Direction::Outgoing), Config::default().outgoing);
    peer.now += Duration::from_secs(1);
    assert!(peer.asked(301, true));
}

#[test]
fn who_was_put_out_puts_out_nobody_in_turn() {
    let mut peer = Peer::new();
    assert_eq!((100..106).filter(|number| peer.asked(*number, true)).count(), 6);
    peer.link(200, false);
    let out = peer.hear(200, Message::Request { urgent: true });
    let put_out = out.iter().find_map(|action| match action {
        Action::Send(to, Message::Disconnect { alive: true, .. }) => Some(to.as_u128()),
        _ => None,
    });
    let put_out = put_out.expect("somebody has to go");
    for _ in 0..20 {
        peer.now += Duration::from_secs(60);
        assert!(!peer.asked(put_out, true));
    }
    peer.tell(Event::LinkDown { peer: PeerId::from_u128(200) });
    assert!(peer.asked(put_out, true), "a free slot is anybody's");
}

#[test]
fn who_is_refused_learns_whom_else_to_ask() {
    let mut peer = Peer::new();
    peer.settle(1..20);
    for number in 100..110 {
        peer.link(number, false);
        let out = peer.hear(number, Message::Request { urgent: false });
        let told = |action: &Action| matches!(action, Action::Send(_, Message::Reply { peers, .. }) if !peers.is_empty());
        assert!(out.iter().any(told), "{number}: {out:?}");
    }
}

#[test]
fn a_peer_that_lost_everyone_asks_for_help_at_once_and_then_ever_more_seldom() {
    let mut peer = Peer::new();
    peer.settle(1..5);
    assert_eq!(peer.count(Direction::Outgoing), 4);
    peer.now += Duration::from_secs(100);
    let mut actions = Vec::new();
    for number in 1..5 {
        actions.extend(peer.tell(Event::LinkDown { peer: PeerId::from_u128(number) }));
    }
    assert!(asks(&actions));
    let mut calls = 0;
    for _ in 0..300 {
        peer.now += Duration::from_secs(1);
        calls += usize::from(asks(&peer.tell(Event::Tick)));
    }
    assert!((6..=14).contains(&calls), "{calls} calls in five minutes");
}

#[test]
fn a_peer_with_enough_links_asks_for_nothing() {
    let mut peer = Peer::new();
    assert!(asks(&peer.tell(Event::Tick)));
    peer.settle(1..5);
    for _ in 0..300 {
        peer.now += Duration::from_secs(1);
        assert!(!asks(&peer.tell(Event::Tick)));
    }
}

#[test]
fn a_peer_without_room_seeks_nobody_whoever_made_its_links() {
    let mut peer = Peer::new();
    peer.settle(1..5);
    for number in 10..16 {
        assert!(peer.asked(number, true));
    }
    // Both had dialled, and the link of the other side stays: one outgoing link less, and as many neighbours.
    peer.link(1, false);
    assert_eq!((peer.count(Direction::Outgoing), peer.count(Direction::Incoming)), (3, 7));
    peer.now += Duration::from_secs(100);
    for event in [Event::PeersFound((20..30).map(contact).collect()), Event::Tick] {
        let out = peer.tell(event);
        assert!(!asks(&out) && !out.iter().any(|action| matches!(action, Action::Dial(_))), "{out:?}");
    }
    // With room again, it does.
    let out = peer.tell(Event::LinkDown { peer: PeerId::from_u128(10) });
    assert!(out.iter().any(|action| matches!(action, Action::Dial(_))), "{out:?}");
}

#[test]
fn a_lost_neighbour_is_replaced_from_the_passive_view_without_help() {
    let mut peer = Peer::new();
    peer.settle(1..30);
    let gone = peer.machine.neighbours().next().expect("a neighbour").0.id();
    let actions = peer.tell(Event::LinkDown { peer: gone });
    assert!(matches!(actions[..], [Action::NeighbourDown(_), Action::Dial(_)]), "{actions:?}");
}

#[test]
fn two_requests_that_cross_make_one_neighbour() {
    let mut peer = Peer::new();
    peer.tell(Event::Join(contact(1)));
    peer.link(1, true);
    let out = peer.hear(1, Message::Request { urgent: true });
    assert!(accepted(&out, 1));
    let accepted = true;
    let peers = Vec::new();
    peer.hear(1, Message::Reply { accepted, peers });
    assert_eq!(peer.machine.neighbours().count(), 1);
}

#[test]
fn a_restarted_peer_on_a_new_link_is_no_neighbour_any_more() {
    let mut peer = Peer::new();
    assert!(peer.asked(1, true));
    let incarnation = 2;
    let dialled = false;
    let again = contact(1);
    let out = peer.tell(Event::LinkUp { peer: again, incarnation, dialled });
    assert!(out.contains(&Action::NeighbourDown(PeerId::from_u128(1))));
}

#[test]
fn a_link_on_which_nobody_asks_is_closed() {
    let mut peer = Peer::new();
    peer.link(1, false);
    peer.now = peer.machine.next_deadline(peer.now).expect("a deadline").max(Config::default().idle_link);
    assert!(peer.tell(Event::Tick).contains(&Action::Close(PeerId::from_u128(1))));
}

#[test]
fn a_link_that_came_too_late_is_forgotten_when_it_is_closed() {
    let mut peer = Peer::new();
    peer.tell(Event::Join(contact(1)));
    peer.now += Config::default().dial_timeout / 2;
    peer.link(1, true);
    peer.now += Config::default().dial_timeout;
    assert!(peer.tell(Event::Tick).contains(&Action::Close(PeerId::from_u128(1))));
    assert!(peer.machine.links.is_empty());
}

#[test]
fn one_neighbour_cannot_fill_the_passive_view_with_its_own() {
    let mut peer = Peer::new();
    peer.settle(1..60);
    assert!(peer.asked(100, true) && peer.asked(101, true));
    // Some it was linked to.
    let outgoing = peer.machine.neighbours().filter(|(_, direction)| *direction == Direction::Outgoing);
    let met: Vec<PeerId> = outgoing.map(|(contact, _)| contact.id()).collect();
    for id in &met {
        peer.hear(id.as_u128(), Message::Disconnect { alive: true, peers: Vec::new() });
    }
    let ours = |peer: &Peer| peer.machine.passive().contacts().filter(|contact| contact.id().as_u128() < 1_000).count();
    let before = ours(&peer);
    let mut number = 1_000;
    let mut made_up = || {
        number += 8;
        (number..number + 8).map(contact).collect::<Vec<_>>()
    };
    let from = PeerId::from_u128(100);
    for nonce in 0..50 {
        peer.hear(100, Message::Reply { accepted: true, peers: made_up() });
        peer.hear(100, Message::Shuffle { nonce, path: vec![from], ttl: 1, peers: made_up() });
        let newcomer = made_up().remove(0);
        peer.hear(100, Message::ForwardJoin { newcomer, ttl: 0 });
    }
    assert!(ours(&peer) + MAX_CONTACTS >= before, "{} of {before}", ours(&peer));
    // Slowly it can fill what is hearsay, but not the rest.
    for nonce in 0..600 {
        peer.now += Duration::from_secs(1);
        peer.hear(100, Message::Shuffle { nonce, path: vec![from], ttl: 1, peers: made_up() });
    }
    assert!(!met.is_empty() && met.iter().all(|id| peer.machine.passive().contains(*id)));
}

#[test]
fn a_shuffle_that_lies_about_its_path_is_named() {
    let mut peer = Peer::new();
    assert!(peer.asked(1, true));
    for path in [vec![], vec![PeerId::from_u128(9)], vec![PeerId::from_u128(1); 40]] {
        let message = Message::Shuffle { nonce: 1, path, ttl: u32::MAX, peers: Vec::new() };
        let out = peer.hear(1, message);
        assert_eq!(out, [Action::Misbehaved(PeerId::from_u128(1), Misbehaviour::BadPath)]);
    }
}

#[test]
fn a_peer_that_leaves_says_goodbye_and_dials_no_more() {
    let mut peer = Peer::new();
    peer.settle(1..5);
    let actions = peer.tell(Event::Leave);
    let goodbyes = actions.iter().filter(|action| matches!(action, Action::Send(_, Message::Disconnect { alive: false, .. })));
    assert_eq!(goodbyes.count(), 4);
    assert!(peer.tell(Event::PeersFound(vec![contact(9)])).is_empty());
    assert_eq!(peer.machine.next_deadline(peer.now), None);
}
