//! Networks of routing state machines, with frames delivered in order.

use super::*;
use std::collections::VecDeque;

struct Net {
    peers: Vec<Routing>,
    links: BTreeSet<(usize, usize)>,
    in_flight: VecDeque<(usize, usize, Message)>,
    frames: usize,
    /// Actions of the originator that end a seek or a message.
    outcomes: Vec<Action>,
    delivered: Vec<(usize, Relay)>,
    /// Peers that a name conflict was reported to, each with the other peer.
    conflicts: Vec<(usize, Contact)>,
}

/// Two of them have one name.
const TWINS: [usize; 2] = [4, 5];

fn contact(index: usize) -> Contact {
    let name = if TWINS.contains(&index) { "twin".to_owned() } else { format!("p{index}") };
    Contact::parse(PeerId::from_u128(index as u128 + 1), &name, "127.0.0.1:1").unwrap()
}

/// A peer by its name.
fn target(name: &str) -> Target {
    name.parse::<PeerName>().unwrap().into()
}

impl Net {
    fn new(peers: usize, links: &[(usize, usize)]) -> Self {
        let both = links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
        let peers = (0..peers).map(|index| Routing::new(contact(index))).collect();
        Self {
            peers,
            links: both,
            in_flight: VecDeque::new(),
            frames: 0,
            outcomes: Vec::new(),
            delivered: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    fn neighbours(&self, of: usize) -> Vec<Contact> {
        self.links.iter().filter(|(a, _)| *a == of).map(|(_, b)| contact(*b)).collect()
    }

    fn take(&mut self, at: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    let to = usize::try_from(to.as_u128() - 1).unwrap();
                    if self.links.contains(&(at, to)) {
                        self.in_flight.push_back((at, to, message));
                    }
                }
                Action::Deliver(from, relay) => {
                    let reply = RelayReply {
                        id: relay.id,
                        delivered: true,
                        delivered_by: format!("p{at}"),
                        hops: relay.hops,
                        reply_kind: String::new(),
                        reply: Bytes::new(),
                        signature: None,
                    };
                    self.delivered.push((at, relay));
                    self.take(at, vec![Action::Send(from, Message::RelayReply(reply))]);
                }
                Action::NameConflict(other) => self.conflicts.push((at, other)),
                outcome => self.outcomes.push(outcome),
            }
        }
    }

    fn run(&mut self) {
        self.run_at(Time::ZERO);
    }

    fn run_at(&mut self, now: Time) {
        while let Some((from, to, message)) = self.in_flight.pop_front() {
            self.frames += 1;
            assert!(self.frames < 100_000, "a routing loop");
            let neighbours = self.neighbours(to);
            let read = Message::read(message.into_frame().body.unwrap()).unwrap().unwrap();
            let actions = self.peers[to].received(PeerId::from_u128(from as u128 + 1), read, &neighbours, now);
            self.take(to, actions);
        }
    }

    fn seek(&mut self, from: usize, id: RouteId, to: &str) {
        let neighbours = self.neighbours(from);
        let actions = self.peers[from].seek(id, &target(to), &neighbours, Time::ZERO);
        self.take(from, actions);
    }
}

use bytes::Bytes;

fn relay(id: RouteId, to: &str) -> Relay {
    let body = Bytes::from_static(b"hello");
    let (kind, from, message_id) = (String::new(), "p0".to_owned(), Bytes::new());
    Relay { id, to: target(to), kind, body, from, hops: 0, message_id, signature: None }
}

#[test]
fn a_message_follows_the_route_and_the_reply_comes_back() {
    let mut net = Net::new(5, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 1)]);
    net.seek(0, 7, "P3");
    net.run();
    assert_eq!(net.outcomes, [Action::Found(7, contact(3))]);
    let actions = net.peers[0].send(relay(7, "p3"));
    net.take(0, actions);
    net.run();
    let Some(Action::Answer(answer)) = net.outcomes.last() else { panic!("{:?}", net.outcomes) };
    assert_eq!((answer.delivered_by.as_str(), answer.hops), ("p3", 3));
    assert_eq!(net.delivered.len(), 1);
}

