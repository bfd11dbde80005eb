//! Networks of these machines, with frames carried in order.

use super::*;
use std::collections::VecDeque;

struct Net {
    peers: Vec<Routing>,
    links: BTreeSet<(usize, usize)>,
    under_way: VecDeque<(usize, usize, Message)>,
    frames: usize,
    /// What the peer that asks heard.
    heard: Vec<Action>,
    delivered: Vec<(usize, Relay)>,
    /// Who was told of a namesake, and of whom.
    namesakes: Vec<(usize, Contact)>,
}

/// Two of them have one name.
const TWINS: [usize; 2] = [4, 5];

fn contact(index: usize) -> Contact {
    let name = if TWINS.contains(&index) { "twin".to_owned() } else { format!("p{index}") };
    Contact::parse(PeerId::from_u128(index as u128 + 1), &name, "127.0.0.1:1").unwrap()
}

impl Net {
    fn new(peers: usize, links: &[(usize, usize)]) -> Self {
        let both = links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
        let peers = (0..peers).map(|index| Routing::new(contact(index))).collect();
        Self {
            peers,
            links: both,
            under_way: VecDeque::new(),
            frames: 0,
            heard: Vec::new(),
            delivered: Vec::new(),
            namesakes: Vec::new(),
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
                        self.under_way.push_back((at, to, message));
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
                    };
                    self.delivered.push((at, relay));
                    self.take(at, vec![Action::Send(from, Message::RelayReply(reply))]);
                }
                Action::Namesake(other) => self.namesakes.push((at, other)),
                told => self.heard.push(told),
            }
        }
    }

    fn run(&mut self) {
        self.run_at(Time::ZERO);
    }

    fn run_at(&mut self, now: Time) {
        while let Some((from, to, message)) = self.under_way.pop_front() {
            self.frames += 1;
            assert!(self.frames < 100_000, "it goes round in circles");
            let neighbours = self.neighbours(to);
            let read = Message::read(message.into_frame().body.unwrap()).unwrap().unwrap();
            let actions = self.peers[to].received(PeerId::from_u128(from as u128 + 1), read, &neighbours, now);
            self.take(to, actions);
        }
    }

    fn seek(&mut self, from: usize, id: RouteId, to: &str) {
        let neighbours = self.neighbours(from);
        let actions = self.peers[from].seek(id, &to.parse().unwrap(), &neighbours, Time::ZERO);
        self.take(from, actions);
    }
}

use bytes::Bytes;

fn relay(id: RouteId, to: &str) -> Relay {
    let body = Bytes::from_static(b"hello");
    Relay { id, to: to.parse().unwrap(), kind: String::new(), body, from: "p0".into(), hops: 0, message_id: Bytes::new() }
}

#[test]
fn a_message_finds_its_way_and_the_answer_comes_back() {
    let mut net = Net::new(5, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 1)]);
    net.seek(0, 7, "P3");
    net.run();
    assert_eq!(net.heard, [Action::Found(7, contact(3))]);
    let actions = net.peers[0].send(relay(7, "p3"));
    net.take(0, actions);
    net.run();
    let Some(Action::Answer(answer)) = net.heard.last() else { panic!("{:?}", net.heard) };
    assert_eq!((answer.delivered_by.as_str(), answer.hops), ("p3", 3));
    assert_eq!(net.delivered.len(), 1);
}

#[test]
fn that_there_is_no_way_is_heard_once_everybody_was_asked() {
    let ring: Vec<_> = (0..20).map(|i| (i, (i + 1) % 20)).chain((0..20).map(|i| (i, (i + 7) % 20))).collect();
    let mut net = Net::new(20, &ring);
    net.seek(0, 1, "nobody");
    net.run();
    assert_eq!(net.heard, [Action::NoWay(1)]);
    // A question and an answer each way of each of 40 links, at most.
    assert!(net.frames <= 4 * 40, "{}", net.frames);
    let mut alone = Net::new(1, &[]);
    alone.seek(0, 1, "nobody");
    assert_eq!(alone.heard, [Action::NoWay(1)]);
}