#[test]
fn a_seek_without_a_route_ends_once_all_peers_were_asked() {
    let ring: Vec<_> = (0..20).map(|i| (i, (i + 1) % 20)).chain((0..20).map(|i| (i, (i + 7) % 20))).collect();
    let mut net = Net::new(20, &ring);
    net.seek(0, 1, "nobody");
    net.run();
    assert_eq!(net.outcomes, [Action::NoRoute(1)]);
    // At most a seek and a reply in each direction of each of 40 links.
    assert!(net.frames <= 4 * 40, "{}", net.frames);
    let mut alone = Net::new(1, &[]);
    alone.seek(0, 1, "nobody");
    assert_eq!(alone.outcomes, [Action::NoRoute(1)]);
}

#[test]
fn a_broken_link_ends_seeks_and_messages_over_it() {
    let mut net = Net::new(3, &[(0, 1), (1, 2)]);
    net.seek(0, 1, "p2");
    net.in_flight.clear();
    let actions = net.peers[0].link_down(PeerId::from_u128(2));
    net.take(0, actions);
    assert_eq!(net.outcomes, [Action::NoRoute(1)]);
    // On a route that was found, the message is undeliverable.
    let mut net = Net::new(3, &[(0, 1), (1, 2)]);
    net.seek(0, 1, "p2");
    net.run();
    let actions = net.peers[1].link_down(PeerId::from_u128(3));
    net.take(1, actions);
    net.run();
    assert_eq!(net.outcomes.last(), Some(&Action::NoRoute(1)));
}

#[test]
fn a_peer_cannot_relay_on_the_route_of_another() {
    let mut net = Net::new(4, &[(0, 1), (1, 2), (3, 1)]);
    net.seek(0, 1, "p2");
    net.run();
    let actions = net.peers[1].received(PeerId::from_u128(4), Message::Relay(relay(1, "p2")), &[], Time::ZERO);
    assert!(matches!(&actions[..], [Action::Send(to, Message::RelayReply(reply))] if to.as_u128() == 4 && !reply.delivered));
}

/// 0 - 1 - 2 - twin 4, and 1 - 3 - twin 5.
const WITH_TWINS: [(usize, usize); 5] = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 5)];

#[test]
fn two_peers_with_one_name_are_reported_to_each_other() {
    let mut net = Net::new(6, &WITH_TWINS);
    net.seek(0, 1, "twin");
    net.run();
    // The originator has one route, and both peers have a report.
    assert!(matches!(&net.outcomes[..], [Action::Found(1, _)]), "{:?}", net.outcomes);
    net.conflicts.sort_by_key(|(at, _)| *at);
    assert_eq!(net.conflicts, [(4, contact(5)), (5, contact(4))]);
    // A single peer found on two routes is no conflict.
    let mut net = Net::new(4, &[(0, 1), (0, 2), (1, 3), (2, 3)]);
    net.seek(0, 1, "p3");
    net.run();
    assert!(net.conflicts.is_empty());
}

#[test]
fn messages_for_a_yielded_name_go_to_the_other_peer() {
    for (yields_name, gets) in [(4, 5), (5, 4)] {
        let mut net = Net::new(6, &WITH_TWINS);
        net.peers[yields_name].yield_name(true);
        net.seek(0, 1, "twin");
        net.run();
        assert_eq!(net.outcomes, [Action::Found(1, contact(gets))]);
        let actions = net.peers[0].send(relay(1, "twin"));
        net.take(0, actions);
        net.run();
        assert_eq!(net.delivered.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [gets]);
        // A message sent straight to the peer that yields is refused.
        let actions = net.peers[yields_name].received(PeerId::from_u128(3), Message::Relay(relay(9, "twin")), &[], Time::ZERO);
        assert!(matches!(&actions[..], [Action::Send(_, Message::RelayReply(reply))] if !reply.delivered));
    }
    // The other peer is found through the one that yields as well.
    let mut net = Net::new(6, &[(0, 5), (5, 3), (3, 4)]);
    net.peers[5].yield_name(true);
    net.seek(0, 1, "twin");
    net.run();
    assert_eq!(net.outcomes, [Action::Found(1, contact(4))]);
}