#[test]
fn a_link_that_breaks_ends_the_wait() {
    let mut net = Net::new(3, &[(0, 1), (1, 2)]);
    net.seek(0, 1, "p2");
    net.under_way.clear();
    let actions = net.peers[0].link_down(PeerId::from_u128(2));
    net.take(0, actions);
    assert_eq!(net.heard, [Action::NoWay(1)]);
    // And on a way that was found, the message comes back as lost.
    let mut net = Net::new(3, &[(0, 1), (1, 2)]);
    net.seek(0, 1, "p2");
    net.run();
    let actions = net.peers[1].link_down(PeerId::from_u128(3));
    net.take(1, actions);
    net.run();
    assert_eq!(net.heard.last(), Some(&Action::NoWay(1)));
}

#[test]
fn a_message_without_a_way_is_sent_back_and_a_stranger_cannot_use_anothers() {
    let mut net = Net::new(4, &[(0, 1), (1, 2), (3, 1)]);
    net.seek(0, 1, "p2");
    net.run();
    let actions = net.peers[1].received(PeerId::from_u128(4), Message::Relay(relay(1, "p2")), &[], Time::ZERO);
    assert!(matches!(&actions[..], [Action::Send(to, Message::RelayReply(reply))] if to.as_u128() == 4 && !reply.delivered));
}

/// 0 - 1 - 2 - twin 4, and 1 - 3 - twin 5.
const WITH_TWINS: [(usize, usize); 5] = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 5)];

#[test]
fn where_answers_of_two_peers_with_one_name_meet_each_is_told_of_the_other() {
    let mut net = Net::new(6, &WITH_TWINS);
    net.seek(0, 1, "twin");
    net.run();
    // The asker has one answer, and both twins know.
    assert!(matches!(&net.heard[..], [Action::Found(1, _)]), "{:?}", net.heard);
    net.namesakes.sort_by_key(|(at, _)| *at);
    assert_eq!(net.namesakes, [(4, contact(5)), (5, contact(4))]);
    // A single peer that is found along two ways is nobody's namesake.
    let mut net = Net::new(4, &[(0, 1), (0, 2), (1, 3), (2, 3)]);
    net.seek(0, 1, "p3");
    net.run();
    assert!(net.namesakes.is_empty());
}

#[test]
fn a_peer_that_yields_its_name_leaves_the_messages_to_the_other() {
    for (yields, gets) in [(4, 5), (5, 4)] {
        let mut net = Net::new(6, &WITH_TWINS);
        net.peers[yields].yield_name(true);
        net.seek(0, 1, "twin");
        net.run();
        assert_eq!(net.heard, [Action::Found(1, contact(gets))]);
        let actions = net.peers[0].send(relay(1, "twin"));
        net.take(0, actions);
        net.run();
        assert_eq!(net.delivered.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [gets]);
        // What comes straight to it goes back: it is not for it any more.
        let actions = net.peers[yields].received(PeerId::from_u128(3), Message::Relay(relay(9, "twin")), &[], Time::ZERO);
        assert!(matches!(&actions[..], [Action::Send(_, Message::RelayReply(reply))] if !reply.delivered));
    }
    // Also to one whose only link is to the peer that yields.
    let mut net = Net::new(6, &[(0, 5), (5, 3), (3, 4)]);
    net.peers[5].yield_name(true);
    net.seek(0, 1, "twin");
    net.run();
    assert_eq!(net.heard, [Action::Found(1, contact(4))]);
}

#[test]
fn ways_are_forgotten_and_bounded_and_askers_are_throttled() {
    let mut net = Net::new(3, &[(0, 1), (1, 2)]);
    let neighbours = net.neighbours(1);
    for id in 0..ROUTES_MAX as RouteId + 100 {
        let now = Duration::from_millis(u64::try_from(id).unwrap());
        let seek = Message::Seek { id, to: "nobody".parse().unwrap(), hops: 1 };
        net.peers[1].received(PeerId::from_u128(1), seek, &neighbours, now);
    }
    // One second's worth at once, then as many as that in each of the four seconds that follow.
    assert!(net.peers[1].len() <= 6 * SEEKS_PER_SECOND as usize, "{}", net.peers[1].len());
    net.peers[1].tick(Duration::from_secs(60));
    assert!(net.peers[1].is_empty());
}

impl Net {
    /// Sends a message the way it is known or found, at `now`; says how many frames all of it took.
    fn whisper(&mut self, from: usize, id: RouteId, to: &str, now: Time) -> usize {
        let (before, neighbours) = (self.frames, self.neighbours(from));
        let actions = self.peers[from].seek(id, &to.parse().unwrap(), &neighbours, now);
        self.take(from, actions);
        self.run();
        if matches!(self.heard.last(), Some(Action::Found(found, _)) if *found == id) {
            let actions = self.peers[from].send(relay(id, to));
            self.take(from, actions);
            self.run();
        }
        self.frames - before
    }
}

#[test]
fn messages_that_follow_need_no_seek_and_leave_nothing_behind() {
    let mut net = Net::new(4, &[(0, 1), (1, 2), (2, 3)]);
    let first = net.whisper(0, 1, "p3", Time::ZERO);
    assert_eq!(first, 12, "a seek and a message, there and back, over three links");
    // Many more than could be remembered, or sought within that time.
    for id in 2..3 * ROUTES_MAX as RouteId {
        assert_eq!(net.whisper(0, id, "P3", Time::ZERO), 6);
        assert!(matches!(net.heard.last(), Some(Action::Answer(answer)) if answer.id == id && answer.hops == 3));
        net.heard.clear();
        net.delivered.clear();
    }
    assert!(net.peers.iter().all(|peer| peer.len() <= 1 && peer.of_links.values().sum::<usize>() <= 1));
    // So do messages to a linked peer.
    for id in 1_000_000..1_000_000 + 2 * ROUTES_MAX as RouteId {
        let actions = net.peers[0].send_to(PeerId::from_u128(2), relay(id, "p1"), Time::ZERO);
        net.take(0, actions);
        net.run();
        assert!(matches!(net.heard.last(), Some(Action::Answer(answer)) if answer.id == id), "{:?}", net.heard.last());
    }
    // And after a while, a shorter way would be found.
    assert_eq!(net.whisper(0, 9_000_000, "p3", WAY_LIFETIME), 12);
}

#[test]
fn a_way_that_broke_is_sought_again() {
    let mut net = Net::new(4, &[(0, 1), (1, 3), (0, 2), (2, 3)]);
    net.whisper(0, 1, "p3", Time::ZERO);
    let Some(KnownWay { next, .. }) = net.peers[0].ways.get(&"p3".parse().unwrap()) else { panic!("no way is known") };
    let middle = usize::try_from(next.as_u128() - 1).unwrap();
    net.links.retain(|(a, b)| ![(middle, 3), (3, middle)].contains(&(*a, *b)));
    for (at, other) in [(middle, 3), (3, middle)] {
        let actions = net.peers[at].link_down(PeerId::from_u128(other as u128 + 1));
        net.take(at, actions);
    }
    // What the middle says of that by itself does not get through.
    net.under_way.clear();
    // Lost at the broken link, and told so.
    net.whisper(0, 2, "p3", Time::ZERO);
    assert_eq!(net.heard.last(), Some(&Action::NoWay(2)));
    net.whisper(0, 3, "p3", Time::ZERO);
    assert!(matches!(net.heard.last(), Some(Action::Answer(answer)) if answer.id == 3), "{:?}", net.heard);
}

#[test]
fn a_way_that_gives_no_answer_is_sought_again() {
    let mut net = Net::new(3, &[(0, 1), (1, 2)]);
    net.whisper(0, 1, "p2", Time::ZERO);
    assert_eq!(net.peers[0].seek(2, &"p2".parse().unwrap(), &[], Time::ZERO), [Action::Found(2, contact(2))]);
    // Sent and never answered; others may follow for a while.
    assert_eq!(net.peers[0].send(relay(2, "p2")).len(), 1);
    assert_eq!(net.peers[0].seek(3, &"p2".parse().unwrap(), &[], Time::from_secs(1)), [Action::Found(3, contact(2))]);
    let neighbours = net.neighbours(0);
    let actions = net.peers[0].seek(4, &"p2".parse().unwrap(), &neighbours, ANSWER_TIMEOUT);
    assert!(matches!(&actions[..], [Action::Send(_, Message::Seek { id: 4, .. })]), "{actions:?}");
}

#[test]
fn ways_that_lead_in_a_circle_lose_the_message_and_are_forgotten() {
    let mut net = Net::new(4, &[(0, 1), (1, 2), (2, 3), (3, 1)]);
    // As after changes that each heard of at another time: 1 to 2 to 3 to 1.
    for (at, next) in [(0, 1), (1, 2), (2, 3), (3, 1)] {
        net.peers[at].learn(&contact(9), PeerId::from_u128(next + 1), Time::ZERO);
    }
    net.whisper(0, 1, "p9", Time::ZERO);
    assert_eq!(net.heard, [Action::Found(1, contact(9)), Action::NoWay(1)]);
    assert!(net.peers.iter().all(|peer| peer.ways.is_empty()));
    assert!(net.peers.iter().all(Routing::is_empty));
}