#[test]
fn a_peer_with_the_name_and_another_id_is_neither_found_nor_given_a_message() {
    for (meant, gets) in [(4, 4), (5, 5)] {
        let to = Target { id: Some(contact(meant).id()), ..target("twin") };
        let mut net = Net::new(6, &WITH_TWINS);
        // A peer that yields its name is still found by its id.
        net.peers[meant].yield_name(true);
        // The other one is found first by its name, and cached.
        net.whisper(0, 1, "twin", Time::ZERO);
        net.outcomes.clear();
        net.delivered.clear();
        let neighbours = net.neighbours(0);
        let actions = net.peers[0].seek(2, &to, &neighbours, Time::ZERO);
        net.take(0, actions);
        net.run();
        assert_eq!(net.outcomes, [Action::Found(2, contact(gets))]);
        assert!(net.conflicts.iter().all(|(at, _)| *at != meant), "{:?}", net.conflicts);
        let actions = net.peers[0].send(Relay { to: to.clone(), ..relay(2, "twin") });
        net.take(0, actions);
        net.run();
        assert_eq!(net.delivered.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [gets]);
        // A message that another id is meant by is refused, and a false answer to a seek is none.
        let stray = Message::Relay(Relay { to: to.clone(), ..relay(3, "twin") });
        let actions = net.peers[9 - meant].received(PeerId::from_u128(3), stray, &[], Time::ZERO);
        assert!(matches!(&actions[..], [Action::Send(_, Message::RelayReply(reply))] if !reply.delivered), "{actions:?}");
    }
    let mut asker = Routing::new(contact(0));
    let to = Target { id: Some(contact(4).id()), ..target("twin") };
    asker.seek(1, &to, &[contact(1)], Time::ZERO);
    let lie = Message::SeekReply { id: 1, found: Some(contact(5)), busy: false };
    assert_eq!(asker.received(contact(1).id(), lie, &[contact(1)], Time::ZERO), [Action::NoRoute(1)]);
}

#[test]
fn routes_expire_and_seeks_of_one_link_are_rate_limited() {
    let mut net = Net::new(3, &[(0, 1), (1, 2)]);
    let neighbours = net.neighbours(1);
    for id in 0..ROUTES_MAX as RouteId + 100 {
        let now = Duration::from_millis(u64::try_from(id).unwrap());
        let seek = Message::Seek { id, to: target("nobody"), hops: 1 };
        net.peers[1].received(PeerId::from_u128(1), seek, &neighbours, now);
    }
    // A burst of one second's rate, then the rate in each of the four seconds that follow.
    assert!(net.peers[1].len() <= 6 * SEEKS_PER_SECOND as usize, "{}", net.peers[1].len());
    net.peers[1].tick(Duration::from_secs(60));
    assert!(net.peers[1].is_empty());
}

impl Net {
    /// Sends a message along a cached or found route at `now`; returns the number of frames.
    fn whisper(&mut self, from: usize, id: RouteId, to: &str, now: Time) -> usize {
        let (before, neighbours) = (self.frames, self.neighbours(from));
        let actions = self.peers[from].seek(id, &target(to), &neighbours, now);
        self.take(from, actions);
        self.run();
        if matches!(self.outcomes.last(), Some(Action::Found(found, _)) if *found == id) {
            let actions = self.peers[from].send(relay(id, to));
            self.take(from, actions);
            self.run();
        }
        self.frames - before
    }
}