#[test]
fn one_link_cannot_use_up_what_is_remembered_for_all() {
    let mut peer = Routing::new(contact(0));
    let receive = |peer: &mut Routing, from: u128, id| {
        let relay = Message::Relay(relay(id, "p2"));
        let actions = peer.received(PeerId::from_u128(from), relay, &[contact(2)], Time::ZERO);
        matches!(&actions[..], [Action::Send(to, Message::Relay(_))] if *to == contact(2).id())
    };
    let passed = (0..2 * ROUTES_MAX as RouteId).filter(|id| receive(&mut peer, 7, *id)).count();
    assert_eq!(passed, ROUTES_OF_LINK_MAX);
    assert!(receive(&mut peer, 8, RouteId::MAX));
    assert_eq!(peer.tick(LIFETIME), []);
    assert!(peer.is_empty() && peer.of_links.is_empty() && peer.ends.is_empty());
    assert!(receive(&mut peer, 7, 0));
}

#[test]
fn who_asks_too_often_is_told_so_and_may_ask_again() {
    let mut net = Net::new(4, &[(0, 1), (1, 2), (2, 3)]);
    let share = SEEKS_PER_SECOND as usize;
    for id in 0..share as RouteId + 10 {
        net.seek(0, id, "nobody");
        net.run();
    }
    assert!(net.heard[..share].iter().all(|heard| matches!(heard, Action::NoWay(_))), "{:?}", net.heard);
    assert!(net.heard[share..].iter().all(|heard| matches!(heard, Action::Busy(_))), "{:?}", net.heard);
    // Not known is not the same as not there.
    net.heard.clear();
    net.seek(0, 1_000, "p3");
    net.run();
    assert_eq!(net.heard, [Action::Busy(1_000)]);
    let neighbours = net.neighbours(0);
    let later = Time::from_secs(1);
    let actions = net.peers[0].seek(1_001, &"p3".parse().unwrap(), &neighbours, later);
    net.take(0, actions);
    net.run_at(later);
    assert_eq!(net.heard.last(), Some(&Action::Found(1_001, contact(3))));
}

#[test]
fn an_answer_counts_more_than_one_who_could_not_look() {
    let busy = Message::SeekReply { id: 1, found: None, busy: true };
    let answers = [
        Message::SeekReply { id: 1, found: Some(contact(3)), busy: false },
        Message::SeekReply { id: 1, found: None, busy: false },
    ];
    for (answer, expected) in answers.into_iter().zip([Action::Found(1, contact(3)), Action::Busy(1)]) {
        let mut peer = Routing::new(contact(0));
        let neighbours = [contact(1), contact(2)];
        assert_eq!(peer.seek(1, &"p3".parse().unwrap(), &neighbours, Time::ZERO).len(), 2);
        assert_eq!(peer.received(contact(1).id(), busy.clone(), &neighbours, Time::ZERO), []);
        assert_eq!(peer.received(contact(2).id(), answer, &neighbours, Time::ZERO), [expected]);
    }
}

#[test]
fn whatever_links_ask_for_this_peer_has_room_for_its_own() {
    let mut peer = Routing::new(contact(0));
    let neighbours: Vec<Contact> = (1..9).map(contact).collect();
    let relay = |id: RouteId, to: &str| Relay {
        id,
        to: to.parse().unwrap(),
        kind: String::new(),
        body: Bytes::new(),
        from: String::new(),
        hops: 1,
        message_id: Bytes::new(),
    };
    // Six links each have all relayed that one may, and nothing is answered.
    for id in 0..6 * ROUTES_OF_LINK_MAX as RouteId {
        let from = neighbours[2 + (id % 6) as usize].id();
        peer.received(from, Message::Relay(relay(id, "p1")), &neighbours, Time::ZERO);
    }
    assert_eq!(peer.len(), ROUTES_OF_LINKS_MAX);
    let out = peer.send_to(neighbours[0].id(), relay(1_000_000, "p1"), Time::ZERO);
    assert!(matches!(out[..], [Action::Send(_, Message::Relay(_))]), "{out:?}");
}