#[test]
fn further_messages_need_no_seek_and_leave_no_state_behind() {
    let mut net = Net::new(4, &[(0, 1), (1, 2), (2, 3)]);
    let first = net.whisper(0, 1, "p3", Time::ZERO);
    assert_eq!(first, 12, "a seek, a message and their replies over three links");
    // Many more than could be remembered, or sought within that time.
    for id in 2..3 * ROUTES_MAX as RouteId {
        assert_eq!(net.whisper(0, id, "P3", Time::ZERO), 6);
        assert!(matches!(net.outcomes.last(), Some(Action::Answer(answer)) if answer.id == id && answer.hops == 3));
        net.outcomes.clear();
        net.delivered.clear();
    }
    assert!(net.peers.iter().all(|peer| peer.len() <= 1 && peer.per_link.values().sum::<usize>() <= 1));
    // The same for messages to a linked peer.
    for id in 1_000_000..1_000_000 + 2 * ROUTES_MAX as RouteId {
        let actions = net.peers[0].send_to(PeerId::from_u128(2), relay(id, "p1"), Time::ZERO);
        net.take(0, actions);
        net.run();
        assert!(matches!(net.outcomes.last(), Some(Action::Answer(answer)) if answer.id == id), "{:?}", net.outcomes.last());
    }
    // Once the cached route expires, there is another seek.
    assert_eq!(net.whisper(0, 9_000_000, "p3", CACHED_ROUTE_LIFETIME), 12);
}

#[test]
fn a_broken_route_is_sought_again() {
    let mut net = Net::new(4, &[(0, 1), (1, 3), (0, 2), (2, 3)]);
    net.whisper(0, 1, "p3", Time::ZERO);
    let Some(CachedRoute { next, .. }) = net.peers[0].cache.get(&"p3".parse().unwrap()) else { panic!("no route is cached") };
    let middle = usize::try_from(next.as_u128() - 1).unwrap();
    net.links.retain(|(a, b)| ![(middle, 3), (3, middle)].contains(&(*a, *b)));
    for (at, other) in [(middle, 3), (3, middle)] {
        let actions = net.peers[at].link_down(PeerId::from_u128(other as u128 + 1));
        net.take(at, actions);
    }
    // Reports of the break are lost.
    net.in_flight.clear();
    // The message is undeliverable at the broken link, and its sender gets an error.
    net.whisper(0, 2, "p3", Time::ZERO);
    assert_eq!(net.outcomes.last(), Some(&Action::NoRoute(2)));
    net.whisper(0, 3, "p3", Time::ZERO);
    assert!(matches!(net.outcomes.last(), Some(Action::Answer(answer)) if answer.id == 3), "{:?}", net.outcomes);
}

#[test]
fn a_route_without_a_reply_is_sought_again() {
    let mut net = Net::new(3, &[(0, 1), (1, 2)]);
    net.whisper(0, 1, "p2", Time::ZERO);
    assert_eq!(net.peers[0].seek(2, &target("p2"), &[], Time::ZERO), [Action::Found(2, contact(2))]);
    // Sent without a reply; others may use the route for a while.
    assert_eq!(net.peers[0].send(relay(2, "p2")).len(), 1);
    assert_eq!(net.peers[0].seek(3, &target("p2"), &[], Time::from_secs(1)), [Action::Found(3, contact(2))]);
    let neighbours = net.neighbours(0);
    let actions = net.peers[0].seek(4, &target("p2"), &neighbours, ANSWER_TIMEOUT);
    assert!(matches!(&actions[..], [Action::Send(_, Message::Seek { id: 4, .. })]), "{actions:?}");
}

#[test]
fn a_message_on_looping_routes_is_undeliverable_and_the_routes_are_removed() {
    let mut net = Net::new(4, &[(0, 1), (1, 2), (2, 3), (3, 1)]);
    // Inconsistent caches after changes: 1 to 2 to 3 to 1.
    for (at, next) in [(0, 1), (1, 2), (2, 3), (3, 1)] {
        net.peers[at].cache_route(&contact(9), PeerId::from_u128(next + 1), Time::ZERO);
    }
    net.whisper(0, 1, "p9", Time::ZERO);
    assert_eq!(net.outcomes, [Action::Found(1, contact(9)), Action::NoRoute(1)]);
    assert!(net.peers.iter().all(|peer| peer.cache.is_empty()));
    assert!(net.peers.iter().all(Routing::is_empty));
}

#[test]
fn one_link_cannot_use_up_all_routes() {
    let mut peer = Routing::new(contact(0));
    let receive = |peer: &mut Routing, from: u128, id| {
        let relay = Message::Relay(relay(id, "p2"));
        let actions = peer.received(PeerId::from_u128(from), relay, &[contact(2)], Time::ZERO);
        matches!(&actions[..], [Action::Send(to, Message::Relay(_))] if *to == contact(2).id())
    };
    let relayed = (0..2 * ROUTES_MAX as RouteId).filter(|id| receive(&mut peer, 7, *id)).count();
    assert_eq!(relayed, ROUTES_PER_LINK_MAX);
    assert!(receive(&mut peer, 8, RouteId::MAX));
    assert_eq!(peer.tick(ROUTE_LIFETIME), []);
    assert!(peer.is_empty() && peer.per_link.is_empty() && peer.expiries.is_empty());
    assert!(receive(&mut peer, 7, 0));
}

#[test]
fn seeks_over_the_rate_limit_are_answered_as_busy_until_the_next_second() {
    let mut net = Net::new(4, &[(0, 1), (1, 2), (2, 3)]);
    let limit = SEEKS_PER_SECOND as usize;
    for id in 0..limit as RouteId + 10 {
        net.seek(0, id, "nobody");
        net.run();
    }
    assert!(net.outcomes[..limit].iter().all(|outcome| matches!(outcome, Action::NoRoute(_))), "{:?}", net.outcomes);
    assert!(net.outcomes[limit..].iter().all(|outcome| matches!(outcome, Action::Busy(_))), "{:?}", net.outcomes);
    // Busy, not "no route".
    net.outcomes.clear();
    net.seek(0, 1_000, "p3");
    net.run();
    assert_eq!(net.outcomes, [Action::Busy(1_000)]);
    let neighbours = net.neighbours(0);
    let later = Time::from_secs(1);
    let actions = net.peers[0].seek(1_001, &target("p3"), &neighbours, later);
    net.take(0, actions);
    net.run_at(later);
    assert_eq!(net.outcomes.last(), Some(&Action::Found(1_001, contact(3))));
}

#[test]
fn a_reply_with_a_route_overrides_a_busy_one() {
    let busy = Message::SeekReply { id: 1, found: None, busy: true };
    let answers = [
        Message::SeekReply { id: 1, found: Some(contact(3)), busy: false },
        Message::SeekReply { id: 1, found: None, busy: false },
    ];
    for (answer, expected) in answers.into_iter().zip([Action::Found(1, contact(3)), Action::Busy(1)]) {
        let mut peer = Routing::new(contact(0));
        let neighbours = [contact(1), contact(2)];
        assert_eq!(peer.seek(1, &target("p3"), &neighbours, Time::ZERO).len(), 2);
        assert_eq!(peer.received(contact(1).id(), busy.clone(), &neighbours, Time::ZERO), []);
        assert_eq!(peer.received(contact(2).id(), answer, &neighbours, Time::ZERO), [expected]);
    }
}

#[test]
fn routes_are_reserved_for_this_peers_own_messages() {
    let mut peer = Routing::new(contact(0));
    let neighbours: Vec<Contact> = (1..9).map(contact).collect();
    let relay = |id: RouteId, to: &str| Relay {
        id,
        to: target(to),
        kind: String::new(),
        body: Bytes::new(),
        from: String::new(),
        hops: 1,
        message_id: Bytes::new(),
        signature: None,
    };
    // Six links each relay as much as one may, without a reply.
    for id in 0..6 * ROUTES_PER_LINK_MAX as RouteId {
        let from = neighbours[2 + (id % 6) as usize].id();
        peer.received(from, Message::Relay(relay(id, "p1")), &neighbours, Time::ZERO);
    }
    assert_eq!(peer.len(), ROUTES_OF_LINKS_MAX);
    let out = peer.send_to(neighbours[0].id(), relay(1_000_000, "p1"), Time::ZERO);
    assert!(matches!(out[..], [Action::Send(_, Message::Relay(_))]), "{out:?}");
}
